//! PKCS#11 provider for Azure Key Vault and Azure Managed HSM.

pub mod config;
pub mod credential;
pub mod crypto;
pub mod error;
pub mod logging;
pub mod net;
pub mod process;
pub mod vault;
