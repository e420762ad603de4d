//! Everything a vault or HSM remembers, as plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use akv_wire::{CertificatePolicy, JsonWebKey, KeyType, ReleasePolicy, RotationPolicy, Tags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::crypto::Material;

/// The three collections of a vault; a Managed HSM has keys only.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// `/keys` and `/deletedkeys`.
    pub keys: Collection<KeyVersion>,
    /// `/secrets` and `/deletedsecrets`.
    pub secrets: Collection<SecretVersion>,
    /// `/certificates` and `/deletedcertificates`.
    pub certificates: Collection<CertificateVersion>,
    /// Counts objects made, for storage order.
    sequence: u64,
}

/// Objects by upper-cased name (a vault's storage order), live and deleted ones together, because
/// a deleted name is still taken.
pub type Collection<V> = BTreeMap<String, Object<V>>;

/// One name with all its versions.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Object<V: Version> {
    /// The name as it was first written.
    pub name: String,
    /// Rank in order of creation.
    pub sequence: u64,
    /// Oldest first; the last is the current one. Never empty, except for a certificate whose
    /// first version is still pending.
    pub versions: Vec<V>,
    /// What belongs to the name rather than to a version.
    pub extra: V::Extra,
    /// Set while the object is deleted.
    pub deleted: Option<Deletion>,
    /// Until when a recovery is not visible yet, Unix seconds.
    pub recovering_until: i64,
}

/// When an object was deleted, and what follows.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was asked for, Unix seconds.
    pub at: i64,
    /// From when on `/deleted…` shows it; before, the object is "being deleted".
    pub settled_at: i64,
    /// When it is purged.
    pub purge_at: i64,
}

/// What versions of the three kinds have in common.
pub trait Version: Clone + Serialize + DeserializeOwned {
    /// What belongs to the name.
    type Extra: Clone + Default + Serialize + DeserializeOwned;

    /// The version's identifier: 32 hex digits.
    fn id(&self) -> &str;
}

/// Life-cycle attributes that every version of every kind has.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Life {
    /// Whether it may be used.
    pub enabled: bool,
    /// Not usable before, Unix seconds.
    pub nbf: Option<i64>,
    /// Not usable from here on, Unix seconds.
    pub exp: Option<i64>,
    /// When the version was made.
    pub created: i64,
    /// When it was last changed.
    pub updated: i64,
}

/// One version of a key.
#[derive(Clone, Serialize, Deserialize)]
pub struct KeyVersion {
    /// Identifier.
    pub id: String,
    /// Key type as shown.
    pub kty: KeyType,
    /// Allowed operations as shown.
    pub key_ops: Vec<String>,
    /// The key itself.
    #[serde(with = "shared")]
    pub material: Arc<Material>,
    /// Life cycle.
    pub life: Life,
    /// Whether it can be released.
    pub exportable: bool,
    /// Release policy.
    pub release_policy: Option<ReleasePolicy>,
    /// Tags.
    pub tags: Option<Tags>,
    /// Whether it is the key of a certificate.
    pub managed: bool,
}

/// One version of a secret.
#[derive(Clone, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Identifier.
    pub id: String,
    /// The value.
    pub value: zeroize::Zeroizing<String>,
    /// Media type.
    pub content_type: Option<String>,
    /// Life cycle.
    pub life: Life,
    /// Tags.
    pub tags: Option<Tags>,
    /// Whether it is the secret of a certificate.
    pub managed: bool,
}

/// One version of a certificate.
#[derive(Clone, Serialize, Deserialize)]
pub struct CertificateVersion {
    /// Identifier.
    pub id: String,
    /// The leaf, DER.
    pub der: Vec<u8>,
    /// Life cycle; `nbf` and `exp` are the certificate's own.
    pub life: Life,
    /// Tags.
    pub tags: Option<Tags>,
    /// Whether the chain keeps its order.
    pub preserve_order: Option<bool>,
}

/// What belongs to a key's name.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct KeyExtra {
    /// The rotation policy, where one was set.
    pub rotation: Option<RotationPolicy>,
}

/// What belongs to a certificate's name.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct CertificateExtra {
    /// The policy.
    pub policy: CertificatePolicy,
    /// The operation that makes the next version, or made the last.
    pub pending: Option<Pending>,
}

/// A certificate being made.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pending {
    /// Identifier of the request.
    pub request_id: String,
    /// `Self`, `Unknown` or an issuer's name.
    pub issuer: String,
    /// The signing request, DER.
    pub csr: Vec<u8>,
    /// The key that waits for its certificate.
    #[serde(with = "shared")]
    pub material: Arc<Material>,
    /// Tags of the version to come.
    pub tags: Option<Tags>,
    /// Whether the version to come is enabled.
    pub enabled: bool,
    /// When a self-signed certificate is ready, Unix seconds.
    pub ready_at: i64,
    /// The versions that appear then.
    pub ready: Option<Box<(CertificateVersion, KeyVersion, SecretVersion)>>,
    /// Whether it was cancelled.
    pub cancelled: bool,
    /// Whether it is done.
    pub completed: bool,
}

impl Version for KeyVersion {
    type Extra = KeyExtra;

    fn id(&self) -> &str {
        &self.id
    }
}

impl Version for SecretVersion {
    type Extra = ();

    fn id(&self) -> &str {
        &self.id
    }
}

impl Version for CertificateVersion {
    type Extra = CertificateExtra;

    fn id(&self) -> &str {
        &self.id
    }
}

impl State {
    /// The next rank in order of creation.
    pub fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

impl<V: Version> Object<V> {
    /// A new name without versions.
    pub fn new(name: &str, sequence: u64) -> Self {
        Self {
            name: name.to_owned(),
            sequence,
            versions: Vec::new(),
            extra: V::Extra::default(),
            deleted: None,
            recovering_until: 0,
        }
    }

    /// The version with this identifier, the current one for an empty identifier.
    pub fn version(&self, id: &str) -> Option<&V> {
        if id.is_empty() {
            self.versions.last()
        } else {
            self.versions.iter().find(|version| version.id().eq_ignore_ascii_case(id))
        }
    }

    /// The same, to be changed.
    pub fn version_mut(&mut self, id: &str) -> Option<&mut V> {
        if id.is_empty() {
            self.versions.last_mut()
        } else {
            self.versions.iter_mut().find(|version| version.id().eq_ignore_ascii_case(id))
        }
    }
}

impl Life {
    /// A version made now.
    pub fn new(now: i64, enabled: bool, nbf: Option<i64>, exp: Option<i64>) -> Self {
        Self { enabled, nbf, exp, created: now, updated: now }
    }
}

impl KeyVersion {
    /// The public JWK, without `kid`.
    pub fn jwk(&self) -> JsonWebKey {
        JsonWebKey {
            kty: Some(self.kty.as_str().to_owned()),
            key_ops: Some(self.key_ops.clone()),
            ..self.material.public()
        }
    }
}

/// Key material behind its counted reference.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::crypto::Material;

    pub fn serialize<S: Serializer>(key: &Arc<Material>, to: S) -> Result<S::Ok, S::Error> {
        key.as_ref().serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Material>, D::Error> {
        Material::deserialize(from).map(Arc::new)
    }
}

/// The key of a collection: names are case-insensitive.
pub fn folded(name: &str) -> String {
    name.to_ascii_uppercase()
}
