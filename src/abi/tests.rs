//! A panic in any layer is CKR_GENERAL_ERROR, and the next call works. The emulator's binary must
//! have been built (`cargo build --workspace`).

use std::{
    ffi::CString,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    ptr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use cryptoki_sys::*;

use super::*;
use crate::stumble;

/// Each layer that has a place to stumble, from the top to the bottom.
const LAYERS: &[&str] =
    &["abi", "handles", "session", "operation", "store", "vault", "credential", "net"];

macro_rules! call {
    ($function:ident($($argument:expr),*)) => {{
        let function = table::V3_2.$function.expect("every function is there");
        // SAFETY: each test passes what a C caller may pass.
        unsafe { function($($argument),*) }
    }};
}

/// An emulator with a vault and an EC key, `ec`; ends when dropped, or with the process.
struct Emulator {
    child: Child,
    reserved: CString,
    _folder: tempfile::TempDir,
}

impl Emulator {
    fn start() -> Emulator {
        let folder = tempfile::tempdir().expect("folder");
        let seed = folder.path().join("seed.toml");
        std::fs::write(&seed, "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]")
            .expect("file");
        let exe = std::env::current_exe().expect("path");
        let above = exe.parent().and_then(|deps| deps.parent()).expect("target folder");
        let binary = above.join("akv-emulator");
        assert!(binary.is_file(), "{}: run `cargo build --workspace` first", binary.display());
        let mut child = Command::new("sh")
            .args(["-c", "\"$@\" </dev/null & cat >/dev/null; kill $!; wait $!", "sh"])
            .arg(binary)
            .args(["run", "--vault", "kv1", "--seed"])
            .arg(&seed)
            .arg("--ca-file")
            .arg(folder.path().join("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("standard output");
        BufReader::new(output).read_line(&mut line).expect("a ready line");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line of JSON");
        let text = |key: &str| ready[key].as_str().expect("text").to_owned();
        let toml = std::fs::read_to_string(text("module_config")).expect("a configuration");
        let toml = toml.replace("env:AZURE_CLIENT_SECRET", &text("client_secret"));
        let reserved =
            CString::new(format!("akv-pkcs11:log.level = 'off'\n{toml}")).expect("no NUL");
        Emulator { child, reserved, _folder: folder }
    }

    fn initialize(&self) -> CK_RV {
        let mut args = CK_C_INITIALIZE_ARGS {
            flags: CKF_OS_LOCKING_OK,
            pReserved: self.reserved.as_ptr().cast_mut().cast(),
            ..CK_C_INITIALIZE_ARGS::default()
        };
        call!(C_Initialize((&raw mut args).cast()))
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn open() -> CK_SESSION_HANDLE {
    let mut session = 0;
    let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
    let rv = call!(C_OpenSession(0, flags, ptr::null_mut(), None, &raw mut session));
    assert_eq!(rv, CKR_OK);
    session
}

/// Finds the key and signs with it: the first answer that is not CKR_OK.
fn use_the_key(session: CK_SESSION_HANDLE) -> CK_RV {
    let mut label = *b"ec";
    let mut class = CKO_PRIVATE_KEY;
    let mut template = [
        CK_ATTRIBUTE {
            type_: CKA_LABEL,
            pValue: label.as_mut_ptr().cast(),
            ulValueLen: label.len() as CK_ULONG,
        },
        CK_ATTRIBUTE {
            type_: CKA_CLASS,
            pValue: (&raw mut class).cast(),
            ulValueLen: size_of_val(&class) as CK_ULONG,
        },
    ];
    let (mut key, mut found) = (0, 0);
    let mut ecdsa =
        CK_MECHANISM { mechanism: CKM_ECDSA, pParameter: ptr::null_mut(), ulParameterLen: 0 };
    let (mut data, mut signature) = ([7_u8; 32], [0_u8; 64]);
    let mut length = signature.len() as CK_ULONG;
    for step in 0..5 {
        let rv = match step {
            0 => call!(C_FindObjectsInit(session, template.as_mut_ptr(), 2)),
            1 => call!(C_FindObjects(session, &raw mut key, 1, &raw mut found)),
            2 => call!(C_FindObjectsFinal(session)),
            3 => call!(C_SignInit(session, &raw mut ecdsa, key)),
            _ => {
                let (data, place) = (data.as_mut_ptr(), signature.as_mut_ptr());
                call!(C_Sign(session, data, 32, place, &raw mut length))
            }
        };
        if rv != CKR_OK {
            return rv;
        }
    }
    CKR_OK
}

/// One test, because the C functions have one module for the whole process.
#[test]
fn a_panic_in_any_layer_is_an_error_and_the_next_call_works() {
    let emulator = Emulator::start();
    stumble::order("module", 0);
    assert_eq!(emulator.initialize(), CKR_GENERAL_ERROR);
    let mut panics = 0;
    for layer in LAYERS {
        for place in 0.. {
            assert_eq!(emulator.initialize(), CKR_OK);
            let session = open();
            stumble::order(layer, place);
            let rv = use_the_key(session);
            if stumble::withdraw() {
                assert_eq!(rv, CKR_OK);
                assert!(place > 0, "{layer} has no place");
                assert_eq!(call!(C_Finalize(ptr::null_mut())), CKR_OK);
                break;
            }
            assert_eq!(rv, CKR_GENERAL_ERROR, "{layer}, place {place}");
            if *layer == "handles" {
                // Before it was known whose operation it is: that one is still there.
                let rv = call!(C_SessionCancel(session, CKF_FIND_OBJECTS | CKF_SIGN));
                assert_eq!(rv, CKR_OK);
            }
            assert_eq!(use_the_key(session), CKR_OK, "after {layer}, place {place}");
            assert_eq!(call!(C_Finalize(ptr::null_mut())), CKR_OK);
            panics += 1;
        }
    }
    assert!(panics > LAYERS.len(), "{panics}");
    who_waits_for_a_panic_does_not_wait_for_ever(&emulator);
}

/// Threads that want the same key or the same access token wait for the one that asks.
fn who_waits_for_a_panic_does_not_wait_for_ever(emulator: &Emulator) {
    for layer in ["vault", "credential", "net"] {
        assert_eq!(emulator.initialize(), CKR_OK);
        let (start, begun) = (Barrier::new(4), Instant::now());
        thread::scope(|scope| {
            for caller in 0..4 {
                let start = &start;
                scope.spawn(move || {
                    let session = open();
                    start.wait();
                    match caller {
                        0 => {
                            stumble::order(layer, 0);
                            let rv = use_the_key(session);
                            // Somebody else may have been first, and left nothing to ask.
                            assert!(stumble::withdraw() || rv == CKR_GENERAL_ERROR, "{rv:#x}");
                        }
                        _ => assert_eq!(use_the_key(session), CKR_OK),
                    }
                });
            }
        });
        assert!(begun.elapsed() < Duration::from_secs(9), "the deadline, and no panic, ended it");
        assert_eq!(call!(C_Finalize(ptr::null_mut())), CKR_OK);
    }
}
