//! X.509 certificates: from PEM files, from the vault, from C_CreateObject.

use cryptoki_sys::*;
use der::{Decode, Encode, EncodePem, pem::LineEnding};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_cert::{Certificate as X509, ext::pkix::BasicConstraints, time::Time};

use super::{Attributes, Material, Object, tag};
use crate::{
    crypto::{Hash, PublicKey},
    error::{Error, Result},
    hex,
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
    /// What its owner calls it. Kept in the PEM file, in lines before the block (see
    /// [`Certificate::to_pem`]).
    pub given: Given,
}

/// CKA_LABEL and CKA_ID that a certificate was stored with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Shown instead of the key's label.
    pub label: Option<String>,
    /// Shown where there is no key: a key and its certificate have one CKA_ID.
    pub id: Option<Vec<u8>>,
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
            given: Given::default(),
        })
    }

    /// All certificates of a PEM text, in its order; other blocks are passed over.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID for a text without a certificate or with a damaged one.
    pub fn parse_pem(pem: &[u8]) -> Result<Vec<Certificate>> {
        let invalid = |sentence| Error::new(CKR_ATTRIBUTE_VALUE_INVALID, sentence);
        let text = String::from_utf8_lossy(pem);
        let mut lines_before = text.split(BEGIN);
        let mut certificates = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|error| invalid(format!("damaged PEM: {error}")))?;
            let given = Given::in_lines(lines_before.next().unwrap_or_default());
            certificates.push(Certificate { given, ..Certificate::parse(&der)? });
        }
        match certificates.is_empty() {
            true => Err(invalid("no certificate in PEM form in it".to_owned())),
            false => Ok(certificates),
        }
    }

    /// All certificates of a PEM text that may hold a private key, too: only what is between the
    /// marks of a certificate is looked at.
    ///
    /// # Errors
    /// As [`Certificate::parse_pem`].
    pub fn parse_pem_beside_key(pem: &str) -> Result<Vec<Certificate>> {
        let mut certificates = Vec::new();
        let mut rest = pem;
        while let Some(start) = rest.find(BEGIN) {
            let end = rest[start..].find(END).map_or(rest.len(), |at| start + at + END.len());
            certificates.extend(Certificate::parse_pem(&rest.as_bytes()[start..end])?);
            rest = &rest[end..];
        }
        Ok(certificates)
    }

    /// The certificate in PEM. Before it a line `CKA_LABEL: …` (every byte but letters, digits and
    /// `-._~ ` as `%XX`) and a line `CKA_ID: HEX`, where they were given; readers of PEM pass over
    /// such lines (RFC 7468, clause 2).
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR when it cannot be encoded.
    pub fn to_pem(&self) -> Result<String> {
        let pem = X509::from_der(&self.der).and_then(|x509| x509.to_pem(LineEnding::LF));
        let pem = pem.map_err(|error| {
            Error::new(CKR_GENERAL_ERROR, format!("a certificate that cannot be encoded: {error}"))
        })?;
        let label = self.given.label.as_deref();
        let id = self.given.id.as_deref();
        let lines = [
            label.map(|label| format!("{LABEL}{}\n", tag::encode(label))),
            id.map(|id| format!("{ID}{}\n", hex::encode(id))),
        ];
        Ok(lines.into_iter().flatten().chain([pem]).collect())
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

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const LABEL: &str = "CKA_LABEL: ";
const ID: &str = "CKA_ID: ";

impl Given {
    /// Reads the lines before a certificate; what makes no sense is passed over.
    fn in_lines(text: &str) -> Given {
        let last = |name| text.lines().rev().find_map(|line: &str| line.strip_prefix(name));
        Given {
            label: last(LABEL).and_then(|label: &str| tag::decode(label.trim())),
            id: last(ID).and_then(|id: &str| hex::decode(id.trim())).filter(|id| !id.is_empty()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_certificate_comes_back_as_its_owner_called_it() {
        let plain = Certificate::parse(&self_signed()).unwrap();
        let mut file = String::from("Some words\nCKA_LABEL: of nobody\n");
        let mut wanted = Vec::new();
        for (label, id) in [
            (Some("web"), Some(&b"web"[..])),
            (None, None),
            (Some("Schlüssel; 1%\n-----"), None),
            (None, Some(&[0, 255][..])),
        ] {
            let given = Given { label: label.map(str::to_owned), id: id.map(<[u8]>::to_vec) };
            let certificate = Certificate { given, ..plain.clone() };
            file.push_str(&certificate.to_pem().unwrap());
            file.push_str("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
            wanted.push(certificate.given);
        }
        let read = Certificate::parse_pem(file.as_bytes()).unwrap();
        assert_eq!(read.iter().map(|read| read.given.clone()).collect::<Vec<_>>(), wanted);
        assert!(read.iter().all(|read| read.der == plain.der));
        assert!(Certificate::parse_pem(b"CKA_LABEL: a\n").is_err());
    }
    fn self_signed() -> Vec<u8> {
        use openssl::{asn1::Asn1Time, hash::MessageDigest, nid::Nid, pkey::PKey, x509};

        let group = openssl::ec::EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(openssl::ec::EcKey::generate(&group).unwrap()).unwrap();
        let mut name = x509::X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "a").unwrap();
        let name = name.build();
        let mut builder = x509::X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        builder.build().to_der().unwrap()
    }
}
