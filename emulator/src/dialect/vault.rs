//! How Azure Key Vault speaks.

use akv_wire::KeyType;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::{
    Context, Dialect, ErrorReply, NextPage, Position, error_reply, front_end_page, inner_code,
    uuid4_digits,
};
use crate::config::{ServiceKind, Switches};
use crate::refusal::{DeniedBy, Refusal, TokenFault};

pub struct Vault;

/// Region that answers and refusals name.
const REGION: &str = "westus2";
/// Oldest and newest version the wording of refusals names.
const NEWEST: &str = "2025-07-01";

impl Dialect for Vault {
    fn refusal(&self, refusal: &Refusal, context: &Context<'_>) -> ErrorReply {
        if matches!(refusal, Refusal::FrontEnd) {
            return front_end_page();
        }
        let (status, code, inner, message) = words(refusal, context);
        error_reply(ServiceKind::Vault, status, code, message, inner)
    }

    fn headers(&self, headers: &mut HeaderMap, context: &Context<'_>) {
        for (name, value) in [
            ("cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("expires", "-1"),
            ("strict-transport-security", "max-age=31536000;includeSubDomains"),
            ("x-content-type-options", "nosniff"),
            ("x-ms-keyvault-region", REGION),
            ("x-ms-keyvault-service-version", "1.9.3070.2"),
            (
                "x-ms-keyvault-network-info",
                "conn_type=Ipv4;addr=127.0.0.1;act_addr_fam=InterNetwork;",
            ),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let date = httpdate::fmt_http_date(std::time::SystemTime::now());
        for (name, value) in [("date", date.as_str()), ("x-ms-request-id", context.request_id)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }

    fn version_id(&self) -> String {
        uuid4_digits()
    }

    fn created_type(&self, asked: KeyType, switches: &Switches) -> Option<KeyType> {
        (switches.vault_oct_keys || !asked.is_oct()).then_some(asked)
    }

    fn default_ops(&self, kty: KeyType) -> Vec<String> {
        let ops: &[&str] = if kty.is_ec() {
            &["sign", "verify"]
        } else {
            &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
        };
        ops.iter().map(|op| (*op).to_owned()).collect()
    }

    fn next_link(&self, authority: &str, next: &NextPage<'_>) -> String {
        // Recorded: the port is always written, also when it is 443.
        let authority = match authority.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                authority.to_owned()
            }
            _ => format!("{authority}:443"),
        };
        let version =
            next.api_version.map(|name| format!("api-version={name}&")).unwrap_or_default();
        let limit = next.max_results.map(|limit| format!("&maxresults={limit}"));
        format!(
            "https://{authority}{}?{version}$skiptoken={}{}",
            next.path,
            skip_token(next),
            limit.unwrap_or_default()
        )
    }

    fn position(&self, token: &str) -> Option<Position> {
        let json = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&json).ok()?;
        let marker = json.get("NextMarker")?.as_str()?;
        let text = marker.splitn(3, '!').nth(2)?.replace('-', "=");
        let row = String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok()?;
        let object = row.split('!').nth(1)?;
        Some(Position::Marker(object.split_once('/')?.1.to_owned()))
    }

    fn by_creation(&self) -> bool {
        false
    }
}

/// The storage service's continuation marker: two length-prefixed layers of base64.
fn skip_token(next: &NextPage<'_>) -> String {
    let object = format!("{}/{}", next.noun, next.marker);
    let row = format!("{:06}!{object}!000028!9999-12-31T23:59:59.9999999Z!", object.len());
    let text = BASE64_STANDARD.encode(row).replace('=', "-");
    let json = format!(r#"{{"NextMarker":"2!{}!{text}","TargetLocation":0}}"#, text.len());
    BASE64_URL_SAFE_NO_PAD.encode(json)
}

type Words = (u16, &'static str, Option<&'static str>, String);

fn bad(message: String) -> Words {
    (400, "BadParameter", None, message)
}

fn words(refusal: &Refusal, context: &Context<'_>) -> Words {
    match refusal {
        Refusal::Unauthorized(fault) => (401, "Unauthorized", None, token_words(fault)),
        Refusal::Forbidden(denial) => {
            let (inner, message) = denial_words(denial, context);
            (403, "Forbidden", Some(inner), message)
        }
        Refusal::ApiVersionMissing => bad("api-version must be specified".to_owned()),
        Refusal::ApiVersionUnknown(name) => bad(format!(
            "The specified version ({name}) is not recognized. Consider using the latest \
             supported version ({NEWEST})."
        )),
        Refusal::NoRoute => (404, "NotFound", None, "Resource not found".to_owned()),
        Refusal::MethodNotAllowed => {
            (405, "MethodNotAllowed", None, "The HTTP method is not allowed.".to_owned())
        }
        Refusal::ActionNotSupported(action) => {
            (405, "MethodNotAllowed", None, format!("The operation '{action}' is not supported."))
        }
        Refusal::NotSupported(action) => {
            (400, "NotSupported", None, format!("action '{action}' not supported"))
        }
        Refusal::NotAttested(kid) => bad(format!(
            "Key {kid} is a software key: only keys that an HSM protects are attested.\r\n"
        )),
        Refusal::NameInvalid(name) => {
            bad(format!("The request URI contains an invalid name: {name}"))
        }
        Refusal::FrontEnd | Refusal::BodyInvalid => {
            bad("The request body is not a valid JSON object.\r\n".to_owned())
        }
        Refusal::BodyTooLarge => {
            (413, "RequestEntityTooLarge", None, "The request body is too large.".to_owned())
        }
        Refusal::MemberUnknown(name) => bad(format!("Property '{name}' is not recognized.\r\n")),
        Refusal::MemberInvalid(name) => bad(format!("Property {name} has invalid value\r\n")),
        Refusal::MemberMissing(name) => bad(format!("Property '{name}' is required.\r\n")),
        Refusal::NotBase64Url(name) => bad(format!(
            "Content of '{name}' is not base64url.\r\nProperty '{name}' is required.\r\n"
        )),
        Refusal::JwkInvalid(_) => {
            bad("The property \"key\" must be a valid JsonWebKey object.".to_owned())
        }
        Refusal::BadParameter(message) | Refusal::Conflict(message) => {
            let conflict = matches!(refusal, Refusal::Conflict(_));
            let (status, code) = if conflict { (409, "Conflict") } else { (400, "BadParameter") };
            (status, code, None, message.clone())
        }
        Refusal::DigestLength { member, given, alg, want } => bad(match want {
            Some(want) => format!(
                "Invalid length of '{member}': {given} bytes. {alg} requires {want} bytes, \
                 encoded with base64url."
            ),
            None => format!("Invalid length of '{member}': {given} bytes. {alg} takes less."),
        }),
        Refusal::CurveMismatch { kid, curve, alg, of } => bad(format!(
            "Key and signing algorithm are incompatible. Key {kid} uses curve '{curve}', and \
             algorithm '{alg}' can only be used with curve '{of}'."
        )),
        Refusal::SignatureMismatch { kid, alg } => bad(format!(
            "Key and signing algorithm are incompatible. Key {kid} cannot be used with \
             algorithm '{alg}'."
        )),
        Refusal::EncryptionMismatch { kid, alg } => bad(format!(
            "Key and encryption algorithm are incompatible. Key {kid} cannot be used with \
             algorithm '{alg}'."
        )),
        Refusal::Undecryptable => bad("The parameter is incorrect.\r\n".to_owned()),
        Refusal::RandomCount => bad("count must be between 1 and 128".to_owned()),
        Refusal::NotFound { noun, id, .. } => (
            404,
            not_found_code(*noun),
            None,
            format!(
                "A {} with (name/id) {id} was not found in this key vault. If you recently \
                 deleted this {0} you may be able to recover it using the correct recovery \
                 command. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125182",
                noun.lower()
            ),
        ),
        Refusal::DeletedNotFound { noun, name, live_wording: true } => {
            words(&Refusal::NotFound { noun: *noun, id: name.clone(), doubled: false }, context)
        }
        Refusal::DeletedNotFound { noun, name, .. } => {
            let message = format!("Deleted {} not found: {name}", noun.title());
            (404, not_found_code(*noun), None, message)
        }
        Refusal::PendingNotFound(name) => (
            404,
            "PendingCertificateNotFound",
            None,
            format!("Pending certificate not found: {name}"),
        ),
        Refusal::BeingDeleted { noun, name, creating } => {
            let end = if *creating {
                "being deleted and cannot be re-created; retry later"
            } else {
                "being deleted"
            };
            let message = format!("{} {name} is currently {end}.", noun.title());
            (409, "Conflict", Some("ObjectIsBeingDeleted"), message)
        }
        Refusal::DeletedButRecoverable { noun, name } => (
            409,
            "Conflict",
            Some("ObjectIsDeletedButRecoverable"),
            format!(
                "{} {name} is currently in a deleted but recoverable state, and its name cannot \
                 be reused; in this state, the {} can only be recovered or purged.",
                noun.title(),
                noun.lower()
            ),
        ),
        Refusal::NotDeleted { noun, name } => (
            400,
            "MethodNotAllowed",
            Some("RequestNotAllowedOnNonDeletedObject"),
            format!("{} exists already: {name}", noun.title()),
        ),
        Refusal::RestoreConflict { noun, id } => (
            409,
            "Conflict",
            None,
            format!(
                "There was a conflict restoring the {0} '{id}'. This can happen if either: a \
                 second {0} with the same name was created after the first {0} was deleted; thus \
                 trying to restore a {0} whose name is already in use. To fix this, rename the \
                 second {0} to something else so that the restore works. The second probable \
                 cause of this exception is when multiple operations are performed in parallel \
                 against the {0}. To avoid this error, perform operations against a {0} in a \
                 sequential manner.",
                noun.lower()
            ),
        ),
        Refusal::BackupMalformed => {
            (400, "Malformed backup blob", None, "Backup blob is corrupt.".to_owned())
        }
        Refusal::OperationForbidden(operation) => (
            403,
            "Forbidden",
            inner_code(refusal, context.switches),
            format!("Operation {operation} is not permitted on this key."),
        ),
        Refusal::Disabled { noun, operation } => {
            let inner = inner_code(refusal, context.switches);
            let noun = noun.lower();
            let message = format!("Operation {operation} is not allowed on a disabled {noun}.");
            (403, "Forbidden", inner, message)
        }
        Refusal::Expired { noun, operation } => {
            let noun = noun.lower();
            let message = format!("Operation {operation} is not allowed on an expired {noun}.");
            (403, "Forbidden", inner_code(refusal, context.switches), message)
        }
        Refusal::NotYetValid { noun, operation } => {
            let noun = noun.lower();
            let message =
                format!("Operation {operation} is not allowed on a {noun} that is not yet valid.");
            (403, "Forbidden", inner_code(refusal, context.switches), message)
        }
        Refusal::TooManyVersions { noun, versions, most } => bad(format!(
            "The {} has {versions} versions, more than a backup holds ({most}).\r\n",
            noun.lower()
        )),
        // No limit of a vault.
        Refusal::Full { what, most } => bad(format!("The number of {what} is limited to {most}.")),
        Refusal::ReleasePolicyImmutable => {
            bad("AKV.SKR.1020: Immutable Key Release Policy cannot be modified.".to_owned())
        }
        Refusal::Throttled => (
            429,
            "Throttled",
            None,
            "Request was not processed because too many requests were received. Reason: \
             VaultRequestTypeLimitReached"
                .to_owned(),
        ),
        Refusal::Internal(message) => (500, "InternalServerError", None, message.clone()),
    }
}

fn not_found_code(noun: crate::refusal::Noun) -> &'static str {
    match noun {
        crate::refusal::Noun::Key => "KeyNotFound",
        crate::refusal::Noun::Secret => "SecretNotFound",
        crate::refusal::Noun::Certificate => "CertificateNotFound",
    }
}

fn token_words(fault: &TokenFault) -> String {
    match fault {
        TokenFault::Missing => {
            "AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token.".to_owned()
        }
        TokenFault::Invalid => {
            "AKV10001: Error validating token: the signature is not valid.".to_owned()
        }
        TokenFault::Issuer { expected, found } => {
            format!("AKV10032: Invalid issuer. Expected one of {expected}, found {found}.")
        }
        TokenFault::Audience(found) => format!(
            "AKV10022: Invalid audience. Expected {}, found: {found}.",
            ServiceKind::Vault.resource()
        ),
        TokenFault::Expired => "AKV10001: Error validating token: the token is expired.".to_owned(),
        TokenFault::Claims(_) => {
            "AKV10001: Error validating token: continuous access evaluation resulted in a claims \
             challenge."
                .to_owned()
        }
    }
}

fn denial_words(denial: &crate::refusal::Denial, context: &Context<'_>) -> (&'static str, String) {
    let (caller, vault) = (&denial.caller, context.service);
    match denial.by {
        DeniedBy::Policy => (
            "ForbiddenByPolicy",
            format!(
                "The user, group or application '{caller}' does not have {} {} permission on key \
                 vault '{vault};location={REGION}'. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125287",
                denial.collection, denial.permission
            ),
        ),
        DeniedBy::Rbac => (
            "ForbiddenByRbac",
            format!(
                "Caller is not authorized to perform action on resource.\r\nIf role assignments, \
                 deny assignments or role definitions were changed recently, please observe \
                 propagation time.\r\nCaller: {caller}\r\nAction: '{}'\r\nResource: \
                 '/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups/emulator/\
                 providers/microsoft.keyvault/vaults/{vault}{}'\r\nAssignment: (not found)\r\n\
                 DenyAssignmentId: null\r\nDecisionReason: null \r\nVault: \
                 {vault};location={REGION}\r\n",
                denial.action, denial.scope
            ),
        ),
        DeniedBy::Firewall => (
            "ForbiddenByFirewall",
            format!(
                "Client address is not authorized and caller is not a trusted service.\r\nClient \
                 address: 127.0.0.1\r\nCaller: {caller}\r\nVault: {vault};location={REGION}"
            ),
        ),
        DeniedBy::Connection => (
            "ForbiddenByConnection",
            format!(
                "Public network access is disabled and request is not from a trusted service nor \
                 via an approved private link.\r\nCaller: {caller}\r\nVault: \
                 {vault};location={REGION}"
            ),
        ),
    }
}
