//! The file of counters, read by the format's own library.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use cryptoki_sys::*;

use crate::{
    fork::in_child,
    service::{Emulator, VAULT},
    token::{Mechanism, Module, is_alone},
};

const SEED: &str = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";

/// Name, labels and value of each sample, as prometheus_client reads them.
fn samples(dir: &Path) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let script = "import json, pathlib, sys\n\
        from prometheus_client.parser import text_string_to_metric_families as parse\n\
        out = []\n\
        for path in pathlib.Path(sys.argv[1]).iterdir():\n\
        \x20   for family in parse(path.read_text()):\n\
        \x20       assert family.type in ('counter', 'gauge', 'histogram'), family\n\
        \x20       assert family.documentation, family\n\
        \x20       out += [(s.name, s.labels, s.value) for s in family.samples]\n\
        print(json.dumps(out))";
    // Debian's, which sees Debian's libraries; another one may come first in PATH.
    let output = Command::new("/usr/bin/python3").args(["-c", script]).arg(dir).output();
    let output = output.expect("/usr/bin/python3 is missing: `apt-get install python3`");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !errors.contains("No module named"),
        "{errors}: `apt-get install python3-prometheus-client`, or `make deps`"
    );
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn value(samples: &[(String, BTreeMap<String, String>, f64)], name: &str, labels: &[&str]) -> f64 {
    let fits = |sample: &&(String, BTreeMap<String, String>, f64)| {
        sample.0 == name && labels.iter().all(|label| sample.1.values().any(|v| v == label))
    };
    samples.iter().filter(fits).map(|sample| sample.2).sum()
}

#[test]
fn each_process_counts_in_a_file_of_its_own() {
    const NAME: &str = "metrics::each_process_counts_in_a_file_of_its_own";
    if !is_alone(NAME, &[]) {
        return;
    }
    let emulator = Emulator::start(SEED);
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path();
    let toml = format!("metrics_dir = '{}'\n{}", dir.display(), emulator.token(VAULT, ""));
    let module = Module::start(&toml);
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    let trouble = r#"{"operation": "keys/sign", "times": 1, "status": 503}"#;
    emulator.trouble(trouble);
    for _ in 0..3 {
        session.sign(&ecdsa, key, &[1; 32]).unwrap();
    }
    assert_eq!(session.info().map(drop), Ok(()));
    assert_eq!(module.open_with(99, CKF_SERIAL_SESSION).map(drop), Err(CKR_SLOT_ID_INVALID));

    in_child(|| {
        session.sign(&ecdsa, key, &[1; 32]).unwrap();
        module.finalize().unwrap();
    });
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| !path.to_string_lossy().contains(&format!("-{}.", std::process::id())));
    assert_eq!(files.len(), 1, "the child's: {files:?}");
    let childs = folder.path().join("child");
    fs::create_dir(&childs).unwrap();
    fs::rename(&files[0], childs.join("child.prom")).unwrap();
    let samples_of_child = samples(&childs);
    assert_eq!(value(&samples_of_child, "akv_pkcs11_calls_total", &["C_Sign"]), 1.0);
    let duration = "akv_pkcs11_request_duration_seconds_count";
    assert_eq!(value(&samples_of_child, duration, &["sign with key", VAULT]), 1.0);
    fs::remove_dir_all(&childs).unwrap();

    module.finalize().unwrap();
    let samples = samples(dir);
    let of = |name: &str, labels: &[&str]| value(&samples, name, labels);
    assert_eq!(of("akv_pkcs11_info", &[env!("CARGO_PKG_VERSION")]), 1.0);
    assert_eq!(of("akv_pkcs11_calls_total", &["C_Sign"]), 3.0);
    assert_eq!(of("akv_pkcs11_call_errors_total", &["CKR_SLOT_ID_INVALID"]), 1.0);
    assert_eq!(of(duration, &["sign with key", VAULT]), 4.0);
    assert_eq!(of("akv_pkcs11_retries_total", &["sign with key"]), 1.0);
    assert_eq!(of("akv_pkcs11_request_errors_total", &["5xx"]), 1.0);
    assert_eq!(of(duration, &["get access token"]), 1.0);
    let buckets = "akv_pkcs11_request_duration_seconds_bucket";
    assert_eq!(of(buckets, &["sign with key", "+Inf"]), 4.0);
    let pid = std::process::id().to_string();
    assert!(samples.iter().all(|(_, labels, _)| labels["pid"] == pid));
}
