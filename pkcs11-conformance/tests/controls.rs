//! The controls: what this program says of SoftHSM, which breaks known clauses, and of a module
//! with one fault at a time. A program that passes everything everywhere checks nothing.

mod support;

use std::collections::BTreeSet;

use support::{Run, SoftHsm};

/// Each failure on SoftHSM is a known one, with the clause it breaks.
#[test]
fn softhsm_fails_where_it_is_known_to() {
    let softhsm = SoftHsm::new();
    let run = Run::of(&support::softhsm_module()).softhsm(&softhsm).expecting("softhsm2.toml");
    let result = run.go();
    assert!(result.success, "{}", result.text);
    assert!(result.passed().len() > 500, "{}", result.text);
}

/// A fault, the group that sees it, and the start of the result that shows it.
const FAULTS: &[(&str, &str, &str)] = &[
    ("null-entry", "interfaces", "interfaces/list-is-complete"),
    ("info-before-initialize", "precedence", "precedence/not-initialized[C_GetInfo]"),
    ("wrong-precedence", "precedence", "precedence/bad-session[C_Sign]"),
    ("crash-at-exit", "random", "random/process"),
    ("crash", "info", "info/slot-list-present"),
    ("hang", "info", "info/slot-list-present"),
    ("state-never-changes", "sessions", "sessions/login-states"),
    ("found-twice", "find", "find/paging"),
    ("secret-read", "attributes", "attributes/sensitive"),
    ("length-not-told", "buffers", "buffers/sign["),
    ("beyond-the-buffer", "buffers", "buffers/digest["),
    ("query-ends", "buffers", "buffers/digest["),
    ("kept-after-output", "states", "states/ends-with-output[Digest"),
    ("init-twice", "states", "states/init-twice[Sign"),
    ("advertised-but-failing", "mechanisms", "mechanisms/works[CKM_SHA384, Digest"),
    ("wrong-digest", "digests", "digests/digests["),
    ("wrong-signature", "signatures", "signatures/digest-info["),
    ("accepts-any-signature", "signatures", "signatures/verifies-ecdsa["),
    ("part-lost", "ciphers", "ciphers/encrypts-buffers["),
    ("wrong-ciphertext", "encryption", "encryption/pkcs1-encrypts["),
    ("wraps-anything", "wrapping", "wrapping/unextractable["),
    ("copy-forgets", "objects", "objects/copy"),
    ("accepts-any-signature", "vectors", "vectors/ecdsa["),
    ("wrong-code", "templates", "templates/pair-incomplete["),
    ("constant-random", "random", "random/lengths["),
    ("fork-breaks", "concurrency", "concurrency/fork"),
    ("reserved-ignored", "initialize", "initialize/reserved"),
    ("crash-within", "info", "info/mechanism-infos[CKM_SHA384]"),
    ("stubs", "precedence", "precedence/bad-session[C_Sign]"),
    ("length-of-minus-one", "attributes", "attributes/lengths["),
    ("kept-after-wrong-signature", "states", "states/signature-wrong["),
    ("object-outlives-session", "objects", "objects/with-session"),
    ("unlisted-works", "mechanisms", "mechanisms/unlisted[CKM_SHA256"),
    ("mutex-leaked", "initialize", "initialize/callbacks-only"),
];

/// The same for what SoftHSM does not have: behind these faults is this project's module.
const FAULTS_OF_3_2: &[(&str, &str, &str)] = &[
    ("accepts-any-message", "messages", "messages/verifies["),
    ("login-user-missing", "profiles", "profiles/extended"),
    ("reserved-flags", "profiles", "profiles/sequences[baseline, call 2 Info/Flags]"),
    ("session-cancel-ignored", "states", "states/cancel-by-session["),
    ("null-mechanism-ignored", "states", "states/cancel-by-null["),
    ("oaep-label-ignored", "encryption", "encryption/oaep-decrypts["),
    ("oaep-mgf-ignored", "encryption", "encryption/oaep-decrypts["),
];

/// And for what SoftHSM does wrong itself, and a vault does not have.
const FAULTS_OF_HSM: &[(&str, &str, &str)] =
    &[("gcm-tag-ignored", "ciphers", "ciphers/gcm-forged[")];

#[test]
fn each_fault_is_caught_where_it_is() {
    caught(FAULTS, of_faulty);
}

#[test]
fn each_fault_of_3_2_is_caught_where_it_is() {
    caught(FAULTS_OF_3_2, |fault, groups| of_akv("kv1", fault, groups));
}

#[test]
fn each_fault_of_an_hsm_is_caught_where_it_is() {
    caught(FAULTS_OF_HSM, |fault, groups| of_akv("hsm1", fault, groups));
}

fn of_akv(service: &str, fault: &str, groups: &[&str]) -> support::Outcome {
    let module = support::akv_module();
    let run = Run::of(&support::faulty_module())
        .emulator(service, &[("FAULTY_MODULE", &module.to_string_lossy()), ("FAULTY", fault)]);
    let run = run.arg("--pin").arg("0000");
    groups.iter().fold(run, |run, group| run.arg("--group").arg(group)).go()
}

/// A group without a fault could pass everything.
#[test]
fn every_group_has_a_fault() {
    let (good, text) = support::program(&["list".as_ref()]);
    assert!(good, "{text}");
    let groups = text.lines().filter(|line| !line.starts_with(' '));
    let named = groups.filter_map(|line| Some(line.split_once(": ")?.0));
    let groups: BTreeSet<&str> = named.collect();
    let caught =
        FAULTS.iter().chain(FAULTS_OF_3_2).chain(FAULTS_OF_HSM).map(|(_, group, _)| *group);
    assert_eq!(caught.collect::<BTreeSet<&str>>(), groups);
}

fn caught(faults: &[(&str, &str, &str)], run: impl Fn(&str, &[&str]) -> support::Outcome + Sync) {
    let groups: BTreeSet<&str> = faults.iter().map(|(_, group, _)| *group).collect();
    let sound = run("none", &groups.into_iter().collect::<Vec<_>>());
    let try_one = |(fault, group, wanted): &(&str, &str, &str)| {
        let shows = |id: &str| id.starts_with(wanted) && !sound.failed().contains(id);
        let result = run(fault, &[*group]);
        assert!(!result.success, "{fault}: the run succeeds\n{}", result.text);
        let seen = result.failed().iter().any(|id| shows(id));
        assert!(seen, "{fault}: {wanted} does not fail\n{}", result.text);
    };
    std::thread::scope(|scope| {
        for some in faults.chunks(faults.len().div_ceil(4)) {
            scope.spawn(|| some.iter().for_each(try_one));
        }
    });
}

fn of_faulty(fault: &str, groups: &[&str]) -> support::Outcome {
    // Otherwise SoftHSM's own fork would hide the fault's.
    let softhsm = SoftHsm::with("library.reset_on_fork = true");
    let mut run = Run::of(&support::faulty_module())
        .softhsm(&softhsm)
        .env("FAULTY_MODULE", support::softhsm_module())
        .env("FAULTY", fault);
    if fault == "hang" || fault == "slow" {
        run = run.arg("--patience").arg("2");
    }
    for group in groups {
        run = run.arg("--group").arg(group);
    }
    run.go()
}

/// After a crash the rest of the case is tried, the crash being one result.
#[test]
fn a_crash_costs_one_result() {
    let (sound, broken) = (of_faulty("none", &["info"]), of_faulty("crash-within", &["info"]));
    assert_eq!(sound.all(), broken.all(), "{}", broken.text);
    let more: Vec<String> = broken.failed().difference(&sound.failed()).cloned().collect();
    assert_eq!(more, ["info/mechanism-infos[CKM_SHA384]"], "{}", broken.text);
}

/// The limit is for silence: a module that is slow in all it does is not one that hangs.
#[test]
fn a_slow_module_is_not_ended() {
    let (sound, slow) = (of_faulty("none", &["info"]), of_faulty("slow", &["info"]));
    assert_eq!(sound.passed(), slow.passed(), "{}", slow.text);
    assert!(slow.seconds() > 4.0, "twice the limit: {}", slow.text);
}

/// What the run made is gone, or named.
#[test]
fn what_stays_on_the_token_is_named() {
    let softhsm = SoftHsm::new();
    let before = softhsm.files();
    let run = |module: &std::path::Path| {
        let run = Run::of(module).softhsm(&softhsm);
        run.arg("--group").arg("find").arg("--group").arg("signatures")
    };
    let result = run(&support::softhsm_module()).go();
    assert!(result.all().iter().any(|id| id.contains("token RSA")), "{}", result.text);
    assert!(!result.text.contains("stays on the token"), "{}", result.text);
    assert_eq!(before, softhsm.files(), "{}", result.text);
    let result = run(&support::faulty_module())
        .env("FAULTY_MODULE", support::softhsm_module())
        .env("FAULTY", "destroys-nothing")
        .go();
    let stays = |line: &&str| line.contains("\"pkcs11-conformance-") && line.contains(" stays on");
    // Two pairs and a secret key.
    assert_eq!(result.text.lines().filter(stays).count(), 5, "{}", result.text);
}

/// Without a module, a token or the right PIN there is no run, and no result.
#[test]
fn a_run_that_cannot_be_made_is_told_from_one_that_fails() {
    let softhsm = SoftHsm::new();
    let refused = |run: Run, says: &str| {
        let result = run.go();
        assert_eq!(result.code, Some(2), "{}", result.text);
        assert_eq!(result.text.lines().count(), 1, "{}", result.text);
        assert!(result.text.contains(says), "{}", result.text);
    };
    let module = support::softhsm_module();
    refused(Run::of(std::path::Path::new("none.so")), "none.so: cannot open");
    refused(Run::of(std::path::Path::new("/dev/null")), "/dev/null");
    let token = Run::of(&module).softhsm_token(&softhsm, "other");
    refused(token, "no token is labelled \"other\"");
    let pin = Run::of(&module).softhsm(&softhsm).env("PKCS11_CONFORMANCE_PIN", "9999");
    refused(pin, "the token does not take the PIN: CKR_PIN_INCORRECT");
    let run = Run::of(&module).softhsm(&softhsm).arg("--group").arg("random");
    assert_eq!(run.go().code, Some(0), "and the right PIN is still taken");
}

/// A read-only run makes nothing on the token, and says what it did not try.
#[test]
fn read_only_leaves_the_token_as_it_was() {
    let softhsm = SoftHsm::new();
    let before = softhsm.files();
    let run = Run::of(&support::softhsm_module()).softhsm(&softhsm).arg("--read-only");
    let result = run.arg("--group").arg("signatures").arg("--group").arg("sessions").go();
    assert!(result.passed().len() > 50, "{}", result.text);
    assert_eq!(before, softhsm.files());
}

/// `compare` tells what got worse, and fails for it.
#[test]
fn compare_shows_what_got_worse() {
    let sound = of_faulty("none", &["random"]);
    let broken = of_faulty("constant-random", &["random"]);
    let compare = |a: &support::Outcome, b: &support::Outcome| {
        support::program(&["compare".as_ref(), a.json.as_os_str(), b.json.as_os_str()])
    };
    let (good, text) = compare(&sound, &broken);
    assert!(!good && text.contains("random/lengths[16] now fails"), "{text}");
    let (good, text) = compare(&broken, &sound);
    assert!(good && text.contains("random/lengths[16] is mended"), "{text}");
}

/// What is written for other programs can be read by them.
#[test]
fn reports_are_well_formed() {
    let softhsm = SoftHsm::new();
    let folder = tempfile::tempdir().expect("folder");
    let (junit, markdown) = (folder.path().join("junit.xml"), folder.path().join("result.md"));
    let run = Run::of(&support::softhsm_module()).softhsm(&softhsm).arg("--group").arg("sessions");
    let result = run.arg("--junit").arg(&junit).arg("--markdown").arg(&markdown).go();
    let xml = std::fs::read_to_string(junit).expect("junit");
    let document = roxmltree::Document::parse(&xml).expect("well-formed");
    let cases = document.descendants().filter(|node| node.has_tag_name("testcase")).count();
    let counts = result.text.lines().find(|line| line.contains(" passed, ")).expect("a summary");
    let sum: usize =
        counts.split(", ").filter_map(|part| part.split(' ').next()?.parse::<usize>().ok()).sum();
    assert_eq!(cases, sum, "{counts}");
    let failures = document.descendants().filter(|node| node.has_tag_name("failure")).count();
    assert_eq!(failures, result.failed().len(), "{counts}");
    assert_eq!(result.text.lines().last(), Some(counts), "the summary is the last line");
    let mut seconds = result.text.lines().filter_map(|line| line.strip_suffix(" s")?.parse().ok());
    assert!(seconds.next_back().is_some_and(|seconds: f64| seconds >= 0.0), "{}", result.text);
    let text = std::fs::read_to_string(markdown).expect("markdown");
    assert!(text.contains("sessions/logout-first"), "{text}");
}

#[test]
fn list_names_each_case_and_its_clause() {
    let (good, text) = support::program(&["list".as_ref()]);
    assert!(good);
    for line in text.lines().filter(|line| line.starts_with("  ")) {
        assert!(line.contains('/') && line.contains('(') && line.ends_with('.'), "{line}");
    }
    assert!(text.lines().count() > 100);
}
