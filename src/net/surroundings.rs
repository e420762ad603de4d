//! What the network needs from the machine, read once at C_Initialize.
//!
//! A forked child may be chrooted, without descriptors and without environment. It gets the
//! parent's copy, so that a child's first request works as its parent's did.

use std::{fmt, fs, path::PathBuf};

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
    /// Where they were read.
    pub roots_file: Option<PathBuf>,
}

impl Surroundings {
    /// Reads the files, `SSL_CERT_FILE` of `env` before the distributions' bundles (`env` is
    /// empty in a set-uid process). Never fails: what cannot be read is as the process's `parents`
    /// had it, or empty, and missed by the request that needs it.
    pub fn read(env: &Env, parents: Option<&Surroundings>) -> Self {
        let file = |path: &str, known: Option<&Vec<u8>>| {
            fs::read(path).ok().or_else(|| known.cloned()).unwrap_or_default()
        };
        let named = env.var("SSL_CERT_FILE").unwrap_or_default().map(PathBuf::from);
        let usual = match parents.and_then(|parents| parents.roots_file.clone()) {
            // An environment that was wiped must not change whom the child trusts.
            Some(path) => vec![path],
            None => ROOT_BUNDLES.iter().map(PathBuf::from).collect(),
        };
        let found = named
            .into_iter()
            .chain(usual)
            .find_map(|path| Some((fs::read(&path).ok()?, Some(path))))
            .or_else(|| {
                parents.map(|known| (known.system_roots.clone(), known.roots_file.clone()))
            });
        let (system_roots, roots_file) = found.unwrap_or_default();
        Surroundings {
            hosts: file("/etc/hosts", parents.map(|known| &known.hosts)),
            resolv_conf: file("/etc/resolv.conf", parents.map(|known| &known.resolv_conf)),
            system_roots,
            roots_file,
        }
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(bundle: &str) -> Env {
        Env::Map([("SSL_CERT_FILE".to_owned(), bundle.to_owned())].into())
    }

    #[test]
    fn what_cannot_be_read_any_more_is_as_the_parent_had_it() {
        let folder = tempfile::tempdir().expect("folder");
        let bundle = folder.path().join("roots.pem");
        fs::write(&bundle, "first").expect("write");
        let named = bundle.display().to_string();
        let parents = Surroundings::read(&env(&named), None);
        assert_eq!(parents.system_roots, b"first");
        fs::write(&bundle, "second").expect("write");
        let read = |env: &Env| Surroundings::read(env, Some(&parents)).system_roots;
        assert_eq!(read(&Env::empty()), b"second", "the parent's file, as it is now");
        let other = folder.path().join("other.pem");
        fs::write(&other, "other").expect("write");
        assert_eq!(read(&env(&other.display().to_string())), b"other", "its own environment");
        fs::remove_file(&bundle).expect("remove");
        let child = Surroundings::read(&Env::empty(), Some(&parents));
        assert_eq!(child.system_roots, b"first");
        let grandchild = Surroundings::read(&Env::empty(), Some(&child));
        assert_eq!(grandchild.system_roots, b"first");
    }
}
