//! Certificates of the vault for the keys that are known.

use akv_wire::SecretBundle;
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
    slot::Slot,
    vault::{KeyRef, is_forbidden, is_not_found},
};

/// Whether a search can find certificates of the token.
pub(super) fn wants_certificates(wanted: &Wanted) -> bool {
    let class = wanted.iter().find(|(kind, _)| *kind == CKA_CLASS);
    let on_token = wanted.iter().all(|(kind, value)| *kind != CKA_TOKEN || value != &[CK_FALSE]);
    on_token && class.is_none_or(|(_, value)| value == &CKO_CERTIFICATE.to_ne_bytes())
}

/// Fetches the vault's certificates of the keys known so far. A certificate that cannot be had
/// never hides a key.
pub(super) fn learn_certificates(slot: &Slot) -> Result<()> {
    if slot.vault.service() == Service::ManagedHsm || !slot.vault_can_be_asked() {
        return Ok(());
    }
    for (name, version) in slot.store.names_without_certificate() {
        let deadline = slot.vault.find_deadline();
        let known = || slot.store.last_found(&name).is_none_or(|found| found.certificate_seen);
        let Some(_flight) = slot.flights.take(&format!("certificate {name}"), deadline, known)
        else {
            continue;
        };
        let fetched = certificate_of(slot, &name, &version).and_then(|leaf| {
            let issuers = issuers_of(slot, &name, &version, &leaf)?;
            Ok((leaf, issuers))
        });
        match fetched {
            Ok((leaf, issuers)) => {
                slot.store.add_certificate(leaf, Origin::Vault(name.to_ascii_lowercase()));
                for issuer in issuers {
                    slot.store.add_certificate(issuer, Origin::Issuer);
                }
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                log::info!("the certificate of key '{name}' is left out: {error}");
                if !is_forbidden(&error) {
                    return Ok(()); // asked for again by the next search
                }
            }
        }
        slot.store.certificate_seen(&name);
    }
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
        Err(error) if error.remote().is_some_and(|r| (400..500).contains(&r.status)) => {
            return Ok(left_out(&error));
        }
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

fn certificate_of(slot: &Slot, name: &str, version: &str) -> Result<Certificate> {
    let bundle = slot.vault.certificate(KeyRef::version(name, version))?;
    let der = bundle.der().and_then(std::result::Result::ok).ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the vault sent no certificate for '{name}'"))
    })?;
    Certificate::parse(&der)
}
