//! The two commands end to end.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use support::{Answer, https};

fn emulator() -> Command {
    Command::new(env!("CARGO_BIN_EXE_akv-emulator"))
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().cast_signed()).expect("pid");
    kill_process(pid, signal).expect("kill");
}

/// Waits, but not for ever: a hanging emulator must not hang the suite.
fn ended(mut child: Child) -> Option<i32> {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("wait") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().expect("kill");
    panic!("the emulator did not end");
}

fn run(arguments: &[&str]) -> (Child, Value) {
    let mut child =
        emulator().arg("run").args(arguments).stdout(Stdio::piped()).spawn().expect("akv-emulator");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("stdout");
    BufReader::new(stdout).read_line(&mut line).expect("ready line");
    (child, serde_json::from_str(&line).expect("one line of JSON"))
}

#[test]
fn run_tells_where_it_is_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().expect("folder");
    let ca_file = folder.path().join("ca.pem");
    let seed = folder.path().join("seed.toml");
    std::fs::write(
        &seed,
        "[[keys]]\nname = 'k'\nkty = 'EC'\ncurve = 'P-384'\nops = ['sign']\n\
         [[certificates]]\nname = 'c'\nsubject = 'CN=c'\nkty = 'EC'\ncurve = 'P-256'\n",
    )
    .expect("seed");
    let (child, ready) = run(&[
        "--vault",
        "kv1",
        "--hsm",
        "hsm1",
        "--seed",
        seed.to_str().expect("path"),
        "--ca-file",
        ca_file.to_str().expect("path"),
    ]);
    let services = ready["services"].as_array().expect("services");
    let shown: Vec<_> =
        services.iter().map(|one| (one["name"].as_str(), one["kind"].as_str())).collect();
    assert_eq!(shown, [(Some("kv1"), Some("vault")), (Some("hsm1"), Some("managed-hsm"))]);
    assert_eq!(services[0]["host"], "kv1.vault.azure.net");
    let http = https(&ca_file);
    let text = |member: &str| ready[member].as_str().expect("text");
    for service in services {
        let url = format!("{}/{}/oauth2/v2.0/token", text("authority"), text("tenant"));
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", text("client_id")),
            ("client_secret", text("client_secret")),
            ("scope", service["scope"].as_str().expect("scope")),
        ];
        let token = Answer::read(http.post(url).form(&form).send().expect("token")).ok();
        let get = |path: &str| {
            let url = format!("{}{path}?api-version=7.4", service["url"].as_str().expect("url"));
            let token = token["access_token"].as_str().expect("token");
            Answer::read(http.get(url).bearer_auth(token).send().expect("send"))
        };
        let key = get("/keys/k").ok();
        assert_eq!(
            (&key["key"]["crv"], &key["key"]["key_ops"]),
            (&json!("P-384"), &json!(["sign"]))
        );
        let expected = if service["kind"] == "vault" { 200 } else { 404 };
        assert_eq!(get("/certificates/c").status, expected);
    }
    signal(&child, Signal::TERM);
    assert_eq!(ended(child), Some(0));
}

#[test]
fn run_ends_when_the_control_endpoint_is_asked() {
    let (child, ready) = run(&[]);
    assert_eq!(ready["services"][0]["name"], "emulator");
    let ca_file = std::path::PathBuf::from(ready["ca_file"].as_str().expect("path"));
    let url = format!("{}/shutdown", ready["control"].as_str().expect("control"));
    assert_eq!(https(&ca_file).post(url).send().expect("send").status(), 200);
    assert_eq!(ended(child), Some(0));
    assert!(!ca_file.exists(), "the temporary folder is gone");
}

#[test]
fn exec_sets_the_environment_and_passes_the_exit_code_on() {
    let script = "env; cat \"$AKV_PKCS11_CONFIG\"; stat -c mode=%a \"$AKV_PKCS11_CONFIG\"; exit 7";
    let output = emulator()
        .args(["exec", "--vault", "kv1", "--hsm", "hsm1", "--", "sh", "-c", script])
        .output()
        .expect("exec");
    assert_eq!(output.status.code(), Some(7));
    let text = String::from_utf8(output.stdout).expect("text");
    for name in [
        "AKV_PKCS11_ENDPOINT=https://127.0.0.1:",
        "AKV_PKCS11_SERVICE=vault\n",
        "AKV_PKCS11_SCOPE=https://vault.azure.net/.default\n",
        "AKV_PKCS11_AUTHORITY=https://127.0.0.1:",
        "AKV_PKCS11_CA_FILE=/",
        "AKV_EMULATOR_CONTROL=http://127.0.0.1:",
        "AZURE_TENANT_ID=",
        "AZURE_CLIENT_ID=",
        "AZURE_CLIENT_SECRET=",
        "AZURE_AUTHORITY_HOST=https://127.0.0.1:",
        "REQUESTS_CA_BUNDLE=/",
        "CURL_CA_BUNDLE=/",
        "NODE_EXTRA_CA_CERTS=/",
        "label = \"hsm1\"",
        "service = \"managed-hsm\"",
        "secret = \"env:AZURE_CLIENT_SECRET\"",
        "mode=600",
    ] {
        assert!(text.contains(name), "{name}");
    }
    assert_eq!(text.matches("[[token]]").count(), 2);
}

#[test]
fn exec_passes_signals_on() {
    let mut child = emulator()
        .args([
            "exec",
            "--",
            "sh",
            "-c",
            "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    let mut up = [0; 3];
    child.stdout.as_mut().expect("stdout").read_exact(&mut up).expect("up");
    signal(&child, Signal::TERM);
    assert_eq!(ended(child), Some(9));
    let killed = emulator().args(["exec", "--", "sh", "-c", "kill -KILL $$"]).status();
    assert_eq!(killed.expect("exec").code(), Some(128 + 9));
}

#[test]
fn mistakes_are_told() {
    let folder = tempfile::tempdir().expect("folder");
    let config = folder.path().join("emulator.toml");
    std::fs::write(&config, "[switches]\nno_such_switch = true\n").expect("config");
    let config = config.to_str().expect("path");
    for (arguments, words) in [
        (&["run", "--config", config][..], "no_such_switch"),
        (&["run", "--vault", "a_b"], "letters, digits and hyphens"),
        (&["run", "--seed", "/nonexistent.toml"], "/nonexistent.toml"),
        (&["exec", "--", "/nonexistent-command"], "/nonexistent-command"),
    ] {
        let output = emulator().args(arguments).output().expect("run");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(words), "{told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_killed_emulator_comes_back_with_every_acknowledged_key() {
    let folder = tempfile::tempdir().expect("folder");
    let (config, kept) = (folder.path().join("emulator.toml"), folder.path().join("kept.json"));
    std::fs::write(&config, format!("persist = '{}'\n", kept.display())).expect("config");
    let config = config.to_str().expect("path");
    let arguments = ["--config", config, "--vault", "v", "--hsm", "h", "--seed", "demo"];
    let (mut known, mut backup) = (Vec::new(), Value::Null);
    for life in 0..3 {
        let (mut child, ready) = run(&arguments);
        let text = |member: &str| ready[member].as_str().expect("text");
        let http = https(std::path::Path::new(text("ca_file")));
        let mut now_known = Vec::new();
        for service in ready["services"].as_array().expect("services") {
            let url = format!("{}/{}/oauth2/v2.0/token", text("authority"), text("tenant"));
            let form = [
                ("grant_type", "client_credentials"),
                ("client_id", text("client_id")),
                ("client_secret", text("client_secret")),
                ("scope", service["scope"].as_str().expect("scope")),
            ];
            let token = Answer::read(http.post(url).form(&form).send().expect("token")).ok();
            let token = token["access_token"].as_str().expect("token").to_owned();
            let call = |method: reqwest::Method, path: &str, body: Value| {
                let base = service["url"].as_str().expect("url");
                let request = http.request(method, format!("{base}{path}?api-version=7.4"));
                Answer::read(request.bearer_auth(&token).json(&body).send().expect("send"))
            };
            let name = format!("life{life}");
            call(reqwest::Method::POST, &format!("/keys/{name}/create"), json!({"kty": "EC"})).ok();
            for name in (0..=life).map(|life| format!("life{life}")).chain(["rsa2048".into()]) {
                let key = call(reqwest::Method::GET, &format!("/keys/{name}"), json!({})).ok();
                let kid = key["key"]["kid"].as_str().expect("kid");
                now_known.push(kid.rsplit('/').next().expect("version").to_owned());
            }
            if life == 0 && service["kind"] == "vault" {
                backup = call(reqwest::Method::POST, "/keys/rsa2048/backup", json!({})).ok();
            } else if service["kind"] == "vault" {
                let answer = call(reqwest::Method::POST, "/keys/restore", backup.clone());
                answer.refused(409, "Conflict");
            }
        }
        for version in &known {
            assert!(now_known.contains(version), "a version is lost in life {life}");
        }
        known = now_known;
        child.kill().expect("kill");
        child.wait().expect("wait");
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(&kept).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Killed in the middle of writing: what was acknowledged is there, whole, whatever else was under
/// way.
#[test]
fn an_emulator_killed_under_load_has_lost_nothing_it_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let (config, kept) = (folder.path().join("emulator.toml"), folder.path().join("kept.json"));
    std::fs::write(&config, format!("persist = '{}'\n", kept.display())).expect("config");
    let arguments = ["--config", config.to_str().expect("path"), "--vault", "v", "--hsm", "h"];
    let acknowledged = Mutex::new(BTreeMap::new());
    for life in 0..4 {
        let (mut child, ready) = run(&arguments);
        let text = |member: &str| ready[member].as_str().expect("text");
        let http = https(std::path::Path::new(text("ca_file")));
        let services = ready["services"].as_array().expect("services");
        let tokens: Vec<(String, String)> = services
            .iter()
            .map(|service| {
                let url = format!("{}/{}/oauth2/v2.0/token", text("authority"), text("tenant"));
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", text("client_id")),
                    ("client_secret", text("client_secret")),
                    ("scope", service["scope"].as_str().expect("scope")),
                ];
                let token = Answer::read(http.post(url).form(&form).send().expect("token")).ok();
                let token = token["access_token"].as_str().expect("token").to_owned();
                (service["url"].as_str().expect("url").to_owned(), token)
            })
            .collect();
        let version = |key: &Value| {
            let kid = key["key"]["kid"].as_str().expect("kid");
            kid.rsplit('/').next().expect("version").to_owned()
        };
        for ((service, name), known) in acknowledged.lock().expect("map").iter() {
            let (base, token): &(String, String) = &tokens[*service];
            let url = format!("{base}/keys/{name}?api-version=7.4");
            let key = Answer::read(http.get(url).bearer_auth(token).send().expect("send")).ok();
            assert_eq!(&version(&key), known, "{name} in life {life}");
        }
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (service, http, acknowledged) = (worker % 2, &http, &acknowledged);
                let (base, token) = &tokens[service];
                scope.spawn(move || {
                    for at in 0.. {
                        let name = format!("l{life}w{worker}n{at}");
                        let url = format!("{base}/keys/{name}/create?api-version=7.4");
                        let body = json!({"kty": "EC"});
                        let Ok(answer) = http.post(url).bearer_auth(token).json(&body).send()
                        else {
                            return; // it was killed meanwhile
                        };
                        assert_eq!(answer.status(), 200, "{name}");
                        let Ok(key) = answer.json::<Value>() else { return };
                        acknowledged.lock().expect("map").insert((service, name), version(&key));
                    }
                });
            }
            // Another moment each time.
            std::thread::sleep(Duration::from_millis(300 + 170 * life));
            child.kill().expect("kill");
            child.wait().expect("wait");
        });
    }
    assert!(acknowledged.lock().expect("map").len() > 20, "there was no load");
}
