//! The state a recorded request needs, made through the API, and the request as it must read in
//! that state.

use serde_json::{Value, json};

use crate::Pair;
use crate::support::Session;

/// A request ready to be sent.
pub(crate) struct Arranged {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Option<Value>,
    /// Another token than a good one.
    pub token: Option<String>,
}

/// Why a pair is not replayed; `None` for all others.
pub(crate) fn skip(pair: &Pair) -> Option<&'static str> {
    let path = pair.path.to_ascii_lowercase();
    let wording = pair.response["error"]["message"].as_str().unwrap_or_default();
    if path.contains("/providers/") {
        return Some("role definitions and assignments are not part of the emulator");
    }
    if path.starts_with("/settings") {
        return Some("settings are not part of the emulator");
    }
    if path.contains("/certificates/issuers/") {
        return Some("certificate issuers are not part of the emulator");
    }
    if path.ends_with("/restore") && pair.method == "PUT" {
        return Some("selective restore from a storage account is not part of the emulator");
    }
    if pair.hsm && pair.headers.iter().any(|(name, _)| name == "x-ms-keyvault-service-version") {
        return Some("labelled mhsm, but a vault answered (its headers and words)");
    }
    if pair.hsm && pair.status == 400 && wording == "Backup blob is corrupt." {
        return Some("labelled mhsm, but a vault answered (its headers and words)");
    }
    if pair.hsm && wording.starts_with("There was a conflict restoring") {
        return Some("labelled mhsm, but a vault answered (its headers and words)");
    }
    if pair.hsm && pair.response.as_str().is_some_and(|text| text.starts_with("[HTML")) {
        return Some("labelled mhsm, but a vault's front end answered");
    }
    if pair.body["kty"] == "OKP-HSM" {
        return Some("EdDSA was tried in 7.4-preview.1 only and never became stable");
    }
    if pair.method == "PATCH"
        && pair.response["pending"].is_object()
        && pair.response.get("cer").is_none()
    {
        return Some("a certificate whose first version is still being made shows a version");
    }
    if path.ends_with("/attestation") {
        return Some("the recording holds placeholders instead of an attestation");
    }
    None
}

/// Makes the state and rewrites the request for it.
pub(crate) fn arrange(session: &Session<'_>, pair: &Pair) -> Result<Arranged, String> {
    let mut request = Arranged {
        method: pair.method.clone(),
        path: pair.path.clone(),
        query: pair.query.clone(),
        body: (!pair.body.is_null()).then(|| pair.body.clone()),
        token: None,
    };
    if pair.status == 401 {
        request.token = Some(String::new());
        return Ok(request);
    }
    let segments: Vec<String> =
        pair.path.trim_matches('/').split('/').map(str::to_ascii_lowercase).collect();
    let name = pair.path.trim_matches('/').split('/').nth(1).unwrap_or_default().to_owned();
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let action = match words.as_slice() {
        [collection, _, .., last] if words.len() > 2 && !is_version(last) && !last.is_empty() => {
            format!("{collection}/{last}")
        }
        [collection, ..] => (*collection).to_owned(),
        [] => String::new(),
    };
    if let Some(version) = pair.query.split('&').find_map(|part| part.strip_prefix("api-version="))
    {
        session.version.replace(version.to_owned());
    }
    let scene = Scene { session, pair, name: &name };
    match (pair.method.as_str(), action.as_str(), pair.status) {
        (_, _, 404) => {}
        ("GET", "keys" | "secrets" | "certificates", 403) => {
            scene.forbidden(&mut request, &words)?
        }
        ("POST", "keys/create", _) => scene.java_body(&mut request),
        ("PUT", "keys", _) => scene.java_body(&mut request),
        ("GET", "keys" | "deletedkeys", _) if words.len() == 1 => {
            scene.listing(&mut request, words[0])?;
        }
        ("GET", "keys/versions", _) => scene.versions(&mut request)?,
        ("GET", "keys", _) => scene.key(&mut request)?,
        ("PATCH", "keys", _) => {
            scene.key(&mut request)?;
        }
        ("DELETE", "keys", _) => scene.key(&mut request)?,
        ("GET" | "DELETE", "deletedkeys", _) | ("POST", "deletedkeys/recover", _) => {
            scene.key(&mut request)?;
            done(session.call("DELETE", &format!("/keys/{name}"), None).status, 200)?;
        }
        ("POST", "keys/sign" | "keys/verify", _) => scene.signature(&mut request, &action)?,
        ("POST", "keys/encrypt" | "keys/decrypt" | "keys/wrapkey" | "keys/unwrapkey", _) => {
            scene.cipher(&mut request, &action)?
        }
        ("POST", "keys/rotate", _) | (_, "keys/rotationpolicy", _) => {
            done(
                session.post(&format!("/keys/{name}/create"), json!({"kty": "EC-HSM"})).status,
                200,
            )?;
            if pair.status == 200 {
                let policy = json!({
                    "attributes": {"expiryTime": "P90D"},
                    "lifetimeActions": [{
                        "action": {"type": "rotate"}, "trigger": {"timeAfterCreate": "P30D"},
                    }],
                });
                let path = format!("/keys/{name}/rotationpolicy");
                done(session.call("PUT", &path, Some(policy)).status, 200)?;
            }
        }
        ("POST", "keys/release", _) => scene.release(&mut request)?,
        ("POST", "keys/backup", 200) => {
            done(session.post(&format!("/keys/{name}/create"), json!({"kty": "RSA"})).status, 200)?;
        }
        ("POST", "keys" | "secrets" | "certificates", 200 | 409)
            if words.last() == Some(&"restore") =>
        {
            scene.restore(&mut request, words[0])?;
        }
        (_, "secrets" | "secrets/versions" | "secrets/backup" | "deletedsecrets", _) => {
            scene.secrets(&mut request, &words)?;
        }
        ("POST", "certificates/create", _) => {}
        ("POST", "certificates/import", _) => scene.import_body(&mut request)?,
        (_, action, _) if action.contains("certificates") => {
            scene.certificates(&mut request, &words)?;
        }
        _ => {}
    }
    Ok(request)
}

pub(crate) struct Scene<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) pair: &'a Pair,
    pub(crate) name: &'a str,
}

impl Scene<'_> {
    /// Makes the key that the recorded response shows and puts its version into the path.
    fn key(&self, request: &mut Arranged) -> Result<(), String> {
        let mut body = creation(&self.pair.response);
        if let Some(policy) = self.pair.body.get("release_policy") {
            body["release_policy"] = policy.clone();
            // What the request makes final is not final yet; what it cannot change is.
            body["release_policy"]["immutable"] = json!(self.pair.status == 400);
            body["attributes"]["exportable"] = json!(true);
        }
        // The change that the request makes must still be to be made.
        if self.pair.method == "PATCH" {
            body["attributes"]["enabled"] = json!(true);
        }
        self.make(request, body)
    }

    fn make(&self, request: &mut Arranged, body: Value) -> Result<(), String> {
        let answer = self.session.post(&format!("/keys/{}/create", self.name), body);
        if answer.status != 200 {
            return Err(format!("create: {}", answer.text));
        }
        self.put_version(request, &answer.json["key"]["kid"]);
        Ok(())
    }

    pub(crate) fn put_version(&self, request: &mut Arranged, id: &Value) {
        let version = id.as_str().and_then(|id| id.rsplit('/').next()).unwrap_or_default();
        let segments: Vec<&str> = request
            .path
            .split('/')
            .map(|segment| if is_version(segment) { version } else { segment })
            .collect();
        request.path = segments.join("/");
    }

    /// The Java recordings have no request bodies: this is what they must have said.
    fn java_body(&self, request: &mut Arranged) {
        if request.body.is_some() || self.pair.status != 200 {
            return;
        }
        if self.pair.method == "POST" {
            request.body = Some(creation(&self.pair.response));
        } else {
            request.body = Some(json!({"key": private_rsa()}));
        }
    }

    fn listing(&self, request: &mut Arranged, collection: &str) -> Result<(), String> {
        let items = self.pair.response["value"].as_array().cloned().unwrap_or_default();
        let continued = request.query.contains("skiptoken");
        let more = self.pair.response["nextLink"].is_string();
        // A last page without items: what it would have shown has gone meanwhile.
        let gone = continued && items.is_empty();
        let mut names = Vec::new();
        if continued {
            names.push(("aaa".to_owned(), json!({})));
        }
        for item in &items {
            let id = item["kid"].as_str().unwrap_or_default();
            names.push((id.rsplit('/').next().unwrap_or_default().to_owned(), item.clone()));
        }
        if more || gone {
            names.push(("zzz".to_owned(), json!({})));
        }
        for (name, item) in &names {
            let mut body = creation(item);
            body["kty"] = json!("EC");
            done(self.session.post(&format!("/keys/{name}/create"), body).status, 200)?;
            if collection == "deletedkeys" {
                done(self.session.call("DELETE", &format!("/keys/{name}"), None).status, 200)?;
            }
        }
        if continued {
            self.follow(request, &format!("/{collection}?maxresults=1"))?;
        }
        if gone {
            self.session.call("DELETE", "/keys/zzz", None);
            self.session.call("DELETE", "/deletedkeys/zzz", None);
        }
        Ok(())
    }

    /// Replaces the query by the one that leads from the first page to the second.
    fn follow(&self, request: &mut Arranged, first: &str) -> Result<(), String> {
        let page = self.session.get(first);
        let link = page.json["nextLink"].as_str().ok_or("no second page")?;
        request.query = link.split_once('?').map(|(_, query)| query.to_owned()).ok_or("query")?;
        Ok(())
    }

    fn versions(&self, request: &mut Arranged) -> Result<(), String> {
        let items = self.pair.response["value"].as_array().map_or(0, Vec::len);
        let continued = request.query.contains("skiptoken");
        let more = self.pair.response["nextLink"].is_string();
        for _ in 0..items + usize::from(continued) + usize::from(more) {
            let mut body = creation(&self.pair.response["value"][0]);
            body["kty"] = json!("EC");
            done(self.session.post(&format!("/keys/{}/create", self.name), body).status, 200)?;
        }
        if continued {
            self.follow(request, &format!("/keys/{}/versions?maxresults=1", self.name))?;
        }
        Ok(())
    }

    fn forbidden(&self, request: &mut Arranged, words: &[&str]) -> Result<(), String> {
        let inner = self.pair.response["error"]["innererror"]["code"].as_str();
        match inner {
            Some("SecretDisabled") => {
                let body = json!({"value": "x", "attributes": {"enabled": false}});
                let path = format!("/secrets/{}", self.name);
                let made = self.session.call("PUT", &path, Some(body));
                self.put_version(request, &made.json["id"]);
                done(made.status, 200)
            }
            Some("ForbiddenByPolicy") => {
                let scope = "https://vault.azure.net/.default";
                request.token = Some(self.session.world.token_of("nobody", "secret", scope));
                Ok(())
            }
            other => Err(format!("{words:?}: {other:?}")),
        }
    }

    fn algorithm_key(&self, request: &Arranged) -> Value {
        let alg = request.body.as_ref().and_then(|body| body["alg"].as_str()).unwrap_or_default();
        let size = |digits: &str| digits.parse::<u32>().unwrap_or(256);
        match alg {
            "ES256" => json!({"kty": "EC", "crv": "P-256"}),
            "ES384" => json!({"kty": "EC", "crv": "P-384"}),
            "ES512" => json!({"kty": "EC", "crv": "P-521"}),
            "ES256K" => json!({"kty": "EC", "crv": "P-256K"}),
            _ if alg.starts_with("HS") || alg.starts_with("CKM_AES") => {
                json!({"kty": "oct", "key_size": 256})
            }
            _ if alg.starts_with('A') => json!({"kty": "oct", "key_size": size(&alg[1..4])}),
            _ => {
                let recorded = [&self.pair.body["value"], &self.pair.response["value"]];
                let longest = recorded.iter().filter_map(|text| text.as_str()).map(str::len).max();
                let size = if longest.unwrap_or_default() > 600 { 4096 } else { 2048 };
                json!({"kty": "RSA", "key_size": size})
            }
        }
    }

    fn signature(&self, request: &mut Arranged, action: &str) -> Result<(), String> {
        if request.body.is_none() {
            request.body = Some(match action {
                "keys/sign" => json!({"alg": "RS256", "value": zeros(32)}),
                _ => json!({"alg": "RS256", "digest": zeros(32), "value": ""}),
            });
        }
        self.make(request, self.algorithm_key(request))?;
        if action == "keys/verify" {
            let body = request.body.as_mut().ok_or("body")?;
            let sign = json!({"alg": body["alg"], "value": body["digest"]});
            let signed = self.session.post(&format!("/keys/{}/sign", self.name), sign);
            body["value"] = signed.json["value"].clone();
        }
        Ok(())
    }

    fn cipher(&self, request: &mut Arranged, action: &str) -> Result<(), String> {
        if request.body.is_none() {
            request.body = Some(json!({"alg": "RSA-OAEP", "value": zeros(100)}));
        }
        self.make(request, self.algorithm_key(request))?;
        let body = request.body.as_mut().ok_or("body")?;
        if body["value"].as_str().is_some_and(|text| text.starts_with('(')) {
            body["value"] = json!(zeros(200));
        }
        let undone = match action {
            "keys/decrypt" => "encrypt",
            "keys/unwrapkey" => "wrapkey",
            _ => return Ok(()),
        };
        let plaintext = self.pair.response["value"].as_str().unwrap_or_default();
        let mut there = json!({"alg": body["alg"], "value": plaintext});
        let gcm = body["alg"].as_str().is_some_and(|alg| alg.ends_with("GCM"));
        for member in ["iv", "aad"] {
            if let Some(value) = body.get(member).filter(|_| member == "aad" || !gcm) {
                there[member] = value.clone();
            }
        }
        let made = self.session.post(&format!("/keys/{}/{undone}", self.name), there);
        if made.status != 200 {
            return Err(format!("{undone}: {}", made.text));
        }
        body["value"] = made.json["value"].clone();
        for member in ["iv", "tag"] {
            if body.get(member).is_some() {
                body[member] = made.json[member].clone();
            }
        }
        Ok(())
    }

    /// The recorded attestation is left out: another one satisfies the key's policy.
    fn release(&self, request: &mut Arranged) -> Result<(), String> {
        let body = json!({
            "kty": "EC-HSM", "crv": "P-256K", "attributes": {"exportable": true},
            "release_policy": {"data": any_policy()},
        });
        self.make(request, body)?;
        let claims = json!({
            "iss": "https://a.example", "c": "v",
            "x-ms-runtime": {"keys": [private_rsa()]},
        });
        let world = self.session.world;
        let url = format!("{}/attest", world.ready().control);
        let answer =
            world.http.post(url).json(&claims).send().map_err(|error| error.to_string())?;
        let answer = crate::support::Answer::read(answer);
        request.body = Some(json!({"target": answer.json["token"]}));
        Ok(())
    }

    fn restore(&self, request: &mut Arranged, collection: &str) -> Result<(), String> {
        let id = if self.pair.status == 200 {
            let response = &self.pair.response;
            response["key"]["kid"].as_str().or(response["id"].as_str()).unwrap_or_default()
        } else {
            let message = self.pair.response["error"]["message"].as_str().unwrap_or_default();
            message.split('\'').nth(1).unwrap_or_default()
        };
        let name = id.split('/').nth(4).ok_or("a name in the response")?;
        let path = format!("/{collection}/{name}");
        let session = self.session;
        match collection {
            "keys" => {
                let mut body = creation(&self.pair.response);
                if session.is_hsm() && self.pair.response.get("release_policy").is_none() {
                    body.as_object_mut().ok_or("body")?.remove("release_policy");
                }
                let made = session.post(&format!("{path}/create"), body);
                done(made.status, 200)?;
            }
            "secrets" => {
                let body = secret(&self.pair.response);
                done(session.call("PUT", &path, Some(body)).status, 200)?;
            }
            _ => self.self_signed(name)?,
        }
        let blob = session.post(&format!("{path}/backup"), json!({}));
        done(blob.status, 200)?;
        if self.pair.status == 200 {
            done(session.call("DELETE", &path, None).status, 200)?;
            done(
                session.call("DELETE", &format!("/deleted{collection}/{name}"), None).status,
                204,
            )?;
        }
        request.body = Some(json!({"value": blob.json["value"]}));
        Ok(())
    }
}

/// A creation that makes what a response shows.
fn creation(shown: &Value) -> Value {
    let key = &shown["key"];
    let mut body = json!({"kty": key["kty"].as_str().unwrap_or("EC"), "attributes": {}});
    for member in ["crv", "key_ops"] {
        if let Some(value) = key.get(member) {
            body[member] = value.clone();
        }
    }
    if let Some(n) = key["n"].as_str() {
        body["key_size"] = json!((n.len() * 6 / 8 / 128 * 128 * 8).max(2048));
    }
    for member in ["enabled", "nbf", "exp", "exportable"] {
        if let Some(value) = shown["attributes"].get(member) {
            body["attributes"][member] = value.clone();
        }
    }
    for member in ["tags", "release_policy"] {
        if let Some(value) = shown.get(member) {
            body[member] = value.clone();
        }
    }
    if body["attributes"]["exportable"] == true && body.get("release_policy").is_none() {
        body["release_policy"] = json!({"data": any_policy()});
    }
    body
}

pub(crate) fn secret(shown: &Value) -> Value {
    let mut body = json!({"value": "x", "attributes": {}});
    for member in ["contentType", "tags"] {
        if let Some(value) = shown.get(member) {
            body[member] = value.clone();
        }
    }
    for member in ["enabled", "nbf", "exp"] {
        if let Some(value) = shown["attributes"].get(member) {
            body["attributes"][member] = value.clone();
        }
    }
    body
}

/// A release policy, where a recording does not show the one there was.
fn any_policy() -> String {
    let policy = r#"{"version":"1.0.0","anyOf":[{"authority":"https://a.example","allOf":[{"claim":"c","equals":"v"}]}]}"#;
    crate::support::encode(policy.as_bytes())
}

fn zeros(len: usize) -> String {
    crate::support::encode(&vec![0; len])
}

fn private_rsa() -> Value {
    let pair = openssl::rsa::Rsa::generate(2048).expect("RSA");
    let number = |number: Option<&openssl::bn::BigNumRef>| {
        json!(crate::support::encode(&number.expect("number").to_vec()))
    };
    json!({
        "kty": "RSA", "n": number(Some(pair.n())), "e": number(Some(pair.e())),
        "d": number(Some(pair.d())), "p": number(pair.p()), "q": number(pair.q()),
        "dp": number(pair.dmp1()), "dq": number(pair.dmq1()), "qi": number(pair.iqmp()),
    })
}

fn is_version(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub(crate) fn done(status: u16, expected: u16) -> Result<(), String> {
    if status == expected { Ok(()) } else { Err(format!("preparation answered {status}")) }
}
