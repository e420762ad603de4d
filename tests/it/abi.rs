//! The shared object as a linker and a C program see it.

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
};

use crate::{
    service::{Emulator, VAULT},
    support,
};

/// Compiles a program of tests/c and links it with the module under test.
pub fn host(source: &str, folder: &tempfile::TempDir) -> PathBuf {
    let library = support::module();
    let program = folder.path().join(source.trim_end_matches(".c"));
    let output = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"])
        .args(["-pthread", "-ldl", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(support::root().join("include"))
        .arg(support::root().join("tests/c").join(source))
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().expect("a folder").display()))
        .output()
        .expect("a C compiler (cc, or what CC names)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

fn run(program: &str, arguments: &[&str]) -> String {
    support::require(program, "binutils");
    let output = Command::new(program)
        .args(arguments)
        .arg(support::module())
        .env("LC_ALL", "C")
        .output()
        .expect("a tool that is there");
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_c_program_calls_every_function_of_every_list() {
    let emulator = Emulator::start("");
    let folder = tempfile::tempdir().expect("folder");
    let output = Command::new(host("functions.c", &folder))
        .arg(format!("akv-pkcs11:log.level = 'off'\n{}", emulator.token(VAULT, "")))
        .env_remove("AKV_PKCS11_LOG")
        .output()
        .expect("the host runs");
    assert!(output.status.success(), "{:?}\n{}", output.status, said(&output));
    assert_eq!(said(&output), "");
    assert_eq!(output.stdout, b"", "nothing of ours goes to standard output");
}

/// Command-line programs never finalize; OpenSSL does it from an exit handler.
#[test]
fn a_c_program_calls_while_it_ends() {
    let emulator = Emulator::start("keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]");
    let folder = tempfile::tempdir().expect("folder");
    let output = Command::new(host("exit.c", &folder))
        .arg(support::module())
        .arg(format!("akv-pkcs11:log.level = 'off'\n{}", emulator.token(VAULT, "")))
        .arg("ec")
        .env_remove("AKV_PKCS11_LOG")
        .output()
        .expect("the host runs");
    assert!(output.status.success(), "{:?}\n{}", output.status, said(&output));
    assert_eq!((said(&output).as_str(), &output.stdout[..]), ("", &b""[..]), "quietly");
}

#[test]
fn three_names_are_exported() {
    let mut names: Vec<String> = run("nm", &["-D", "--defined-only"])
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    names.sort();
    assert_eq!(names, ["C_GetFunctionList", "C_GetInterface", "C_GetInterfaceList"]);
}

#[test]
fn nothing_is_needed_but_the_c_library() {
    let dynamic = run("readelf", &["-dW"]);
    let of = |tag: &str| {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for line in of("(NEEDED)") {
        let name = line.split(['[', ']']).nth(1).expect("a name");
        let known = ["libc.so", "libgcc_s.so", "libm.so", "ld-linux"];
        assert!(known.iter().any(|start| name.starts_with(start)), "{line}");
    }
    assert!(of("(FLAGS)").concat().contains("SYMBOLIC"), "{dynamic}");
    assert!(of("(FLAGS_1)").concat().contains("NODELETE"), "{dynamic}");
    assert!(of("(TEXTREL)").is_empty() && of("(RPATH)").is_empty() && of("(RUNPATH)").is_empty());
}

/// What a host may bring, and the module uses if it does.
#[test]
fn weak_symbols_are_known_ones() {
    const KNOWN: &[&str] = &[
        "_ITM_deregisterTMCloneTable",
        "_ITM_registerTMCloneTable",
        "__cxa_finalize",
        "__cxa_thread_atexit_impl",
        "__gmon_start__",
        // Newer than the C library we may run on: the standard library looks whether they exist.
        "getrandom",
        "gettid",
        "pidfd_getpid",
        "pidfd_spawnp",
        "posix_spawn_file_actions_addchdir",
        "posix_spawn_file_actions_addchdir_np",
        "statx",
        // aws-lc: a host's own allocator, if it has one of these names.
        "OPENSSL_memory_alloc",
        "OPENSSL_memory_free",
        "OPENSSL_memory_get_size",
        "OPENSSL_memory_realloc",
        "sdallocx",
    ];
    for line in run("nm", &["-D", "--undefined-only"]).lines() {
        let mut words = line.split_whitespace();
        let (Some("w" | "v"), Some(symbol)) = (words.next(), words.next()) else { continue };
        let name = symbol.split('@').next().unwrap_or(symbol);
        assert!(KNOWN.contains(&name), "{line}");
    }
}
