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
pub(super) mod tests {
    use openssl::{
        asn1::Asn1Time, ec::EcGroup, ec::EcKey, hash::MessageDigest, nid::Nid, pkey::PKey,
        x509::X509,
    };

    use super::*;

    /// A root in PEM form.
    pub fn ca() -> Vec<u8> {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("curve");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("key")).expect("key");
        let mut builder = X509::builder().expect("certificate");
        builder.set_version(2).expect("version");
        builder.set_pubkey(&key).expect("key");
        builder.set_not_before(&Asn1Time::days_from_now(0).expect("time")).expect("time");
        builder.set_not_after(&Asn1Time::days_from_now(1).expect("time")).expect("time");
        builder.sign(&key, MessageDigest::sha256()).expect("signature");
        builder.build().to_pem().expect("PEM")
    }

    #[test]
    fn a_configured_root_is_parsed_at_once() {
        let tls = Tls::new(Some(&ca()), Arc::default()).unwrap();
        let (one, two) = (tls.config().unwrap(), tls.config().unwrap());
        assert!(Arc::ptr_eq(&one, &two) && one.alpn_protocols.is_empty());
    }

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

    #[test]
    fn the_systems_own_roots_are_usable() {
        let surroundings = Surroundings::read(&crate::config::Env::empty(), None);
        if surroundings.system_roots.is_empty() {
            eprintln!("SKIPPED: this machine has no bundle of roots (package ca-certificates)");
            return;
        }
        Tls::new(None, Arc::new(surroundings)).unwrap().config().unwrap();
    }
}
