//! What a host process notices: nothing. Each test runs in a process of its own, this binary again.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use akv_pkcs11::{
    config::{CredentialConfig, ManagedIdentityEndpoint},
    vault::{Carried, Cipher, KeyRef, Vault},
};
use akv_wire::EncryptionAlgorithm;
use cryptoki_sys::CKR_USER_NOT_LOGGED_IN;

use crate::{
    config,
    server::{Reply, Server, THREAD},
    service, sign, signature, soon, vault,
};

/// Runs one ignored test of this binary alone, with these variables.
fn alone(test: &str, variables: &[(&str, &str)]) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--test-threads=1"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Threads of this process that are not a test server's. One that ends while it is looked at was
/// a test server's: nobody else ends any.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name != THREAD).collect()
}

#[test]
fn no_thread_is_ever_started() {
    alone("process::threads_stay_as_they_are", &[]);
}

#[test]
#[ignore = "run by no_thread_is_ever_started"]
fn threads_stay_as_they_are() {
    let before = threads();
    // A host name, a token, repeats with pauses, a wide drive, a managed identity, a name that
    // DNS is asked for.
    let server = service(|seen| match seen.turn {
        1 => Reply::status(503, "").with("retry-after-ms", "5"),
        2 => Reply::Close,
        _ => signature(),
    });
    let mut config = config(&server);
    let local = vault(&config);
    for _ in 0..6 {
        sign(&local).unwrap();
    }
    let wanted = [KeyRef::current("web"); 20];
    drop(local.fetch_many(&wanted, soon()).unwrap());
    let metadata = Server::plain(|_| Reply::status(503, ""));
    config.credential = CredentialConfig::ManagedIdentity { identity: None };
    config.timeout = Duration::from_secs(1);
    config.managed_identity = Some(ManagedIdentityEndpoint {
        url: format!("http://{}/t", metadata.address),
        header: None,
    });
    sign(&vault(&config)).unwrap_err();
    config.endpoint.host = "does-not-exist.invalid".into();
    sign(&vault(&config)).unwrap_err();
    assert_eq!(threads(), before);
}

#[test]
fn proxies_and_bundles_of_the_environment_do_not_count() {
    let nowhere = "http://127.0.0.1:1";
    alone(
        "process::the_way_is_direct",
        &[
            ("HTTPS_PROXY", nowhere),
            ("https_proxy", nowhere),
            ("ALL_PROXY", nowhere),
            ("AZURE_AUTHORITY_HOST", "https://127.0.0.1:1"),
        ],
    );
}

#[test]
#[ignore = "run by proxies_and_bundles_of_the_environment_do_not_count"]
fn the_way_is_direct() {
    let server = service(|_| signature());
    sign(&vault(&config(&server))).unwrap();
}

#[test]
fn the_azure_cli_is_run_by_the_calling_thread_and_ended_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("az");
    let script = "#!/bin/sh\n[ -f \"${0%/*}/slow\" ] && exec sleep 30\n\
                  [ -f \"${0%/*}/helper\" ] && sleep 20 &\n\
                  echo \"$@\" > \"${0%/*}/arguments\"\n\
                  echo '{\"accessToken\":\"cli-token\",\"expires_on\":9999999999,\"tokenType\":\"B\"}'\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let folder = folder.path().to_str().unwrap();
    alone("process::ask_the_azure_cli", &[("PATH", &path), ("TEST_FOLDER", folder)]);
}

#[test]
#[ignore = "run by the_azure_cli_is_run_by_the_calling_thread_and_ended_at_the_deadline"]
fn ask_the_azure_cli() {
    let folder = PathBuf::from(env::var_os("TEST_FOLDER").unwrap());
    let before = threads();
    let server = service(|_| signature());
    let mut config = config(&server);
    config.credential = CredentialConfig::AzureCli;
    sign(&vault(&config)).unwrap();
    assert_eq!(server.seen()[0].headers["authorization"], "Bearer cli-token");
    let arguments = fs::read_to_string(folder.join("arguments")).unwrap();
    assert!(arguments.contains("--scope https://vault.azure.net/.default"), "{arguments}");
    assert!(arguments.contains(&format!("--tenant {}", crate::TENANT)), "{arguments}");
    assert_eq!(threads(), before);
    // The CLI gives the same token, whatever claims are asked for: that takes a new login.
    let demanding = service(|_| crate::claims::challenge());
    let mut other = crate::config(&demanding);
    other.credential = CredentialConfig::AzureCli;
    let error = sign(&vault(&other)).unwrap_err();
    assert_eq!(error.rv(), CKR_USER_NOT_LOGGED_IN);
    let command = "az login --scope https://vault.azure.net/.default --claims-challenge eyJ";
    assert!(error.sentence().contains(command), "{error}");
    assert_eq!(demanding.seen().len(), 1);
    // What it leaves behind may keep its output open, and is not waited for.
    fs::write(folder.join("helper"), "").unwrap();
    let started = Instant::now();
    sign(&vault(&config)).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    // A host that forbids threads wants no process either.
    fs::remove_file(folder.join("arguments")).unwrap();
    let forbidden = Carried { may_run_programs: false, ..Carried::default() };
    let error = sign(&Vault::new(&config, forbidden).unwrap()).unwrap_err();
    assert!(error.sentence().contains("CKF_LIBRARY_CANT_CREATE_OS_THREADS"), "{error}");
    assert!(!folder.join("arguments").exists());
    fs::write(folder.join("slow"), "").unwrap();
    config.timeout = Duration::from_millis(400);
    let started = Instant::now();
    let error = sign(&vault(&config)).unwrap_err();
    assert!(error.sentence().contains("within the deadline"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn nothing_secret_is_logged_at_any_level() {
    alone("process::log_everything", &[]);
}

/// Collects every line of every crate.
struct Everything(Mutex<String>);

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        *self.0.lock().unwrap() += &format!("{} {}\n", record.target(), record.args());
    }

    fn flush(&self) {}
}

#[test]
#[ignore = "run by nothing_secret_is_logged_at_any_level"]
fn log_everything() {
    static LINES: Everything = Everything(Mutex::new(String::new()));
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = service(|seen| match seen.path.as_str() {
        "/keys/web/0f/decrypt" => Reply::json(r#"{"kid":"k","value":"cGxhaW50ZXh0LWJ5dGVz"}"#),
        _ if seen.turn == 1 => Reply::status(401, "{}"),
        _ => signature(),
    });
    let mut config = config(&server);
    let local = vault(&config);
    sign(&local).unwrap();
    let input = Cipher { value: b"ciphertext-bytes", ..Cipher::default() };
    let key = KeyRef::version("web", "0f");
    let plain = local.decrypt(key, EncryptionAlgorithm::RsaOaep, &input).unwrap();
    assert_eq!(*plain, b"plaintext-bytes");
    config.credential = CredentialConfig::FromLogin { client_id: Some("app".into()) };
    let local = vault(&config);
    local.login(b"the-pin-is-a-secret").unwrap();
    sign(&local).unwrap();
    let lines = LINES.0.lock().unwrap();
    assert!(lines.contains("sign with key web/0f: 200"), "{lines}");
    let secrets = [
        crate::SECRET,
        "token-1",
        "the-pin-is-a-secret",
        "plaintext-bytes",
        "cGxhaW50ZXh0LWJ5dGVz",
        "ciphertext-bytes",
    ];
    for secret in secrets {
        assert!(!lines.contains(secret), "{secret} in {lines}");
    }
}

#[test]
fn making_a_vault_costs_next_to_nothing() {
    let server = service(|_| signature());
    let config = config(&server);
    let fastest = (0..20)
        .map(|_| {
            let started = Instant::now();
            drop(vault(&config));
            started.elapsed()
        })
        .min()
        .unwrap();
    // In a release build about 0.1 ms.
    assert!(fastest < Duration::from_millis(5), "{fastest:?}");
    assert_eq!(server.connections(), 0);
}
