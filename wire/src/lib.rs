//! The REST contract of Azure Key Vault and Managed HSM as serde types.
