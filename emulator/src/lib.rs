//! An emulator of Azure Key Vault and Managed HSM on one machine.
