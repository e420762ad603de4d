//! What a token holds: keys of the service, certificates, and the session objects of this
//! process, as PKCS#11 objects.

pub mod attribute;
pub mod certificate;
pub mod data;
pub mod dates;
pub mod given;
pub mod naming;
pub mod nested;
pub mod profile;
pub mod project;
pub mod session_key;
pub mod session_secret;
pub mod store;
pub mod tag;
pub mod template;
mod values;

use std::sync::Arc;

use cryptoki_sys::*;

pub use values::Attributes;

use crate::{
    crypto::{Curve, PrivateKey, PublicKey, symmetric::SecretKey},
    error::{Error, Result},
    vault::KeyRef,
};
use attribute::{Classes, name_of, row_of};

/// One object. Immutable: a change makes a new one under the same handle.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its values.
    pub attributes: Attributes,
    /// What it can be used with.
    pub material: Material,
    /// The session that made it, for a session object; gone with that session.
    pub owner: Option<CK_SESSION_HANDLE>,
}

/// What an object can be used with.
#[derive(Clone, Debug)]
pub enum Material {
    /// A private or secret key that stays at the service.
    Vault(Arc<VaultKey>),
    /// A private key held in this process.
    Private(PrivateKey),
    /// A secret key held in this process.
    Secret(SecretKey),
    /// A public key: everything it does is done here.
    Public(PublicKey),
    /// Nothing: certificates, data, profiles.
    None,
}

/// A key version at the service.
#[derive(Clone, Debug)]
pub struct VaultKey {
    /// The key's name, as the service spells it.
    pub name: String,
    /// 32 hex digits; empty where requests name no version and mean the current one.
    pub version: String,
    /// Its identifier as the service wrote it: `https://{host}/keys/{name}/{version}`.
    pub id: String,
    /// What kind of key it is.
    pub kind: VaultKeyKind,
    /// Whether it is on secp256k1 and from before 7.0: it signs by that algorithm's old name.
    pub legacy: bool,
}

/// The kinds of key a service keeps.
#[derive(Clone, Debug)]
pub enum VaultKeyKind {
    /// RSA, with its public key.
    Rsa(PublicKey),
    /// Elliptic curve, with its public key.
    Ec(Curve, PublicKey),
    /// A secret key: AES, or a generic secret that only signs; with its size in bits where that is
    /// known.
    Secret(Option<u32>),
}

impl VaultKey {
    /// What requests name it.
    pub fn reference(&self) -> KeyRef<'_> {
        let version = Some(self.version.as_str()).filter(|version| !version.is_empty());
        KeyRef { name: &self.name, version }
    }

    /// The public key of a pair.
    pub fn public(&self) -> Option<&PublicKey> {
        match &self.kind {
            VaultKeyKind::Rsa(public) | VaultKeyKind::Ec(_, public) => Some(public),
            VaultKeyKind::Secret(_) => None,
        }
    }
}

impl Object {
    /// CKA_CLASS.
    pub fn class(&self) -> CK_OBJECT_CLASS {
        self.attributes.ulong(CKA_CLASS).unwrap_or(CK_UNAVAILABLE)
    }

    /// CKA_KEY_TYPE of a key.
    pub fn key_type(&self) -> Option<CK_KEY_TYPE> {
        self.attributes.ulong(CKA_KEY_TYPE)
    }

    /// CKA_LABEL for a sentence.
    pub fn label(&self) -> String {
        String::from_utf8_lossy(self.attributes.bytes(CKA_LABEL).unwrap_or_default()).into_owned()
    }

    /// CKA_UNIQUE_ID; a session object has none.
    pub fn unique_id(&self) -> Option<&[u8]> {
        self.attributes.bytes(CKA_UNIQUE_ID)
    }

    /// Whether it must stay hidden from a session that has not logged in.
    pub fn is_private(&self) -> bool {
        self.attributes.is(CKA_PRIVATE)
    }

    /// The key version at the service this object stands for, also of a public key.
    pub fn vault_key(&self) -> Option<&Arc<VaultKey>> {
        match &self.material {
            Material::Vault(key) => Some(key),
            Material::Private(_) | Material::Secret(_) | Material::Public(_) | Material::None => {
                None
            }
        }
    }

    /// Whether both objects are of one class and hold the same public key.
    pub fn is_twin(&self, other: &Object) -> bool {
        self.class() == other.class()
            && self
                .attributes
                .bytes(CKA_PUBLIC_KEY_INFO)
                .is_some_and(|info| other.attributes.bytes(CKA_PUBLIC_KEY_INFO) == Some(info))
    }

    /// The encoded value of an attribute, for C_GetAttributeValue.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_SENSITIVE for key material that is not given out,
    /// CKR_ATTRIBUTE_TYPE_INVALID for what this object does not have.
    pub fn value(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8]> {
        if let Some(value) = self.attributes.bytes(kind) {
            return Ok(value);
        }
        let class = Classes::of(self.class());
        let secret = row_of(kind).is_some_and(|row| row.secret.has(class));
        // RSA has its secrets in the exponent and the primes, every other key in CKA_VALUE.
        let of_this_type = (kind == CKA_VALUE) != (self.key_type() == Some(CKK_RSA));
        let rv = if secret && of_this_type {
            CKR_ATTRIBUTE_SENSITIVE
        } else {
            CKR_ATTRIBUTE_TYPE_INVALID
        };
        Err(Error::new(rv, format!("{} of '{}' is not given out", name_of(kind), self.label())))
    }

    /// An estimate of the object's size in bytes, for C_GetObjectSize.
    pub fn size(&self) -> usize {
        self.attributes.iter().map(|(_, value)| size_of::<CK_ATTRIBUTE>() + value.len()).sum()
    }
}

/// No class: an object always has one, so this is never seen.
const CK_UNAVAILABLE: CK_ULONG = !0;
