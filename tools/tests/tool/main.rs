//! The real binary against the real emulator.

mod doctor;
mod files;
mod import;
mod keys;
mod life;
mod support;
