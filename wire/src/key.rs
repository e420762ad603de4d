//! Key bundles, listings, and the bodies that make and change keys.

use serde::{Deserialize, Serialize};

use crate::Tags;
use crate::base64url::Base64Url;
use crate::jwk::JsonWebKey;

/// What the service tells about a key besides its JWK. Times are Unix seconds.
///
/// In a request only `enabled`, `nbf`, `exp` and `exportable` mean anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAttributes {
    /// Whether the key may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Bits of an RSA or AES key (2025-07-01).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// Not usable before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Not usable from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// When this version was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// When this version was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<i64>,
    /// What deletion means here, for example `CustomizedRecoverable+Purgeable`.
    #[serde(rename = "recoveryLevel", default, skip_serializing_if = "Option::is_none")]
    pub recovery_level: Option<String>,
    /// Days a deleted key can be recovered (7.1).
    #[serde(rename = "recoverableDays", default, skip_serializing_if = "Option::is_none")]
    pub recoverable_days: Option<u32>,
    /// Whether the private key can be released (7.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable: Option<bool>,
    /// `0` software, `1` FIPS 140-2 level 2, `2` FIPS 140-3 level 3 (7.5, vault only).
    #[serde(rename = "hsmPlatform", default, skip_serializing_if = "Option::is_none")]
    pub hsm_platform: Option<String>,
    /// Proof that an HSM made and holds the key (7.6); only in the answer of GET `…/attestation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<KeyAttestation>,
}

/// What an HSM states of a key of its own. The blobs are in the format of the HSM's vendor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAttestation {
    /// Certificates that the statements are checked with, PEM.
    #[serde(rename = "certificatePemFile", default, skip_serializing_if = "Option::is_none")]
    pub certificate_pem_file: Option<Base64Url>,
    /// The statement about the private (or secret) key.
    #[serde(rename = "privateKeyAttestation", default, skip_serializing_if = "Option::is_none")]
    pub private_key_attestation: Option<Base64Url>,
    /// The statement about the public key; absent for a secret key.
    #[serde(rename = "publicKeyAttestation", default, skip_serializing_if = "Option::is_none")]
    pub public_key_attestation: Option<Base64Url>,
    /// Version of the statements' format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The conditions under which a key may be released.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePolicy {
    /// Media type of `data`: `application/json; charset=utf-8`.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The policy, a JSON document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Base64Url>,
    /// Whether the policy is final.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

/// One version of a key: response of create, import, get, update, rotate, recover, restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyBundle {
    /// The public part.
    #[serde(default)]
    pub key: JsonWebKey,
    /// Attributes.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// True on the key of a certificate, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// Release policy, where the key has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<ReleasePolicy>,
}

/// One row of a key listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyItem {
    /// Identifier: without version in `/keys`, with it in `/keys/{name}/versions`.
    #[serde(default)]
    pub kid: String,
    /// Attributes.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// True on the key of a certificate, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
}

/// A deleted key that can still be recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedKeyBundle {
    /// URL to recover or purge it.
    #[serde(rename = "recoveryId", default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<String>,
    /// When it was deleted, Unix seconds.
    #[serde(rename = "deletedDate", default, skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<i64>,
    /// When it will be purged, Unix seconds.
    #[serde(rename = "scheduledPurgeDate", default, skip_serializing_if = "Option::is_none")]
    pub scheduled_purge_date: Option<i64>,
    /// The key as it was.
    #[serde(flatten)]
    pub bundle: KeyBundle,
}

/// One row of `/deletedkeys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedKeyItem {
    /// URL to recover or purge it.
    #[serde(rename = "recoveryId", default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<String>,
    /// When it was deleted, Unix seconds.
    #[serde(rename = "deletedDate", default, skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<i64>,
    /// When it will be purged, Unix seconds.
    #[serde(rename = "scheduledPurgeDate", default, skip_serializing_if = "Option::is_none")]
    pub scheduled_purge_date: Option<i64>,
    /// The row as it was.
    #[serde(flatten)]
    pub item: KeyItem,
}

/// POST `/keys/{name}/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCreateParameters {
    /// Key type: see `KeyType`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// Bits: RSA 2048, 3072, 4096; AES 128, 192, 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// RSA public exponent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_exponent: Option<u64>,
    /// Curve: see `Curve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// Allowed operations; the service's default for the type when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// `enabled`, `nbf`, `exp`, `exportable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Release policy of an exportable key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<ReleasePolicy>,
}

/// PUT `/keys/{name}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyImportParameters {
    /// Whether a vault shall keep the key in its HSM.
    #[serde(rename = "Hsm", default, skip_serializing_if = "Option::is_none")]
    pub hsm: Option<bool>,
    /// The key with its private members, or a transfer blob in `key_hsm`.
    #[serde(default)]
    pub key: JsonWebKey,
    /// `enabled`, `nbf`, `exp`, `exportable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Release policy of an exportable key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<ReleasePolicy>,
}

/// PATCH `/keys/{name}/{version}`: only members that are present change; `tags` replaces all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUpdateParameters {
    /// Allowed operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_ops: Option<Vec<String>>,
    /// `enabled`, `nbf`, `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// All tags the key shall have afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Release policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_policy: Option<ReleasePolicy>,
}

/// POST `/keys/restore`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRestoreParameters {
    /// The blob that backup gave.
    pub value: Base64Url,
}

/// POST `/keys/{name}/{version}/release`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReleaseParameters {
    /// Attestation token of the environment that shall get the key (a JWT).
    #[serde(default)]
    pub target: String,
    /// Freshness value, repeated in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// How the key is encrypted: `CKM_RSA_AES_KEY_WRAP` and two more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enc: Option<String>,
}

/// Response of release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReleaseResult {
    /// A JWS whose payload holds the encrypted key.
    pub value: String,
}

/// GET and PUT `/keys/{name}/rotationpolicy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationPolicy {
    /// Identifier; responses only. Absolute on a vault, relative on a Managed HSM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What happens when.
    #[serde(rename = "lifetimeActions", default, skip_serializing_if = "Option::is_none")]
    pub lifetime_actions: Option<Vec<LifetimeAction>>,
    /// Expiry of new versions, and times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<RotationPolicyAttributes>,
}

/// One action of a rotation policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifetimeAction {
    /// When.
    #[serde(default)]
    pub trigger: LifetimeTrigger,
    /// What.
    #[serde(default)]
    pub action: LifetimeActionType,
}

/// When a lifetime action runs: ISO 8601 durations, one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifetimeTrigger {
    /// After the version was made.
    #[serde(rename = "timeAfterCreate", default, skip_serializing_if = "Option::is_none")]
    pub time_after_create: Option<String>,
    /// Before the version expires.
    #[serde(rename = "timeBeforeExpiry", default, skip_serializing_if = "Option::is_none")]
    pub time_before_expiry: Option<String>,
}

/// What a lifetime action does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifetimeActionType {
    /// `Rotate` or `Notify`, in any case.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// Attributes of a rotation policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationPolicyAttributes {
    /// Life of a new version, an ISO 8601 duration.
    #[serde(rename = "expiryTime", default, skip_serializing_if = "Option::is_none")]
    pub expiry_time: Option<String>,
    /// When the policy was made, Unix seconds; responses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// When the policy was last changed, Unix seconds; responses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<i64>,
}

impl KeyItem {
    /// The name and version in `kid`, the version empty where `kid` has none.
    pub fn name_and_version(&self) -> Option<(&str, &str)> {
        name_and_version(&self.kid)
    }
}

/// Takes the name and version out of an object identifier
/// (`https://{host}/{collection}/{name}[/{version}]`).
pub(crate) fn name_and_version(id: &str) -> Option<(&str, &str)> {
    let (_, rest) = id.split_once("://")?;
    let mut segments = rest.split('/').skip(2);
    let name = segments.next().filter(|name| !name.is_empty())?;
    let version = segments.next().unwrap_or_default();
    segments.next().is_none().then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_taken_apart() {
        for (id, want) in [
            ("https://h/keys/n", Some(("n", ""))),
            ("https://h:443/keys/n/", Some(("n", ""))),
            ("https://h/keys/n/v", Some(("n", "v"))),
            ("https://h/keys/n/v/sign", None),
            ("https://h/keys/", None),
            ("nonsense", None),
        ] {
            assert_eq!(name_and_version(id), want, "{id}");
        }
    }

    #[test]
    fn members_are_written_in_the_order_of_a_vault() {
        let deleted = DeletedKeyBundle {
            recovery_id: Some("r".into()),
            deleted_date: Some(1),
            scheduled_purge_date: Some(2),
            bundle: KeyBundle {
                key: JsonWebKey { kty: Some("EC".into()), ..JsonWebKey::default() },
                attributes: KeyAttributes {
                    enabled: Some(true),
                    created: Some(3),
                    ..KeyAttributes::default()
                },
                ..KeyBundle::default()
            },
        };
        assert_eq!(
            serde_json::to_string(&deleted).expect("json"),
            concat!(
                r#"{"recoveryId":"r","deletedDate":1,"scheduledPurgeDate":2,"#,
                r#""key":{"kty":"EC"},"attributes":{"enabled":true,"created":3}}"#
            )
        );
        let text = serde_json::to_string(&deleted).expect("json");
        assert_eq!(serde_json::from_str::<DeletedKeyBundle>(&text).expect("json"), deleted);
    }

    #[test]
    fn a_page_tells_its_end_with_null_or_by_omission() {
        let page: crate::Page<KeyItem> =
            serde_json::from_str(r#"{"value":[{"kid":"https://h/keys/n"}],"nextLink":null}"#)
                .expect("json");
        assert_eq!(page.value[0].name_and_version(), Some(("n", "")));
        let page: crate::Page<KeyItem> = serde_json::from_str(r#"{"value":[]}"#).expect("json");
        assert_eq!(page.next_link, None);
    }
}
