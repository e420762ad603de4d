//! Request bodies, read strictly: a member the contract does not have is refused.

use akv_wire::Base64Url;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// The members of an object, and what each holds.
pub type Shape = &'static [(&'static str, Kind)];

/// What a member holds.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// An integer.
    Integer,
    /// `true` or `false`.
    Bool,
    /// Base64url.
    Bytes,
    /// A list of strings.
    TextList,
    /// A string map.
    Tags,
    /// An object.
    Object(Shape),
    /// A list of objects.
    Objects(Shape),
}

/// Attributes a request may carry. Clients send back what they read, so the read-only ones are
/// legal here; they change nothing.
pub const ATTRIBUTES: Shape = &[
    ("enabled", Kind::Bool),
    ("nbf", Kind::Integer),
    ("exp", Kind::Integer),
    ("exportable", Kind::Bool),
    ("created", Kind::Integer),
    ("updated", Kind::Integer),
    ("recoveryLevel", Kind::Text),
    ("recoverableDays", Kind::Integer),
    ("hsmPlatform", Kind::Text),
    ("key_size", Kind::Integer),
    (
        "attestation",
        Kind::Object(&[
            ("certificatePemFile", Kind::Bytes),
            ("privateKeyAttestation", Kind::Bytes),
            ("publicKeyAttestation", Kind::Bytes),
            ("version", Kind::Text),
        ]),
    ),
];

const RELEASE_POLICY: Shape =
    &[("contentType", Kind::Text), ("data", Kind::Bytes), ("immutable", Kind::Bool)];

const JWK: Shape = &[
    ("kid", Kind::Text),
    ("kty", Kind::Text),
    ("key_ops", Kind::TextList),
    ("n", Kind::Bytes),
    ("e", Kind::Bytes),
    ("crv", Kind::Text),
    ("x", Kind::Bytes),
    ("y", Kind::Bytes),
    ("d", Kind::Bytes),
    ("dp", Kind::Bytes),
    ("dq", Kind::Bytes),
    ("qi", Kind::Bytes),
    ("p", Kind::Bytes),
    ("q", Kind::Bytes),
    ("k", Kind::Bytes),
    ("key_hsm", Kind::Bytes),
];

/// POST `…/create`.
pub const KEY_CREATE: Shape = &[
    ("kty", Kind::Text),
    ("key_size", Kind::Integer),
    ("public_exponent", Kind::Integer),
    ("crv", Kind::Text),
    ("key_ops", Kind::TextList),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
    ("release_policy", Kind::Object(RELEASE_POLICY)),
];

/// PUT `/keys/{n}`.
pub const KEY_IMPORT: Shape = &[
    ("Hsm", Kind::Bool),
    ("key", Kind::Object(JWK)),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
    ("release_policy", Kind::Object(RELEASE_POLICY)),
];

/// PATCH `/keys/{n}/{v}`.
pub const KEY_UPDATE: Shape = &[
    ("key_ops", Kind::TextList),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
    ("release_policy", Kind::Object(RELEASE_POLICY)),
];

/// sign, encrypt, decrypt, wrapkey, unwrapkey.
pub const KEY_OPERATION: Shape = &[
    ("alg", Kind::Text),
    ("value", Kind::Bytes),
    ("iv", Kind::Bytes),
    ("aad", Kind::Bytes),
    ("tag", Kind::Bytes),
];

/// sign.
pub const KEY_SIGN: Shape = &[("alg", Kind::Text), ("value", Kind::Bytes)];

/// verify.
pub const KEY_VERIFY: Shape =
    &[("alg", Kind::Text), ("digest", Kind::Bytes), ("value", Kind::Bytes)];

/// POST `…/restore`.
pub const RESTORE: Shape = &[("value", Kind::Bytes)];

/// POST `…/release`.
pub const RELEASE: Shape = &[("target", Kind::Text), ("nonce", Kind::Text), ("enc", Kind::Text)];

/// PUT `/keys/{n}/rotationpolicy`.
pub const ROTATION_POLICY: Shape = &[
    ("id", Kind::Text),
    (
        "lifetimeActions",
        Kind::Objects(&[
            (
                "trigger",
                Kind::Object(&[("timeAfterCreate", Kind::Text), ("timeBeforeExpiry", Kind::Text)]),
            ),
            ("action", Kind::Object(&[("type", Kind::Text)])),
        ]),
    ),
    (
        "attributes",
        Kind::Object(&[
            ("expiryTime", Kind::Text),
            ("created", Kind::Integer),
            ("updated", Kind::Integer),
        ]),
    ),
];

/// `/rng`.
pub const RANDOM: Shape = &[("count", Kind::Integer)];

const LIFETIME_ACTION: Shape = &[
    (
        "trigger",
        Kind::Object(&[
            ("lifetime_percentage", Kind::Integer),
            ("days_before_expiry", Kind::Integer),
        ]),
    ),
    ("action", Kind::Object(&[("action_type", Kind::Text)])),
];

/// A certificate policy.
pub const POLICY: Shape = &[
    ("id", Kind::Text),
    (
        "key_props",
        Kind::Object(&[
            ("exportable", Kind::Bool),
            ("kty", Kind::Text),
            ("key_size", Kind::Integer),
            ("reuse_key", Kind::Bool),
            ("crv", Kind::Text),
        ]),
    ),
    ("secret_props", Kind::Object(&[("contentType", Kind::Text)])),
    (
        "x509_props",
        Kind::Object(&[
            ("subject", Kind::Text),
            (
                "sans",
                Kind::Object(&[
                    ("emails", Kind::TextList),
                    ("dns_names", Kind::TextList),
                    ("upns", Kind::TextList),
                ]),
            ),
            ("ekus", Kind::TextList),
            ("key_usage", Kind::TextList),
            ("validity_months", Kind::Integer),
            ("basic_constraints", Kind::Object(&[("ca", Kind::Bool)])),
        ]),
    ),
    ("lifetime_actions", Kind::Objects(LIFETIME_ACTION)),
    (
        "issuer",
        Kind::Object(&[
            ("name", Kind::Text),
            ("cty", Kind::Text),
            ("cert_transparency", Kind::Bool),
        ]),
    ),
    ("attributes", Kind::Object(ATTRIBUTES)),
];

/// POST `/certificates/{n}/create`.
pub const CERTIFICATE_CREATE: Shape = &[
    ("policy", Kind::Object(POLICY)),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
    ("preserveCertOrder", Kind::Bool),
];

/// POST `/certificates/{n}/import`.
pub const CERTIFICATE_IMPORT: Shape = &[
    ("value", Kind::Text),
    ("pwd", Kind::Text),
    ("policy", Kind::Object(POLICY)),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
    ("preserveCertOrder", Kind::Bool),
];

/// PATCH `/certificates/{n}/{v}`.
pub const CERTIFICATE_UPDATE: Shape = &[
    ("policy", Kind::Object(POLICY)),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
];

/// PATCH `/certificates/{n}/pending`.
pub const CERTIFICATE_CANCEL: Shape = &[("cancellation_requested", Kind::Bool)];

/// POST `/certificates/{n}/pending/merge`.
pub const CERTIFICATE_MERGE: Shape =
    &[("x5c", Kind::TextList), ("attributes", Kind::Object(ATTRIBUTES)), ("tags", Kind::Tags)];

/// PUT `/secrets/{n}`.
pub const SECRET_SET: Shape = &[
    ("value", Kind::Text),
    ("contentType", Kind::Text),
    ("attributes", Kind::Object(ATTRIBUTES)),
    ("tags", Kind::Tags),
];

/// PATCH `/secrets/{n}/{v}`.
pub const SECRET_UPDATE: Shape =
    &[("contentType", Kind::Text), ("attributes", Kind::Object(ATTRIBUTES)), ("tags", Kind::Tags)];

/// Reads a body of the given shape. Members that are `null` count as absent.
pub fn read<T: DeserializeOwned>(body: &[u8], shape: Shape) -> Result<T, Refusal> {
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Err(Refusal::BodyInvalid);
    };
    let members = checked(members, shape)?;
    serde_json::from_value(Value::Object(members))
        .map_err(|error| Refusal::BadParameter(format!("Property has invalid value: {error}")))
}

fn checked(members: Map<String, Value>, shape: Shape) -> Result<Map<String, Value>, Refusal> {
    let mut kept = Map::new();
    for (name, value) in members {
        let Some((known, kind)) = shape.iter().find(|(known, _)| *known == name) else {
            return Err(Refusal::MemberUnknown(name));
        };
        let invalid = || Refusal::MemberInvalid(name.clone());
        let value = match (kind, value) {
            (_, Value::Null) => continue,
            (Kind::Object(inner), Value::Object(object)) => Value::Object(checked(object, inner)?),
            (Kind::Objects(inner), Value::Array(list)) => {
                let mut objects = Vec::with_capacity(list.len());
                for item in list {
                    let Value::Object(object) = item else { return Err(invalid()) };
                    objects.push(Value::Object(checked(object, inner)?));
                }
                Value::Array(objects)
            }
            (Kind::Bytes, Value::String(text)) => {
                // The contract says base64url without padding, and nothing else is taken.
                if text.contains('=') || Base64Url::decode(&text).is_err() {
                    return Err(Refusal::NotBase64Url(known));
                }
                Value::String(text)
            }
            (Kind::Text, value @ Value::String(_)) | (Kind::Bool, value @ Value::Bool(_)) => value,
            (Kind::Integer, value @ Value::Number(_)) if value.is_i64() || value.is_u64() => value,
            (Kind::TextList, Value::Array(list)) if list.iter().all(Value::is_string) => {
                Value::Array(list)
            }
            (Kind::Tags, Value::Object(tags)) if tags.values().all(Value::is_string) => {
                Value::Object(tags)
            }
            _ => return Err(invalid()),
        };
        kept.insert(name, value);
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use akv_wire::{KeyCreateParameters, KeyOperationParameters};

    use super::*;

    #[test]
    fn unknown_members_are_refused_at_every_depth() {
        for (body, member) in [
            (r#"{"kty":"EC","colour":1}"#, "colour"),
            (r#"{"kty":"EC","attributes":{"colour":1}}"#, "colour"),
        ] {
            let refusal = read::<KeyCreateParameters>(body.as_bytes(), KEY_CREATE).expect_err(body);
            assert!(matches!(refusal, Refusal::MemberUnknown(name) if name == member));
        }
    }

    #[test]
    fn bytes_are_base64url_without_padding() {
        for value in ["AAA=", "+/AA", "?"] {
            let body = format!(r#"{{"alg":"RS256","value":"{value}"}}"#);
            let refusal = read::<KeyOperationParameters>(body.as_bytes(), KEY_OPERATION);
            assert!(matches!(refusal, Err(Refusal::NotBase64Url("value"))), "{value}");
        }
    }

    #[test]
    fn null_is_absent_and_types_count() {
        let read_key = |body: &str| read::<KeyCreateParameters>(body.as_bytes(), KEY_CREATE);
        assert!(read_key(r#"{"kty":"EC","tags":null}"#).expect("null").tags.is_none());
        assert!(matches!(read_key(r#"{"kty":1}"#), Err(Refusal::MemberInvalid(_))));
        assert!(matches!(read_key("[]"), Err(Refusal::BodyInvalid)));
        assert!(matches!(read_key(""), Err(Refusal::BodyInvalid)));
    }
}
