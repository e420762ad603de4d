//! The REST contract of Azure Key Vault and Managed HSM as serde types.
//!
//! Used by both ends: the PKCS#11 module, which writes requests and reads responses, and the
//! emulator, which does the opposite. There is no behaviour here beyond naming things: no
//! transport, no policy, no cryptography.
//!
//! Reading is liberal: unknown members are ignored, every member the service has been seen to
//! leave out is optional, and open sets (`kty`, `crv`, `alg`, `key_ops`, `recoveryLevel`) stay
//! strings beside a parsing accessor, so that a value invented tomorrow does not hide a key.
//! Writing is compact: an absent member is omitted. Members are declared in the order a vault
//! writes them (a Managed HSM sorts alphabetically).

mod algorithm;
mod base64url;
mod certificate;
mod error;
mod jwk;
mod key;
mod names;
mod operation;
mod secret;
mod version;

use std::collections::BTreeMap;

pub use algorithm::{Digest, EncryptionAlgorithm, SignatureAlgorithm, SymmetricMode};
pub use base64url::{Base64Url, InvalidBase64Url};
pub use certificate::{
    BasicConstraints, CertificateAction, CertificateBundle, CertificateCreateParameters,
    CertificateImportParameters, CertificateItem, CertificateKeyProperties,
    CertificateLifetimeAction, CertificateMergeParameters, CertificateOperation, CertificatePolicy,
    CertificateSecretProperties, CertificateTrigger, CertificateUpdateParameters,
    DeletedCertificateBundle, DeletedCertificateItem, IdReference, Issuer, SubjectAlternativeNames,
    X509Properties,
};
pub use error::{ErrorBody, ErrorDetail, InnerError};
pub use jwk::{Curve, JsonWebKey, KeyType, LEGACY_CURVE, fixed_width, without_leading_zeros};
pub use key::{
    DeletedKeyBundle, DeletedKeyItem, KeyAttestation, KeyAttributes, KeyBundle,
    KeyCreateParameters, KeyImportParameters, KeyItem, KeyReleaseParameters, KeyReleaseResult,
    KeyRestoreParameters, KeyUpdateParameters, LifetimeAction, LifetimeActionType, LifetimeTrigger,
    ReleasePolicy, RotationPolicy, RotationPolicyAttributes,
};
pub use names::UnknownName;
pub use operation::{
    BackupResult, KeyOperationParameters, KeyOperationResult, KeyVerifyParameters, KeyVerifyResult,
    RandomBytes, RandomParameters,
};
pub use secret::{
    DeletedSecretBundle, DeletedSecretItem, SecretBundle, SecretItem, SecretSetParameters,
    SecretUpdateParameters,
};
pub use version::{ApiVersion, Feature};

use serde::{Deserialize, Serialize};

/// Caller-defined name and value pairs: at most 15, each of at most 256 characters.
pub type Tags = BTreeMap<String, String>;

/// One page of a listing.
///
/// A page may be short or even empty and still carry a link: go on until there is none. A vault
/// writes `"nextLink": null` on the last page (as does this type), a Managed HSM omits it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items of this page, in the service's storage order (never a chronological one).
    #[serde(default = "Vec::new")]
    pub value: Vec<T>,
    /// Absolute URL of the next page.
    #[serde(rename = "nextLink", default)]
    pub next_link: Option<String>,
}
