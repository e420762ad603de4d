//! Key material as data: for backups.

use akv_wire::{Base64Url, JsonWebKey, KeyType};
use openssl::pkey::PKey;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::Material;

#[derive(Serialize, Deserialize)]
struct Stored {
    kty: KeyType,
    /// PKCS#8, or the bytes of a secret key.
    private: Base64Url,
    /// The public members as they are shown.
    public: JsonWebKey,
}

impl Serialize for Material {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let private = self.to_private_bytes().map_err(S::Error::custom)?;
        let private = Base64Url::from(private.as_slice());
        Stored { kty: self.key_type(false), private, public: self.public() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Material {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let bytes = Zeroizing::new(stored.private.into_bytes());
        if stored.kty.is_oct() {
            return Ok(Self::Oct(bytes));
        }
        let pair = PKey::private_key_from_pkcs8(&bytes).map_err(D::Error::custom)?;
        let mut material =
            Self::from_private_key(pair).map_err(|fault| D::Error::custom(format!("{fault:?}")))?;
        if let Self::Rsa { public, .. } | Self::Ec { public, .. } = &mut material {
            *public = stored.public;
        }
        Ok(material)
    }
}
