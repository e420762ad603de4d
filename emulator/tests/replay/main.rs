//! Replays recorded traffic of the real services and compares, member by member.
//!
//! The recordings lie beside the project (`../shared/api/recordings`), not in it; without them
//! the test says so and passes. Nothing of them is in the emulator: each request gets a service
//! of its own, in which the state it needs is made first through the same API.

#![allow(clippy::print_stdout, reason = "the comparison is what the output is for")]

mod arrange;
mod compare;
mod objects;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use akv_emulator::config::{ClientConfig, Config, ServiceConfig, Switches};
use serde_json::{Value, json};

use arrange::Arranged;
use support::{Answer, World};

/// One recorded request and its response.
struct Pair {
    /// File and position.
    origin: String,
    /// `vault` or `mhsm`.
    hsm: bool,
    method: String,
    /// Path, percent-encoded, without host.
    path: String,
    query: String,
    body: Value,
    status: u16,
    /// Response headers; empty where they were not recorded.
    headers: Vec<(String, String)>,
    response: Value,
}

#[test]
fn recorded_traffic_is_answered_alike() {
    let Some(folder) = recordings() else {
        println!("replay: SKIPPED, there are no recordings beside the project");
        return;
    };
    let pairs = read(&folder);
    let servers = [(0, false), (3_600, false), (0, true)].map(|(delay, empty_pages)| {
        let count = pairs.len();
        let named = |prefix: &str| {
            (0..count).map(|at| ServiceConfig { name: format!("{prefix}{at}"), port: 0 }).collect()
        };
        let config = Config {
            vault: named("v"),
            hsm: named("h"),
            client: vec![ClientConfig {
                id: "nobody".into(),
                secret: "secret".into(),
                keys: Some(Vec::new()),
                ..ClientConfig::default()
            }],
            switches: Switches {
                deletion_delay: delay,
                vault_empty_pages: empty_pages,
                ..Switches::default()
            },
            ..Config::default()
        };
        World::start(config, Vec::new())
    });
    let (mut matched, mut skipped, mut failed) = (0, 0, 0);
    for (at, pair) in pairs.iter().enumerate() {
        if let Some(reason) = arrange::skip(pair) {
            println!("skip {}: {reason}", pair.origin);
            skipped += 1;
            continue;
        }
        let inner = pair.response["error"]["innererror"]["code"].as_str();
        let response = &pair.response;
        let empty_page = response["value"] == json!([]) && response["nextLink"].is_string();
        let server = match (inner, empty_page) {
            (Some("ObjectIsBeingDeleted"), _) => &servers[1],
            (_, true) => &servers[2],
            _ => &servers[0],
        };
        let index = if pair.hsm { pairs.len() + at } else { at };
        let session = server.session(index);
        let differences = match arrange::arrange(&session, pair) {
            Err(reason) => vec![format!("not arranged: {reason}")],
            Ok(Arranged { method, path, query, body, token }) => {
                if let Some(token) = token {
                    session.token.replace(token);
                }
                let query = if query.is_empty() { query } else { format!("?{query}") };
                let url = format!("{}{path}{query}", session.url);
                let answer: Answer = session.send(&method, &url, body);
                compare::differences(pair, &answer)
            }
        };
        if differences.is_empty() {
            matched += 1;
        } else {
            failed += 1;
            println!("DIFF {} {} {}", pair.origin, pair.method, pair.path);
            for difference in differences {
                println!("     {difference}");
            }
        }
    }
    println!("replay: compared {}, matched {matched}, skipped {skipped}", matched + failed);
    assert_eq!(failed, 0, "recorded traffic is answered differently: see above");
    assert!(skipped * 10 <= pairs.len(), "more than one pair in ten is skipped");
}

/// Signatures that the real services made are good in the emulator's eyes, too.
#[test]
fn recorded_signatures_verify() {
    let Some(folder) = recordings() else {
        println!("vectors: SKIPPED, there are no recordings beside the project");
        return;
    };
    let text = std::fs::read_to_string(folder.join("vectors_sign.json")).expect("vectors");
    let vectors: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let mut checked = 0;
    for vector in &vectors {
        let text = |member: &str| vector[member].as_str().expect("text").to_owned();
        let bytes = |member: &str| support::decode(&vector[member]);
        let good = akv_emulator::verify_with_public_key(
            &vector["jwk"].to_string(),
            &text("alg"),
            &bytes("digest"),
            &bytes("signature"),
        );
        assert_eq!(good, Ok(vector["ok"].as_bool().unwrap_or(true)), "{}", text("source"));
        let mut digest = bytes("digest");
        digest[0] ^= 1;
        let bad = akv_emulator::verify_with_public_key(
            &vector["jwk"].to_string(),
            &text("alg"),
            &digest,
            &bytes("signature"),
        );
        assert_eq!(bad, Ok(false), "{}", text("source"));
        checked += 1;
    }
    println!("vectors: checked {checked}");
    assert!(checked > 0);
}

fn recordings() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/api/recordings");
    folder.join("curated").is_dir().then_some(folder)
}

fn read(folder: &Path) -> Vec<Pair> {
    let json = |path: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("recording");
        serde_json::from_str(&text).expect("JSON")
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("curated"))
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut pairs = Vec::new();
    for file in files {
        let stem = file.file_stem().expect("name").to_string_lossy().into_owned();
        for (at, recorded) in json(&file).iter().enumerate() {
            pairs.push(pair(format!("{stem}#{at}"), &recorded["service"], recorded));
        }
    }
    let modern = folder.join("modern_2025_2026.json");
    for (group, recorded) in json(&modern).iter().enumerate() {
        for (at, one) in recorded["pairs"].as_array().expect("pairs").iter().enumerate() {
            pairs.push(pair(format!("modern#{group}.{at}"), &recorded["service"], one));
        }
    }
    pairs
}

fn pair(origin: String, service: &Value, recorded: &Value) -> Pair {
    let (request, response) = (&recorded["request"], &recorded["response"]);
    let target = match request["url"].as_str() {
        Some(url) => {
            let (_, rest) = url.split_once("://").expect("URL");
            rest.find('/').map_or("/", |slash| &rest[slash..]).to_owned()
        }
        None => request["path"].as_str().expect("path").to_owned(),
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let headers = response["headers"].as_object().into_iter().flatten();
    Pair {
        origin,
        hsm: service == "mhsm",
        method: request["method"].as_str().expect("method").to_owned(),
        path: path.replace("<name>", "name").replace("<ver>", &"0".repeat(32)),
        query: query.to_owned(),
        body: request["body"].clone(),
        status: u16::try_from(response["status"].as_u64().expect("status")).expect("status"),
        headers: headers
            .map(|(name, value)| {
                (name.to_ascii_lowercase(), value.as_str().unwrap_or_default().to_owned())
            })
            .collect(),
        response: response["body"].clone(),
    }
}
