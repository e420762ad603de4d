//! Certificates of the vault for the keys that are known.

use akv_wire::{CertificateBundle, SecretBundle};
use base64::{Engine, prelude::BASE64_STANDARD};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use crate::{
    config::Service,
    crypto::pkcs12,
    error::{Error, Result},
    object::{
        certificate::Certificate,
        store::{Origin, Wanted},
    },
    operation::{flight::Known, outage::is_refusal},
    slot::Slot,
    vault::{KeyRef, is_not_found},
};

/// Whether a search can find certificates of the token, and whether it can find nothing else.
pub(super) fn sought(wanted: &Wanted) -> (bool, bool) {
    let class = wanted.iter().find(|(kind, _)| *kind == CKA_CLASS);
    let only = class.map(|(_, value)| value == &CKO_CERTIFICATE.to_ne_bytes());
    let on_token = wanted.iter().all(|(kind, value)| *kind != CKA_TOKEN || value != &[CK_FALSE]);
    (on_token && only != Some(false), only == Some(true))
}

/// Fetches the vault's certificates of the keys known so far. `only`: they are what is sought, and
/// waited for; else the keys are shown without them while they cannot be had.
///
/// # Errors
/// Why the service could not be asked. That it refuses a certificate, or has none, is no error.
pub(super) fn learn_certificates(slot: &Slot, only: bool) -> Result<()> {
    if slot.vault.service() == Service::ManagedHsm || !slot.vault_can_be_asked() {
        return Ok(());
    }
    for (name, version) in slot.store.names_without_certificate() {
        let known = || {
            let found = slot.store.last_found(&name);
            Known::of(found.is_none_or(|found| found.certificate_seen), !only)
        };
        let what = format!("certificate {name}");
        slot.flights.share(&what, slot.vault.find_deadline(), known, || {
            slot.learnt(&what, learn_certificate(slot, &name, &version))
        })?;
    }
    Ok(())
}

fn learn_certificate(slot: &Slot, name: &str, version: &str) -> Result<()> {
    let left_out = |error| log::info!("the certificate of key '{name}' is left out: {error}");
    match slot.vault.certificate(KeyRef::version(name, version)) {
        Ok(bundle) => match parse(&bundle, name) {
            Ok(leaf) => {
                let issuers = issuers_of(slot, name, version, &leaf)?;
                slot.store.add_certificate(leaf, Origin::Vault(name.to_ascii_lowercase()));
                for issuer in issuers {
                    slot.store.add_certificate(issuer, Origin::Issuer);
                }
            }
            Err(error) => left_out(error),
        },
        Err(error) if is_not_found(&error) => {}
        Err(error) if is_refusal(&error) => left_out(error),
        Err(error) => return Err(error),
    }
    slot.store.certificate_seen(name);
    Ok(())
}

/// The issuers of a vault's certificate, from the secret behind it, where the configuration wants
/// them. That they cannot be had hides no certificate, unless asking again may help.
fn issuers_of(
    slot: &Slot,
    name: &str,
    version: &str,
    leaf: &Certificate,
) -> Result<Vec<Certificate>> {
    if !slot.token.certificate_chains {
        return Ok(Vec::new());
    }
    let left_out = |error: &Error| {
        log::warn!("the issuers of certificate '{name}' are left out: {error}");
        Vec::new()
    };
    let secret = match slot.vault.secret(KeyRef::version(name, version)) {
        Ok(secret) => secret,
        Err(error) if is_refusal(&error) => return Ok(left_out(&error)),
        Err(error) => return Err(error),
    };
    let mut issuers = chain_in(&secret).unwrap_or_else(|error| left_out(&error));
    issuers.retain(|issuer| issuer.der != leaf.der);
    Ok(issuers)
}

/// The certificates in the secret of a certificate. A private key in it is not read, and wiped with
/// the secret.
fn chain_in(secret: &SecretBundle) -> Result<Vec<Certificate>> {
    let value = secret.value.as_deref().unwrap_or_default();
    if value.contains("-----BEGIN ") {
        return Certificate::parse_pem_beside_key(value);
    }
    let advice = |error: Error| {
        let sentence = format!(
            "{}; make the certificate with `application/x-pem-file` as the content type of its \
             secret, or name a file with the issuers in `certificates`",
            error.sentence()
        );
        Error::new(error.rv(), sentence)
    };
    let text: Zeroizing<Vec<u8>> =
        Zeroizing::new(value.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect());
    let file = Zeroizing::new(BASE64_STANDARD.decode(&text).map_err(|_| {
        let kind = secret.content_type.as_deref().unwrap_or("no content type");
        advice(Error::new(CKR_DEVICE_ERROR, format!("its secret of {kind} is no PKCS#12 file")))
    })?);
    let certificates = pkcs12::certificates(&file).map_err(advice)?;
    certificates.iter().map(|der| Certificate::parse(der)).collect()
}

fn parse(bundle: &CertificateBundle, name: &str) -> Result<Certificate> {
    let der = bundle.der().and_then(std::result::Result::ok).ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the vault sent no certificate for '{name}'"))
    })?;
    Certificate::parse(&der)
}
