//! Everything a service refuses, by meaning. The dialects turn it into status, code and words.

use akv_wire::{EncryptionAlgorithm, SignatureAlgorithm};

/// Which collection an object is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noun {
    /// A key.
    Key,
    /// A secret.
    Secret,
    /// A certificate.
    Certificate,
}

impl Noun {
    /// `Key`.
    pub fn title(self) -> &'static str {
        match self {
            Self::Key => "Key",
            Self::Secret => "Secret",
            Self::Certificate => "Certificate",
        }
    }

    /// `key`.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Secret => "secret",
            Self::Certificate => "certificate",
        }
    }

    /// `keys`: the first path segment.
    pub fn collection(self) -> &'static str {
        match self {
            Self::Key => "keys",
            Self::Secret => "secrets",
            Self::Certificate => "certificates",
        }
    }

    /// `deletedkeys`.
    pub fn deleted_collection(self) -> &'static str {
        match self {
            Self::Key => "deletedkeys",
            Self::Secret => "deletedsecrets",
            Self::Certificate => "deletedcertificates",
        }
    }
}

/// Why a bearer token is no good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// There is none.
    Missing,
    /// It is no JSON web token, or its signature is not the authority's.
    Invalid,
    /// Another tenant issued it.
    Issuer {
        /// The tenant's issuer.
        expected: String,
        /// Whose token it is.
        found: String,
    },
    /// It is for another service.
    Audience(String),
    /// Its time is over.
    Expired,
    /// It was not asked for with the claims of this claims request (base64 of its JSON).
    Claims(String),
}

/// A refusal.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// 401 with a challenge.
    Unauthorized(TokenFault),
    /// The principal lacks a permission.
    Forbidden(Denial),
    /// No `api-version`.
    ApiVersionMissing,
    /// An `api-version` nobody knows.
    ApiVersionUnknown(String),
    /// No such path.
    NoRoute,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// A path segment that names no action of this service or version.
    ActionNotSupported(String),
    /// A part of the contract that the emulator leaves out on purpose.
    NotSupported(&'static str),
    /// Attestation of a key that no HSM holds.
    NotAttested(String),
    /// The name has illegal characters.
    NameInvalid(String),
    /// The name is so wrong that the front end refuses it (percent, empty).
    FrontEnd,
    /// The body is no JSON object.
    BodyInvalid,
    /// The body is larger than the service reads.
    BodyTooLarge,
    /// A member the contract does not have.
    MemberUnknown(String),
    /// A member with a wrong type or value.
    MemberInvalid(String),
    /// A member that is needed.
    MemberMissing(&'static str),
    /// A member that is no base64url.
    NotBase64Url(&'static str),
    /// The key to import is no key.
    JwkInvalid(String),
    /// Any other bad parameter, in words.
    BadParameter(String),
    /// Digest of a wrong length.
    DigestLength {
        /// Request member.
        member: &'static str,
        /// Bytes given.
        given: usize,
        /// The algorithm.
        alg: SignatureAlgorithm,
        /// Bytes wanted.
        want: Option<usize>,
    },
    /// ECDSA algorithm and key of different curves.
    CurveMismatch {
        /// The key.
        kid: String,
        /// Its curve, as it shows.
        curve: String,
        /// The algorithm, as it was asked for.
        alg: String,
        /// The algorithm's curve.
        of: &'static str,
    },
    /// Signature algorithm and key of different kinds.
    SignatureMismatch {
        /// The key.
        kid: String,
        /// The algorithm.
        alg: SignatureAlgorithm,
    },
    /// Encryption algorithm and key of different kinds.
    EncryptionMismatch {
        /// The key.
        kid: String,
        /// The algorithm.
        alg: EncryptionAlgorithm,
    },
    /// The ciphertext does not decrypt.
    Undecryptable,
    /// `count` of `/rng` outside 1 to 128.
    RandomCount,
    /// Nothing by that name (and version).
    NotFound {
        /// Collection.
        noun: Noun,
        /// `name` or `name/version`.
        id: String,
        /// The path that was looked for, after the collection.
        doubled: bool,
    },
    /// Nothing deleted by that name.
    DeletedNotFound {
        /// Collection.
        noun: Noun,
        /// Name.
        name: String,
        /// True where the live collection's wording is used (recover).
        live_wording: bool,
    },
    /// No operation is pending on this certificate.
    PendingNotFound(String),
    /// A deletion is still running.
    BeingDeleted {
        /// Collection.
        noun: Noun,
        /// Name.
        name: String,
        /// Whether the request would have made a new object.
        creating: bool,
    },
    /// The name belongs to a deleted object.
    DeletedButRecoverable {
        /// Collection.
        noun: Noun,
        /// Name.
        name: String,
    },
    /// Recover of an object that is not deleted.
    NotDeleted {
        /// Collection.
        noun: Noun,
        /// Name.
        name: String,
    },
    /// Restore over an existing name.
    RestoreConflict {
        /// Collection.
        noun: Noun,
        /// Identifier of the version in the blob.
        id: String,
    },
    /// Another conflict, in words.
    Conflict(String),
    /// A blob that is none of ours.
    BackupMalformed,
    /// `key_ops` does not have it.
    OperationForbidden(&'static str),
    /// The object is disabled.
    Disabled {
        /// Collection.
        noun: Noun,
        /// Operation.
        operation: &'static str,
    },
    /// `exp` has passed.
    Expired {
        /// Collection.
        noun: Noun,
        /// Operation.
        operation: &'static str,
    },
    /// `nbf` has not come.
    NotYetValid {
        /// Collection.
        noun: Noun,
        /// Operation.
        operation: &'static str,
    },
    /// More versions than a backup holds.
    TooManyVersions {
        /// Collection.
        noun: Noun,
        /// Versions there are.
        versions: usize,
        /// Versions a backup holds.
        most: usize,
    },
    /// A Managed HSM is full: of keys, or of versions of this key.
    Full {
        /// What there may not be more of.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// A change to an immutable release policy.
    ReleasePolicyImmutable,
    /// Too many requests.
    Throttled,
    /// The emulator failed.
    Internal(String),
}

/// A missing permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Who asks: `appid=…;oid=…;iss=…`.
    pub caller: String,
    /// Collection, for example `keys`.
    pub collection: &'static str,
    /// Access-policy permission, for example `sign`.
    pub permission: &'static str,
    /// Data action of a role.
    pub action: String,
    /// The scope asked for, for example `/keys/name`.
    pub scope: String,
    /// Which mechanism denies.
    pub by: DeniedBy,
}

/// Which mechanism denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeniedBy {
    /// A vault's access policy.
    Policy,
    /// Role assignments.
    Rbac,
    /// The firewall.
    Firewall,
    /// Public network access is off.
    Connection,
}
