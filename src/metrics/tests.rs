//! What the files hold, and who may decide where they lead.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    time::SystemTime,
};

use super::*;
use crate::net::{Headers, Response};

static FUNCTIONS: &[(&str, bool)] = &[("C_Sign", true), ("C_Verify", true)];

fn metrics(dir: &Path) -> Metrics {
    Metrics::new(dir, FUNCTIONS, ["a \"token\" \\ of\nlines", "other"].into_iter())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("folder");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
    files.sort();
    files
}

fn answer(status: u16) -> Result<Response, NetError> {
    Ok(Response { status, headers: Headers::Map(Default::default()), body: Default::default() })
}

#[test]
fn a_call_a_request_and_an_error_are_counted() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = metrics(folder.path());
    metrics.called(0, CKR_OK);
    metrics.called(1, CKR_SIGNATURE_INVALID);
    metrics.called(1, 0x8000_0001);
    let token = metrics.token(1).expect("token");
    let took = Duration::from_millis(7);
    token.requested(Some(Operation::Sign), &answer(503), took, 1);
    token.requested(Some(Operation::Sign), &answer(200), took, 2);
    token.requested(None, &Err(NetError::Timeout), Duration::from_secs(60), 1);
    metrics.write();
    let text = fs::read_to_string(&files(folder.path())[0]).expect("file");
    let line = |name: &str, labels: &str| {
        let mut lines =
            text.lines().filter(|line| line.starts_with(&format!("akv_pkcs11_{name}{{")));
        let line = lines.find(|line| line.contains(labels)).unwrap_or_else(|| panic!("{text}"));
        line.rsplit(' ').next().expect("value").to_owned()
    };
    assert_eq!(line("calls_total", "function=\"C_Verify\""), "2");
    assert_eq!(line("call_errors_total", "rv=\"CKR_SIGNATURE_INVALID\""), "1");
    assert_eq!(line("call_errors_total", "rv=\"other\""), "1");
    assert_eq!(line("retries_total", "operation=\"sign with key\""), "1");
    assert_eq!(line("request_errors_total", "kind=\"5xx\""), "1");
    assert_eq!(line("request_errors_total", "kind=\"timeout\""), "1");
    let name = "request_duration_seconds";
    let sign = "operation=\"sign with key\"";
    assert_eq!(line(&format!("{name}_bucket"), &format!("{sign},le=\"0.005\"")), "0");
    assert_eq!(line(&format!("{name}_bucket"), &format!("{sign},le=\"0.01\"")), "2");
    assert_eq!(line(&format!("{name}_sum"), sign), "0.014");
    assert_eq!(line(&format!("{name}_count"), sign), "2");
    let token = "operation=\"get access token\"";
    assert_eq!(line(&format!("{name}_bucket"), &format!("{token},le=\"30\"")), "0");
    assert_eq!(line(&format!("{name}_bucket"), &format!("{token},le=\"+Inf\"")), "1");
}

#[test]
fn the_first_call_writes_and_the_next_ones_wait() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = metrics(folder.path());
    metrics.called(0, CKR_OK);
    let file = files(folder.path()).remove(0);
    let first = fs::read_to_string(&file).expect("file");
    metrics.called(0, CKR_OK);
    assert_eq!(fs::read_to_string(&file).expect("file"), first);
    metrics.write();
    assert_ne!(fs::read_to_string(&file).expect("file"), first);
    let mode = fs::metadata(&file).expect("file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn the_next_writing_is_after_ten_seconds_and_not_before() {
    let folder = tempfile::tempdir().expect("folder");
    let metrics = metrics(folder.path());
    let written = || {
        let text = fs::read_to_string(&files(folder.path())[0]).expect("file");
        let line = text.lines().find(|line| line.starts_with("akv_pkcs11_calls_total{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).expect("a count")
    };
    let at = |seconds: f32| metrics.write_if_due(Duration::from_secs_f32(seconds));
    metrics.calls[0].store(1, Relaxed);
    at(3.0);
    for (call, (seconds, seen)) in
        [(4.0, 1), (12.99, 1), (13.0, 4), (13.1, 4), (22.9, 4), (1e6, 7), (1e6 + 9.0, 7)]
            .into_iter()
            .enumerate()
    {
        metrics.calls[0].store(call as u64 + 2, Relaxed);
        at(seconds);
        assert_eq!(written(), seen, "after {seconds} s");
    }
}

#[test]
fn a_panic_while_writing_ends_no_writing_for_ever() {
    let folder = tempfile::tempdir().expect("folder");
    let files_of = Folder::new(folder.path());
    let write = |text: fn() -> String| files_of.write(|_| text());
    let panic = std::panic::AssertUnwindSafe(|| write(|| panic!("while it is written")));
    assert!(std::panic::catch_unwind(panic).is_err());
    write(|| "well".to_owned());
    let written = files(folder.path());
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(fs::read_to_string(&written[0]).expect("file"), "well");
}

#[test]
fn files_of_the_dead_go_and_those_of_others_stay() {
    let folder = tempfile::tempdir().expect("folder");
    let mut child = Command::new("true").spawn().expect("true");
    child.wait().expect("its end");
    let namespace = rustix::fs::stat("/proc/self/ns/pid").expect("/proc").st_ino;
    let (other, dead) = (namespace + 1, child.id());
    // Name, age in hours, and whether it stays.
    let cases = [
        (format!("akv-pkcs11-{namespace}-{dead}.prom"), 0, false),
        (format!(".akv-pkcs11-{namespace}-{dead}.prom.new"), 0, false),
        (format!("akv-pkcs11-{namespace}-1.prom"), 48, true),
        // Of a container that shares the folder: it may be there, until it has long been quiet.
        (format!("akv-pkcs11-{other}-{dead}.prom"), 0, true),
        (format!("akv-pkcs11-{other}-1.prom"), 23, true),
        (format!("akv-pkcs11-{other}-2.prom"), 25, false),
        (format!(".akv-pkcs11-{other}-2.prom.new"), 25, false),
        (format!("akv-pkcs11-{other}-x.prom"), 48, true),
        (format!("other-{namespace}-{dead}.prom"), 48, true),
    ];
    for (name, hours, _) in &cases {
        let file = fs::File::create(folder.path().join(name)).expect("create");
        let written = SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_modified(written).expect("utimensat");
    }
    metrics(folder.path()).write();
    for (name, _, stays) in &cases {
        assert_eq!(folder.path().join(name).exists(), *stays, "{name}");
    }
}

#[test]
fn planted_links_lead_nowhere() {
    let folder = tempfile::tempdir().expect("folder");
    let namespace = rustix::fs::stat("/proc/self/ns/pid").expect("/proc").st_ino;
    let name = format!("akv-pkcs11-{namespace}-{}.prom", std::process::id());
    let victim = folder.path().join("victim");
    fs::write(&victim, "precious").expect("write");
    for planted in [name.clone(), format!(".{name}.new")] {
        symlink(&victim, folder.path().join(planted)).expect("link");
    }
    metrics(folder.path()).write();
    assert_eq!(fs::read_to_string(&victim).expect("file"), "precious");
    let written = fs::symlink_metadata(folder.path().join(&name)).expect("file");
    assert!(written.is_file());
}

#[test]
fn a_folder_that_others_rule_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let open = folder.path().join("open");
    fs::create_dir(&open).expect("create");
    let mode = |mode| fs::set_permissions(&open, fs::Permissions::from_mode(mode)).expect("chmod");
    mode(0o777);
    metrics(&open).write();
    assert!(files(&open).is_empty(), "everybody may write there, and remove");
    mode(0o1777);
    metrics(&open).write();
    assert_eq!(files(&open).len(), 1);
    let missing = folder.path().join("missing");
    metrics(&missing).write();
    assert!(!missing.exists());
    // A link of our own is followed.
    let link = folder.path().join("link");
    symlink(&open, &link).expect("link");
    metrics(&link).write();
    assert_eq!(files(&open).len(), 1);
}
