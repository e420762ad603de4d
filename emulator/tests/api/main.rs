//! The emulator over real TLS: every operation, every refusal.

mod auth;
mod certificates;
mod faults;
mod identity;
mod keys;
mod lifecycle;
mod operations;
mod permissions;
#[path = "../support/mod.rs"]
mod support;
mod transfer;
