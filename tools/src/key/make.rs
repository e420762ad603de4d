//! `key generate`, and what it shares with `key import`: properties, and the one request that the
//! module's own code makes, with its tag, its look before and its look after a lost answer.

use std::cell::RefCell;

use akv_pkcs11::{
    config::TokenConfig,
    error,
    operation::making::Making,
    slot::Slot,
    vault::{KeyRef, Vault},
};
use akv_wire::{Base64Url, KeyAttributes, KeyBundle, KeyCreateParameters, ReleasePolicy, Tags};
use cryptoki_sys::CKR_TEMPLATE_INCONSISTENT;

use super::view::KeyView;
use crate::{
    cli::{CurveName, KeyKind, KindArgs, PropertyArgs},
    failure::Failure,
    files,
    output::{Output, pairs},
};

/// The token's configuration as the command line wants it.
pub fn adjust(token: &mut TokenConfig, properties: &PropertyArgs) {
    token.hsm_protection = (token.hsm_protection || properties.hsm) && !properties.software;
    token.generate_new_version |= properties.new_version;
    token.tags.retain(|(name, _)| properties.tag.iter().all(|(given, _)| given != name));
    token.tags.extend(properties.tag.iter().cloned());
}

/// What is asked of the service, without what the token decides: tags and protection.
pub fn create_parameters(
    kind: &KindArgs,
    properties: &PropertyArgs,
) -> Result<KeyCreateParameters, Failure> {
    let sizes: &[u32] = match kind.r#type {
        KeyKind::Rsa => &[2048, 3072, 4096],
        KeyKind::Aes => &[128, 192, 256],
        KeyKind::Ec => &[],
    };
    let size = match (kind.r#type, kind.size) {
        (KeyKind::Rsa, None) => Some(2048),
        (KeyKind::Aes, None) => Some(256),
        (_, size) => size,
    };
    if let Some(size) = size.filter(|size| !sizes.contains(size)) {
        return Err(Failure::usage(match kind.r#type {
            KeyKind::Ec => format!("--size {size}: EC keys have a --curve instead"),
            _ => format!("--size {size} is none of {sizes:?}"),
        }));
    }
    if let (KeyKind::Rsa | KeyKind::Aes, Some(curve)) = (kind.r#type, kind.curve) {
        return Err(Failure::usage(format!(
            "--curve {} is for --type ec: other keys have a --size",
            curve.name()
        )));
    }
    let curve = match kind.r#type {
        KeyKind::Ec => Some(kind.curve.unwrap_or(CurveName::P256).name().to_owned()),
        KeyKind::Rsa | KeyKind::Aes => None,
    };
    Ok(KeyCreateParameters {
        kty: Some(plain_type(kind.r#type).to_owned()),
        key_size: size,
        crv: curve,
        key_ops: operations(properties),
        attributes: attributes(properties),
        release_policy: release_policy(properties)?,
        ..KeyCreateParameters::default()
    })
}

/// Generates a key and shows it.
pub fn generate(
    slot: &Slot,
    label: &str,
    parameters: KeyCreateParameters,
    properties: &PropertyArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let bundle = make(slot, label, properties, |vault, name, tags| {
        let kty = parameters.kty.as_deref().map(|kty| protected(kty, slot));
        let parameters = KeyCreateParameters { kty, tags: Some(tags), ..parameters.clone() };
        vault.create_key(name, &parameters)
    })?;
    shown(slot, &bundle, output)
}

/// Makes a key by `request`, which gets its name and all its tags.
pub fn make(
    slot: &Slot,
    label: &str,
    properties: &PropertyArgs,
    request: impl Fn(&Vault, &str, Tags) -> error::Result<KeyBundle>,
) -> Result<KeyBundle, Failure> {
    let answered = RefCell::new(None);
    let making = Making::new(slot, Some(label), properties.id.as_ref().map(|id| id.0.as_slice()))?;
    let (name, tags) = (making.name().to_owned(), making.tags()?);
    let sent = making.send(|vault, name| {
        let bundle = request(vault, name, tags.clone())?;
        *answered.borrow_mut() = Some(bundle.clone());
        Ok(bundle)
    });
    if let Err(error) = sent {
        let exists = error.rv() == CKR_TEMPLATE_INCONSISTENT && !properties.new_version;
        let failure = Failure::from(error);
        return Err(match exists {
            true => failure.with_advice("or, here, with --new-version"),
            false => failure,
        });
    }
    match answered.into_inner() {
        Some(bundle) => Ok(bundle),
        // The answer was lost, and a look found the key made.
        None => Ok(slot.vault.key(KeyRef::current(&name))?),
    }
}

/// Shows a key that was made.
pub fn shown(slot: &Slot, bundle: &KeyBundle, output: &mut Output) -> Result<(), Failure> {
    output.show(&KeyView::new(bundle, &slot.token), |key| pairs(key.pairs()))
}

/// A key type with the token's protection.
pub fn protected(kty: &str, slot: &Slot) -> String {
    match slot.token.hsm_protection {
        true => format!("{kty}-HSM"),
        false => kty.to_owned(),
    }
}

/// The contract's name of a kind of key, without protection.
pub fn plain_type(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa => "RSA",
        KeyKind::Ec => "EC",
        KeyKind::Aes => "oct",
    }
}

/// `key_ops`, where the command line names any.
pub fn operations(properties: &PropertyArgs) -> Option<Vec<String>> {
    (!properties.ops.is_empty()).then(|| properties.ops.clone())
}

/// What the command line says of a key's life.
pub fn attributes(properties: &PropertyArgs) -> Option<KeyAttributes> {
    let attributes = KeyAttributes {
        enabled: properties.disabled.then_some(false),
        nbf: properties.not_before,
        exp: properties.expires,
        exportable: properties.release_policy.is_some().then_some(true),
        ..KeyAttributes::default()
    };
    (attributes != KeyAttributes::default()).then_some(attributes)
}

/// The release policy, a JSON document that only the service understands.
pub fn release_policy(properties: &PropertyArgs) -> Result<Option<ReleasePolicy>, Failure> {
    let Some(path) = &properties.release_policy else { return Ok(None) };
    let bytes = files::read(path)?;
    if let Err(error) = serde_json::from_slice::<serde_json::Value>(&bytes) {
        return Err(Failure::new(format!("{} is not JSON: {error}", path.display())));
    }
    Ok(Some(ReleasePolicy {
        content_type: Some("application/json; charset=utf-8".to_owned()),
        data: Some(Base64Url::new(bytes.as_slice())),
        immutable: None,
    }))
}
