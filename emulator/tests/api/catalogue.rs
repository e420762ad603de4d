//! Every error that was ever seen of the real services can be provoked here, and reads alike.
//!
//! The catalogue lies beside the project (`../shared/api/recordings/errors_catalog.json`), not in
//! it; without it the test says so and passes. A row that nothing here provokes fails.

#![allow(clippy::print_stdout, reason = "what was compared is worth telling")]

use std::path::Path;

use akv_emulator::config::{ClientConfig, Config, DeniedBy, PermissionModel, Switches};
use serde_json::{Value, json};

use crate::support::{Answer, Session, World, encode, operation, world_with};

/// Emulators that differ in their switches.
struct Worlds {
    plain: World,
    delayed: World,
    roles: World,
    firewall: World,
    private: World,
    throttled: World,
}

/// A tenant of the authority that the services do not belong to.
const OTHER_TENANT: &str = "22222222-3333-4444-8555-666666666666";

fn start(switches: Switches) -> World {
    let signer = ClientConfig {
        id: "signer".into(),
        secret: "secret".into(),
        keys: Some(vec!["verify".into()]),
        ..ClientConfig::default()
    };
    let other_tenants = vec![OTHER_TENANT.to_owned()];
    let config = Config { client: vec![signer], other_tenants, switches, ..Config::default() };
    world_with(config, Vec::new())
}

impl Worlds {
    fn new() -> Self {
        let usual = Switches::default;
        let denied = |by| start(Switches { denied_by: Some(by), ..usual() });
        Self {
            plain: start(usual()),
            delayed: start(Switches { deletion_delay: 3600, ..usual() }),
            roles: start(Switches { permission_model: PermissionModel::Rbac, ..usual() }),
            firewall: denied(DeniedBy::Firewall),
            private: denied(DeniedBy::Connection),
            throttled: start(Switches { throttle: true, ..usual() }),
        }
    }
}

/// How a row is provoked: service, status, code, how its message begins, the requests.
type Provocation = (&'static str, u16, &'static str, &'static str, fn(&Worlds) -> Vec<Answer>);

const PROVOCATIONS: &[Provocation] = &[
    ("vault", 401, "Unauthorized", "AKV10000", |worlds| {
        let vault = worlds.plain.vault();
        vault.token.replace(String::new());
        vec![vault.get("/keys")]
    }),
    ("vault", 401, "Unauthorized", "AKV10032", |worlds| {
        let (vault, ready) = (worlds.plain.vault(), worlds.plain.ready());
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &ready.client_id),
            ("client_secret", &ready.client_secret),
            ("scope", &ready.services[0].scope),
        ];
        let url = format!("{}/{OTHER_TENANT}/oauth2/v2.0/token", ready.authority);
        let token = worlds.plain.http.post(url).form(&form).send().expect("token endpoint");
        let token = Answer::read(token).ok();
        vault.token.replace(token["access_token"].as_str().expect("token").to_owned());
        vec![vault.get("/keys")]
    }),
    ("mhsm", 401, "", "", |worlds| {
        let hsm = worlds.plain.hsm();
        hsm.token.replace(String::new());
        vec![hsm.get("/keys"), hsm.get("/keys/k")]
    }),
    ("vault", 403, "Forbidden", "The user, group", |worlds| {
        vec![as_signer(worlds.plain.vault()).get("/keys/k")]
    }),
    ("vault", 403, "Forbidden", "Caller is not authorized", |worlds| {
        let vault = as_signer(worlds.roles.vault());
        vec![vault.post("/keys/k/sign", operation("ES256", &[1; 32]))]
    }),
    ("vault", 403, "Forbidden", "Client address", |worlds| {
        vec![worlds.firewall.vault().get("/keys")]
    }),
    ("vault", 403, "Forbidden", "Public network", |worlds| {
        vec![worlds.private.vault().get("/keys")]
    }),
    ("vault", 403, "Forbidden", "Operation decrypt", |worlds| {
        let vault = worlds.plain.vault();
        vault.create("signing", json!({"kty": "RSA", "key_ops": ["sign"]}));
        vec![vault.post("/keys/signing/decrypt", operation("RSA-OAEP", &[1; 256]))]
    }),
    ("vault", 403, "Forbidden", "Operation sign is not allowed on a disabled", |worlds| {
        let vault = worlds.plain.vault();
        vault.create("disabled", json!({"kty": "EC", "attributes": {"enabled": false}}));
        vec![vault.post("/keys/disabled/sign", operation("ES256", &[1; 32]))]
    }),
    ("vault", 403, "Forbidden", "Operation get is not allowed on a disabled", |worlds| {
        let vault = worlds.plain.vault();
        let body = json!({"value": "x", "attributes": {"enabled": false}});
        vault.call("PUT", "/secrets/disabled", Some(body)).ok();
        vec![vault.get("/secrets/disabled")]
    }),
    ("vault", 403, "Forbidden", "Operation sign is not allowed on an expired", |worlds| {
        let vault = worlds.plain.vault();
        let sign = |name: &str, attributes: Value| {
            vault.create(name, json!({"kty": "EC", "attributes": attributes}));
            vault.post(&format!("/keys/{name}/sign"), operation("ES256", &[1; 32]))
        };
        vec![sign("old", json!({"exp": 1})), sign("new", json!({"nbf": 4_000_000_000_i64}))]
    }),
    ("vault", 400, "BadParameter", "Invalid length", |worlds| {
        let vault = worlds.plain.vault();
        vault.create("ec", json!({"kty": "EC"}));
        vec![vault.post("/keys/ec/sign", operation("ES256", &[1; 44]))]
    }),
    ("vault", 400, "BadParameter", "Content of", |worlds| {
        let vault = worlds.plain.vault();
        vault.create("ec", json!({"kty": "EC"}));
        vec![vault.post("/keys/ec/sign", json!({"alg": "ES256", "value": "no base64url!"}))]
    }),
    ("vault", 400, "BadParameter", "Key and signing algorithm", |worlds| {
        // A key from before 7.0 still shows its curve by the old name.
        let (vault, pair) = (worlds.plain.vault(), secp256k1());
        vault.call("PUT", "/keys/legacy", Some(json!({"key": pair}))).ok();
        vault.post("/keys/legacy/sign", operation("ECDSA256", &[1; 32])).ok();
        vec![vault.post("/keys/legacy/sign", operation("ES256K", &[1; 32]))]
    }),
    ("vault", 400, "BadParameter", "The request URI", |worlds| {
        vec![worlds.plain.vault().post("/keys/key!@%23$/create", json!({"kty": "EC"}))]
    }),
    ("vault", 400, "BadParameter", "Property ", |worlds| {
        vec![worlds.plain.vault().post("/keys/k/create", json!({"kty": "oct-HSM"}))]
    }),
    ("vault", 400, "BadParameter", "The property \"key\"", |worlds| {
        vec![worlds.plain.vault().call("PUT", "/keys/k", Some(json!({"key": {}})))]
    }),
    ("vault", 400, "Malformed backup blob", "", |worlds| {
        let body = json!({"value": encode(b"none")});
        vec![worlds.plain.vault().post("/keys/restore", body)]
    }),
    ("vault", 400, "MethodNotAllowed", "Secret exists", |worlds| {
        let vault = worlds.plain.vault();
        vault.call("PUT", "/secrets/secret1", Some(json!({"value": "x"}))).ok();
        vec![vault.post("/deletedsecrets/secret1/recover", json!({}))]
    }),
    ("vault", 404, "KeyNotFound", "A key with", |worlds| {
        let vault = worlds.plain.vault();
        vec![vault.get("/keys/none"), vault.get(&format!("/keys/none/{}", "0".repeat(32)))]
    }),
    ("vault", 404, "KeyNotFound", "Deleted Key", |worlds| {
        let vault = worlds.delayed.vault();
        vault.create("going", json!({"kty": "EC"}));
        vault.call("DELETE", "/keys/going", None).ok();
        vec![vault.get("/deletedkeys/going")]
    }),
    ("vault", 409, "Conflict", "Key key1", |worlds| {
        let vault = worlds.delayed.vault();
        vault.create("key1", json!({"kty": "EC"}));
        vault.call("DELETE", "/keys/key1", None).ok();
        vec![vault.call("DELETE", "/keys/key1", None)]
    }),
    ("vault", 409, "Conflict", "Secret secret1", |worlds| {
        let vault = worlds.plain.vault();
        let set = || vault.call("PUT", "/secrets/secret1", Some(json!({"value": "x"})));
        set().ok();
        vault.call("DELETE", "/secrets/secret1", None).ok();
        let refused = set();
        vault.post("/deletedsecrets/secret1/recover", json!({})).ok();
        vec![refused]
    }),
    ("vault", 409, "Conflict", "There was a conflict", |worlds| {
        let vault = worlds.plain.vault();
        vault.create("kept", json!({"kty": "EC"}));
        let blob = vault.post("/keys/kept/backup", json!({})).ok();
        vec![vault.post("/keys/restore", blob)]
    }),
    ("vault", 429, "Throttled", "", |worlds| {
        let vault = worlds.throttled.vault();
        worlds.throttled.stop_clock();
        let create = || vault.post("/keys/k/create", json!({"kty": "EC-HSM"}));
        let throttled = (0..30).map(|_| create()).find(|answer| answer.status != 200);
        vec![throttled.expect("more than ten creations in ten seconds")]
    }),
    ("mhsm", 404, "KeyNotFound", "Key not found: https://<hsm>/keys/", |worlds| {
        vec![worlds.plain.hsm().get("/keys/none")]
    }),
    ("mhsm", 404, "KeyNotFound", "Key not found: https://<hsm>/deletedkeys/", |worlds| {
        vec![worlds.plain.hsm().get("/deletedkeys/none")]
    }),
    ("mhsm", 404, "KeyNotFound", "Key not found: Key not found", |worlds| {
        vec![worlds.plain.hsm().post("/keys/none/rotate", json!({}))]
    }),
    ("mhsm", 400, "BadParameter", "Invalid key identifier", |worlds| {
        vec![worlds.plain.hsm().post("/keys/a_b/create", json!({"kty": "EC"}))]
    }),
    ("mhsm", 400, "BadParameter", "JSON Web Key", |worlds| {
        vec![worlds.plain.hsm().call("PUT", "/keys/k", Some(json!({"key": {}})))]
    }),
    ("mhsm", 400, "BadParameter", "GetRandomBytesRequest", |worlds| {
        vec![worlds.plain.hsm().post("/rng", json!({"count": 129}))]
    }),
    ("mhsm", 400, "BadParameter", "Immutable Release policy", |worlds| {
        let hsm = worlds.plain.hsm();
        let policy = json!({"version": "1.0.0", "anyOf": [{
            "authority": "https://a.example", "allOf": [{"claim": "a", "equals": "b"}],
        }]});
        let policy = |immutable| json!({"data": encode(policy.to_string().as_bytes()), "immutable": immutable});
        let attributes = json!({"exportable": true});
        let body = json!({"kty": "EC", "attributes": attributes, "release_policy": policy(true)});
        hsm.create("fixed", body);
        let change = json!({"release_policy": policy(false)});
        vec![hsm.call("PATCH", "/keys/fixed", Some(change))]
    }),
    ("mhsm", 400, "MalformedBackupBlob", "", |worlds| {
        vec![worlds.plain.hsm().post("/keys/restore", json!({"value": encode(b"none")}))]
    }),
    ("mhsm", 400, "NotSupported", "action 'rotate'", |worlds| {
        let hsm = worlds.plain.hsm();
        hsm.create("turned", json!({"kty": "EC"}));
        hsm.version.replace("7.2".into());
        vec![hsm.post("/keys/turned/rotate", json!({}))]
    }),
    ("mhsm", 403, "AccessDenied", "Not authorized", |worlds| {
        let hsm = as_signer(worlds.plain.hsm());
        vec![hsm.get("/providers/Microsoft.Authorization/roleAssignments")]
    }),
];

fn as_signer(session: Session<'_>) -> Session<'_> {
    let service = session.world.ready().services.iter().find(|service| service.url == session.url);
    let scope = &service.expect("service").scope;
    session.token.replace(session.world.token_of("signer", "secret", scope));
    session
}

/// A pair on secp256k1, under the name that 7.0 replaced.
fn secp256k1() -> Value {
    use openssl::{bn, ec, nid};
    let group = ec::EcGroup::from_curve_name(nid::Nid::SECP256K1).expect("curve");
    let pair = ec::EcKey::generate(&group).expect("pair");
    let mut ctx = bn::BigNumContext::new().expect("ctx");
    let (mut x, mut y) = (bn::BigNum::new().expect("x"), bn::BigNum::new().expect("y"));
    pair.public_key().affine_coordinates(&group, &mut x, &mut y, &mut ctx).expect("point");
    let text = |number: &bn::BigNumRef| encode(&number.to_vec_padded(32).expect("number"));
    json!({
        "kty": "EC", "crv": "SECP256K1", "x": text(&x), "y": text(&y),
        "d": text(pair.private_key()),
    })
}

#[test]
fn every_error_of_the_catalogue_can_be_provoked() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/api/recordings/errors_catalog.json");
    let Ok(text) = std::fs::read_to_string(file) else {
        println!("catalogue: SKIPPED, there is none beside the project");
        return;
    };
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let worlds = Worlds::new();
    let mut used = vec![false; PROVOCATIONS.len()];
    let mut failures = Vec::new();
    for row in &rows {
        let text = |member: &str| row[member].as_str().unwrap_or_default();
        let fits = |(service, status, code, start, _): &Provocation| {
            *service == text("service")
                && row["status"] == *status
                && *code == text("code")
                && text("message").starts_with(start)
        };
        let Some(at) = PROVOCATIONS.iter().position(fits) else {
            failures.push(format!("nothing provokes {row}"));
            continue;
        };
        used[at] = true;
        for answer in (PROVOCATIONS[at].4)(&worlds) {
            if let Err(difference) = compare(row, &answer) {
                failures.push(format!("{difference}: {} instead of {row}", answer.text));
            }
        }
    }
    for ((service, status, code, start, _), used) in PROVOCATIONS.iter().zip(used) {
        if !used {
            failures.push(format!("{service} {status} {code} '{start}' is no row"));
        }
    }
    println!("catalogue: provoked {} rows", rows.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn compare(row: &Value, answer: &Answer) -> Result<(), &'static str> {
    if row["status"] != answer.status {
        return Err("status");
    }
    if row["body"].is_string() {
        // "empty (Content-Length 0) or the two bytes OK"
        return ["", "OK"].contains(&answer.text.as_str()).then_some(()).ok_or("body");
    }
    let error = &answer.json["error"];
    if error["code"] != row["code"] {
        return Err("code");
    }
    // One row has two names, neither confirmed.
    let inner = row["inner"].as_str().map(|text| text.split([' ', '|']).collect::<Vec<_>>());
    let given = error["innererror"]["code"].as_str();
    if !inner.map_or(given.is_none(), |names| given.is_some_and(|given| names.contains(&given))) {
        return Err("inner code");
    }
    let template = row["message"].as_str().unwrap_or_default();
    let message = answer.message();
    if template.ends_with("(unconfirmed text)") {
        let (first, second) = ("on an expired key.", "on a key that is not yet valid");
        return (message.contains(first) || message.contains(second)).then_some(()).ok_or("words");
    }
    // Where the emulator is, and who asks from where.
    let message = message.replace("westus2", "westus").replace("127.0.0.1\r", "203.0.113.1\r");
    fits(template, &message).then_some(()).ok_or("words")
}

/// Whether the text is the template's, in which `<…>` and `...` stand for anything.
fn fits(template: &str, text: &str) -> bool {
    let mut literals = vec![String::new()];
    let mut rest = template.replace(", ... , found", ", <more>found").replace("...", "<more>");
    rest = rest.replace("[/<version>]", "");
    while let Some((before, after)) = rest.split_once('<') {
        let Some((_, after)) = after.split_once('>') else { break };
        let last = literals.len() - 1;
        literals[last].push_str(before);
        literals.push(String::new());
        rest = after.to_owned();
    }
    let last = literals.len() - 1;
    literals[last].push_str(&rest);
    let Some(mut text) = text.strip_prefix(literals[0].as_str()) else { return false };
    for literal in &literals[1..last.max(1)] {
        let Some((_, after)) = text.split_once(literal.as_str()) else { return false };
        text = after;
    }
    if last == 0 { text.is_empty() } else { text.ends_with(literals[last].as_str()) }
}

#[test]
fn templates_fit_what_they_stand_for() {
    assert!(fits("a <b> c", "a xyz c") && fits("a", "a") && fits("a <b>...", "a x and more"));
    assert!(!fits("a <b> c", "a xyz d") && !fits("a", "ab") && !fits("a <b> c <d> e", "a x e"));
    assert!(fits("<n>[/<version>] was", "k/1 was"));
}
