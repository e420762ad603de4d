//! What the service says, as `CK_RV` and a sentence: one table, which `docs/errors.md` shows.

use std::ops::RangeInclusive;

use akv_wire::ErrorBody;
use cryptoki_sys::*;

use super::{
    KeyRef,
    Operation::{self, *},
};
use crate::{
    config::Service,
    credential::Challenge,
    error::{Error, Remote},
    net::{NetError, Response},
};

/// `Remote::code` of an operation whose request was sent and whose answer never came.
const ANSWER_LOST: &str = "AnswerLost";
/// Of the service's own words, this many characters are repeated.
const MOST_WORDS: usize = 400;

/// The operation may have been carried out although no success was reported: the answer was lost,
/// or the service failed midway. After creating, importing, deleting, recovering or purging, look
/// before doing it again.
pub fn is_lost_answer(error: &Error) -> bool {
    error.remote().is_some_and(|remote| match remote.status {
        0 => remote.code == ANSWER_LOST,
        status => matches!(status, 408 | 500..=599),
    })
}

/// The service has no such key, version or certificate.
pub fn is_not_found(error: &Error) -> bool {
    error.remote().is_some_and(|remote| remote.status == 404)
}

/// The service refuses this caller, whatever is asked how often.
pub fn is_forbidden(error: &Error) -> bool {
    error.remote().is_some_and(|remote| remote.status == 403)
}

/// The name is in the way: being deleted, deleted but recoverable, or restored meanwhile. The
/// remote code tells which (`ObjectIsBeingDeleted`, `ObjectIsDeletedButRecoverable`, `Conflict`).
pub fn is_conflict(error: &Error) -> bool {
    error.remote().is_some_and(|remote| remote.status == 409)
}

/// What an HTTP answer means. The first row that fits is taken.
struct Rule {
    statuses: RangeInclusive<u16>,
    /// `error.code` or the code of its inner error; empty = any, or none.
    codes: &'static [&'static str],
    /// Empty = any.
    operations: &'static [Operation],
    rv: CK_RV,
    #[cfg_attr(not(test), expect(dead_code, reason = "for docs/errors.md"))]
    rv_name: &'static str,
    /// What the operator can do. `{permission}` is what the operation needs, `{scope}` where.
    advice: &'static str,
    /// The service's words are not repeated: they could tell an attacker why a ciphertext was
    /// refused. One code and one sentence for every cause.
    silent: bool,
}

macro_rules! rules {
    ($($statuses:expr, [$($code:literal)*], [$($operation:ident)*] => $rv:ident, $advice:literal
        $(, $silent:ident)?;)*) => {
        &[$(Rule {
            statuses: $statuses,
            codes: &[$($code),*],
            operations: &[$($operation),*],
            rv: $rv,
            rv_name: stringify!($rv),
            advice: $advice,
            silent: rules!(@silent $($silent)?),
        },)*]
    };
    (@silent) => { false };
    (@silent silent) => { true };
}

const RULES: &[Rule] = rules! {
    300..=399, [], [] => CKR_DEVICE_ERROR,
        "redirects are never followed; check the endpoint, it does not look like a Key Vault";
    400..=400, [], [Decrypt] => CKR_ENCRYPTED_DATA_INVALID,
        "the service refused the ciphertext", silent;
    400..=400, [], [UnwrapKey] => CKR_WRAPPED_KEY_INVALID,
        "the service refused the wrapped key", silent;
    400..=400, ["NotSupported"], [] => CKR_FUNCTION_NOT_SUPPORTED,
        "this service does not offer that with this api_version";
    400..=400, [], [Sign Encrypt] => CKR_DATA_LEN_RANGE,
        "the service refused the data or the algorithm for this key";
    400..=400, [], [WrapKey] => CKR_KEY_SIZE_RANGE,
        "the service refused the key to be wrapped or the algorithm for this key";
    400..=400, [], [RestoreKey] => CKR_WRAPPED_KEY_INVALID,
        "the service refused the backup: it takes only those of its own subscription and \
         geography, or of the same security domain";
    400..=400, [], [CreateKey ImportKey UpdateKey] => CKR_ATTRIBUTE_VALUE_INVALID,
        "the service refused the key's description";
    400..=400, [], [] => CKR_FUNCTION_FAILED,
        "the service refused the request; check `api_version` and the endpoint";
    401..=401, [], [] => CKR_USER_NOT_LOGGED_IN,
        "the service refuses the access token even after a new one was fetched; check `tenant` \
         (it must be the vault's), `scope` and this machine's clock";
    403..=403, ["KeyDisabled"], [] => CKR_KEY_FUNCTION_NOT_PERMITTED,
        "the key is disabled; enable this version or use another one";
    403..=403, ["SecretDisabled"], [] => CKR_FUNCTION_REJECTED,
        "the secret is disabled; enable this version or make a new one";
    403..=403, ["KeyOperationForbidden"], [] => CKR_KEY_FUNCTION_NOT_PERMITTED,
        "the key's key_ops do not allow this; add the operation to the key's permitted operations";
    403..=403, ["KeyExpired" "KeyNotYetValid"], [] => CKR_KEY_FUNCTION_NOT_PERMITTED,
        "the key is outside its validity (nbf, exp); change the dates or use another version";
    403..=403, ["ForbiddenByFirewall" "ForbiddenByConnection"], [] => CKR_FUNCTION_REJECTED,
        "the service's firewall refuses this address; allow it, or use the private endpoint \
         (check which address the host name resolves to here)";
    403..=403, [], [Sign Encrypt Decrypt WrapKey UnwrapKey] => CKR_KEY_FUNCTION_NOT_PERMITTED,
        "the identity lacks {permission}; grant it on {scope}";
    403..=403, [], [] => CKR_FUNCTION_REJECTED,
        "the identity lacks {permission}; grant it on {scope}";
    404..=404, [], [Sign Encrypt Decrypt WrapKey UnwrapKey] => CKR_KEY_HANDLE_INVALID,
        "there is no such key or version (any more)";
    404..=404, [], [ListKeys ListDeletedKeys ListCertificates ListSecrets Random] => CKR_DEVICE_ERROR,
        "the endpoint does not know this request; is it a Key Vault or Managed HSM, and which?";
    404..=404, [], [] => CKR_OBJECT_HANDLE_INVALID,
        "there is no such object (any more; a new one may take seconds to appear)";
    409..=409, ["ObjectIsDeletedButRecoverable"], [] => CKR_ATTRIBUTE_VALUE_INVALID,
        "a deleted key has this name; recover it, purge it, or choose another name \
         (`on_deleted_name`)";
    409..=409, ["ObjectIsBeingDeleted"], [] => CKR_ATTRIBUTE_VALUE_INVALID,
        "a key of this name is just being deleted; try again in half a minute";
    409..=409, [], [RestoreKey] => CKR_ATTRIBUTE_VALUE_INVALID,
        "a key has the name the backup was made of; delete and purge that one first";
    409..=409, [], [CreateKey ImportKey] => CKR_ATTRIBUTE_VALUE_INVALID,
        "the name is taken or in the deleted state; recover or purge the deleted key, or choose \
         another name";
    409..=409, [], [] => CKR_FUNCTION_FAILED,
        "the object is being changed by somebody else; try again";
    413..=413, [], [] => CKR_DATA_LEN_RANGE,
        "the service takes no request of this length";
    405..=405, [], [] => CKR_FUNCTION_NOT_SUPPORTED,
        "this service does not offer the operation";
    501..=501, [], [] => CKR_FUNCTION_NOT_SUPPORTED,
        "this service does not offer the operation";
    429..=429, [], [] => CKR_DEVICE_ERROR,
        "the service throttles this caller; spread the load over more keys or vaults, lower \
         `find_rate`, or raise `timeout`";
    408..=408, [], [] => CKR_DEVICE_ERROR,
        "the service timed out; try again";
    500..=599, [], [] => CKR_DEVICE_ERROR,
        "the service or something in front of it failed; try again, and see Azure's status page";
    0..=u16::MAX, [], [] => CKR_FUNCTION_FAILED,
        "the service refused the request";
};

/// Instead of the advice of 401, where the service asks for claims once more.
const UNMET_CLAIMS: &str = "the service asks for a token with other claims, and so it does of the \
     one that was asked for with them: see what Conditional Access demands of this identity (the \
     metadata service of a virtual machine takes no claims and gives the same token until it ends)";

/// No answer at all: kind, `CK_RV`, its name, advice.
const NO_ANSWER: &[(&str, CK_RV, &str, &str)] = &[
    (
        "Busy",
        CKR_DEVICE_ERROR,
        "CKR_DEVICE_ERROR",
        "raise `max_connections`, or let fewer threads call at once",
    ),
    (
        "UnknownHost",
        CKR_DEVICE_ERROR,
        "CKR_DEVICE_ERROR",
        "check the endpoint's host name and this machine's DNS, or set `address`",
    ),
    ("Connect", CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR", "check DNS, routes, firewall and `proxy`"),
    (
        "Untrusted",
        CKR_DEVICE_ERROR,
        "CKR_DEVICE_ERROR",
        "if a private CA or an inspecting proxy signed it, name its root in `ca_file`",
    ),
    (
        "Timeout",
        CKR_DEVICE_ERROR,
        "CKR_DEVICE_ERROR",
        "check the network; `timeout` is the limit for a request and its repeats",
    ),
    ("Lost", CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR", "check the network and the proxy"),
    (
        "TooLong",
        CKR_DEVICE_ERROR,
        "CKR_DEVICE_ERROR",
        "the endpoint does not look like a Key Vault",
    ),
    (
        "Resources",
        CKR_DEVICE_MEMORY,
        "CKR_DEVICE_MEMORY",
        "raise the process's limit of open files (each connection takes four)",
    ),
    (
        "ThreadEnding",
        CKR_GENERAL_ERROR,
        "CKR_GENERAL_ERROR",
        "the host calls from an exit handler, where no request can be made",
    ),
    (
        "InsideRuntime",
        CKR_GENERAL_ERROR,
        "CKR_GENERAL_ERROR",
        "call the module from a thread that may block",
    ),
];

/// What the service says about a refusal, where it says something that can be read.
fn body(answer: &Response) -> Option<ErrorBody> {
    (answer.status >= 400).then(|| serde_json::from_slice(&answer.body).ok()).flatten()
}

/// The service's code for a refusal: the inner one where there is one. None where it is nobody's
/// business what was wrong with a ciphertext.
pub(super) fn code(operation: Operation, answer: &Response) -> Option<String> {
    let error = body(answer)?.error;
    let inner = error.inner_code().unwrap_or_default();
    let silent = rule(answer.status, [&error.code, inner], operation)?.silent;
    // It is the service's, so it may be anything.
    (!silent).then(|| clean(if inner.is_empty() { &error.code } else { inner }))
}

/// The rule for a refusal. The last one fits everything.
fn rule(status: u16, codes: [&str; 2], operation: Operation) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.fits(status, codes, operation))
}

/// The error of an answer that is no 2xx. Its body may be anything, or nothing.
pub fn from_response(
    operation: Operation,
    key: Option<KeyRef<'_>>,
    service: Service,
    answer: &Response,
) -> Error {
    let body = body(answer);
    let (outer, inner, words) = match &body {
        Some(body) => {
            let error = &body.error;
            (error.code.as_str(), error.inner_code().unwrap_or_default(), error.message.as_str())
        }
        None => ("", "", ""),
    };
    let Some(rule) = rule(answer.status, [outer, inner], operation) else {
        return nonsense(operation, key, "an impossible status");
    };
    let subject = subject(operation, key);
    if rule.silent {
        log::debug!("{subject}: HTTP 400");
        return Error::new(rule.rv, format!("{subject}: {}", rule.advice));
    }
    let mut advice = rule
        .advice
        .replace("{permission}", &operation.missing_permission(service))
        .replace("{scope}", &operation.scope(service, key.map(|key| key.name)));
    if let Some(challenge) = Challenge::of(answer) {
        advice = format!("{UNMET_CLAIMS} (base64: {})", challenge.text());
    }
    let words = clean(words);
    let said = match words.is_empty() {
        true => String::new(),
        false => format!(" (the service says: {words})"),
    };
    Error::new(rule.rv, format!("{subject}: {advice}{said}")).with_remote(Remote {
        status: answer.status,
        code: if inner.is_empty() { outer } else { inner }.to_owned(),
        request_id: answer.header("x-ms-request-id").unwrap_or_default().to_owned(),
    })
}

/// The error of a request without an answer.
pub(super) fn from_net(operation: Operation, key: Option<KeyRef<'_>>, failed: &NetError) -> Error {
    let (_, rv, _, advice) = NO_ANSWER[no_answer_row(failed)];
    let lost = match !failed.unsent() && !operation.row().repeatable {
        true => "; it may have been carried out nevertheless",
        false => "",
    };
    let sentence = format!("{}: {failed}{lost}; {advice}", subject(operation, key));
    let error = Error::new(rv, sentence);
    match failed.unsent() {
        // A host that calls while it ends.
        true if matches!(failed, NetError::ThreadEnding) => error.expected(),
        true => error,
        false => error.with_remote(Remote { code: ANSWER_LOST.into(), ..Remote::default() }),
    }
}

/// The error of an answer that cannot be what it should be. What it was to tell is lost with it.
pub(super) fn nonsense(operation: Operation, key: Option<KeyRef<'_>>, why: &str) -> Error {
    let error = Error::new(
        CKR_DEVICE_ERROR,
        format!(
            "{}: the answer is {why}; check that the endpoint is a Key Vault or Managed HSM and \
             that nothing between rewrites answers",
            subject(operation, key)
        ),
    );
    match operation.row().repeatable {
        true => error,
        false => error.with_remote(Remote { code: ANSWER_LOST.into(), ..Remote::default() }),
    }
}

/// "sign with key web/0123…", for messages.
pub(super) fn subject(operation: Operation, key: Option<KeyRef<'_>>) -> String {
    let name = operation.row().name;
    match key {
        Some(KeyRef { name: key, version: Some(version) }) => format!("{name} {key}/{version}"),
        Some(KeyRef { name: key, version: None }) => format!("{name} {key}"),
        None => name.to_owned(),
    }
}

impl Rule {
    fn fits(&self, status: u16, codes: [&str; 2], operation: Operation) -> bool {
        self.statuses.contains(&status)
            && (self.codes.is_empty() || self.codes.iter().any(|code| codes.contains(code)))
            && (self.operations.is_empty() || self.operations.contains(&operation))
    }
}

fn no_answer_row(failed: &NetError) -> usize {
    match failed {
        NetError::Busy => 0,
        NetError::UnknownHost(_) => 1,
        NetError::Connect(_) => 2,
        NetError::Untrusted(_) => 3,
        NetError::Timeout => 4,
        NetError::Lost(_) => 5,
        NetError::TooLong => 6,
        NetError::Resources(_) => 7,
        NetError::ThreadEnding => 8,
        NetError::InsideRuntime => 9,
    }
}

/// One line of the service's words.
fn clean(words: &str) -> String {
    let printable = |character: char| if character.is_control() { ' ' } else { character };
    let line: String = words.chars().map(printable).take(MOST_WORDS).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
