//! A certificate authority made for this run, and the one server certificate it signs.

use std::sync::Arc;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Name, X509NameBuilder};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::ServiceKind;
use crate::crypto::random;
use crate::entra::PUBLIC_HOST;

/// The authority's certificate and the configuration of every TLS listener.
pub struct Identity {
    /// The authority's certificate, PEM.
    pub ca_pem: Vec<u8>,
    /// TLS 1.2 and 1.3, HTTP/1.1, a certificate for the loopback names and the public ones.
    pub server: Arc<ServerConfig>,
}

/// How long the certificates are valid.
const DAYS: u32 = 365;

/// Makes a new authority and a server certificate.
pub fn identity() -> Result<Identity, Box<dyn std::error::Error + Send + Sync>> {
    let (ca_key, leaf_key) = (new_key()?, new_key()?);
    let ca_name = name("akv-emulator CA")?;
    let ca = {
        let mut builder = builder(&ca_name, &ca_name, &ca_key)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&ca_key, MessageDigest::sha256())?;
        builder.build()
    };
    let leaf = {
        let mut builder = builder(&name("localhost")?, &ca_name, &leaf_key)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        let mut names = SubjectAlternativeName::new();
        names.dns("localhost").ip("127.0.0.1").ip("::1").dns(PUBLIC_HOST);
        for kind in [ServiceKind::Vault, ServiceKind::ManagedHsm] {
            names.dns(&format!("*.{}", kind.suffix()));
        }
        let context = builder.x509v3_context(Some(&ca), None);
        let extensions = [
            names.build(&context)?,
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
        ];
        for extension in extensions {
            builder.append_extension(extension)?;
        }
        builder.sign(&ca_key, MessageDigest::sha256())?;
        builder.build()
    };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.private_key_to_pkcs8()?));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(leaf.to_der()?)], key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { ca_pem: ca.to_pem()?, server: Arc::new(server) })
}

/// A self-signed certificate for a client that proves itself by assertions (RSA, as Entra wants):
/// the certificate, and certificate and key together, both PEM.
pub fn client_certificate() -> Result<(String, Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let name = name("akv-emulator client")?;
    let mut builder = builder(&name, &name, &key)?;
    builder.sign(&key, MessageDigest::sha256())?;
    let certificate = builder.build().to_pem()?;
    let both = [key.private_key_to_pem_pkcs8()?, certificate.clone()].concat();
    Ok((String::from_utf8(certificate)?, both))
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?.as_ref())?)
}

fn name(common_name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, common_name)?;
    Ok(builder.build())
}

fn builder(
    subject: &X509Name,
    issuer: &X509Name,
    key: &PKey<Private>,
) -> Result<openssl::x509::X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_slice(&random(16)?)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(DAYS)?.as_ref())?;
    Ok(builder)
}
