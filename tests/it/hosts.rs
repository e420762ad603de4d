//! Host programs in C, each a process of its own: what they must not notice of the module, and
//! what the module must stand from them. The programs are in tests/c.

use std::{env, fs, os::unix::fs::PermissionsExt, process::Command};

use crate::{
    breaking::Relay,
    host::{Host, numbers, reserved},
    service::{Emulator, HSM, VAULT},
    support,
};

const SEED: &str = "
keys = [
    { name = 'ec', kty = 'EC', curve = 'P-256' },
    { name = 'rsa', kty = 'RSA', size = 2048 },
]";

/// Parent and children, who sign while the parent forks: nobody's request is lost or sent twice.
#[test]
fn a_parent_of_two_hundred_children_notices_none() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("forks.c", &[]);
    let copy = host.copy().display().to_string();
    let out = host.run(&[&copy, &reserved(&emulator.token(VAULT, "")), "200"]);
    eprint!("{out}");
    let [signatures, fds, fds_late, threads, threads_late, kib, kib_late] = numbers(&out)[..]
    else {
        panic!("{out}")
    };
    assert_eq!(emulator.counts(VAULT)["keys/sign"], u64::try_from(signatures).unwrap());
    assert!(signatures > 400, "that was no load: {out}");
    // A lane more or less is the moment's: the searcher's, or one that was given up.
    assert!(fds_late <= fds + 8 && threads_late == threads, "{out}");
    assert!(kib_late < kib + 1024, "{out}");
}

/// A daemon's children, without files, environment, descriptors and privileges, use what their
/// parent has read: configuration, secret, CA, hosts and the system's roots.
#[test]
fn children_in_an_empty_jail_use_what_their_parent_read() {
    let emulator = Emulator::start(SEED);
    let mut host = Host::compile("jail.c", &[]);
    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let empty = file("empty");
    fs::create_dir(&empty).expect("folder");
    fs::write(file("hosts"), "127.0.0.1 localhost kv1.vault.azure.net\n").expect("file");
    let ca = emulator.folder.path().join("ca.pem");
    fs::copy(&ca, file("ca.pem")).expect("file");
    let (_, secret) = emulator.client_and_secret();
    fs::write(file("secret"), &secret).expect("file");
    let token = emulator
        .token(VAULT, "")
        .replace("endpoint = 'https://127.0.0.1:", "endpoint = 'https://kv1.vault.azure.net:")
        .replace(&format!("'{secret}'"), "'file:secret'");
    assert!(token.contains("kv1.vault.azure.net") && token.contains("file:secret"), "{token}");
    let line = token.lines().find(|line| line.starts_with("ca_file")).expect("a CA file");
    for (ca, of_system) in [("ca_file = 'ca.pem'", false), ("", true)] {
        let config = file("config.toml");
        fs::write(&config, token.replace(line, ca)).expect("file");
        for name in ["config.toml", "secret"] {
            fs::set_permissions(file(name), fs::Permissions::from_mode(0o600)).expect("mode");
        }
        host.env = vec![("AKV_PKCS11_CONFIG", config)];
        if of_system {
            host.env.push(("SSL_CERT_FILE", file("ca.pem")));
        }
        host.run(&[&file("hosts"), &empty]);
    }
}

#[test]
fn a_host_may_load_and_finalize_a_thousand_times() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "cycles", "1000"]);
    eprint!("{out}");
    let [fds, fds_late, threads, threads_late, kib, kib_late] = numbers(&out)[..] else {
        panic!("{out}")
    };
    assert_eq!((fds, threads), (fds_late, threads_late), "{out}");
    assert!(kib_late < kib + 512, "{out}");
}

/// With calls under way in other threads, and calls of the exit handlers' own.
#[test]
fn a_host_may_end_in_any_way() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    emulator.trouble(r#"{"operation": "keys/sign", "delay_ms": 150}"#);
    for way in ["return", "atexit", "openssl", "destructor", "quick", "thread"] {
        let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "exits", way]);
        assert_eq!(out, "", "{way}: nothing goes to standard output");
    }
}

#[test]
fn copies_and_strangers_in_one_process_keep_to_themselves() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("loads.c", &["-lcrypto"]);
    let stranger = host.folder().join("stranger.so");
    let output = Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "cdylib", "-A", "non_snake_case", "-o"])
        .arg(&stranger)
        .arg(support::root().join("tests/c/stranger.rs"))
        .output()
        .expect("rustc");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (copy, stranger) = (host.copy().display().to_string(), stranger.display().to_string());
    host.run(&[&reserved(&emulator.token(VAULT, "")), "beside", &copy, &stranger]);
}

/// A write to a connection that its peer has closed raises SIGPIPE, which ends most programs.
#[test]
fn a_host_outlives_connections_that_close_under_large_requests() {
    let emulator = Emulator::start("keys = [{ name = 'aes', kty = 'oct-HSM', size = 256 }]");
    let toml = emulator.token(HSM, "timeout = '5s'\nmax_aes_payload = 300000");
    let endpoint = toml.lines().find_map(|line| line.strip_prefix("endpoint = 'https://"));
    let service = endpoint.expect("an endpoint").trim_end_matches('\'');
    let relay = Relay::to(service.parse().expect("an address"));
    let toml = toml.replace(
        &format!("endpoint = 'https://{service}'"),
        &format!("endpoint = 'https://{}'", relay.address),
    );
    let out = Host::compile("signals.c", &[]).run(&[&reserved(&toml), "pipes", "12"]);
    eprint!("{} connections broken, {out}", relay.broken());
    let [answered, _] = numbers(&out)[..] else { panic!("{out}") };
    assert!(relay.broken() > 15 && answered > 0, "{} broken, {out}", relay.broken());
}

/// Every system call of every thread is interrupted, and no call fails for it.
#[test]
fn a_host_may_be_interrupted_at_any_time() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("signals.c", &[]);
    let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "interrupts", "2"]);
    eprint!("{out}");
    let [answered, interrupted] = numbers(&out)[..] else { panic!("{out}") };
    assert!(answered > 50 && interrupted > 2_000, "{out}");
}

#[test]
fn sixty_four_threads_do_everything_at_once() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("threads.c", &[]);
    let out = host.run(&[&reserved(&emulator.tokens()), "mixed", "64", "10"]);
    assert_eq!(numbers(&out), [640, 0]);
    for service in [VAULT, HSM] {
        assert_eq!(emulator.counts(service)["keys/sign"], 320, "one request each");
    }
}

#[test]
fn sessions_may_be_closed_under_the_calls_of_other_threads() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("threads.c", &[]);
    let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "closing", "200"]);
    eprint!("{out}");
    let [answered, ended] = numbers(&out)[..] else { panic!("{out}") };
    assert!(answered > 0 && ended > 0, "{out}");
}

#[test]
fn the_module_may_be_finalized_under_the_calls_of_other_threads() {
    let emulator = Emulator::start(SEED);
    let host = Host::compile("threads.c", &[]);
    let out = host.run(&[&reserved(&emulator.token(VAULT, "")), "finalizing", "20"]);
    eprint!("{out}");
    let [answered, ended] = numbers(&out)[..] else { panic!("{out}") };
    assert!(answered > 20 * 32 && ended == 20 * 32, "{out}");
}

/// CKF_LIBRARY_CANT_CREATE_OS_THREADS: the kernel ends a process that makes one all the same, or
/// another process, whatever happens: names asked of DNS, tokens, repeats, broken connections.
#[test]
fn a_host_may_forbid_threads() {
    let emulator = Emulator::start(SEED);
    let nowhere = emulator.token(VAULT, "slot = 2\ntimeout = '1s'\nfind_timeout = '1s'");
    let endpoint = nowhere.lines().find(|line| line.starts_with("endpoint")).expect("endpoint");
    let nowhere = nowhere
        .replace(endpoint, "endpoint = 'https://does-not-exist.invalid'")
        .replace(&format!("label = '{VAULT}'"), "label = 'nowhere'");
    let toml = emulator.tokens().replace("https://127.0.0.1", "https://localhost") + &nowhere;
    for fault in [
        r#"{"operation": "keys/sign", "skip": 3, "times": 2, "status": 503}"#,
        r#"{"operation": "keys/sign", "skip": 3, "times": 2, "connection": "reset-before"}"#,
        r#"{"operation": "keys/decrypt", "skip": 3, "times": 2, "status": 429, "retry_after": 1}"#,
        r#"{"operation": "keys/get", "times": 1, "connection": "reset-before"}"#,
        r#"{"operation": "token", "times": 1, "status": 500}"#,
    ] {
        emulator.trouble(fault);
    }
    let host = Host::compile("threads.c", &[]);
    let out = host.run(&[&reserved(&toml), "alone", "8"]);
    assert_eq!(numbers(&out), [16, 0]);
}

/// AddressSanitizer in the host watches the module's allocations too: what it frees twice, uses
/// after it freed it, or leaves behind at the end.
#[test]
fn nothing_is_leaked_or_used_after_its_end() {
    let emulator = Emulator::start(SEED);
    let (one, both) = (reserved(&emulator.token(VAULT, "")), reserved(&emulator.tokens()));
    let sanitized = |source, more: &[&str]| {
        let options = [more, &["-fsanitize=address,undefined", "-fno-sanitize-recover"]].concat();
        Host::compile(source, &options)
    };
    let threads = sanitized("threads.c", &[]);
    threads.run(&[&both, "mixed", "8", "3"]);
    threads.run(&[&one, "closing", "50"]);
    threads.run(&[&one, "finalizing", "5"]);
    let loads = sanitized("loads.c", &["-lcrypto"]);
    loads.run(&[&one, "cycles", "60"]);
    loads.run(&[&one, "exits", "atexit"]);
}

/// 64 threads do everything at once, and sessions and the module go away under calls, with a module
/// that ThreadSanitizer was compiled into.
#[test]
#[ignore = "run by make races, which builds the module for it"]
fn threads_race_for_nothing() {
    let given = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name}: run make races"));
    let (module, runtime) = (given("AKV_RACES_MODULE"), given("AKV_RACES_RUNTIME"));
    let whole = ["-rdynamic", "-Wl,--whole-archive", &runtime, "-Wl,--no-whole-archive"];
    let mut host = Host::compile("threads.c", &[&whole[..], &["-lm", "-lrt"]].concat());
    fs::copy(module, host.module()).expect("the module");
    let known = support::root().join("tests/races/suppressions");
    host.env = vec![("TSAN_OPTIONS", format!("suppressions={}", known.display()))];
    let emulator = Emulator::start(SEED);
    let (one, both) = (reserved(&emulator.token(VAULT, "")), reserved(&emulator.tokens()));
    eprintln!("races: mixed: {}", host.run(&[&both, "mixed", "64", "4"]).trim());
    eprintln!("races: closing: {}", host.run(&[&one, "closing", "50"]).trim());
    eprintln!("races: finalizing: {}", host.run(&[&one, "finalizing", "10"]).trim());
}

#[test]
fn memory_is_read_where_it_was_written() {
    support::require("valgrind", "valgrind");
    let emulator = Emulator::start(SEED);
    let under: Vec<_> = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full"]
        .into_iter()
        // The tables of hashbrown are held by pointers into their middle: possibly lost, it says.
        .chain(["--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"])
        .map(str::to_owned)
        .collect();
    let mut threads = Host::compile("threads.c", &[]);
    threads.under = under.clone();
    let out = threads.run(&[&reserved(&emulator.tokens()), "mixed", "2", "1"]);
    assert_eq!(numbers(&out), [2, 0]);
    // Forks here and not under AddressSanitizer, whose own locks a child may find taken for ever.
    let mut forks = Host::compile("forks.c", &[]);
    // What the stacks of the parent's threads hold is lost to a child, for any program.
    forks.under = under.into_iter().filter(|word| !word.contains("leak")).collect();
    let copy = forks.copy().display().to_string();
    forks.run(&[&copy, &reserved(&emulator.token(VAULT, "")), "6"]);
}

/// What the module was told in confidence, and what it decrypted, is nowhere in the process once it
/// is done with: not in what was freed, not on the stack, not in a buffer that waits to be used
/// again.
#[test]
fn nothing_secret_is_left_in_memory() {
    let seed = "keys = [
            { name = 'rsa', kty = 'RSA', size = 2048 },
            { name = 'aes', kty = 'oct-HSM', size = 256 },
        ]
        secrets = [{ name = 'kept', value = 'the-secret-that-a-vault-keeps' }]";
    // Whoever logs in has another secret than the configuration, which goes on being used.
    let pin = "operator:what-only-the-operator-knows";
    let services = "[[vault]]\nname = 'kv1'\n[[hsm]]\nname = 'hsm1'\n[[client]]\n\
                    id = 'operator'\nsecret = 'what-only-the-operator-knows'\n";
    let emulator = Emulator::configured(seed, services);
    let host = Host::compile("wiped.c", &[]);
    let file = |name: &str, text: &str| {
        let path = host.folder().join(name);
        fs::write(&path, text).expect("file");
        path.display().to_string()
    };
    let vault = emulator.token(VAULT, "secrets = ['kept']\nlogin = \"client-secret\"");
    let configuration = file("reserved", &reserved(&(vault + &emulator.token(HSM, ""))));
    assert_eq!(host.run(&[&configuration, &file("pin", pin)]), "");
}
