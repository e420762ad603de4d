//! The emulator over real TLS: every operation, every refusal.

mod attestation;
mod auth;
mod catalogue;
mod certificates;
mod faults;
mod identity;
mod keys;
mod left_out;
mod lifecycle;
mod limits;
mod operations;
mod permissions;
mod quickstarts;
#[path = "../support/mod.rs"]
mod support;
mod switches;
mod transfer;
mod transport;
mod versions;
