//! `public_keys`: public keys of files, so that the service need not be asked for them.

use std::path::Path;

use der::Decode;
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, pem::PemObject};
use x509_cert::Certificate;

use super::{GivenKey, KeyName, file, rules, section::Section};
use crate::{crypto::PublicKey, error::Result};

/// Reads the files; `keys` is the token's list of keys, where it has one.
///
/// # Errors
/// The context's CKR, naming place and value.
pub fn read(s: &Section<'_>, folder: &Path, keys: Option<&[KeyName]>) -> Result<Vec<GivenKey>> {
    let mut given: Vec<GivenKey> = Vec::new();
    for (text, path) in s.strings("public_keys") {
        let wrong = |problem: &str| s.error("public_keys", format!("public_keys: {problem}"));
        rules::key_name(text).map_err(|problem| wrong(&format!("{text:?} {problem}")))?;
        let (name, version) = match text.split_once('/') {
            Some((name, version)) => (name, Some(version.to_ascii_lowercase())),
            None => (text.as_str(), None),
        };
        let listed = keys.map(|keys| keys.iter().find(|k| k.name.eq_ignore_ascii_case(name)));
        let version = match (listed, version) {
            (Some(None), _) => return Err(wrong(&format!("{text:?} is not one of `keys`"))),
            (Some(Some(KeyName { version: Some(pinned), .. })), Some(version))
                if *pinned != version =>
            {
                return Err(wrong(&format!("`keys` has another version of {name:?}")));
            }
            (Some(Some(KeyName { version: pinned, .. })), None) => pinned.clone(),
            (_, version) => version,
        };
        if given.iter().any(|other| other.key.name.eq_ignore_ascii_case(name)) {
            return Err(wrong(&format!("{name:?} is given twice")));
        }
        let path = folder.join(path);
        let public = public_key(&path).map_err(|fault| wrong(&fault))?;
        given.push(GivenKey { key: KeyName { name: name.to_owned(), version }, path, public });
    }
    Ok(given)
}

/// The key of a PEM file: `PUBLIC KEY`, or that of the first certificate.
fn public_key(path: &Path) -> std::result::Result<PublicKey, String> {
    let pem = file::read_public(path)?;
    let fault = |why: &str| format!("{}: {why}", path.display());
    let spki = match SubjectPublicKeyInfoDer::from_pem_slice(&pem) {
        Ok(spki) => spki.to_vec(),
        Err(_) => {
            let der = CertificateDer::from_pem_slice(&pem)
                .map_err(|_| fault("neither a public key nor a certificate in PEM form in it"))?;
            Certificate::from_der(&der)
                .and_then(|x509| der::Encode::to_der(&x509.tbs_certificate.subject_public_key_info))
                .map_err(|error| fault(&format!("the certificate is damaged: {error}")))?
        }
    };
    PublicKey::from_spki_der(&spki).map_err(|error| fault(error.sentence()))
}
