//! Official clients of the services, unmodified, and the same keys through PKCS#11.
//!
//! Each one runs with the emulator in namespaces of its own ([`sandbox`]), where the names of the
//! public cloud lead to the emulator, at port 443: what a client checks about a name it checks
//! here. The clients come from their registries ([`install`]), at the versions written down beside
//! the scripts.

mod az;
mod install;
mod node;
mod python;
mod rust;
mod sandbox;
