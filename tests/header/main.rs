//! include/akv_pkcs11.h is made here, compared with the checked-in file (UPDATE_HEADER=1 rewrites
//! it), compiled as C and C++, alone and behind each pkcs11.h found, and called through.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use akv_pkcs11::{abi, config};
use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST, CK_INTERFACE, CK_RV, CK_ULONG, CK_UTF8CHAR, CK_VERSION,
};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include/akv_pkcs11.h");

// The prototypes below are those of the source, or this does not compile.
const _: unsafe extern "C" fn(*mut *mut CK_FUNCTION_LIST) -> CK_RV = abi::C_GetFunctionList;
const _: unsafe extern "C" fn(*mut CK_INTERFACE, *mut CK_ULONG) -> CK_RV = abi::C_GetInterfaceList;
const _: unsafe extern "C" fn(
    *mut CK_UTF8CHAR,
    *mut CK_VERSION,
    *mut *mut CK_INTERFACE,
    CK_FLAGS,
) -> CK_RV = abi::C_GetInterface;

/// A constant of ours: name, value as C writes it, what it is for.
fn constants() -> Vec<(&'static str, String, &'static str)> {
    vec![(
        "AKV_PKCS11_RESERVED_PREFIX",
        format!("{:?}", config::RESERVED_PREFIX),
        "pReserved of CK_C_INITIALIZE_ARGS may point to a string that begins with this and goes\n   \
         on with the path of a configuration file, or with TOML (docs/configuration.md). ",
    )]
}

fn header() -> String {
    let mut text = String::from(TOP);
    for (name, value, meaning) in constants() {
        text.push_str(&format!("\n/* {meaning}*/\n#define {name} {value}\n"));
    }
    text.push_str(PROTOTYPES);
    text
}

const TOP: &str = "\
/* akv_pkcs11.h: what libakv_pkcs11.so exports beside the standard's own words.

   Made from the Rust source by tests/header; UPDATE_HEADER=1 cargo test --test header rewrites it.

   The types, constants and functions of PKCS#11 are those of your pkcs11.h (OASIS, p11-kit, NSS
   or another): include that first, and this file declares only what it leaves out. Without it the
   three exported functions are declared here with plain types, enough to call them and to pass on
   what they give. */

#ifndef AKV_PKCS11_H
#define AKV_PKCS11_H

#ifdef __cplusplus
extern \"C\" {
#endif
";

const PROTOTYPES: &str = "
#ifndef CKR_OK

/* CK_RV C_GetFunctionList(CK_FUNCTION_LIST **): the functions of PKCS#11 2.40. */
unsigned long C_GetFunctionList(void **functions);

#endif

#ifndef CKF_INTERFACE_FORK_SAFE

/* CK_VERSION */
struct akv_pkcs11_version {
    unsigned char v_major;
    unsigned char v_minor;
};

/* CK_INTERFACE: \"PKCS 11\", a function list that begins with its version, and flags (1: what the
   parent had goes on in a forked child). */
struct akv_pkcs11_interface {
    char *name;
    void *functions;
    unsigned long flags;
};

/* CK_RV C_GetInterfaceList(CK_INTERFACE *, CK_ULONG *): 3.2, 3.0 and 2.40, in this order. */
unsigned long C_GetInterfaceList(struct akv_pkcs11_interface *interfaces, unsigned long *count);

/* CK_RV C_GetInterface(CK_UTF8CHAR *, CK_VERSION *, CK_INTERFACE **, CK_FLAGS): NULL for name and
   version gives the default, 3.2. */
unsigned long C_GetInterface(unsigned char *name, struct akv_pkcs11_version *version,
                             struct akv_pkcs11_interface **interface, unsigned long flags);

#endif

#ifdef __cplusplus
}
#endif

#endif /* AKV_PKCS11_H */
";

#[test]
fn the_checked_in_header_is_that_of_the_source() {
    let wanted = header();
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(HEADER, &wanted).expect("write");
    }
    let current = fs::read_to_string(HEADER).expect("include/akv_pkcs11.h");
    assert!(current == wanted, "stale: UPDATE_HEADER=1 cargo test --test header");
    assert!(wanted.lines().all(|line| line.len() <= 100));
}

#[test]
fn it_is_c90_and_cplusplus() {
    let strict: &[&[&str]] = &[
        &["-xc", "-std=c90"],
        &["-xc", "-std=c11"],
        &["-xc++", "-std=c++98"],
        &["-xc++", "-std=c++17"],
    ];
    for language in strict {
        let flags = [*language, &["-pedantic", "-Wall", "-Wextra", "-Werror"]].concat();
        compile("#include \"akv_pkcs11.h\"\n#include \"akv_pkcs11.h\"\n", &flags, &[]);
    }
}

/// Behind another header nothing is declared twice, and everything is declared.
#[test]
fn it_goes_with_other_headers() {
    let vendored = vendored_header();
    let headers: [(&str, Vec<String>); 3] = [
        ("pkcs11.h", vec![format!("-I{}", vendored.display())]),
        ("p11-kit/pkcs11.h", vec!["-I/usr/include/p11-kit-1".into()]),
        ("nss/pkcs11.h", vec!["-I/usr/include/nss".into(), "-I/usr/include/nspr".into()]),
    ];
    let mut tried = 0;
    for (name, includes) in headers {
        for language in ["-xc", "-xc++"] {
            let flags: Vec<&str> =
                includes.iter().map(String::as_str).chain([language, "-w"]).collect();
            let alone = format!("#define CRYPTOKI_COMPAT\n#include <{name}>\n");
            if !run_compiler(&alone, &flags, &["-fsyntax-only"]).status.success() {
                eprintln!("skipped: <{name}> does not compile here as {language}");
                continue;
            }
            let both = format!(
                "{alone}#include \"akv_pkcs11.h\"\n\
                 void *all[3];\n\
                 void fill(void) {{\n\
                 all[0] = (void *)C_GetFunctionList;\n\
                 all[1] = (void *)C_GetInterfaceList;\n\
                 all[2] = (void *)C_GetInterface;\n}}\n"
            );
            compile(&both, &flags, &[]);
            tried += 1;
        }
    }
    assert!(tried >= 2, "not even the header of cryptoki-sys was there");
}

/// A program that has nothing but this header links with the module and calls it.
#[test]
fn a_program_calls_through_it() {
    let folder = tempfile::tempdir().expect("folder");
    let library = env::current_exe().expect("path").with_file_name("libakv_pkcs11.so");
    let program = folder.path().join("program");
    let link: Vec<String> = vec![
        "-o".into(),
        program.display().to_string(),
        library.display().to_string(),
        format!("-Wl,-rpath,{}", library.parent().expect("folder").display()),
    ];
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    compile(PROGRAM, &["-std=c90", "-pedantic", "-Wall", "-Wextra", "-Werror"], &link);
    let output = Command::new(&program).output().expect("run");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "PKCS 11 3.2 of 3, then 2.40\n");
}

const PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
#include "akv_pkcs11.h"

int main(void)
{
    struct akv_pkcs11_interface *first = NULL, all[8];
    unsigned long count = 8;
    void *functions = NULL;
    const unsigned char *version;

    if (strlen(AKV_PKCS11_RESERVED_PREFIX) == 0) return 1;
    if (C_GetInterface(NULL, NULL, &first, 0) != 0 || first == NULL) return 2;
    if (C_GetInterfaceList(all, &count) != 0) return 3;
    if (C_GetFunctionList(&functions) != 0 || functions == NULL) return 4;
    if (strcmp(first->name, all[0].name) != 0 || first->functions != all[0].functions) return 5;
    version = (const unsigned char *)first->functions;
    printf("%s %u.%u of %lu", first->name, version[0], version[1], count);
    version = (const unsigned char *)functions;
    printf(", then %u.%u\n", version[0], version[1]);
    return 0;
}
"#;

fn compile(source: &str, flags: &[&str], link: &[&str]) {
    let link = if link.is_empty() { &["-fsyntax-only"] } else { link };
    let output = run_compiler(source, flags, link);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cc {flags:?} refuses\n{source}\n{messages}");
}

fn run_compiler(source: &str, flags: &[&str], last: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("source.c");
    fs::write(&file, source).expect("write");
    fs::write(folder.path().join("akv_pkcs11.h"), header()).expect("write");
    Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .arg(format!("-I{}", folder.path().display()))
        .args(flags)
        .arg(&file)
        .args(last)
        .output()
        .expect("a C compiler (cc, or what CC names)")
}

/// The folder of the public-domain pkcs11.h 3.2 that cryptoki-sys was made of.
fn vendored_header() -> PathBuf {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        // Of other platforms nothing may have been downloaded.
        .args(["metadata", "--format-version=1", "--offline", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", env::consts::ARCH))
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let manifest = metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "cryptoki-sys")
        .and_then(|package| package["manifest_path"].as_str())
        .expect("cryptoki-sys in the metadata");
    Path::new(manifest).with_file_name("vendor")
}
