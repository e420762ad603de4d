use std::fmt::Write;

use reqwest::header::{HeaderMap, HeaderValue};

use super::{super::operation::OPERATIONS, *};
use crate::documents;

fn answer(status: u16, body: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("x-ms-request-id", HeaderValue::from_static("rid"));
    Response { status, headers: headers.into(), body: body.as_bytes().to_vec().into() }
}

fn error(operation: Operation, status: u16, body: &str) -> Error {
    let key = KeyRef::version("web", "0f");
    from_response(operation, Some(key), Service::Vault, &answer(status, body))
}

fn inner(code: &str, inner: &str) -> String {
    format!(r#"{{"error":{{"code":"{code}","message":"m","innererror":{{"code":"{inner}"}}}}}}"#)
}

#[test]
fn statuses_codes_and_operations_choose_the_row() {
    let forbidden = |code| inner("Forbidden", code);
    for (operation, status, body, rv) in [
        (Sign, 403, forbidden("ForbiddenByRbac"), CKR_KEY_FUNCTION_NOT_PERMITTED),
        (Sign, 403, forbidden("ForbiddenByFirewall"), CKR_FUNCTION_REJECTED),
        (Sign, 403, forbidden("KeyDisabled"), CKR_KEY_FUNCTION_NOT_PERMITTED),
        (ListKeys, 403, forbidden("ForbiddenByPolicy"), CKR_FUNCTION_REJECTED),
        (CreateKey, 409, inner("Conflict", "ObjectIsBeingDeleted"), CKR_ATTRIBUTE_VALUE_INVALID),
        (Sign, 404, String::new(), CKR_KEY_HANDLE_INVALID),
        (GetKey, 404, String::new(), CKR_OBJECT_HANDLE_INVALID),
        (Sign, 401, String::new(), CKR_USER_NOT_LOGGED_IN),
        (Sign, 429, String::new(), CKR_DEVICE_ERROR),
        (Sign, 502, "<html>bad gateway</html>".into(), CKR_DEVICE_ERROR),
        (Sign, 302, String::new(), CKR_DEVICE_ERROR),
        (Sign, 418, String::new(), CKR_FUNCTION_FAILED),
    ] {
        let error = error(operation, status, &body);
        assert_eq!(error.rv(), rv, "{error}");
        assert_eq!(error.remote().expect("remote").status, status);
        assert_eq!(error.remote().expect("remote").request_id, "rid");
    }
}

#[test]
fn a_403_names_the_missing_permission_of_the_service() {
    let vault = error(Sign, 403, &inner("Forbidden", "ForbiddenByRbac"));
    assert!(vault.sentence().contains("Microsoft.KeyVault/vaults/keys/sign/action"), "{vault}");
    assert!(vault.sentence().starts_with("sign with key web/0f: "), "{vault}");
    assert_eq!(vault.remote().expect("remote").code, "ForbiddenByRbac");
    let denied = answer(403, r#"{"error":{"code":"AccessDenied","message":"Not authorized"}}"#);
    let hsm = from_response(ListKeys, None, Service::ManagedHsm, &denied);
    assert!(hsm.sentence().contains("Microsoft.KeyVault/managedHsm/keys/read/action"), "{hsm}");
}

#[test]
fn decryption_failures_cannot_be_told_apart() {
    let one = error(Decrypt, 400, r#"{"error":{"code":"BadParameter","message":"padding"}}"#);
    let two = error(Decrypt, 400, "<html>something else</html>");
    assert_eq!(one.rv(), CKR_ENCRYPTED_DATA_INVALID);
    assert_eq!(format!("{one} {one:?}"), format!("{two} {two:?}"));
}

#[test]
fn words_of_the_service_are_one_bounded_line() {
    let body = format!(r#"{{"error":{{"code":"X","message":"a\r\nb {}"}}}}"#, "x".repeat(5000));
    let error = error(Sign, 400, &body);
    assert!(error.sentence().contains("a b x") && error.sentence().len() < 700, "{error}");
}

#[test]
fn a_lost_answer_is_told_from_a_request_that_never_left() {
    let lost = from_net(CreateKey, None, &NetError::Lost("reset".into()));
    assert!(is_lost_answer(&lost) && lost.sentence().contains("may have been carried out"));
    assert!(is_lost_answer(&from_net(CreateKey, None, &NetError::Timeout)));
    assert!(!is_lost_answer(&from_net(CreateKey, None, &NetError::Busy)));
    assert!(is_lost_answer(&error(CreateKey, 503, "")));
    assert!(!is_lost_answer(&error(CreateKey, 429, "")));
    assert!(is_not_found(&error(GetKey, 404, "")) && is_conflict(&error(CreateKey, 409, "")));
}

#[test]
fn the_table_of_missing_answers_is_in_the_order_of_its_index() {
    for failed in [
        NetError::Busy,
        NetError::UnknownHost(String::new()),
        NetError::Connect(String::new()),
        NetError::Untrusted(String::new()),
        NetError::Timeout,
        NetError::Lost(String::new()),
        NetError::TooLong,
        NetError::Resources(String::new()),
        NetError::ThreadEnding,
        NetError::InsideRuntime,
    ] {
        let name = NO_ANSWER[no_answer_row(&failed)].0;
        assert!(format!("{failed:?}").starts_with(name), "{failed:?} {name}");
    }
}

#[test]
fn the_documentation_shows_this_table() {
    documents::hold("errors.md", &document());
}

fn document() -> String {
    let mut text = String::from(
        "| HTTP | Code | Operation | Returned | What the log advises |\n|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let (first, last) = (*rule.statuses.start(), *rule.statuses.end());
        let status = match (first, last) {
            (0, _) => "any other".to_owned(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}–{last}"),
        };
        let operations: Vec<_> = rule.operations.iter().map(|each| each.row().name).collect();
        let quoted: Vec<_> = rule.codes.iter().map(|code| format!("`{code}`")).collect();
        let or_any = |list: String| if list.is_empty() { "any".to_owned() } else { list };
        let words = match rule.silent {
            true => " (nothing else is said, whatever the cause: no padding oracle)",
            false => "",
        };
        let advice = rule
            .advice
            .replace("{permission}", "*the permission below*")
            .replace("{scope}", "*the object or what holds it*");
        writeln!(
            text,
            "| {status} | {} | {} | `{}` | {advice}{words} |",
            or_any(quoted.join(", ")),
            or_any(operations.join(", ")),
            rule.rv_name,
        )
        .expect("write to a string");
    }
    text.push_str(
        "\n## Without an answer\n\n\
         | What happened | Returned | What the log advises |\n|---|---|---|\n",
    );
    for (name, _, rv_name, advice) in NO_ANSWER {
        writeln!(text, "| {name} | `{rv_name}` | {advice} |").expect("write to a string");
    }
    text.push_str(
        "\n*Connect* is tried three times, *Lost* repeated within the deadline where the operation \
         allows it; 408, 500, 502, 503 and 504 likewise; 429 always, after the pause the service asks for. \
         An operation that is not repeatable is sent once, unless it certainly was not carried \
         out.\n\n\
         ## Permissions\n\n\
         | Operation | Repeatable | Azure RBAC of a vault | Access policy | Managed HSM |\n\
         |---|---|---|---|---|\n",
    );
    for row in OPERATIONS {
        writeln!(
            text,
            "| {} | {} | `{}` | {} | `{}` |",
            row.name,
            if row.repeatable { "yes" } else { "no" },
            row.vault_action,
            row.vault_permission,
            row.hsm_action,
        )
        .expect("write to a string");
    }
    text
}
