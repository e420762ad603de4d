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
];

/// The same for what SoftHSM does not have: behind these faults is this project's module.
const FAULTS_OF_3_2: &[(&str, &str, &str)] = &[
    ("accepts-any-message", "messages", "messages/verifies["),
    ("login-user-missing", "profiles", "profiles/extended"),
];

#[test]
fn each_fault_is_caught_where_it_is() {
    caught(FAULTS, of_faulty);
}

#[test]
fn each_fault_of_3_2_is_caught_where_it_is() {
    caught(FAULTS_OF_3_2, |fault, groups| {
        let run = Run::of(&support::faulty_module()).emulator(
            "kv1",
            &[("FAULTY_MODULE", &support::akv_module().to_string_lossy()), ("FAULTY", fault)],
        );
        groups
            .iter()
            .fold(run.arg("--pin").arg("0000"), |run, group| run.arg("--group").arg(group))
            .go()
    });
}

/// A group without a fault could pass everything.
#[test]
fn every_group_has_a_fault() {
    let (good, text) = support::program(&["list".as_ref()]);
    assert!(good, "{text}");
    let groups = text.lines().filter(|line| !line.starts_with(' '));
    let named = groups.filter_map(|line| Some(line.split_once(": ")?.0));
    let groups: BTreeSet<&str> = named.collect();
    let caught = FAULTS.iter().chain(FAULTS_OF_3_2).map(|(_, group, _)| *group);
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
    if fault == "hang" {
        run = run.arg("--patience").arg("2");
    }
    for group in groups {
        run = run.arg("--group").arg(group);
    }
    run.go()
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
