//! Secrets (vault only): for certificates they hold the chain, and the key where it is exportable.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::Tags;
use crate::key::KeyAttributes;

/// One version of a secret, with its value.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretBundle {
    /// The value. For a certificate: base64 of a PFX with an empty password, or PEM text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Media type; `application/x-pkcs12` or `application/x-pem-file` for a certificate.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// True on the secret of a certificate, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// Attributes.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// The key of the same certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
}

/// One row of a secret listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretItem {
    /// Media type.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Identifier: without version in `/secrets`, with it in `/secrets/{name}/versions`.
    #[serde(default)]
    pub id: String,
    /// True on the secret of a certificate, absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// Attributes.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

/// A deleted secret that can still be recovered (without its value).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedSecretBundle {
    /// URL to recover or purge it.
    #[serde(rename = "recoveryId", default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<String>,
    /// When it was deleted, Unix seconds.
    #[serde(rename = "deletedDate", default, skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<i64>,
    /// When it will be purged, Unix seconds.
    #[serde(rename = "scheduledPurgeDate", default, skip_serializing_if = "Option::is_none")]
    pub scheduled_purge_date: Option<i64>,
    /// The secret as it was.
    #[serde(flatten)]
    pub bundle: SecretBundle,
}

/// One row of `/deletedsecrets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedSecretItem {
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
    pub item: SecretItem,
}

/// PUT `/secrets/{name}`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSetParameters {
    /// The value, at most 25 kB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Media type.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `enabled`, `nbf`, `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

/// PATCH `/secrets/{name}/{version}`: only members that are present change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUpdateParameters {
    /// Media type.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// `enabled`, `nbf`, `exp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// All tags the secret shall have afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

impl Drop for SecretBundle {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl Drop for SecretSetParameters {
    fn drop(&mut self) {
        self.value.zeroize();
    }
}

impl fmt::Debug for SecretBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretBundle")
            .field("id", &self.id)
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SecretSetParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSetParameters")
            .field("content_type", &self.content_type)
            .finish_non_exhaustive()
    }
}
