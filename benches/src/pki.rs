//! The certificates of one run: the service's chain in its lengths, and a web server's.

use std::{fs, io, path::Path};

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    x509::{
        X509, X509NameBuilder,
        extension::{BasicConstraints, SubjectAlternativeName},
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// What the twin needs of them.
pub struct Pki {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key, PKCS#8 DER.
    pub key: Vec<u8>,
    /// The private key of the web server's certificate.
    pub web: EcKey<Private>,
}

impl Pki {
    /// Makes all of them as files of `folder`: `ca.pem`, `chain.pem`, `key.der`, `web.pem` (a
    /// certificate for `localhost`), `web-key.pem`.
    pub fn make(folder: &Path) -> io::Result<()> {
        let rsa = |bits| Ok::<_, io::Error>(PKey::from_rsa(Rsa::generate(bits)?)?);
        let (root_key, issuing_key, leaf_key) = (rsa(4096)?, rsa(4096)?, rsa(2048)?);
        let root = certificate("bench root", &root_key, None, true)?;
        let issuing = certificate("bench issuing", &issuing_key, Some((&root, &root_key)), true)?;
        let issuer = Some((&issuing, &issuing_key));
        let leaf = certificate("localhost", &leaf_key, issuer, false)?;
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?;
        let web_key = PKey::from_ec_key(EcKey::generate(&group)?)?;
        let web = certificate("localhost", &web_key, None, false)?;
        fs::write(folder.join("ca.pem"), root.to_pem()?)?;
        fs::write(folder.join("chain.pem"), [leaf.to_pem()?, issuing.to_pem()?].concat())?;
        fs::write(folder.join("key.der"), leaf_key.private_key_to_pkcs8()?)?;
        fs::write(folder.join("web.pem"), web.to_pem()?)?;
        fs::write(folder.join("web-key.pem"), web_key.private_key_to_pem_pkcs8()?)
    }

    /// Reads those files.
    pub fn load(folder: &Path) -> io::Result<Pki> {
        let chain = CertificateDer::pem_file_iter(folder.join("chain.pem"))
            .and_then(Iterator::collect)
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
        let web = PKey::private_key_from_pem(&fs::read(folder.join("web-key.pem"))?)?;
        Ok(Pki { chain, key: fs::read(folder.join("key.der"))?, web: web.ec_key()? })
    }
}

fn certificate(
    name: &str,
    key: &PKey<Private>,
    issuer: Option<(&X509, &PKey<Private>)>,
    ca: bool,
) -> io::Result<X509> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(120, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(&subject)?;
    builder
        .set_issuer_name(issuer.map_or(subject.as_ref(), |(issuer, _)| issuer.subject_name()))?;
    builder.set_pubkey(key)?;
    builder.set_not_before(Asn1Time::days_from_now(0)?.as_ref())?;
    builder.set_not_after(Asn1Time::days_from_now(2)?.as_ref())?;
    if ca {
        builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
    } else {
        let names = SubjectAlternativeName::new()
            .dns("localhost")
            .build(&builder.x509v3_context(issuer.map(|(issuer, _)| issuer.as_ref()), None))?;
        builder.append_extension(names)?;
    }
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
    Ok(builder.build())
}
