//! X.509 certificates: from PEM files, from the vault, from C_CreateObject.

use cryptoki_sys::*;
use der::{Decode, Encode};
use x509_cert::{Certificate as X509, ext::pkix::BasicConstraints, time::Time};

use super::{Attributes, Material, Object};
use crate::{
    crypto::{Hash, PublicKey},
    error::{Error, Result},
};

/// A certificate with what its object shows, taken out once.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The whole certificate in DER.
    pub der: Vec<u8>,
    /// DER of the subject's name.
    pub subject: Vec<u8>,
    /// DER of the issuer's name.
    pub issuer: Vec<u8>,
    /// DER of the serial number.
    pub serial: Vec<u8>,
    /// DER of the SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
    /// SHA-1 of the subjectPublicKey bits: CKA_ID unless its key has another.
    pub key_id: Vec<u8>,
    /// The subject's common name, or the whole name in RFC 4514 form where it has none.
    pub common_name: String,
    /// Basic constraints say that it is a CA.
    pub is_ca: bool,
    /// First and last day, `YYYYMMDD`.
    pub validity: (String, String),
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID for anything that is no X.509 certificate.
    pub fn parse(der: &[u8]) -> Result<Certificate> {
        let invalid = |error: der::Error| {
            Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("no X.509 certificate in DER: {error}"))
        };
        let x509 = X509::from_der(der).map_err(invalid)?;
        let tbs = &x509.tbs_certificate;
        let public = &tbs.subject_public_key_info;
        let constraints = tbs.get::<BasicConstraints>().ok().flatten();
        Ok(Certificate {
            der: der.to_vec(),
            subject: tbs.subject.to_der().map_err(invalid)?,
            issuer: tbs.issuer.to_der().map_err(invalid)?,
            serial: tbs.serial_number.to_der().map_err(invalid)?,
            spki: public.to_der().map_err(invalid)?,
            key_id: Hash::Sha1.digest(public.subject_public_key.raw_bytes()),
            common_name: common_name(&x509),
            is_ca: constraints.is_some_and(|(_, constraints)| constraints.ca),
            validity: (day(tbs.validity.not_before), day(tbs.validity.not_after)),
        })
    }

    /// All certificates of a PEM text, in its order; other blocks are passed over.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID for a text without a certificate or with a damaged one.
    pub fn parse_pem(pem: &[u8]) -> Result<Vec<Certificate>> {
        X509::load_pem_chain(pem)
            .map_err(|error| {
                Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("no PEM certificate: {error}"))
            })?
            .iter()
            .map(|x509| {
                let der = x509.to_der().map_err(|error| {
                    Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("certificate: {error}"))
                })?;
                Certificate::parse(&der)
            })
            .collect()
    }

    /// The public key, where it is one this module can use.
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_spki_der(&self.spki).ok()
    }

    /// The object: token or session, labelled and identified as its key is, or by itself.
    pub fn object(&self, on_token: bool, label: &str, id: &[u8], unique: Option<&str>) -> Object {
        let category = if self.is_ca {
            CK_CERTIFICATE_CATEGORY_AUTHORITY
        } else {
            CK_CERTIFICATE_CATEGORY_UNSPECIFIED
        };
        let mut attributes = Attributes::default();
        attributes
            .set_ulong(CKA_CLASS, CKO_CERTIFICATE)
            .set_bool(CKA_TOKEN, on_token)
            .set_bool(CKA_PRIVATE, false)
            .set_bool(CKA_MODIFIABLE, false)
            .set_bool(CKA_COPYABLE, false)
            .set_bool(CKA_DESTROYABLE, !on_token)
            .set(CKA_LABEL, label)
            .set(CKA_ID, id)
            .set_ulong(CKA_CERTIFICATE_TYPE, CKC_X_509)
            .set_bool(CKA_TRUSTED, false)
            .set_ulong(CKA_CERTIFICATE_CATEGORY, category)
            .set_ulong(CKA_JAVA_MIDP_SECURITY_DOMAIN, CK_SECURITY_DOMAIN_UNSPECIFIED)
            .set(CKA_CHECK_VALUE, &Hash::Sha1.digest(&self.der)[..3])
            .set(CKA_START_DATE, self.validity.0.as_str())
            .set(CKA_END_DATE, self.validity.1.as_str())
            .set(CKA_PUBLIC_KEY_INFO, self.spki.as_slice())
            .set(CKA_SUBJECT, self.subject.as_slice())
            .set(CKA_ISSUER, self.issuer.as_slice())
            .set(CKA_SERIAL_NUMBER, self.serial.as_slice())
            .set(CKA_VALUE, self.der.as_slice())
            .set(CKA_URL, "")
            .set(CKA_HASH_OF_SUBJECT_PUBLIC_KEY, "")
            .set(CKA_HASH_OF_ISSUER_PUBLIC_KEY, "")
            .set_ulong(CKA_NAME_HASH_ALGORITHM, CKM_SHA_1);
        if let Some(unique) = unique {
            attributes.set(CKA_UNIQUE_ID, unique);
        }
        Object { attributes, material: Material::None, owner: None }
    }
}

fn common_name(x509: &X509) -> String {
    const CN: der::oid::ObjectIdentifier = der::oid::ObjectIdentifier::new_unwrap("2.5.4.3");
    let subject = &x509.tbs_certificate.subject;
    let found = subject
        .0
        .iter()
        .flat_map(|names| names.0.iter())
        .filter(|name| name.oid == CN)
        .find_map(|name| std::str::from_utf8(name.value.value()).ok().map(str::to_owned));
    found.unwrap_or_else(|| subject.to_string())
}

fn day(time: Time) -> String {
    let date = time.to_date_time();
    format!("{:04}{:02}{:02}", date.year(), date.month(), date.day())
}
