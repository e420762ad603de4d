//! The configuration: what the TOML file, the environment or `pReserved` said, as plain data.
//!
//! Everything a forked child could no longer read (files, environment) is read here once, at
//! C_Initialize, and carried as bytes: certificates, CA files, secrets given as `file:` or `env:`.

mod model;

pub use model::*;
