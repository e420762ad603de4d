//! What the network needs from the machine, read once at C_Initialize.
//!
//! A forked child may be chrooted, without descriptors and without environment. It gets the
//! parent's copy, so that a child's first request works as its parent's did.

use std::{fmt, fs, path::Path};

use crate::config::Env;

/// Where distributions keep the bundle of trusted roots; the first that can be read is used.
const ROOT_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];

/// Files of the machine as plain data. Shared by all tokens and carried into
/// forked children.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// `/etc/hosts`; empty when it could not be read.
    pub hosts: Vec<u8>,
    /// `/etc/resolv.conf`; empty when it could not be read.
    pub resolv_conf: Vec<u8>,
    /// PEM bundle of the system's roots; empty when there is none. Parsed when first needed.
    pub system_roots: Vec<u8>,
}

impl Surroundings {
    /// Reads the files, `SSL_CERT_FILE` of `env` before the distributions' bundles (`env` is
    /// empty in a set-uid process). Never fails: what cannot be read is empty, and is missed by
    /// the request that needs it.
    pub fn read(env: &Env) -> Self {
        let bundle = env.var("SSL_CERT_FILE").unwrap_or_default();
        let candidates = bundle.as_deref().into_iter().chain(ROOT_BUNDLES.iter().copied());
        Surroundings {
            hosts: fs::read("/etc/hosts").unwrap_or_default(),
            resolv_conf: fs::read("/etc/resolv.conf").unwrap_or_default(),
            system_roots: candidates
                .map(Path::new)
                .find_map(|path| fs::read(path).ok())
                .unwrap_or_default(),
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
