//! Room 3: the operations. Init refuses, the operation only carries out.

pub mod change;
pub mod create;
pub mod crypt;
pub mod digest;
pub mod find;
pub mod flight;
pub mod gather;
pub mod generate;
pub mod import;
pub mod key;
pub mod making;
pub mod sign;
pub mod stage;
pub mod verify;
pub mod wrap;

pub use stage::{Answer, Room, Size, Stage};
