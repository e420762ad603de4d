//! What a line looks like, whose lines are taken, and that nothing waits.

use std::{
    fs, io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixDatagram,
    },
    path::Path,
    time::Duration,
};

use log::{Level, LevelFilter, Log, Record};

use super::{
    Logger, State,
    line::{Line, MAX_LINE},
    sink::{self, Open, Sink},
};
use crate::config::LogSink;

fn logger(level: LevelFilter, sink: Sink) -> Logger {
    let logger = Logger::new();
    logger.replace(State { level, sink });
    logger
}

fn to_file(level: LevelFilter, path: &Path) -> Logger {
    logger(level, Sink::open(&LogSink::File(path.to_owned()), &Sink::Nowhere))
}

fn say(logger: &Logger, level: Level, target: &str, message: &str) {
    logger.log(
        &Record::builder().level(level).target(target).args(format_args!("{message}")).build(),
    );
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("log file")
}

#[test]
fn a_line_has_time_process_level_target_and_message() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    let logger = to_file(LevelFilter::Info, &path);
    say(&logger, Level::Warn, "akv_pkcs11::vault", "a\r\nb\tc\u{1b}[31m\u{2028}ü");
    say(&logger, Level::Debug, "akv_pkcs11::vault", "not at this level");
    let text = read(&path);
    let mut words = text.splitn(5, ' ');
    let stamp = words.next().expect("time");
    assert_eq!((stamp.len(), &stamp[10..11], &stamp[23..]), (24, "T", "Z"), "{text}");
    assert!(humantime::parse_rfc3339(stamp).is_ok());
    assert_eq!(words.next(), Some(std::process::id().to_string().as_str()));
    assert_eq!(words.next(), Some("WARN"));
    assert_eq!(words.next(), Some("akv_pkcs11::vault"));
    assert_eq!(words.next(), Some("a\\r\\nb\\tc\\u{1b}[31m\\u{2028}ü\n"));
}

/// reqwest, hyper, rustls, azure_identity print headers, tokens and keys at `trace`.
#[test]
fn lines_of_other_crates_are_refused_at_every_level() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("log");
    let logger = to_file(LevelFilter::Trace, &path);
    let foreign = ["reqwest::connect", "hyper", "rustls::client", "azure_core", "", "akv_pkcs11x"];
    for target in foreign {
        for level in Level::iter() {
            say(&logger, level, target, "Authorization: Bearer s3cr3t");
            let metadata = log::Metadata::builder().level(level).target(target).build();
            assert!(!logger.enabled(&metadata), "{target} at {level}");
        }
    }
    assert_eq!(read(&path), "");
    for target in ["akv_pkcs11", "akv_pkcs11::abi"] {
        say(&logger, Level::Trace, target, "ours");
    }
    assert_eq!(read(&path).lines().count(), 2);
}

#[test]
fn a_long_line_is_cut_and_stays_whole_characters() {
    let message = "é".repeat(MAX_LINE);
    let line = Line::plain(&message);
    assert!(line.as_bytes().len() <= MAX_LINE && line.as_bytes().len() > MAX_LINE - 8);
    let text = std::str::from_utf8(line.as_bytes()).expect("UTF-8");
    assert!(text.starts_with("akv-pkcs11: éé") && text.ends_with("é…\n"));
    assert_eq!(Line::plain("short").as_bytes(), b"akv-pkcs11: short\n");
}

#[test]
fn a_rotated_file_is_followed_and_a_lost_folder_survived() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, rotated) = (folder.path().join("sub/log"), folder.path().join("sub/log.1"));
    fs::create_dir(folder.path().join("sub")).expect("create");
    let logger = to_file(LevelFilter::Info, &path);
    say(&logger, Level::Info, "akv_pkcs11", "one");
    fs::rename(&path, &rotated).expect("rename");
    say(&logger, Level::Info, "akv_pkcs11", "two");
    say(&logger, Level::Info, "akv_pkcs11", "three");
    assert!(read(&rotated).ends_with(" one\n"));
    assert!(read(&path).contains(" two\n") && read(&path).ends_with(" three\n"));

    // Nothing can be opened at the path any more: the descriptor from the start is what is left.
    fs::rename(folder.path().join("sub"), folder.path().join("gone")).expect("rename");
    say(&logger, Level::Info, "akv_pkcs11", "four");
    assert!(read(&folder.path().join("gone/log.1")).ends_with(" four\n"));
}

#[test]
fn a_descriptor_that_the_host_reuses_is_neither_written_nor_closed() {
    let folder = tempfile::tempdir().expect("folder");
    let (theirs, path) = (folder.path().join("theirs"), folder.path().join("log"));
    let file = fs::File::create(&theirs).expect("create");
    let number = file.as_raw_fd();
    let stolen = Open::stolen(file);
    let logger = logger(LevelFilter::Info, Sink::File(path.clone(), stolen));
    say(&logger, Level::Info, "akv_pkcs11", "elsewhere");
    assert_eq!(read(&theirs), "");
    assert!(read(&path).ends_with(" elsewhere\n"));
    drop(logger);
    let still = fs::read_link(format!("/proc/self/fd/{number}")).expect("still open");
    assert_eq!(still, theirs);
}

#[test]
fn syslog_gets_datagrams_and_may_restart() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("dev-log");
    let logger = logger(LevelFilter::Info, Sink::syslog(&path));
    say(&logger, Level::Error, "akv_pkcs11", "nobody listens");
    for (level, priority) in [(Level::Error, 11), (Level::Warn, 12), (Level::Info, 14)] {
        let _ = fs::remove_file(&path);
        let daemon = UnixDatagram::bind(&path).expect("bind");
        daemon.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        say(&logger, level, "akv_pkcs11::vault", "two\nlines");
        let mut buffer = [0; 256];
        let length = daemon.recv(&mut buffer).expect("a datagram");
        let wanted = format!(
            "<{priority}>akv-pkcs11[{}]: akv_pkcs11::vault two\\nlines",
            std::process::id()
        );
        assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(wanted.as_str()));
    }
}

#[test]
fn a_full_pipe_or_one_without_reader_takes_no_line() {
    let (reader, writer) = io::pipe().expect("pipe");
    assert!(sink::takes_a_line(writer.as_fd()));
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("nonblocking");
    while rustix::io::write(&writer, &[0; 4096]).is_ok() {}
    assert!(!sink::takes_a_line(writer.as_fd()));
    drop(reader);
    assert!(!sink::takes_a_line(writer.as_fd()));
}

/// As a fork leaves them: locked by a thread that is not there any more.
#[test]
fn locks_left_behind_are_passed_over() {
    let folder = tempfile::tempdir().expect("folder");
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    let logger = to_file(LevelFilter::Info, &first);
    let current = logger.current.load(std::sync::atomic::Ordering::Acquire);

    let reader = logger.slots[current].read().expect("lock");
    say(&logger, Level::Info, "akv_pkcs11", "beside a reader");
    assert!(read(&first).ends_with(" beside a reader\n"));
    drop(reader);

    let writer = logger.slots[current].write().expect("lock");
    say(&logger, Level::Info, "akv_pkcs11", "dropped");
    let next = logger.slots[(current + 1) % logger.slots.len()].write().expect("lock");
    logger.replace(State {
        level: LevelFilter::Info,
        sink: Sink::open(&LogSink::File(second.clone()), &Sink::Nowhere),
    });
    say(&logger, Level::Info, "akv_pkcs11", "after C_Initialize");
    drop((writer, next));
    assert!(read(&first).ends_with(" beside a reader\n"));
    assert!(read(&second).ends_with(" after C_Initialize\n"));
    assert_ne!(logger.current.load(std::sync::atomic::Ordering::Acquire), current);
}

#[test]
fn a_file_that_may_not_be_opened_again_stays_open() {
    let folder = tempfile::tempdir().expect("folder");
    let (held, path) = (folder.path().join("held"), folder.path().join("held/log"));
    fs::create_dir(&held).expect("create");
    let logger = to_file(LevelFilter::Info, &path);
    // As a worker that gave up its privileges sees it: not even a folder there.
    fs::rename(&held, folder.path().join("moved")).expect("rename");
    let open = |state: &State| Sink::open(&LogSink::File(path.clone()), &state.sink);
    let sink = logger.with(open).expect("nobody writes");
    logger.replace(State { level: LevelFilter::Info, sink });
    say(&logger, Level::Info, "akv_pkcs11", "still here");
    assert!(read(&folder.path().join("moved/log")).ends_with(" still here\n"));
}

#[test]
fn any_number_of_initialisations_reconfigure() {
    let folder = tempfile::tempdir().expect("folder");
    let logger = Logger::new();
    for round in 0..50 {
        let path = folder.path().join(round.to_string());
        let sink = Sink::open(&LogSink::File(path.clone()), &Sink::Nowhere);
        logger.replace(State { level: LevelFilter::Info, sink });
        say(&logger, Level::Info, "akv_pkcs11", &format!("round {round}"));
        assert!(read(&path).ends_with(&format!(" round {round}\n")));
        assert_eq!(read(&path).lines().count(), 1);
    }
}
