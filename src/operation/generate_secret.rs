//! C_GenerateKey: AES keys of a Managed HSM, secret keys of the session.

use akv_wire::KeyCreateParameters;
use cryptoki_sys::*;

use super::{
    import::check_for_service,
    making::{Making, SECRET, operations},
};
use crate::{
    error::{Error, Result},
    mechanism::{Home, Mechanism},
    object::{
        dates, session_key,
        session_secret::{self, USAGES, able},
        template::{Template, inconsistent},
    },
    slot::Slot,
};

/// A secret key to be made: refused by [`GeneratingSecret::new`] or it can be made.
#[derive(Debug)]
pub struct GeneratingSecret {
    mechanism: &'static Mechanism,
    key_type: CK_KEY_TYPE,
    bits: u32,
    template: Template,
}

impl GeneratingSecret {
    /// Checks mechanism and template; nothing is asked of the service.
    ///
    /// # Errors
    /// CKR_MECHANISM_INVALID; CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT,
    /// CKR_ATTRIBUTE_VALUE_INVALID.
    pub fn new(
        slot: &Slot,
        mechanism: &'static Mechanism,
        template: Template,
    ) -> Result<GeneratingSecret> {
        let home = if template.on_token() { Home::Service } else { Home::Session };
        let key_type = mechanism.key_type().unwrap_or(CK_ULONG::MAX);
        template.fixed_ulong(CKA_KEY_TYPE, key_type)?;
        if mechanism.uses_with(home, &slot.token) & CKF_GENERATE == 0 {
            return Err(inconsistent(format!(
                "token '{}' makes no keys with {} that have CKA_TOKEN {}",
                slot.token.label,
                mechanism.name,
                template.on_token()
            )));
        }
        template.without(&[CKA_VALUE, CKA_CHECK_VALUE])?;
        let bits = 8 * session_secret::length_of(key_type, &template)? as u32;
        if home == Home::Service {
            check_for_service(&template)?;
            if !matches!(bits, 128 | 192 | 256) {
                let sentence = format!("{bits} bits: the service makes 128, 192 or 256");
                return Err(Error::new(CKR_ATTRIBUTE_VALUE_INVALID, sentence));
            }
            check_usages(key_type, &template)?;
        }
        Ok(GeneratingSecret { mechanism, key_type, bits, template })
    }

    /// Whether the key is to be on the token.
    pub fn is_on_token(&self) -> bool {
        self.template.on_token()
    }

    /// Whether the key is to be private (CKA_PRIVATE).
    pub fn is_private(&self, slot: &Slot) -> bool {
        session_key::is_private(slot, &self.template, true)
    }

    /// Makes the key: with one look and one create request on the token, with none in a session.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT for a name that exists; docs/errors.md.
    pub fn run(self, slot: &Slot, session: CK_SESSION_HANDLE) -> Result<CK_OBJECT_HANDLE> {
        if !self.template.on_token() {
            let object = session_secret::generated(self.mechanism, &self.template, session, slot)?;
            return Ok(slot.store.add(object));
        }
        let label = self.template.text(CKA_LABEL)?.filter(|label| !label.is_empty());
        let id = self.template.bytes(CKA_ID).filter(|id| !id.is_empty());
        let making = Making::new(slot, label, id)?.sized(self.bits);
        let name = making.name().to_owned();
        let parameters = KeyCreateParameters {
            kty: Some("oct-HSM".to_owned()),
            key_size: Some(self.bits),
            key_ops: Some(secret_operations(self.key_type, &self.template)),
            attributes: dates::attributes(&[&self.template])?,
            tags: Some(making.tags()?),
            ..KeyCreateParameters::default()
        };
        let handles = making.send(|vault, name| vault.create_key(name, &parameters))?;
        handles.first().copied().ok_or_else(|| {
            Error::new(CKR_DEVICE_ERROR, format!("the service made '{name}', but sent no key"))
        })
    }
}

/// Refuses a template for a key of the service whose usages are all such that keys of the type have
/// none of them.
///
/// # Errors
/// CKR_TEMPLATE_INCONSISTENT.
pub fn check_usages(key_type: CK_KEY_TYPE, template: &Template) -> Result<()> {
    let allowed = |usages: &[CK_ATTRIBUTE_TYPE]| {
        usages.iter().any(|usage| template.flag(*usage) == Some(true))
    };
    if allowed(USAGES) && !allowed(able(key_type)) {
        let sentence = format!("no key of type {key_type:#x} does what the template allows");
        return Err(inconsistent(sentence));
    }
    Ok(())
}

/// The service's key_ops for a secret key: what the template allows of what its type can do.
pub fn secret_operations(key_type: CK_KEY_TYPE, template: &Template) -> Vec<String> {
    let able: Vec<&str> = SECRET
        .iter()
        .filter(|(usage, _)| able(key_type).contains(usage))
        .map(|(_, operation)| *operation)
        .collect();
    operations(template, SECRET).filter(|operation| able.contains(&operation.as_str())).collect()
}
