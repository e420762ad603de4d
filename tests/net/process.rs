//! What a host process notices: nothing. Each test runs in a process of its own, this binary again.

use std::{
    env, fs,
    process::Command,
    time::{Duration, Instant},
};

use akv_pkcs11::config::{CredentialConfig, ManagedIdentityEndpoint};

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

/// Threads of this process that are not a test server's.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
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
    let wanted = [akv_pkcs11::vault::KeyRef::current("web"); 20];
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
