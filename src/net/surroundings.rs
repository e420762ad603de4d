//! What the network needs from the machine, read once at C_Initialize.
//!
//! A forked child may be chrooted, without descriptors and without environment. It gets the
//! parent's copy, so that a child's first request works as its parent's did.

use std::{fmt, fs, path::Path};

use zeroize::Zeroizing;

/// Where distributions keep the bundle of trusted roots; the first that can be read is used.
const ROOT_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];

/// Files and variables of the machine as plain data. Shared by all tokens and carried into
/// forked children.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// `/etc/hosts`; empty when it could not be read.
    pub hosts: Vec<u8>,
    /// `/etc/resolv.conf`; empty when it could not be read.
    pub resolv_conf: Vec<u8>,
    /// PEM bundle of the system's roots; empty when there is none. Parsed when first needed.
    pub system_roots: Vec<u8>,
    /// Where this machine's managed identity answers.
    pub identity: IdentityEndpoint,
}

/// Where a managed identity's tokens come from on this machine.
#[derive(Clone)]
pub enum IdentityEndpoint {
    /// The instance metadata service of a virtual machine (or of AKS).
    Imds {
        /// Scheme and authority, `http://169.254.169.254` unless
        /// `AZURE_POD_IDENTITY_AUTHORITY_HOST` says otherwise.
        authority: String,
    },
    /// App Service, Functions, Container Apps: `IDENTITY_ENDPOINT` and `IDENTITY_HEADER`.
    AppService {
        /// The URL of the token endpoint.
        endpoint: String,
        /// The value of the X-IDENTITY-HEADER header.
        header: Zeroizing<String>,
    },
}

impl Surroundings {
    /// Reads the files; `env` answers for environment variables (and answers None to everything
    /// in a set-uid process). Never fails: what cannot be read is empty, and is missed by the
    /// request that needs it.
    pub fn read(env: impl Fn(&str) -> Option<String>) -> Self {
        let bundle = env("SSL_CERT_FILE");
        let candidates = bundle.as_deref().into_iter().chain(ROOT_BUNDLES.iter().copied());
        Surroundings {
            hosts: fs::read("/etc/hosts").unwrap_or_default(),
            resolv_conf: fs::read("/etc/resolv.conf").unwrap_or_default(),
            system_roots: candidates
                .map(Path::new)
                .find_map(|path| fs::read(path).ok())
                .unwrap_or_default(),
            identity: IdentityEndpoint::read(env),
        }
    }
}

impl IdentityEndpoint {
    fn read(env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let (Some(endpoint), Some(header)) = (set("IDENTITY_ENDPOINT"), set("IDENTITY_HEADER")) {
            return IdentityEndpoint::AppService { endpoint, header: header.into() };
        }
        match set("AZURE_POD_IDENTITY_AUTHORITY_HOST") {
            Some(authority) => IdentityEndpoint::Imds { authority },
            None => IdentityEndpoint::default(),
        }
    }
}

impl Default for IdentityEndpoint {
    fn default() -> Self {
        IdentityEndpoint::Imds { authority: "http://169.254.169.254".into() }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}
