//! Certificates of the vault for the keys that are known.

use cryptoki_sys::*;

use crate::{
    config::Service,
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
        match certificate_of(slot, &name, &version) {
            Ok(certificate) => {
                slot.store.add_certificate(certificate, Origin::Vault(name.to_ascii_lowercase()));
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

fn certificate_of(slot: &Slot, name: &str, version: &str) -> Result<Certificate> {
    let bundle = slot.vault.certificate(KeyRef::version(name, version))?;
    let der = bundle.der().and_then(std::result::Result::ok).ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the vault sent no certificate for '{name}'"))
    })?;
    Certificate::parse(&der)
}
