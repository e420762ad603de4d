//! What an operator reads in the log about a call: which token and key, what the service said, how
//! long it took, and the ids that its own logs have.

use std::fs;

use akv_pkcs11::vault::KeyRef;
use akv_wire::{KeyAttributes, KeyUpdateParameters};
use cryptoki_sys::*;

use crate::{
    service::{Emulator, HSM, VAULT},
    token::{Mechanism, Module},
};

const SEED: &str = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";

/// What follows `name` in a line, to the next comma, space or closing parenthesis.
fn field<'l>(line: &'l str, name: &str) -> &'l str {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no {name} in {line}"));
    rest.split([',', ' ', ')']).next().expect("a first part")
}

#[test]
fn a_request_is_told_with_all_that_finds_it_again() {
    let emulator = Emulator::start(SEED);
    let services = [(VAULT, "KeyDisabled"), (HSM, "Forbidden")];
    for (slot, (token, code)) in services.into_iter().enumerate() {
        let log = emulator.folder.path().join(token);
        let sink = format!("log = {{ level = 'debug', sink = 'file:{}' }}\n", log.display());
        let module = Module::load();
        module.initialize_as_is(&(sink + &emulator.tokens())).unwrap();
        let session = module.open(slot as CK_SLOT_ID);
        let key = session.object(CKO_PRIVATE_KEY, "ec");
        let ecdsa = Mechanism::plain(CKM_ECDSA);
        session.sign(&ecdsa, key, &[1; 32]).unwrap();
        // Once busy, then refused.
        emulator.trouble(r#"{"operation": "keys/sign", "status": 503, "times": 1}"#);
        let attributes = Some(KeyAttributes { enabled: Some(false), ..KeyAttributes::default() });
        let off = KeyUpdateParameters { attributes, ..KeyUpdateParameters::default() };
        emulator.vault(token).update_key(KeyRef::current("ec"), &off).unwrap();
        let rv = session.sign(&ecdsa, key, &[1; 32]).unwrap_err();
        let text = fs::read_to_string(&log).unwrap();
        let signing: Vec<_> =
            text.lines().filter(|line| line.contains("sign with key ec/")).collect();
        let [good, busy, refused, error] = signing[..] else { panic!("{text}") };
        let refusal = format!("403 {code}");
        for (line, attempt, status) in
            [(good, "1", "200"), (busy, "1", "503 InjectedFault"), (refused, "2", refusal.as_str())]
        {
            assert!(line.contains(&format!(" DEBUG akv_pkcs11::vault::attempt token '{token}': ")));
            assert_eq!(field(line, ", attempt "), attempt, "{line}");
            assert!(line.contains(&format!(": {status}, ")), "{line}");
            assert_eq!(field(line, "x-ms-client-request-id ").len(), 36, "{line}");
            assert!(line.contains(" ms, "), "{line}");
        }
        assert_eq!(field(good, "x-ms-request-id ").len(), 36, "{good}");
        // One call, one id of ours.
        let ours = |line| field(line, "x-ms-client-request-id ");
        assert_eq!(ours(busy), ours(refused));
        assert_ne!(ours(good), ours(refused));
        let start = format!(" ERROR akv_pkcs11::abi C_Sign: token '{token}': sign with key ec/");
        assert!(error.contains(&start), "{error}");
        assert!(error.contains(&format!("HTTP 403, {code}")), "{error}");
        assert_eq!(field(error, "x-ms-request-id "), field(refused, "x-ms-request-id "));
        assert!(error.ends_with(&format!("[CKR {rv:#x}]")), "{error}");
    }
}

#[test]
fn a_call_that_asks_nobody_is_told_with_its_token() {
    let emulator = Emulator::start(SEED);
    let log = emulator.folder.path().join("log");
    let sink = format!("log = {{ level = 'info', sink = 'file:{}' }}\n", log.display());
    let module = Module::load();
    module.initialize_as_is(&(sink + &emulator.tokens())).unwrap();
    let session = module.open(1);
    session.find_next(1).unwrap_err();
    module.mechanism_info(0, CKM_MD5).unwrap_err();
    module.open_with(99, CKF_SERIAL_SESSION).err().unwrap();
    let text = fs::read_to_string(&log).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once("abi ").unwrap().1).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("C_FindObjects: token 'hsm1': "), "{}", lines[0]);
    assert!(
        lines[1].starts_with("C_GetMechanismInfo: token 'kv1' has no mechanism"),
        "{}",
        lines[1]
    );
    assert!(lines[2].starts_with("C_OpenSession: ") && !lines[2].contains("token"), "{}", lines[2]);
}
