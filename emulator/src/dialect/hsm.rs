//! How Azure Managed HSM speaks.

use akv_wire::KeyType;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{
    Context, Dialect, ErrorReply, NextPage, Position, error_reply, hex, inner_code, sorted,
};
use crate::config::{ServiceKind, Switches};
use crate::refusal::Refusal;

pub struct ManagedHsm;

impl Dialect for ManagedHsm {
    fn refusal(&self, refusal: &Refusal, context: &Context<'_>) -> ErrorReply {
        // Recorded: no body at all, or the two letters on a listing.
        if matches!(refusal, Refusal::Unauthorized(_)) {
            let body: &[u8] = if context.path == "/keys" { b"OK" } else { b"" };
            let content_type = "application/json; charset=utf-8";
            return ErrorReply { status: 401, body: body.to_vec(), content_type };
        }
        let (status, code, message) = words(refusal, context);
        let message = format!("{message} (Activity ID: {})", context.request_id);
        let of_use = matches!(
            refusal,
            Refusal::OperationForbidden(_)
                | Refusal::Disabled { .. }
                | Refusal::Expired { .. }
                | Refusal::NotYetValid { .. }
        );
        let code = if of_use { context.switches.hsm_refusal_code.as_str() } else { code };
        let inner =
            inner_code(refusal, context.switches).filter(|_| context.switches.hsm_inner_codes);
        error_reply(ServiceKind::ManagedHsm, status, code, message, inner)
    }

    fn headers(&self, headers: &mut HeaderMap, context: &Context<'_>) {
        for (name, value) in [
            ("cache-control", "no-cache"),
            ("content-security-policy", "default-src 'self'"),
            ("strict-transport-security", "max-age=31536000; includeSubDomains"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-ms-keyvault-region", "uksouth"),
            ("x-ms-keyvault-network-info", "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=Ipv4;"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let latency = context.latency_ms.to_string();
        for (name, value) in
            [("x-ms-server-latency", latency.as_str()), ("x-ms-request-id", context.request_id)]
        {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    fn version_id(&self) -> String {
        hex(16)
    }

    fn created_type(&self, asked: KeyType, _: &Switches) -> Option<KeyType> {
        Some(asked.hsm())
    }

    fn default_ops(&self, kty: KeyType) -> Vec<String> {
        let ops: &[&str] = if kty.is_ec() {
            &["sign", "verify"]
        } else if kty.is_oct() {
            // Recorded: with an operation that no list of the contract has.
            &["encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify", "deriveKey"]
        } else {
            &["wrapKey", "decrypt", "encrypt", "unwrapKey", "sign", "verify"]
        };
        ops.iter().map(|op| (*op).to_owned()).collect()
    }

    fn next_link(&self, authority: &str, next: &NextPage<'_>) -> String {
        // Recorded: the link names no api-version, and is answered without one.
        let mut row = b"\xb6\x39\x1b\x00\xdb\xa9\x99\xfe".to_vec();
        row.extend(next.sequence.to_le_bytes());
        let token = format!(
            "+RID:~{}#RT:{}#TRC:{}#ISV:2#IEO:65567#QCF:8",
            BASE64_STANDARD.encode(row).replace('/', "-"),
            next.shown,
            next.shown
        );
        let limit = next.max_results.map(|limit| format!("maxresults={limit}&"));
        format!(
            "https://{authority}{}?{}$skiptoken={}",
            next.path,
            limit.unwrap_or_default(),
            BASE64_URL_SAFE_NO_PAD.encode(token)
        )
    }

    fn position(&self, token: &str) -> Option<Position> {
        let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let row = text.strip_prefix("+RID:~")?;
        let (row, rest) = row.split_once('#')?;
        let row = BASE64_STANDARD.decode(row.replace('-', "/")).ok()?;
        let sequence = u64::from_le_bytes(row.get(8..16)?.try_into().ok()?);
        let shown = rest.strip_prefix("RT:")?.split_once('#')?.0.parse().ok()?;
        Some(Position::Sequence(sequence, shown))
    }

    fn by_creation(&self) -> bool {
        true
    }
}

/// Members sorted, nulls left out, `key_ops` in a new order every time.
pub fn laid_out(value: Value) -> Value {
    let mut value = sorted(value);
    if let Some(Value::Array(ops)) = value.get_mut("key").and_then(|key| key.get_mut("key_ops")) {
        let Ok(turns) = crate::crypto::random(ops.len()) else {
            return value;
        };
        for (at, turn) in turns.iter().enumerate().skip(1) {
            ops.swap(at, usize::from(*turn) % (at + 1));
        }
    }
    value
}

type Words = (u16, &'static str, String);

fn bad(message: String) -> Words {
    (400, "BadParameter", message)
}

fn words(refusal: &Refusal, context: &Context<'_>) -> Words {
    let url =
        |collection: &str, id: &str| format!("https://{}/{collection}/{id}", context.authority);
    match refusal {
        Refusal::Unauthorized(_) => (401, "Unauthorized", String::new()),
        Refusal::Forbidden(denial) => (
            403,
            "AccessDenied",
            format!("Not authorized to access {} on {}", denial.action, denial.scope),
        ),
        Refusal::ApiVersionMissing => bad("api-version must be specified".to_owned()),
        Refusal::ApiVersionUnknown(name) => bad(format!("api-version '{name}' is not supported")),
        Refusal::NoRoute => (404, "NotFound", "Resource not found".to_owned()),
        Refusal::MethodNotAllowed => (405, "MethodNotAllowed", "Method not allowed".to_owned()),
        Refusal::ActionNotSupported(action) => {
            (400, "NotSupported", format!("action '{action}' not supported"))
        }
        Refusal::NotSupported(action) => {
            (400, "NotSupported", format!("action '{action}' not supported"))
        }
        Refusal::NotAttested(kid) => bad(format!("Key {kid} is not protected by an HSM")),
        Refusal::NameInvalid(_) => bad("Invalid key identifier or name".to_owned()),
        Refusal::FrontEnd | Refusal::BodyInvalid => bad("Invalid JSON in request body".to_owned()),
        Refusal::BodyTooLarge => (413, "RequestTooLarge", "Request body is too large".to_owned()),
        Refusal::MemberUnknown(name) => bad(format!("Unknown property '{name}'")),
        Refusal::MemberInvalid(name) => bad(format!("Invalid value of property '{name}'")),
        Refusal::MemberMissing(name) => bad(format!("Property '{name}' is missing")),
        Refusal::NotBase64Url(name) => bad(format!("Property '{name}' is not base64url")),
        Refusal::JwkInvalid(why) => bad(format!("JSON Web Key: {why}")),
        Refusal::BadParameter(message) => bad(message.trim_end().to_owned()),
        Refusal::Conflict(message) => (409, "Conflict", message.clone()),
        Refusal::DigestLength { member, given, alg, want } => bad(match want {
            Some(want) => format!(
                "Invalid length of '{member}': {given} bytes. {alg} requires {want} bytes, \
                 encoded with base64url."
            ),
            None => format!("Invalid length of '{member}': {given} bytes for {alg}."),
        }),
        Refusal::CurveMismatch { kid, alg, .. } => {
            bad(format!("Key {kid} cannot be used with algorithm '{alg}'"))
        }
        Refusal::SignatureMismatch { kid, alg } => {
            bad(format!("Key {kid} cannot be used with algorithm '{alg}'"))
        }
        Refusal::EncryptionMismatch { kid, alg } => {
            bad(format!("Key {kid} cannot be used with algorithm '{alg}'"))
        }
        Refusal::Undecryptable => bad("Decryption failed".to_owned()),
        Refusal::RandomCount => {
            bad("GetRandomBytesRequest: count cannot be greater than 128 or less than 1".to_owned())
        }
        Refusal::NotFound { noun, id, doubled } => {
            let again = if *doubled { "Key not found: " } else { "" };
            (404, "KeyNotFound", format!("Key not found: {again}{}", url(noun.collection(), id)))
        }
        Refusal::DeletedNotFound { noun, name, .. } => {
            (404, "KeyNotFound", format!("Key not found: {}", url(noun.deleted_collection(), name)))
        }
        Refusal::PendingNotFound(name) => (404, "NotFound", format!("Not found: {name}")),
        Refusal::BeingDeleted { name, .. } => {
            (409, "Conflict", format!("Key {name} is currently being deleted"))
        }
        Refusal::DeletedButRecoverable { name, .. } => (
            409,
            "Conflict",
            format!(
                "Key {name} is currently in a deleted but recoverable state, and its name cannot \
                 be reused; in this state, the key can only be recovered or purged"
            ),
        ),
        Refusal::NotDeleted { name, .. } => (409, "Conflict", format!("Key {name} is not deleted")),
        Refusal::RestoreConflict { id, .. } => {
            (409, "Conflict", format!("Key already exists: {id}"))
        }
        Refusal::BackupMalformed => (
            400,
            "MalformedBackupBlob",
            "Backup blob belongs to a different crypto domain and cannot be used with this \
             instance."
                .to_owned(),
        ),
        Refusal::OperationForbidden(operation) => {
            (403, "Forbidden", format!("Operation {operation} is not permitted on this key."))
        }
        Refusal::Disabled { operation, .. } => {
            (403, "Forbidden", format!("Operation {operation} is not allowed on a disabled key."))
        }
        Refusal::Expired { operation, .. } => {
            (403, "Forbidden", format!("Operation {operation} is not allowed on an expired key."))
        }
        Refusal::NotYetValid { operation, .. } => (
            403,
            "Forbidden",
            format!("Operation {operation} is not allowed on a key that is not yet valid."),
        ),
        Refusal::TooManyVersions { versions, most, .. } => {
            bad(format!("The key has {versions} versions, more than a backup holds ({most})"))
        }
        Refusal::Full { what, most } => bad(format!("The number of {what} is limited to {most}")),
        Refusal::ReleasePolicyImmutable => {
            bad("Immutable Release policy cannot be modified".to_owned())
        }
        Refusal::Throttled => (429, "Throttled", "Too many requests".to_owned()),
        Refusal::Internal(message) => (500, "InternalError", message.clone()),
    }
}
