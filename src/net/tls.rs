//! The TLS configuration all lanes of a token share: roots and session tickets.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use cryptoki_sys::CKR_GENERAL_ERROR;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::NetError;
use crate::{
    error::{Error, Result},
    net::Surroundings,
};

/// The shared configuration. That of a configured CA is made at construction, so that a bad file
/// is refused by C_Initialize; the system's hundred and more roots are parsed by the first
/// request (a few milliseconds that a process which only loads the module need not pay).
pub(super) struct Tls {
    system_roots: Arc<Surroundings>,
    made: Mutex<Option<Arc<ClientConfig>>>,
}

impl Tls {
    /// `ca` is a PEM of the only roots to trust, None the system's.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR when the PEM holds no certificate or a broken one.
    pub fn new(ca: Option<&[u8]>, system_roots: Arc<Surroundings>) -> Result<Self> {
        let made = ca.map(configured).transpose()?.map(client_config).transpose()?;
        Ok(Tls { system_roots, made: Mutex::new(made) })
    }

    /// The configuration to connect with.
    pub fn config(&self) -> std::result::Result<Arc<ClientConfig>, NetError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.as_ref() {
            return Ok(config.clone());
        }
        let roots = system(&self.system_roots.system_roots)?;
        let config =
            client_config(roots).map_err(|error| NetError::Connect(error.sentence().into()))?;
        *made = Some(config.clone());
        Ok(config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(CKR_GENERAL_ERROR, format!("TLS is unusable: {error}")))?;
    // No ALPN: lanes speak HTTP/1.1, and offering nothing says so.
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn configured(pem: &[u8]) -> Result<RootCertStore> {
    let refused = |why: String| Error::new(CKR_GENERAL_ERROR, format!("ca: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| refused(format!("not a PEM: {error}")))?;
        roots.add(certificate).map_err(|error| refused(format!("not a root: {error}")))?;
    }
    if roots.is_empty() {
        return Err(refused("the file holds no certificate in PEM form".into()));
    }
    Ok(roots)
}

fn system(pem: &[u8]) -> std::result::Result<RootCertStore, NetError> {
    let mut roots = RootCertStore::empty();
    // A bundle may hold certificates of forms that the verifier does not know; the others count.
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(pem).flatten());
    if roots.is_empty() {
        return Err(NetError::Untrusted(
            "the system has no bundle of trusted roots (install ca-certificates or set `ca`)"
                .into(),
        ));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let error = Tls::new(Some(b"not a pem"), Arc::default()).unwrap_err();
        assert_eq!(error.rv(), CKR_GENERAL_ERROR);
        assert!(error.sentence().starts_with("ca: "), "{error}");
    }

    #[test]
    fn missing_system_roots_are_told_by_the_request() {
        let tls = Tls::new(None, Arc::default()).unwrap();
        assert!(matches!(tls.config(), Err(NetError::Untrusted(_))));
    }
}
