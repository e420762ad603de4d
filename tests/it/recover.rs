//! C_VerifyRecover: what an RSA signature was made over, told without asking the service.

use cryptoki_sys::*;

use crate::{
    service::{Emulator, VAULT},
    signing::{SEED, session_rsa},
    token::{Mechanism, Module, Room, Session, bytes, flag, number},
};

const PKCS1: Mechanism = Mechanism { kind: CKM_RSA_PKCS, parameter: crate::token::Parameter::None };

/// C_VerifyRecoverInit, and C_VerifyRecover into a buffer that is large enough.
fn recovered(
    session: &Session<'_>,
    key: CK_OBJECT_HANDLE,
    signature: &[u8],
) -> Result<Vec<u8>, CK_RV> {
    session.recover_init(&PKCS1, key)?;
    session.recover(signature, Room::Bytes(1024)).result()
}

#[test]
fn gives_back_what_was_signed_and_nothing_of_a_damaged_signature() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("rsa2048");
    let (own_public, own_private) = session_rsa(&session, 2048);
    let brought = session
        .create(&[
            number(CKA_CLASS, CKO_PUBLIC_KEY),
            number(CKA_KEY_TYPE, CKK_RSA),
            bytes(CKA_MODULUS, session.value(public, CKA_MODULUS).unwrap()),
            bytes(CKA_PUBLIC_EXPONENT, session.value(public, CKA_PUBLIC_EXPONENT).unwrap()),
        ])
        .unwrap();
    for (private, public) in [(private, public), (private, brought), (own_private, own_public)] {
        for data in [&b""[..], b"a", &[7; 245]] {
            let mut signature = session.sign(&PKCS1, private, data).unwrap();
            let requests = emulator.requests(VAULT);
            assert_eq!(recovered(&session, public, &signature).as_deref(), Ok(data));
            let short = recovered(&session, public, &signature[1..]);
            assert_eq!(short, Err(CKR_SIGNATURE_LEN_RANGE));
            signature[255] ^= 1;
            assert_eq!(recovered(&session, public, &signature), Err(CKR_SIGNATURE_INVALID));
            assert_eq!(emulator.requests(VAULT), requests);
        }
    }
}

#[test]
fn a_query_and_a_short_buffer_leave_the_operation() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (public, private) = session_rsa(&session, 2048);
    let signature = session.sign(&PKCS1, private, b"data").unwrap();
    session.recover_init(&PKCS1, public).unwrap();
    assert_eq!(session.recover_init(&PKCS1, public), Err(CKR_OPERATION_ACTIVE));
    let query = session.recover(&signature, Room::Query);
    assert_eq!(query.rv, CKR_OK);
    assert!((4..=256).contains(&query.length), "{}", query.length);
    assert_eq!(session.recover(&signature, Room::Bytes(3)).rv, CKR_BUFFER_TOO_SMALL);
    assert_eq!(session.recover(&signature, Room::Bytes(4)).result().as_deref(), Ok(&b"data"[..]));
    assert_eq!(session.recover(&signature, Room::Bytes(4)).rv, CKR_OPERATION_NOT_INITIALIZED);

    session.recover_init(&PKCS1, public).unwrap();
    session.cancel(CKF_VERIFY_RECOVER).unwrap();
    assert_eq!(session.recover(&signature, Room::Bytes(4)).rv, CKR_OPERATION_NOT_INITIALIZED);
}

#[test]
fn only_public_rsa_keys_that_allow_it_and_only_pkcs1() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("rsa2048");
    let (_, ec) = session.pair("p256");
    let refused = |mechanism: &Mechanism, key| session.recover_init(mechanism, key).unwrap_err();
    assert_eq!(refused(&PKCS1, private), CKR_KEY_TYPE_INCONSISTENT);
    assert_eq!(refused(&PKCS1, ec), CKR_KEY_TYPE_INCONSISTENT);
    for kind in [CKM_SHA256_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_ECDSA] {
        assert_eq!(refused(&Mechanism::plain(kind), public), CKR_MECHANISM_INVALID);
    }
    let template = [number(CKA_MODULUS_BITS, 2048), flag(CKA_VERIFY_RECOVER, false)];
    let generate = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let (public, _) = session.generate(&generate, &template, &[]).unwrap();
    assert_eq!(refused(&PKCS1, public), CKR_KEY_FUNCTION_NOT_PERMITTED);
}
