//! From what the service tells about a key to the objects a PKCS#11 client sees: a private and a
//! public key, or a secret key. The truth of each attribute is in docs/attributes.md.

use std::sync::Arc;

use akv_wire::{JsonWebKey, KeyBundle};
use cryptoki_sys::*;

use super::{Attributes, Material, Object, VaultKey, VaultKeyKind, dates, tag::Tag};
use crate::{
    config::{Login, TokenConfig},
    crypto::PublicKey,
    error::{Error, Result},
    hex,
    mechanism::{Home, MECHANISMS, uses_of_class},
};

/// Whether a key version is the one its name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The version that the label means (current, pinned, or of the configured certificate).
    Meant,
    /// Another version, shown with `versions = "enabled"` under `name@version`.
    Other,
}

/// One key version as objects: private and public key, or secret key. All share label and id.
///
/// # Errors
/// CKR_DEVICE_ERROR when the bundle has no identifier, CKR_KEY_TYPE_INCONSISTENT for a key of a
/// type this module does not know: the caller leaves such a key out.
pub fn objects(bundle: &KeyBundle, token: &TokenConfig, standing: Standing) -> Result<Vec<Object>> {
    let jwk = &bundle.key;
    let (name, version) = jwk.name_and_version().ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the service sent a key without identifier: {jwk:?}"))
    })?;
    let tag = Tag::of(bundle.tags.as_ref());
    let kind = match kind(jwk)? {
        VaultKeyKind::Secret(_) => VaultKeyKind::Secret(bundle.attributes.key_size.or(tag.size)),
        pair => pair,
    };
    let key = Arc::new(VaultKey {
        name: name.to_owned(),
        version: version.to_owned(),
        id: jwk.kid.clone().unwrap_or_default(),
        kind,
        legacy: jwk.is_legacy(),
    });
    let identity = Identity::of(&key, &tag, standing);
    let usage = Usage::of(bundle);
    let common = common(bundle, token);
    let objects = match key.public() {
        Some(public) => vec![
            private_key(&common, &key, public, &identity, &usage, token),
            public_key(&common, public, &identity, token),
        ],
        None => vec![secret_key(&common, &key, &identity, &usage, token)],
    };
    Ok(objects)
}

/// Whether a bundle is a secret key whose size it does not tell: neither the service (which does
/// from api-version 2025-07-01 on) nor our tag.
pub fn lacks_size(bundle: &KeyBundle) -> bool {
    matches!(kind(&bundle.key), Ok(VaultKeyKind::Secret(_)))
        && bundle.attributes.key_size.is_none()
        && Tag::of(bundle.tags.as_ref()).size.is_none()
}

/// The computed identifier of a public key in a bundle; None for secret and unknown keys.
pub fn key_id(jwk: &JsonWebKey) -> Option<Vec<u8>> {
    match kind(jwk).ok()? {
        VaultKeyKind::Rsa(public) | VaultKeyKind::Ec(_, public) => Some(public.key_id().to_vec()),
        VaultKeyKind::Secret(_) => None,
    }
}

struct Identity {
    label: String,
    id: Vec<u8>,
    unique: String,
}

impl Identity {
    fn of(key: &VaultKey, tag: &Tag, standing: Standing) -> Identity {
        let label = tag.label.clone().unwrap_or_else(|| key.name.clone());
        let computed = || match key.public() {
            Some(public) => public.key_id().to_vec(),
            None => hex::decode(&key.version).unwrap_or_else(|| key.version.clone().into_bytes()),
        };
        let unique = format!("{}/{}", key.name, key.version);
        match standing {
            Standing::Meant => {
                Identity { label, id: tag.id.clone().unwrap_or_else(computed), unique }
            }
            // An id set by the owner belongs to the current version.
            Standing::Other => {
                Identity { label: format!("{label}@{}", key.version), id: computed(), unique }
            }
        }
    }
}

struct Usage {
    enabled: bool,
    operations: Vec<String>,
}

impl Usage {
    fn of(bundle: &KeyBundle) -> Usage {
        let enabled = bundle.attributes.enabled.unwrap_or(true);
        Usage { enabled, operations: bundle.key.key_ops.clone().unwrap_or_default() }
    }

    fn may(&self, operation: &str) -> bool {
        self.enabled && self.operations.iter().any(|allowed| allowed == operation)
    }

    /// A generic secret signs and does nothing else.
    fn only_signs(&self) -> bool {
        let has = |operation: &str| self.operations.iter().any(|allowed| allowed == operation);
        (has("sign") || has("verify"))
            && !["encrypt", "decrypt", "wrapKey", "unwrapKey"].into_iter().any(has)
    }
}

fn kind(jwk: &JsonWebKey) -> Result<VaultKeyKind> {
    Ok(match PublicKey::from_jwk(jwk)? {
        Some(public) => match public.curve() {
            Some(curve) => VaultKeyKind::Ec(curve, public),
            None => VaultKeyKind::Rsa(public),
        },
        None => VaultKeyKind::Secret(None),
    })
}

/// What all objects of a key have in common.
fn common(bundle: &KeyBundle, token: &TokenConfig) -> Attributes {
    let managed = bundle.managed.unwrap_or(false);
    let mut attributes = Attributes::default();
    attributes
        .set_bool(CKA_TOKEN, true)
        .set_bool(CKA_MODIFIABLE, true)
        .set_bool(CKA_COPYABLE, false)
        .set_bool(CKA_DESTROYABLE, token.allow_delete && !managed)
        .set_bool(CKA_DERIVE, false)
        .set_bool(CKA_LOCAL, false)
        .set_ulong(CKA_KEY_GEN_MECHANISM, CK_ULONG::MAX)
        .set(CKA_START_DATE, dates::day(bundle.attributes.nbf))
        .set(CKA_END_DATE, dates::day(bundle.attributes.exp));
    attributes
}

fn private_key(
    common: &Attributes,
    key: &Arc<VaultKey>,
    public: &PublicKey,
    identity: &Identity,
    usage: &Usage,
    token: &TokenConfig,
) -> Object {
    let mut attributes = common.clone();
    name(&mut attributes, identity, "priv");
    attributes
        .set_ulong(CKA_CLASS, CKO_PRIVATE_KEY)
        .set_bool(CKA_PRIVATE, token.login != Login::None)
        .set_bool(CKA_SENSITIVE, true)
        .set_bool(CKA_EXTRACTABLE, false)
        .set_bool(CKA_ALWAYS_SENSITIVE, false)
        .set_bool(CKA_NEVER_EXTRACTABLE, false)
        .set_bool(CKA_WRAP_WITH_TRUSTED, false)
        .set_bool(CKA_ALWAYS_AUTHENTICATE, false)
        .set_bool(CKA_SIGN, usage.may("sign"))
        .set_bool(CKA_SIGN_RECOVER, public.is_rsa() && usage.may("sign"))
        .set_bool(CKA_DECRYPT, usage.may("decrypt"))
        .set_bool(CKA_UNWRAP, usage.may("unwrapKey") || usage.may("import"))
        .set(CKA_SUBJECT, "");
    public_part(&mut attributes, CKO_PRIVATE_KEY, public, Home::Service, token);
    Object { attributes, material: Material::Vault(Arc::clone(key)), owner: None }
}

fn public_key(
    common: &Attributes,
    public: &PublicKey,
    identity: &Identity,
    token: &TokenConfig,
) -> Object {
    let mut attributes = common.clone();
    name(&mut attributes, identity, "pub");
    public_usage(&mut attributes, public);
    attributes.set_bool(CKA_PRIVATE, false).set_bool(CKA_TRUSTED, false).set(CKA_SUBJECT, "");
    public_part(&mut attributes, CKO_PUBLIC_KEY, public, Home::Service, token);
    Object { attributes, material: Material::Public(public.clone()), owner: None }
}

/// Class and usage of a public key: what can be done with it is done here, whatever the service
/// allows its private key.
pub fn public_usage(attributes: &mut Attributes, public: &PublicKey) {
    attributes
        .set_ulong(CKA_CLASS, CKO_PUBLIC_KEY)
        .set_bool(CKA_VERIFY, true)
        .set_bool(CKA_VERIFY_RECOVER, public.is_rsa())
        .set_bool(CKA_ENCRYPT, public.is_rsa())
        .set_bool(CKA_WRAP, public.is_rsa());
    if let Some(modulus) = public.modulus() {
        let bits = modulus.len() as CK_ULONG * 8
            - modulus.first().map_or(0, |byte| CK_ULONG::from(byte.leading_zeros()));
        attributes.set_ulong(CKA_MODULUS_BITS, bits);
    }
}

/// Key type and public values, which the private key object shows too: libp11, SunPKCS11 and
/// GnuTLS read them there.
pub fn public_part(
    attributes: &mut Attributes,
    class: CK_OBJECT_CLASS,
    public: &PublicKey,
    home: Home,
    token: &TokenConfig,
) {
    let key_type = if public.is_rsa() { CKK_RSA } else { CKK_EC };
    attributes
        .set_ulong(CKA_KEY_TYPE, key_type)
        .set(CKA_PUBLIC_KEY_INFO, public.spki_der())
        .set_mechanisms(CKA_ALLOWED_MECHANISMS, mechanisms_for(class, key_type, home, token));
    if let (Some(n), Some(e)) = (public.modulus(), public.exponent()) {
        attributes.set(CKA_MODULUS, n).set(CKA_PUBLIC_EXPONENT, e);
    }
    if let (Some(curve), Some(point)) = (public.curve(), public.ec_point_der()) {
        attributes.set(CKA_EC_PARAMS, curve.params_der()).set(CKA_EC_POINT, point);
    }
}

fn secret_key(
    common: &Attributes,
    key: &Arc<VaultKey>,
    identity: &Identity,
    usage: &Usage,
    token: &TokenConfig,
) -> Object {
    let key_type = if usage.only_signs() { CKK_GENERIC_SECRET } else { CKK_AES };
    let mut attributes = common.clone();
    name(&mut attributes, identity, "sec");
    attributes
        .set_ulong(CKA_CLASS, CKO_SECRET_KEY)
        .set_ulong(CKA_KEY_TYPE, key_type)
        .set_bool(CKA_PRIVATE, token.login != Login::None)
        .set_bool(CKA_SENSITIVE, true)
        .set_bool(CKA_EXTRACTABLE, false)
        .set_bool(CKA_ALWAYS_SENSITIVE, false)
        .set_bool(CKA_NEVER_EXTRACTABLE, false)
        .set_bool(CKA_WRAP_WITH_TRUSTED, false)
        .set_bool(CKA_TRUSTED, false)
        .set_bool(CKA_ENCRYPT, usage.may("encrypt"))
        .set_bool(CKA_DECRYPT, usage.may("decrypt"))
        .set_bool(CKA_WRAP, usage.may("wrapKey"))
        .set_bool(CKA_UNWRAP, usage.may("unwrapKey"))
        .set_bool(CKA_SIGN, usage.may("sign"))
        .set_bool(CKA_VERIFY, usage.may("verify"))
        .set_mechanisms(
            CKA_ALLOWED_MECHANISMS,
            mechanisms_for(CKO_SECRET_KEY, key_type, Home::Service, token),
        );
    let size = match key.kind {
        VaultKeyKind::Secret(size) => size,
        VaultKeyKind::Rsa(_) | VaultKeyKind::Ec(..) => None,
    };
    match size {
        Some(bits) => {
            attributes.set_ulong(CKA_VALUE_LEN, CK_ULONG::from(bits / 8));
        }
        // The size is part of the names of the service's algorithms.
        None if key_type == CKK_AES => {
            attributes.set_mechanisms(CKA_ALLOWED_MECHANISMS, []);
        }
        None => {}
    }
    Object { attributes, material: Material::Vault(Arc::clone(key)), owner: None }
}

fn name(attributes: &mut Attributes, identity: &Identity, part: &str) {
    attributes
        .set(CKA_LABEL, identity.label.as_str())
        .set(CKA_ID, identity.id.as_slice())
        .set(CKA_UNIQUE_ID, format!("{}#{part}", identity.unique));
}

/// What a token offers for keys of a class and type that are there.
pub fn mechanisms_for(
    class: CK_OBJECT_CLASS,
    key_type: CK_KEY_TYPE,
    home: Home,
    token: &TokenConfig,
) -> impl Iterator<Item = CK_MECHANISM_TYPE> {
    MECHANISMS
        .iter()
        .filter(move |row| row.takes(key_type))
        .filter(move |row| row.uses_with(home, token) & uses_of_class(class) != 0)
        .map(|row| row.kind)
}
