//! A key as it is shown: the service's view and PKCS#11's in one.

use std::time::{Duration, UNIX_EPOCH};

use akv_pkcs11::{
    config::TokenConfig,
    hex,
    object::{
        Object,
        project::{self, Standing},
    },
};
use akv_wire::{KeyBundle, Tags};
use cryptoki_sys::CKA_ID;
use serde::Serialize;

use crate::uri;

/// One version of a key.
#[derive(Debug, Serialize)]
pub struct KeyView {
    /// At the service.
    pub name: String,
    /// 32 hex digits.
    pub version: String,
    /// CKA_LABEL.
    pub label: String,
    /// CKA_ID in hex; None for a key of a type the module leaves out.
    pub id: Option<String>,
    /// `kty`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bits of an RSA or AES key.
    pub size: Option<u32>,
    /// Of an EC key.
    pub curve: Option<String>,
    /// `key_ops`, in alphabetical order.
    pub operations: Vec<String>,
    /// Whether the service lets it be used.
    pub enabled: bool,
    /// RFC 3339, as all times.
    pub created: Option<String>,
    pub updated: Option<String>,
    pub not_before: Option<String>,
    pub expires: Option<String>,
    /// It backs a certificate of the vault.
    pub managed: bool,
    /// It can be released.
    pub exportable: bool,
    /// RFC 7512.
    pub uri: String,
    pub tags: Tags,
}

impl KeyView {
    /// What a bundle says.
    pub fn new(bundle: &KeyBundle, token: &TokenConfig) -> KeyView {
        let jwk = &bundle.key;
        let attributes = &bundle.attributes;
        let (name, version) = jwk.name_and_version().unwrap_or_default();
        // A key the module leaves out is shown nevertheless, without an identity.
        let objects = project::objects(bundle, token, Standing::Meant).unwrap_or_default();
        let object = objects.first();
        let label = object.map_or_else(|| name.to_owned(), Object::label);
        let id = object.and_then(|object| object.attributes.bytes(CKA_ID)).map(hex::encode);
        let mut operations = jwk.key_ops.clone().unwrap_or_default();
        operations.sort_unstable();
        KeyView {
            uri: uri::of_key(token, &label, object),
            name: name.to_owned(),
            version: version.to_owned(),
            label,
            id,
            kind: jwk.kty.clone().unwrap_or_default(),
            size: jwk.modulus().map(bits).or(attributes.key_size),
            curve: jwk.crv.clone(),
            operations,
            enabled: attributes.enabled.unwrap_or(true),
            created: time(attributes.created),
            updated: time(attributes.updated),
            not_before: time(attributes.nbf),
            expires: time(attributes.exp),
            managed: bundle.managed.unwrap_or(false),
            exportable: attributes.exportable.unwrap_or(false),
            tags: bundle.tags.clone().unwrap_or_default(),
        }
    }

    /// `RSA 2048`, `EC-HSM P-256`.
    pub fn described(&self) -> String {
        let size = self.size.map(|bits| bits.to_string());
        match self.curve.as_ref().or(size.as_ref()) {
            Some(which) => format!("{} {which}", self.kind),
            None => self.kind.clone(),
        }
    }

    /// Names and values, those without a value left out.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut tags: Vec<_> =
            self.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        tags.sort_unstable();
        let rows = [
            ("name", Some(self.name.clone())),
            ("version", Some(self.version.clone())),
            ("label", (self.label != self.name).then(|| self.label.clone())),
            ("id", self.id.clone()),
            ("type", Some(self.described())),
            ("operations", Some(self.operations.join(", "))),
            ("enabled", Some(yes(self.enabled).to_owned())),
            ("created", self.created.clone()),
            ("updated", self.updated.clone()),
            ("not before", self.not_before.clone()),
            ("expires", self.expires.clone()),
            ("managed", self.managed.then(|| "by a certificate of the vault".to_owned())),
            ("exportable", self.exportable.then(|| "yes".to_owned())),
            ("tags", (!tags.is_empty()).then(|| tags.join(", "))),
            ("uri", Some(self.uri.clone())),
        ];
        rows.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Unix seconds as RFC 3339; None for none and for what no calendar has.
pub fn time(seconds: Option<i64>) -> Option<String> {
    let seconds = u64::try_from(seconds?).ok()?;
    // humantime writes times up to the year 9999.
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(253_402_300_799)))?;
    Some(humantime::format_rfc3339_seconds(time).to_string())
}

/// For people.
pub fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn bits(integer: &[u8]) -> u32 {
    let leading = integer.first().map_or(0, |byte| byte.leading_zeros());
    u32::try_from(integer.len()).unwrap_or(u32::MAX).saturating_mul(8).saturating_sub(leading)
}
