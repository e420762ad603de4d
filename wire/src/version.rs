//! Versions of the data-plane contract, and which of them brought what.

use std::fmt;
use std::str::FromStr;

use crate::names::UnknownName;

/// A value of the mandatory `api-version` query parameter; ordered by age.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiVersion(u8);

/// Everything that some version added: `FEATURES` tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Soft delete: `/deletedkeys`, recover, purge.
    SoftDelete,
    /// Attribute `recoverableDays`.
    RecoverableDays,
    /// `subject` in listings of certificates.
    CertificateSubject,
    /// Secret keys, AES algorithms.
    SecretKeys,
    /// `rotate` and `rotationpolicy`.
    Rotation,
    /// `release`, `release_policy`, attribute `exportable`.
    Release,
    /// `/rng`.
    Random,
    /// `/settings`.
    Settings,
    /// Attribute `hsmPlatform`.
    HsmPlatform,
    /// GET `…/attestation`.
    Attestation,
    /// HS256, HS384, HS512.
    Hmac,
    /// CKM_AES_KEY_WRAP, CKM_AES_KEY_WRAP_PAD.
    CkmKeyWrap,
    /// Attribute `key_size`.
    KeySizeAttribute,
    /// `securewrapkey`, `secureunwrapkey`, `external_key`.
    SecureWrap,
}

/// Every version, oldest first.
const VERSIONS: &[&str] = &[
    "2015-06-01",
    "2016-10-01",
    "7.0-preview",
    "7.0",
    "7.1-preview",
    "7.1",
    "7.2-preview",
    "7.2",
    "7.3-preview",
    "7.3",
    "7.4-preview.1",
    "7.4",
    "7.5-preview.1",
    "7.5",
    "7.6-preview.1",
    "7.6-preview.2",
    "7.6",
    "2025-06-01-preview",
    "2025-07-01",
    "2026-01-01-preview",
    "2026-03-01-preview",
    "2026-04-01",
    "2026-05-01-preview",
    "2026-07-01-preview",
];

/// The first version that has a feature.
const FEATURES: &[(Feature, ApiVersion)] = &[
    (Feature::SoftDelete, ApiVersion::named("2016-10-01")),
    (Feature::RecoverableDays, ApiVersion::named("7.1-preview")),
    (Feature::CertificateSubject, ApiVersion::named("7.1-preview")),
    (Feature::SecretKeys, ApiVersion::named("7.2-preview")),
    (Feature::Rotation, ApiVersion::named("7.3")),
    (Feature::Release, ApiVersion::named("7.3")),
    (Feature::Random, ApiVersion::named("7.3-preview")),
    (Feature::Settings, ApiVersion::named("7.4-preview.1")),
    (Feature::HsmPlatform, ApiVersion::named("7.5-preview.1")),
    (Feature::Attestation, ApiVersion::named("7.6-preview.1")),
    (Feature::Hmac, ApiVersion::named("7.6-preview.1")),
    (Feature::CkmKeyWrap, ApiVersion::named("7.6-preview.1")),
    (Feature::KeySizeAttribute, ApiVersion::named("2025-06-01-preview")),
    (Feature::SecureWrap, ApiVersion::named("2026-01-01-preview")),
];

impl ApiVersion {
    /// 7.4: the module's default.
    pub const V7_4: Self = Self::named("7.4");
    /// 7.6: HMAC, padded key wrap, attestation.
    pub const V7_6: Self = Self::named("7.6");
    /// 2025-07-01: the official clients' default.
    pub const V2025_07_01: Self = Self::named("2025-07-01");

    /// Every version, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..VERSIONS.len() as u8).map(Self)
    }

    /// The value of the query parameter.
    pub const fn as_str(self) -> &'static str {
        VERSIONS[self.0 as usize]
    }

    /// Whether this version has a feature.
    pub fn has(self, feature: Feature) -> bool {
        FEATURES.iter().any(|(name, since)| *name == feature && *since <= self)
    }

    const fn named(name: &str) -> Self {
        let mut row = 0;
        while row < VERSIONS.len() {
            if same(VERSIONS[row].as_bytes(), name.as_bytes()) {
                return Self(row as u8);
            }
            row += 1;
        }
        panic!("not in VERSIONS"); // in a constant: a compile error
    }
}

impl FromStr for ApiVersion {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|version| version.as_str() == name)
            .ok_or_else(|| UnknownName { set: "api-version", name: name.to_owned() })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiVersion({self})")
    }
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_age_not_by_text() {
        assert!(ApiVersion::V7_4 < ApiVersion::V7_6);
        assert!(ApiVersion::V7_6 < ApiVersion::V2025_07_01);
        assert!("2016-10-01".parse::<ApiVersion>().expect("known") < ApiVersion::V7_4);
        assert!("7.7".parse::<ApiVersion>().is_err());
        for version in ApiVersion::all() {
            assert_eq!(version.as_str().parse(), Ok(version));
        }
    }

    #[test]
    fn features_come_and_stay() {
        assert!(!ApiVersion::V7_4.has(Feature::Hmac));
        assert!(ApiVersion::V7_6.has(Feature::Hmac));
        assert!(ApiVersion::V2025_07_01.has(Feature::Random));
        assert!(!ApiVersion::V7_6.has(Feature::KeySizeAttribute));
    }
}
