//! Certificates (vault only).

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::Tags;
use crate::base64url::{Base64Url, InvalidBase64Url};
use crate::key::KeyAttributes;

/// One version of a certificate. Its key and secret share its name and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateBundle {
    /// Identifier: `https://{host}/certificates/{name}/{version}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// SHA-1 of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t: Option<Base64Url>,
    /// The leaf alone: DER in standard base64 **with** padding; see [`CertificateBundle::der`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cer: Option<String>,
    /// Media type of the secret.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Attributes; `nbf` and `exp` are the certificate's own.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// How the certificate was made and is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<CertificatePolicy>,
    /// The operation that made it, while it is remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<IdReference>,
    /// Whether the chain keeps its order (7.5).
    #[serde(rename = "preserveCertOrder", default, skip_serializing_if = "Option::is_none")]
    pub preserve_cert_order: Option<bool>,
}

/// One row of a certificate listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateItem {
    /// Identifier: without version in `/certificates`, with it in `…/versions`.
    #[serde(default)]
    pub id: String,
    /// SHA-1 of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x5t: Option<Base64Url>,
    /// Attributes.
    #[serde(default)]
    pub attributes: KeyAttributes,
    /// Tags; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Subject, in newer services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// A deleted certificate that can still be recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedCertificateBundle {
    /// URL to recover or purge it.
    #[serde(rename = "recoveryId", default, skip_serializing_if = "Option::is_none")]
    pub recovery_id: Option<String>,
    /// When it was deleted, Unix seconds.
    #[serde(rename = "deletedDate", default, skip_serializing_if = "Option::is_none")]
    pub deleted_date: Option<i64>,
    /// When it will be purged, Unix seconds.
    #[serde(rename = "scheduledPurgeDate", default, skip_serializing_if = "Option::is_none")]
    pub scheduled_purge_date: Option<i64>,
    /// The certificate as it was.
    #[serde(flatten)]
    pub bundle: CertificateBundle,
}

/// One row of `/deletedcertificates`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedCertificateItem {
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
    pub item: CertificateItem,
}

/// An object that is only pointed at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdReference {
    /// Identifier.
    #[serde(default)]
    pub id: String,
}

/// How a certificate is made and renewed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificatePolicy {
    /// Identifier; responses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_props: Option<CertificateKeyProperties>,
    /// The secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_props: Option<CertificateSecretProperties>,
    /// The certificate's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x509_props: Option<X509Properties>,
    /// What happens near expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_actions: Option<Vec<CertificateLifetimeAction>>,
    /// Who signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Issuer>,
    /// `enabled`, `created`, `updated`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
}

/// The key of a certificate policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateKeyProperties {
    /// Whether the secret holds the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exportable: Option<bool>,
    /// Key type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// Bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_size: Option<u32>,
    /// Whether renewal keeps the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse_key: Option<bool>,
    /// Curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
}

/// The secret of a certificate policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSecretProperties {
    /// `application/x-pkcs12` or `application/x-pem-file`.
    #[serde(rename = "contentType", default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// The content of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct X509Properties {
    /// Subject, RFC 4514 style: `CN=example`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Alternative names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sans: Option<SubjectAlternativeNames>,
    /// Extended key usages, dotted decimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ekus: Option<Vec<String>>,
    /// Key usages, RFC 5280 names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_usage: Option<Vec<String>>,
    /// Life in months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_months: Option<u32>,
    /// Basic constraints; responses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_constraints: Option<BasicConstraints>,
}

/// Subject alternative names by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAlternativeNames {
    /// RFC 822 names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emails: Option<Vec<String>>,
    /// DNS names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_names: Option<Vec<String>>,
    /// User principal names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upns: Option<Vec<String>>,
}

/// The basic constraints extension.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BasicConstraints {
    /// Whether the subject is a certificate authority.
    #[serde(default)]
    pub ca: bool,
}

/// Who signs a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuer {
    /// `Self`, `Unknown`, or the name of a configured issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Certificate type of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cty: Option<String>,
    /// Whether the certificate goes to transparency logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_transparency: Option<bool>,
}

/// What happens near a certificate's expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateLifetimeAction {
    /// When.
    #[serde(default)]
    pub trigger: CertificateTrigger,
    /// What.
    #[serde(default)]
    pub action: CertificateAction,
}

/// When a certificate's lifetime action runs: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateTrigger {
    /// After this share of the life, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_percentage: Option<u32>,
    /// This many days before the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_before_expiry: Option<u32>,
}

/// What a certificate's lifetime action does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateAction {
    /// `AutoRenew` or `EmailContacts`.
    #[serde(default)]
    pub action_type: String,
}

/// POST `/certificates/{name}/create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateCreateParameters {
    /// The policy to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<CertificatePolicy>,
    /// `enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Whether the chain keeps its order (7.5).
    #[serde(rename = "preserveCertOrder", default, skip_serializing_if = "Option::is_none")]
    pub preserve_cert_order: Option<bool>,
}

/// POST `/certificates/{name}/import`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateImportParameters {
    /// Base64 of a PFX, or PEM text with key and certificates.
    #[serde(default)]
    pub value: String,
    /// Password of the PFX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pwd: Option<String>,
    /// The policy to record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<CertificatePolicy>,
    /// `enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
    /// Whether the chain keeps its order (7.5).
    #[serde(rename = "preserveCertOrder", default, skip_serializing_if = "Option::is_none")]
    pub preserve_cert_order: Option<bool>,
}

/// POST `/certificates/{name}/pending/merge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateMergeParameters {
    /// The leaf first, then its chain: DER, each in standard base64.
    #[serde(default)]
    pub x5c: Vec<String>,
    /// `enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

/// PATCH `/certificates/{name}/{version}`: only members that are present change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateUpdateParameters {
    /// The policy to follow from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<CertificatePolicy>,
    /// `enabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<KeyAttributes>,
    /// All tags the certificate shall have afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

/// A certificate being made: response of create (202) and of GET `…/pending`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOperation {
    /// Identifier of the operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Issuer>,
    /// The certificate signing request: DER in standard base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csr: Option<String>,
    /// Whether somebody asked to stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancellation_requested: Option<bool>,
    /// `inProgress`, `completed`, `cancelled`, `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorDetail>,
    /// The finished certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Identifier of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl CertificateBundle {
    /// The leaf certificate, DER; `None` when there is none yet.
    pub fn der(&self) -> Option<Result<Vec<u8>, InvalidBase64Url>> {
        let text = self.cer.as_deref()?;
        Some(BASE64_STANDARD.decode(text).map_err(|_| InvalidBase64Url))
    }
}

impl Drop for CertificateImportParameters {
    fn drop(&mut self) {
        self.value.zeroize();
        self.pwd.zeroize();
    }
}

impl fmt::Debug for CertificateImportParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateImportParameters")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
