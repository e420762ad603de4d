//! Login: none, by a PIN of the configuration, by a client secret.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, SaltString},
};
use cryptoki_sys::*;

use crate::{
    service::{Emulator, VAULT},
    signing::P256,
    token::{Family, Mechanism, Module, NOTHING, Session, bytes, flag, number},
};

const SEED: &str = "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]";

fn private_keys(session: &Session<'_>) -> Vec<CK_OBJECT_HANDLE> {
    session.find(&[number(CKA_CLASS, CKO_PRIVATE_KEY)]).expect("a search")
}

fn public_keys(session: &Session<'_>) -> Vec<CK_OBJECT_HANDLE> {
    session.find(&[number(CKA_CLASS, CKO_PUBLIC_KEY)]).expect("a search")
}

/// Users who are nobody here, whatever the mode.
fn strangers_are_refused(session: &Session<'_>) {
    assert_eq!(session.login(CKU_SO, "1234"), Err(CKR_PIN_LOCKED));
    assert_eq!(session.login(7, "1234"), Err(CKR_USER_TYPE_INVALID));
    assert_eq!(session.login(CKU_CONTEXT_SPECIFIC, "1234"), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn without_a_mode_everybody_is_welcome_once() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    assert_eq!(module.token_info(0).unwrap().flags & CKF_LOGIN_REQUIRED, 0);
    let session = module.open(0);
    strangers_are_refused(&session);
    let other = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(session.login(CKU_SO, "1234"), Err(CKR_SESSION_READ_ONLY_EXISTS));
    let [key] = private_keys(&session)[..] else { panic!("one key") };
    assert_eq!(session.flag(key, CKA_PRIVATE), Ok(false));
    assert_eq!(session.logout(), Err(CKR_USER_NOT_LOGGED_IN));
    for pin in ["any", ""] {
        session.login(CKU_USER, pin).unwrap();
        assert_eq!(session.info().unwrap().state, CKS_RW_USER_FUNCTIONS);
        assert_eq!(other.info().unwrap().state, CKS_RO_USER_FUNCTIONS, "a login is the token's");
        assert_eq!(other.login(CKU_USER, pin), Err(CKR_USER_ALREADY_LOGGED_IN));
        assert_eq!(module.open(1).info().unwrap().state, CKS_RW_PUBLIC_SESSION, "not the HSM's");
        // No key asks for a login before each use, but a client may give one.
        session.init(Family::Sign, &Mechanism::plain(CKM_ECDSA), key).unwrap();
        session.login(CKU_CONTEXT_SPECIFIC, "whatever").unwrap();
        session.one_shot(Family::Sign, &[1; 32]).unwrap();
        session.logout().unwrap();
        assert_eq!(session.info().unwrap().state, CKS_RW_PUBLIC_SESSION);
    }
    session.sign(&Mechanism::plain(CKM_ECDSA), key, &[1; 32]).expect("keys survive the logout");
    session.login(CKU_USER, "1").unwrap();
    for one in [session, other] {
        one.close().unwrap();
    }
    let again = module.open(0);
    assert_eq!(
        again.info().unwrap().state,
        CKS_RW_PUBLIC_SESSION,
        "the last session took it along"
    );
}

/// A PHC string, as `argon2 SALT -id -e` prints it.
fn phc(pin: &str) -> String {
    let salt = SaltString::encode_b64(b"saltsaltsalt").expect("salt");
    let cheap = Params::new(1024, 1, 1, None).expect("parameters");
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap);
    argon.hash_password(pin.as_bytes(), &salt).expect("hash").to_string()
}

#[test]
fn a_pin_shows_private_objects() {
    let emulator = Emulator::start(SEED);
    let more = format!("login = \"pin\"\npin_hash = '{}'", phc("correct horse"));
    let module = Module::start(&emulator.token(VAULT, &more));
    assert_ne!(module.token_info(0).unwrap().flags & CKF_LOGIN_REQUIRED, 0);
    let session = module.open(0);
    strangers_are_refused(&session);
    assert_eq!(private_keys(&session), NOTHING);
    let [public] = public_keys(&session)[..] else { panic!("public keys are for everybody") };
    assert_eq!(session.flag(public, CKA_PRIVATE), Ok(false));
    assert_eq!(session.find(&[bytes(CKA_LABEL, "ec")]).unwrap(), [public]);
    // Private objects are not made before the login either.
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let params = [bytes(CKA_EC_PARAMS, P256)];
    let early = session.generate(&mechanism, &params, &[flag(CKA_PRIVATE, true)]);
    assert_eq!(early, Err(CKR_USER_NOT_LOGGED_IN));

    let none = session.login(CKU_USER, "");
    assert_eq!(none, Err(CKR_ARGUMENTS_BAD), "NULL asks for a PIN pad");
    for wrong in ["correct", "correct horse ", "Correct horse"] {
        assert_eq!(session.login(CKU_USER, wrong), Err(CKR_PIN_INCORRECT), "{wrong:?}");
    }
    session.login(CKU_USER, "correct horse").unwrap();
    assert_eq!(session.login(CKU_USER, "correct horse"), Err(CKR_USER_ALREADY_LOGGED_IN));
    let [key] = private_keys(&session)[..] else { panic!("one key") };
    assert_eq!(session.flag(key, CKA_PRIVATE), Ok(true));
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
    let (_, own) = session.generate(&mechanism, &params, &[flag(CKA_PRIVATE, true)]).unwrap();
    session.sign(&ecdsa, own, &[1; 32]).unwrap();

    session.logout().unwrap();
    assert_eq!(private_keys(&session), NOTHING);
    assert_eq!(session.value(key, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(session.sign(&ecdsa, key, &[1; 32]), Err(CKR_KEY_HANDLE_INVALID));
    session.login(CKU_USER, "correct horse").unwrap();
    assert_eq!(session.value(own, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID), "destroyed");
    let [key] = private_keys(&session)[..] else { panic!("one key") };
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
}

#[test]
fn a_client_secret_is_the_credential() {
    let emulator = Emulator::start(SEED);
    let (client, secret) = emulator.client_and_secret();
    let module = Module::start(&emulator.token(VAULT, "login = \"client-secret\""));
    let session = module.open(0);
    strangers_are_refused(&session);
    assert_eq!(session.find(&[]).unwrap(), NOTHING, "nobody to ask with");
    assert_eq!(emulator.requests(VAULT) + emulator.requests("entra"), 0);
    let wrong = format!("{client}:not-{secret}");
    assert_eq!(session.login(CKU_USER, &wrong), Err(CKR_PIN_INCORRECT));
    assert_eq!(
        session.login(CKU_USER, &format!("00000000-0000-0000-0000-000000000000:{secret}")),
        Err(CKR_PIN_INCORRECT)
    );
    assert_eq!(session.info().unwrap().state, CKS_RW_PUBLIC_SESSION);
    session.login(CKU_USER, &format!("{client}:{secret}")).unwrap();
    let [key] = private_keys(&session)[..] else { panic!("one key") };
    let ecdsa = Mechanism::plain(CKM_ECDSA);
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
    session.logout().unwrap();
    emulator.reset();
    assert_eq!(session.sign(&ecdsa, key, &[1; 32]), Err(CKR_KEY_HANDLE_INVALID));
    assert_eq!(private_keys(&session), NOTHING);
    assert_eq!(emulator.requests(VAULT), 0, "logged out is logged out");
    session.login(CKU_USER, &format!("{client}:{secret}")).unwrap();
    let [key] = private_keys(&session)[..] else { panic!("one key") };
    session.sign(&ecdsa, key, &[1; 32]).unwrap();
}

#[test]
fn a_user_may_be_named() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    session.login_user(CKU_USER, "1234", "somebody").unwrap();
    assert_eq!(session.login(CKU_USER, "1234"), Err(CKR_USER_ALREADY_LOGGED_IN));
    let officer = session.login_user(CKU_SO, "1234", "");
    assert_eq!(officer, Err(CKR_USER_ANOTHER_ALREADY_LOGGED_IN));
}
