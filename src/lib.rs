//! PKCS#11 provider for Azure Key Vault and Azure Managed HSM.
//!
//! Five rooms, each knowing only the one below (ARCHITECTURE.md): `abi` (C pointers), sessions
//! and handles, `operation`, `vault` (REST), `net` (HTTPS on the caller's thread).

use std::alloc::System;

use zeroizing_alloc::ZeroAlloc;

/// Memory of this library is wiped when it is freed, so that what TLS, JSON, TOML and numbers leave
/// behind is not another part of the host's to find. (The host's own allocator is not touched.)
#[global_allocator]
static MEMORY: ZeroAlloc<System> = ZeroAlloc(System);

/// A place where a unit test can force a panic in a layer (`stumble.rs`). Nothing in any other
/// build.
macro_rules! stumble {
    ($layer:literal) => {
        #[cfg(test)]
        $crate::stumble::here($layer);
    };
}

pub mod abi;
pub mod backoff;
pub mod config;
pub mod credential;
pub mod crypto;
#[cfg(test)]
mod documents;
pub mod error;
pub mod handles;
pub mod hex;
pub mod logging;
pub mod mechanism;
pub mod metrics;
pub mod module;
pub mod net;
pub mod object;
pub mod operation;
pub mod process;
pub mod session;
pub mod slot;
pub mod stack;
#[cfg(test)]
mod stumble;
pub mod vault;
