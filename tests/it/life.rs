//! Keys that clients bring: imports, copies onto the token, transfers (BYOK), races for a name.

use std::{ptr, thread};

use akv_pkcs11::vault::KeyRef;
use cryptoki_sys::*;
use openssl::{
    ec::{EcGroup, EcKey},
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
};

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::{P256, P384},
    token::{Mechanism, Module, Parameter, Session, Template, bytes, flag, number},
};

const SLOTS: [(CK_SLOT_ID, &str); 2] = [(0, VAULT), (1, HSM)];

/// C_CreateObject of a private key that OpenSSL made.
pub fn rsa_template(key: &Rsa<Private>) -> Template {
    let part = |kind, value: Option<&openssl::bn::BigNumRef>| {
        bytes(kind, value.expect("a complete key").to_vec())
    };
    vec![
        number(CKA_CLASS, CKO_PRIVATE_KEY),
        number(CKA_KEY_TYPE, CKK_RSA),
        part(CKA_MODULUS, Some(key.n())),
        part(CKA_PUBLIC_EXPONENT, Some(key.e())),
        part(CKA_PRIVATE_EXPONENT, Some(key.d())),
        part(CKA_PRIME_1, key.p()),
        part(CKA_PRIME_2, key.q()),
        part(CKA_EXPONENT_1, key.dmp1()),
        part(CKA_EXPONENT_2, key.dmq1()),
        part(CKA_COEFFICIENT, key.iqmp()),
    ]
}

fn ec_key(nid: Nid) -> EcKey<Private> {
    EcKey::generate(&EcGroup::from_curve_name(nid).unwrap()).unwrap()
}

fn ec_template(key: &EcKey<Private>, params: &[u8]) -> Template {
    vec![
        number(CKA_CLASS, CKO_PRIVATE_KEY),
        number(CKA_KEY_TYPE, CKK_EC),
        bytes(CKA_EC_PARAMS, params),
        bytes(CKA_VALUE, key.private_key().to_vec()),
    ]
}

/// Onto the token, under this label.
pub fn on_token(label: &str) -> Template {
    vec![flag(CKA_TOKEN, true), bytes(CKA_LABEL, label)]
}

fn spki(session: &Session<'_>, key: CK_OBJECT_HANDLE) -> Vec<u8> {
    session.value(key, CKA_PUBLIC_KEY_INFO).unwrap()
}

/// Signs with the token's key and verifies with the public key object beside it.
fn works(session: &Session<'_>, label: &str) {
    let (private, public) = session.pair(label);
    let kind = match session.number(private, CKA_KEY_TYPE).unwrap() {
        CKK_RSA => CKM_SHA256_RSA_PKCS,
        _ => CKM_ECDSA_SHA256,
    };
    let mechanism = Mechanism::plain(kind);
    let signature = session.sign(&mechanism, private, b"data").unwrap();
    assert_eq!(session.verify(&mechanism, public, b"data", &signature), Ok(()), "{label}");
}

#[test]
fn a_private_key_that_a_client_creates_is_imported() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let rsa = Rsa::generate(2048).unwrap();
    let rsa_info = PKey::from_rsa(rsa.clone()).unwrap().public_key_to_der().unwrap();
    let ec = ec_key(Nid::SECP384R1);
    let ec_info = PKey::from_ec_key(ec.clone()).unwrap().public_key_to_der().unwrap();
    for (slot, service) in SLOTS {
        let session = module.open(slot);
        for (label, template, info) in [
            ("Brought RSA", rsa_template(&rsa), &rsa_info),
            ("brought-ec", ec_template(&ec, P384), &ec_info),
        ] {
            emulator.reset();
            let template = [template, on_token(label)].concat();
            let private = session.create(&template).unwrap();
            assert_eq!(emulator.counts(service)["keys/import"], 1);
            assert_eq!(&spki(&session, private), info);
            assert_eq!(session.text(private, CKA_LABEL).unwrap(), label);
            assert_eq!(session.flag(private, CKA_SENSITIVE), Ok(true));
            works(&session, label);
            assert_eq!(session.create(&template), Err(CKR_TEMPLATE_INCONSISTENT), "again");
            // The public key that tools write beside it is there already.
            let public: Template =
                [number(CKA_CLASS, CKO_PUBLIC_KEY), flag(CKA_TOKEN, true), bytes(CKA_LABEL, label)]
                    .into_iter()
                    .chain(
                        template
                            .iter()
                            .filter(|(kind, _)| {
                                [CKA_KEY_TYPE, CKA_MODULUS, CKA_PUBLIC_EXPONENT, CKA_EC_PARAMS]
                                    .contains(kind)
                            })
                            .cloned(),
                    )
                    .chain((label == "brought-ec").then(|| {
                        bytes(CKA_EC_POINT, session.value(private, CKA_EC_POINT).unwrap())
                    }))
                    .collect();
            assert_eq!(session.create(&public), Ok(session.pair(label).1));
        }
    }
}

#[test]
fn what_the_service_cannot_keep_is_refused_before_any_request() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let small = rsa_template(&Rsa::generate(1024).unwrap());
    let good = ec_template(&ec_key(Nid::X9_62_PRIME256V1), P256);
    let with = |base: &Template, own| [base.clone(), on_token("x"), vec![own]].concat();
    let without = |kind| -> Template {
        with(&good, flag(CKA_SIGN, true)).into_iter().filter(|(k, _)| *k != kind).collect()
    };
    for (template, wanted) in [
        (with(&good, flag(CKA_EXTRACTABLE, true)), CKR_TEMPLATE_INCONSISTENT),
        (with(&good, flag(CKA_SENSITIVE, false)), CKR_TEMPLATE_INCONSISTENT),
        (with(&good, flag(CKA_ALWAYS_AUTHENTICATE, true)), CKR_TEMPLATE_INCONSISTENT),
        (with(&good, bytes(CKA_START_DATE, "2026-1-1")), CKR_ATTRIBUTE_VALUE_INVALID),
        (with(&small, flag(CKA_SIGN, true)), CKR_KEY_SIZE_RANGE),
        (without(CKA_VALUE), CKR_TEMPLATE_INCOMPLETE),
        (without(CKA_EC_PARAMS), CKR_TEMPLATE_INCOMPLETE),
        (without(CKA_KEY_TYPE), CKR_TEMPLATE_INCOMPLETE),
    ] {
        assert_eq!(session.create(&template), Err(wanted), "{template:?}");
    }
    assert_eq!(emulator.requests(VAULT), 0);
    let read_only = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(read_only.create(&with(&good, flag(CKA_SIGN, true))), Err(CKR_SESSION_READ_ONLY));
}

#[test]
fn a_session_key_copied_onto_the_token_is_imported() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    for (slot, _) in SLOTS {
        let session = module.open(slot);
        let (public, private) = session
            .generate(
                &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
                &[bytes(CKA_EC_PARAMS, P256)],
                &[bytes(CKA_LABEL, "from session")],
            )
            .unwrap();
        // SunPKCS11 gives the alias as CKA_ID, and nothing else.
        let copy = [flag(CKA_TOKEN, true), bytes(CKA_ID, "alias")];
        let token = session.copy(private, &copy).unwrap();
        assert_eq!(session.flag(token, CKA_TOKEN), Ok(true));
        assert_eq!(session.value(token, CKA_ID).unwrap(), b"alias");
        assert_eq!(spki(&session, token), spki(&session, public));
        assert_eq!(session.destroy(private), Ok(()));
        assert_eq!(session.destroy(public), Ok(()));
        works(&session, "from session");
        assert_eq!(
            session.copy(token, &[flag(CKA_TOKEN, false)]),
            Err(CKR_ACTION_PROHIBITED),
            "a key of the service is not copied"
        );
    }
}

/// CK_RSA_AES_KEY_WRAP_PARAMS with OAEP of one hash, and room for it.
fn rsa_aes(
    bits: CK_ULONG,
    hash: CK_MECHANISM_TYPE,
    mgf: CK_ULONG,
) -> (Mechanism, Box<CK_RSA_PKCS_OAEP_PARAMS>) {
    let mut oaep = Box::new(CK_RSA_PKCS_OAEP_PARAMS {
        hashAlg: hash,
        mgf,
        source: CKZ_DATA_SPECIFIED,
        pSourceData: ptr::null_mut(),
        ulSourceDataLen: 0,
    });
    let address = &raw mut *oaep as usize;
    let mut raw = bits.to_ne_bytes().to_vec();
    raw.extend(address.to_ne_bytes());
    (Mechanism { kind: CKM_RSA_AES_KEY_WRAP, parameter: Parameter::Bytes(raw) }, oaep)
}

#[test]
fn a_key_transfer_lands_in_the_service_and_is_never_in_clear() {
    let seed = "keys = [{ name = 'kek', kty = 'RSA-HSM', size = 3072, ops = ['import'] }]";
    let emulator = Emulator::start(seed);
    let module = Module::start(&emulator.tokens());
    let (mechanism, _oaep) = rsa_aes(256, CKM_SHA_1, CKG_MGF1_SHA1);
    let (weaker, _weak) = rsa_aes(128, CKM_SHA_1, CKG_MGF1_SHA1);
    for (slot, service) in SLOTS {
        let session = module.open(slot);
        let (kek, kek_public) = session.pair("kek");
        for (label, kind, private) in [
            ("moved-rsa", CKK_RSA, rsa_template(&Rsa::generate(2048).unwrap())),
            ("moved-ec", CKK_EC, ec_template(&ec_key(Nid::X9_62_PRIME256V1), P256)),
        ] {
            let extractable = [private, vec![flag(CKA_EXTRACTABLE, true)]].concat();
            let here = session.create(&extractable).unwrap();
            let wrapped = session.wrap(&mechanism, kek_public, here).unwrap();
            let template: Template = [
                vec![number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, kind)],
                if kind == CKK_EC { vec![bytes(CKA_EC_PARAMS, P256)] } else { vec![] },
                on_token(label),
            ]
            .concat();
            assert_eq!(
                session.unwrap(&weaker, kek, &wrapped, &template),
                Err(CKR_MECHANISM_PARAM_INVALID),
                "the BYOK specification fixes AES-256"
            );
            emulator.reset();
            let there = session.unwrap(&mechanism, kek, &wrapped, &template).unwrap();
            let counts = emulator.counts(service);
            assert_eq!(counts["keys/import"], 1);
            assert_eq!(counts.get("keys/unwrapkey"), None);
            assert_eq!(spki(&session, there), spki(&session, here));
            works(&session, label);
            let mut damaged = wrapped.clone();
            *damaged.last_mut().unwrap() ^= 1;
            let other = [&template[..template.len() - 1], &[bytes(CKA_LABEL, "damaged")]].concat();
            assert!(session.unwrap(&mechanism, kek, &damaged, &other).is_err());
            assert_eq!(
                session.wrap(&mechanism, kek_public, there),
                Err(CKR_KEY_UNEXTRACTABLE),
                "what is in the service stays there"
            );
        }
    }
}

#[test]
fn a_private_key_goes_from_session_to_session_under_a_key_of_the_service() {
    let emulator = Emulator::start("keys = [{ name = 'kek', kty = 'RSA', size = 2048 }]");
    let module = Module::start(&emulator.tokens());
    for (slot, service) in SLOTS {
        let session = module.open(slot);
        let (kek, public) = session.pair("kek");
        let private = ec_template(&ec_key(Nid::SECP384R1), P384);
        let here = session.create(&[private, vec![flag(CKA_EXTRACTABLE, true)]].concat()).unwrap();
        for (bits, hash, mgf) in
            [(256, CKM_SHA256, CKG_MGF1_SHA256), (128, CKM_SHA_1, CKG_MGF1_SHA1)]
        {
            let (mechanism, _oaep) = rsa_aes(bits, hash, mgf);
            let wrapped = session.wrap(&mechanism, public, here).unwrap();
            let template = [number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, CKK_EC)];
            emulator.reset();
            let back = session.unwrap(&mechanism, kek, &wrapped, &template).unwrap();
            assert_eq!(emulator.counts(service)["keys/unwrapkey"], 1);
            assert_eq!(spki(&session, back), spki(&session, here));
            let mut damaged = wrapped;
            *damaged.last_mut().unwrap() ^= 1;
            assert_eq!(
                session.unwrap(&mechanism, kek, &damaged, &template),
                Err(CKR_WRAPPED_KEY_INVALID)
            );
            assert_eq!(
                session.unwrap(&mechanism, kek, &damaged[..9], &template),
                Err(CKR_WRAPPED_KEY_LEN_RANGE)
            );
        }
    }
}

#[test]
fn of_those_who_make_the_same_key_at_once_one_wins() {
    let emulator = Emulator::start("");
    for (slot, service) in SLOTS {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        // A module of its own, as another process has.
                        let module = Module::start(&emulator.tokens());
                        let session = module.open(slot);
                        let made = session.generate(
                            &Mechanism::plain(CKM_EC_KEY_PAIR_GEN),
                            &[bytes(CKA_EC_PARAMS, P256)],
                            &on_token("race"),
                        );
                        made.map(|(_, private)| spki(&session, private))
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).collect()
        });
        let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "{service}: {outcomes:?}");
        let lost = outcomes.iter().filter(|o| **o == Err(CKR_TEMPLATE_INCONSISTENT)).count();
        assert_eq!(lost, 3);
        // Whoever comes later sees the winner's key under the name.
        let module = Module::start(&emulator.tokens());
        let session = module.open(slot);
        let (private, _) = session.pair("race");
        assert_eq!(&spki(&session, private), won[0]);
        works(&session, "race");
        let versions = emulator.vault(service);
        let deadline = versions.find_deadline();
        let versions = versions.key_versions("race", deadline).unwrap();
        let enabled = versions.iter().filter(|v| v.attributes.enabled == Some(true)).count();
        assert_eq!(enabled, 1, "the losers' versions are disabled");
        assert!(emulator.vault(service).key(KeyRef::current("race")).is_ok());
    }
}
