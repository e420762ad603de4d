//! What an operator reads in the log about a call: which token and key, what the service said, how
//! long it took, and the ids that its own logs have.

use std::{fs, os::unix::net::UnixDatagram};

use akv_pkcs11::vault::KeyRef;
use akv_wire::{KeyAttributes, KeyUpdateParameters};
use cryptoki_sys::*;

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::P256,
    token::{Family, Mechanism, Module, bytes, flag, is_apart, number},
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

/// What is written where the configuration says no level: nothing while all is well, whatever a
/// client asks for in vain; that something is out, as soon as it is.
#[test]
fn the_default_level_is_silent_until_something_is_out() {
    let seed = "keys = [{ name = 'rsa', kty = 'RSA', size = 2048 }, \
                { name = 'ec', kty = 'EC', curve = 'P-256' }]\n\
                certificates = [{ name = 'tls', subject = 'CN=tls' }]";
    let emulator = Emulator::start(seed);
    let log = emulator.folder.path().join("log");
    let sink = format!("log = {{ sink = 'file:{}' }}\n", log.display());
    let module = Module::load();
    let more = "allow_delete = true\ncache_ttl = '0s'";
    let tokens = emulator.token(VAULT, more) + &emulator.token(HSM, more);
    module.initialize_as_is(&(sink + &tokens)).unwrap();
    let told = || fs::read_to_string(&log).unwrap_or_default();
    for slot in [0, 1] {
        let session = module.open(slot);
        module.token_info(slot).unwrap();
        assert!(session.find(&[]).unwrap().len() >= 4);
        session.find(&[bytes(CKA_LABEL, "nobody")]).unwrap();
        let (private, public) = session.pair("rsa");
        let oaep = Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256);
        let ciphertext = session.run(Family::Encrypt, &oaep, public, b"data").unwrap();
        session.run(Family::Decrypt, &oaep, private, &ciphertext).unwrap();
        let pkcs1 = Mechanism::plain(CKM_SHA256_RSA_PKCS);
        let mut signature = session.sign(&pkcs1, private, b"data").unwrap();
        session.verify(&pkcs1, public, b"data", &signature).unwrap();
        let made = session.generate(
            &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
            &[bytes(CKA_EC_PARAMS, P256)],
            &[flag(CKA_TOKEN, true), bytes(CKA_LABEL, "made")],
        );
        session.destroy(made.unwrap().1).unwrap();
        // What a client gets wrong is its own affair.
        signature[0] ^= 1;
        session.verify(&pkcs1, public, b"data", &signature).unwrap_err();
        session.value(private, CKA_PRIVATE_EXPONENT).unwrap_err();
        session.create(&[number(CKA_CLASS, CKO_DATA), flag(CKA_TOKEN, true)]).unwrap_err();
        session.init(Family::Sign, &Mechanism::plain(CKM_MD5), private).unwrap_err();
    }
    assert_eq!(told(), "", "an ordinary session");

    emulator.trouble(r#"{"service": "vault:kv1", "operation": "keys/list", "status": 503}"#);
    module.open(0).find(&[]).unwrap();
    let text = told();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(" WARN ") && text.contains("serving what is known"), "{text}");
}

/// The socket is where syslog(3) has it, and no setting names another: the test has a /dev of its
/// own.
#[test]
fn the_syslog_gets_each_line_as_one_message() {
    let test = "lines::the_syslog_gets_each_line_as_one_message";
    let preparation = "ip link set lo up
        mkdir dev
        mount -t tmpfs none dev
        for node in null zero full random urandom; do
            : >dev/$node
            mount --bind /dev/$node dev/$node
        done
        mount --rbind dev /dev";
    if !is_apart(test, preparation) {
        return;
    }
    let daemon = UnixDatagram::bind("/dev/log").expect("/dev/log");
    daemon.set_nonblocking(true).expect("nonblocking");
    let next = || {
        let mut buffer = [0; 8192];
        let length = daemon.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).expect("text"))
    };
    let emulator = Emulator::start(SEED);
    let module = Module::load();
    let sink = "log = { level = 'info', sink = 'syslog' }\n".to_owned();
    module.initialize_as_is(&(sink + &emulator.tokens())).unwrap();
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let sign = || session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).map(drop);
    assert_eq!(sign(), Ok(()));
    assert_eq!(next(), None, "nothing is wrong");
    emulator.trouble(r#"{"operation": "keys/sign", "status": 403, "times": 1}"#);
    assert_eq!(sign(), Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    let line = next().expect("a message");
    // Facility user, severity error; no time, and no end of line, which are the daemon's.
    let head = format!("<11>akv-pkcs11[{}]: akv_pkcs11::abi C_Sign: ", std::process::id());
    assert!(line.starts_with(&head) && line.ends_with(']'), "{line}");
    assert_eq!(module.mechanism_info(0, CKM_MD5).map(drop), Err(CKR_MECHANISM_INVALID));
    assert!(next().is_some_and(|line| line.starts_with("<14>")), "a refusal is information");

    // A daemon that is restarted has another socket under the same name.
    drop(daemon);
    fs::remove_file("/dev/log").expect("the old socket");
    assert_eq!(module.mechanism_info(0, CKM_MD5).map(drop), Err(CKR_MECHANISM_INVALID));
    let daemon = UnixDatagram::bind("/dev/log").expect("/dev/log");
    daemon.set_nonblocking(true).expect("nonblocking");
    assert_eq!(module.mechanism_info(0, CKM_MD5).map(drop), Err(CKR_MECHANISM_INVALID));
    let mut buffer = [0; 8192];
    assert!(daemon.recv(&mut buffer).is_ok(), "the new one is found");
    assert!(daemon.recv(&mut buffer).is_err(), "nothing was kept meanwhile");
}
