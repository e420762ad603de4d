//! Keys whose public part the configuration gives: as the service would describe them.

use akv_wire::{Base64Url, JsonWebKey, KeyBundle};

use crate::config::{GivenKey, TokenConfig};

/// What the service would tell of the key, as far as anybody here knows. What it may be used for
/// is not known, so everything is offered that its type allows: the service refuses the rest.
pub fn bundle(given: &GivenKey, token: &TokenConfig) -> KeyBundle {
    let version = given.key.version.as_deref().unwrap_or_default();
    let kid = format!("https://{}/keys/{}/{version}", token.endpoint.host, given.key.name);
    let public = &given.public;
    let number = |bytes: &[u8]| Some(Base64Url::new(bytes));
    let (kty, operations): (_, &[&str]) = match public.is_rsa() {
        true => ("RSA", &["sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey"]),
        false => ("EC", &["sign", "verify"]),
    };
    let (x, y) = public.coordinates().unzip();
    let key = JsonWebKey {
        kid: Some(kid.trim_end_matches('/').to_owned()),
        kty: Some(kty.to_owned()),
        key_ops: Some(operations.iter().map(|name| (*name).to_owned()).collect()),
        n: public.modulus().and_then(number),
        e: public.exponent().and_then(number),
        crv: public.curve().map(|curve| curve.name().to_owned()),
        x: x.and_then(number),
        y: y.and_then(number),
        ..JsonWebKey::default()
    };
    KeyBundle { key, ..KeyBundle::default() }
}
