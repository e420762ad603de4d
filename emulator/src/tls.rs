//! Certificate authorities made for this run, and what they certify: the listeners, the HSM's
//! statements about its keys.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

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
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::ServiceKind;
use crate::crypto::random;
use crate::entra::{PUBLIC_HOST, manager};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const DAY: i64 = 86_400;
/// How long the certificates are valid.
const DAYS: i64 = 365;

/// Who certifies the listeners, and with what they present themselves.
pub struct Identity {
    /// The authority's certificate, PEM.
    pub ca_pem: Vec<u8>,
    current: Pair,
    expired: Pair,
}

/// A key and its certificate.
struct Pair {
    key: PKey<Private>,
    certificate: X509,
}

/// How a listener presents itself.
#[derive(Clone)]
pub struct Listening {
    /// With a good certificate.
    pub current: Arc<ServerConfig>,
    /// With one that expired yesterday: trouble on order.
    pub expired: Arc<ServerConfig>,
}

/// What an HSM proves with that a key is its own: a key and its chain, made for this run.
pub struct Attestor {
    /// Signs statements, ES256.
    pub key: PKey<Private>,
    /// The key's certificate and its authority's, PEM, in this order.
    pub chain_pem: Vec<u8>,
}

impl Identity {
    /// Makes a new authority and its server certificates, for the loopback names and the public
    /// ones.
    pub fn new() -> Result<Self, Failure> {
        let ca = Pair::authority("akv-emulator CA")?;
        let now = now();
        Ok(Self {
            ca_pem: ca.certificate.to_pem()?,
            current: ca.server(now, now + DAYS * DAY)?,
            expired: ca.server(now - 2 * DAY, now - DAY)?,
        })
    }

    /// TLS 1.2 and 1.3; HTTP/1.1, and HTTP/2 to clients that offer it where asked.
    pub fn listening(&self, http2: bool) -> Result<Listening, Failure> {
        Ok(Listening {
            current: self.current.server_config(http2)?,
            expired: self.expired.server_config(http2)?,
        })
    }
}

impl Attestor {
    /// Makes a new chain.
    pub fn new() -> Result<Self, Failure> {
        let ca = Pair::authority("akv-emulator HSM authority")?;
        let now = now();
        let leaf = ca.certified("akv-emulator HSM", now, now + DAYS * DAY, |_, _| Ok(()))?;
        let chain_pem = [leaf.certificate.to_pem()?, ca.certificate.to_pem()?].concat();
        Ok(Self { key: leaf.key, chain_pem })
    }
}

impl Pair {
    fn authority(name: &str) -> Result<Self, Failure> {
        let (key, name) = (new_key()?, common_name(name)?);
        let mut builder = builder(&name, &name, &key, now(), now() + DAYS * DAY)?;
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
        builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        let identifier = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
        builder.append_extension(identifier)?;
        builder.sign(&key, MessageDigest::sha256())?;
        Ok(Self { key, certificate: builder.build() })
    }

    fn server(&self, from: i64, to: i64) -> Result<Self, Failure> {
        self.certified("localhost", from, to, |builder, ca| {
            builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
            let mut names = SubjectAlternativeName::new();
            names.dns("localhost").ip("127.0.0.1").ip("::1");
            names.dns(PUBLIC_HOST).dns(manager::PUBLIC_HOST);
            for kind in [ServiceKind::Vault, ServiceKind::ManagedHsm] {
                names.dns(&format!("*.{}", kind.suffix()));
            }
            let names = names.build(&builder.x509v3_context(Some(ca), None))?;
            builder.append_extension(names)
        })
    }

    /// A new key, certified for signing and what `more` adds.
    fn certified(
        &self,
        name: &str,
        from: i64,
        to: i64,
        more: impl FnOnce(&mut X509Builder, &X509) -> Result<(), ErrorStack>,
    ) -> Result<Self, Failure> {
        let (key, ca) = (new_key()?, &self.certificate);
        let name = common_name(name)?;
        let mut builder = builder(&name, ca.subject_name(), &key, from, to)?;
        builder.append_extension(BasicConstraints::new().critical().build()?)?;
        builder.append_extension(KeyUsage::new().critical().digital_signature().build()?)?;
        more(&mut builder, ca)?;
        let context = builder.x509v3_context(Some(ca), None);
        let identifiers = [
            SubjectKeyIdentifier::new().build(&context)?,
            AuthorityKeyIdentifier::new().keyid(true).build(&context)?,
        ];
        for identifier in identifiers {
            builder.append_extension(identifier)?;
        }
        builder.sign(&self.key, MessageDigest::sha256())?;
        Ok(Self { key, certificate: builder.build() })
    }

    fn server_config(&self, http2: bool) -> Result<Arc<ServerConfig>, Failure> {
        let key = PrivatePkcs8KeyDer::from(self.key.private_key_to_pkcs8()?);
        let chain = vec![CertificateDer::from(self.certificate.to_der()?)];
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::Pkcs8(key))?;
        let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(Arc::new(server))
    }
}

/// A self-signed certificate for a client that proves itself by assertions (RSA, as Entra wants):
/// the certificate, and certificate and key together, both PEM.
pub fn client_certificate() -> Result<(String, Vec<u8>), Failure> {
    let key = PKey::from_rsa(Rsa::generate(2048)?)?;
    let name = common_name("akv-emulator client")?;
    let mut builder = builder(&name, &name, &key, now(), now() + DAYS * DAY)?;
    builder.sign(&key, MessageDigest::sha256())?;
    let certificate = builder.build().to_pem()?;
    let both = [key.private_key_to_pem_pkcs8()?, certificate.clone()].concat();
    Ok((String::from_utf8(certificate)?, both))
}

/// The system's time: clients judge certificates by theirs, which tests do not move.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or_default()
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?.as_ref())?)
}

fn common_name(name: &str) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_nid(Nid::COMMONNAME, name)?;
    Ok(builder.build())
}

fn builder(
    subject: &openssl::x509::X509NameRef,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    from: i64,
    to: i64,
) -> Result<X509Builder, ErrorStack> {
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    let serial = BigNum::from_slice(&random(16)?)?.to_asn1_integer()?;
    builder.set_serial_number(&serial)?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::from_unix(from)?.as_ref())?;
    builder.set_not_after(Asn1Time::from_unix(to)?.as_ref())?;
    Ok(builder)
}
