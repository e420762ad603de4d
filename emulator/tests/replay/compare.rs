//! What must be alike: status, headers, members, their order, their types and their formats.

use serde_json::Value;

use crate::Pair;
use crate::support::Answer;

/// Headers that came, went, or depend on how a vault is set up; they may be on either side.
const TRANSIENT: &[&str] = &[
    "server",
    "retry-after",
    "connection",
    "transfer-encoding",
    "vary",
    "x-aspnet-version",
    "x-powered-by",
    "x-ms-request-id",
    "x-ms-client-request-id",
    "x-ms-build-version",
    "x-ms-keyvault-rbac-assignment-id",
    "x-ms-keyvault-rbac-cache",
    "x-ms-keyvault-region",
    "x-ms-keyvault-network-info",
    "x-ms-keyvault-service-version",
    "x-ms-server-latency",
    "content-security-policy",
    "x-frame-options",
    "content-length",
];

/// Members whose text is key material, a signature or a ciphertext: only the form is compared.
const OPAQUE: &[&str] =
    &["value", "n", "x", "y", "iv", "tag", "aad", "cer", "csr", "x5t", "data", "request_id"];

/// Everything that differs, in words.
pub(crate) fn differences(pair: &Pair, answer: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if answer.status != pair.status {
        found.push(format!("status {} instead of {}: {}", answer.status, pair.status, answer.text));
        return found;
    }
    headers(pair, answer, &mut found);
    match &pair.response {
        Value::Null => {
            if !answer.text.is_empty() && pair.status == 204 {
                found.push("a body where there was none".to_owned());
            }
        }
        Value::String(page) if page.starts_with("[HTML") => {
            if !answer.text.contains("<html>") {
                found.push(format!("no HTML page: {}", answer.text));
            }
        }
        Value::String(text) => {
            if *text != answer.text {
                found.push(format!("body '{}' instead of '{text}'", answer.text));
            }
        }
        recorded => value("", recorded, &answer.json, pair, &mut found),
    }
    found
}

fn headers(pair: &Pair, answer: &Answer, found: &mut Vec<String>) {
    // A few recordings keep only the headers that somebody found interesting.
    if pair.headers.len() < 5 {
        return;
    }
    for (name, recorded) in &pair.headers {
        if TRANSIENT.contains(&name.as_str()) {
            continue;
        }
        match answer.headers.get(name).and_then(|value| value.to_str().ok()) {
            None => found.push(format!("header {name} is missing")),
            Some(ours) => {
                let same = match name.as_str() {
                    "date" => ours.len() == recorded.len(),
                    "www-authenticate" => challenge(ours) == challenge(recorded),
                    "location" => link(ours) == link(recorded),
                    _ => ours.eq_ignore_ascii_case(recorded),
                };
                if !same {
                    found.push(format!("header {name}: '{ours}' instead of '{recorded}'"));
                }
            }
        }
    }
    for name in answer.headers.keys() {
        if name == "date" && pair.origin.starts_with("modern") {
            continue; // left out by the recorder
        }
        let known = pair.headers.iter().any(|(recorded, _)| recorded == name.as_str());
        if !known && !TRANSIENT.contains(&name.as_str()) {
            found.push(format!("header {name} was not there"));
        }
    }
}

/// The parameters of a challenge and the resource it names; authorities differ.
fn challenge(text: &str) -> (Vec<&str>, Option<&str>) {
    let parameters: Vec<(&str, &str)> = text
        .trim_start_matches("Bearer ")
        .split(',')
        .filter_map(|part| part.trim().split_once('='))
        .collect();
    let resource = parameters.iter().find(|(name, _)| *name == "resource").map(|(_, value)| *value);
    (parameters.into_iter().map(|(name, _)| name).collect(), resource)
}

fn value(at: &str, recorded: &Value, ours: &Value, pair: &Pair, found: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            let names = |object: &serde_json::Map<String, Value>| -> Vec<String> {
                object.keys().cloned().collect()
            };
            // Tags are the caller's: their order is nobody's business.
            let (was, is) = (names(recorded), names(ours));
            if was != is && !at.ends_with(".tags") {
                found.push(format!("members of '{at}': {is:?} instead of {was:?}"));
            }
            for (name, recorded) in recorded {
                if let Some(ours) = ours.get(name) {
                    value(&format!("{at}.{name}"), recorded, ours, pair, found);
                }
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            if at.ends_with(".key_ops") || at.ends_with(".key_usage") {
                let sorted = |list: &[Value]| {
                    let mut list: Vec<String> = list.iter().map(Value::to_string).collect();
                    list.sort();
                    list
                };
                if sorted(recorded) != sorted(ours) {
                    found.push(format!("{at}: {ours:?} instead of {recorded:?}"));
                }
                return;
            }
            if recorded.len() != ours.len() {
                found.push(format!("{at}: {} items instead of {}", ours.len(), recorded.len()));
            }
            // Versions are listed by their random identifiers: bring like to like.
            let (mut recorded, mut ours) = (recorded.clone(), ours.clone());
            if pair.path.ends_with("/versions") {
                let members = |item: &Value| {
                    item.as_object().map(|item| item.keys().cloned().collect::<Vec<_>>())
                };
                recorded.sort_by_key(members);
                ours.sort_by_key(members);
            }
            for (index, (recorded, ours)) in recorded.iter().zip(&ours).enumerate() {
                value(&format!("{at}[{index}]"), recorded, ours, pair, found);
            }
        }
        (Value::String(recorded), Value::String(ours)) => {
            if let Some(difference) = text(at, recorded, ours, pair) {
                found.push(format!("{at}: {difference}"));
            }
        }
        (Value::Bool(recorded), Value::Bool(ours)) => {
            if recorded != ours {
                found.push(format!("{at}: {ours} instead of {recorded}"));
            }
        }
        (Value::Number(recorded), Value::Number(ours)) => {
            let counts = [".key_size", ".validity_months", ".lifetime_percentage"];
            let exact = counts.iter().any(|name| at.ends_with(name));
            if exact && recorded != ours {
                found.push(format!("{at}: {ours} instead of {recorded}"));
            }
        }
        (Value::Null, Value::Null) => {}
        _ => found.push(format!("{at}: {ours} instead of {recorded}")),
    }
}

fn text(at: &str, recorded: &str, ours: &str, pair: &Pair) -> Option<String> {
    let name = at.rsplit('.').next().unwrap_or(at);
    let differs = || Some(format!("'{ours}' instead of '{recorded}'"));
    if name == "message" {
        let (recorded, ours) = (words(recorded, pair), words(ours, pair));
        return (recorded != ours).then(|| format!("'{ours}' instead of '{recorded}'"));
    }
    if name == "recoveryLevel" {
        // Retention is the vault's own setting: 7 days here, 90 in some recordings.
        let last = |text: &str| text.rsplit("Recoverable").next().map(str::to_owned);
        return if last(recorded) == last(ours) { None } else { differs() };
    }
    if recorded.starts_with("https://") || recorded.starts_with("http://") {
        return if link(recorded) == link(ours) {
            None
        } else {
            Some(format!("'{}' instead of '{}'", link(ours), link(recorded)))
        };
    }
    if recorded.starts_with('<') || recorded.starts_with('(') {
        return None; // a placeholder of whoever recorded it
    }
    if OPAQUE.contains(&name) {
        let truncated = recorded.contains("[truncated") || recorded.contains(" + ");
        let alphabet = |text: &str| (text.contains(['-', '_']), text.contains(['+', '/', '=']));
        if !truncated
            && matches!(name, "x" | "y" | "iv" | "tag" | "x5t")
            && recorded.len() != ours.len()
        {
            return Some(format!("{} characters instead of {}", ours.len(), recorded.len()));
        }
        // base64url and base64 must not be mixed up; a short text may show neither.
        let (was, is) = (alphabet(recorded), alphabet(ours));
        return if (was.0 && is.1) || (was.1 && is.0) { differs() } else { None };
    }
    // The exponent of a vault's HSM-protected RSA key has a leading zero or not (both recorded).
    let exponents = ["AQAB", "AAEAAQ"];
    if name == "e" && !pair.hsm && exponents.contains(&recorded) && exponents.contains(&ours) {
        return None;
    }
    if recorded == ours { None } else { differs() }
}

/// A URL with host, version and token replaced; the explicit port of a vault's link stays.
fn link(url: &str) -> String {
    let Some((_, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let _ = host;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| if is_version(segment) { "VERSION" } else { segment })
        .map(|segment| if segment == "<name>" { "name" } else { segment })
        .collect();
    let query: Vec<String> = query
        .split('&')
        .map(|part| match part.split_once('=') {
            Some((name @ ("$skiptoken" | "request_id"), _)) => format!("{name}=TOKEN"),
            _ => part.to_owned(),
        })
        .collect();
    format!("https://HOST/{}?{}", segments.join("/"), query.join("&"))
}

fn is_version(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A message with hosts, versions, identifiers and vault names replaced, and old wordings of the
/// same sentence brought up to date.
fn words(message: &str, pair: &Pair) -> String {
    const OLD: &[(&str, &str)] = &[
        (
            "AKV10000: Request is missing a Bearer or PoP token.",
            "AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token.",
        ),
        (
            "Request is missing a Bearer or PoP token.",
            "AKV10000: Request is missing a Bearer, PoP, or MTLS_POP token.",
        ),
    ];
    if let Some((_, new)) = OLD.iter().find(|(old, _)| *old == message) {
        return (*new).to_owned();
    }
    let mut words = Vec::new();
    for word in message.split(' ') {
        let bare = word.trim_matches(|c: char| "'\".,;()".contains(c));
        let form = if bare.starts_with("https://") && !bare.contains("go.microsoft.com") {
            link(bare)
        } else if let Some((name, version)) = bare.split_once('/').filter(|(_, v)| is_version(v)) {
            let _ = version;
            format!("{name}/VERSION")
        } else if bare.len() == 36 && bare.bytes().filter(|byte| *byte == b'-').count() == 4 {
            "GUID".to_owned()
        } else if bare.starts_with("appid=") {
            "CALLER".to_owned()
        } else if bare.contains(";location=") {
            "VAULT;location".to_owned()
        } else {
            bare.to_owned()
        };
        words.push(word.replace(bare, &form));
    }
    let text = words.join(" ");
    // In 2018 a vault said less about a missing object.
    let name = pair.path.trim_matches('/').split('/').nth(1).unwrap_or_default();
    for noun in ["Certificate", "Secret", "Key"] {
        if text == format!("{noun} not found: {name}") {
            let lower = noun.to_ascii_lowercase();
            return format!(
                "A {lower} with (name/id) {name} was not found in this key vault. If you recently \
                 deleted this {lower} you may be able to recover it using the correct recovery \
                 command. For help resolving this issue, please see \
                 https://go.microsoft.com/fwlink/?linkid=2125182"
            );
        }
    }
    text
}
