//! C_GenerateKeyPair with the templates that clients send, and with those that cannot be.

mod clients;

use akv_pkcs11::vault::KeyRef;
use cryptoki_sys::*;
use openssl::{hash::MessageDigest, sign::Verifier};

use self::clients::clients;
use crate::{
    service::{Emulator, HSM, VAULT},
    signing::{EC_KEYS, P256, public_key},
    token::{
        Family, Mechanism, Module, NOTHING, Parameter, Session, Template, bytes, flag, number,
    },
};

const F4: &[u8] = &[1, 0, 1];

fn rsa() -> Mechanism {
    Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN)
}

fn ec() -> Mechanism {
    Mechanism::plain(CKM_EC_KEY_PAIR_GEN)
}

/// Signs with the private half and lets OpenSSL and the module verify with the public one.
fn is_pair(session: &Session<'_>, public: CK_OBJECT_HANDLE, private: CK_OBJECT_HANDLE) {
    let key = public_key(session, public);
    let (mechanism, der) = match session.number(private, CKA_KEY_TYPE).unwrap() {
        CKK_RSA => (Mechanism::plain(CKM_SHA256_RSA_PKCS), false),
        _ => (Mechanism::plain(CKM_ECDSA_SHA256), true),
    };
    let signature = session.sign(&mechanism, private, b"data").unwrap();
    session.verify(&mechanism, public, b"data", &signature).unwrap();
    if !der {
        let mut verifier = Verifier::new(MessageDigest::sha256(), &key).unwrap();
        assert!(verifier.verify_oneshot(&signature, b"data").unwrap());
    }
}

#[test]
fn the_templates_of_clients_make_keys_at_the_service() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    for (slot, service, kinds) in [(0, VAULT, ["RSA", "EC"]), (1, HSM, ["RSA-HSM", "EC-HSM"])] {
        let session = module.open(slot);
        for (name, mechanism, public, private) in clients() {
            emulator.reset();
            let made = session.generate(&mechanism, &public, &private);
            let (public, private) = made.unwrap_or_else(|rv| panic!("{name}: {rv:#x}"));
            let counts = emulator.counts(service);
            assert_eq!(counts["keys/create"], 1, "{name}");
            is_pair(&session, public, private);
            assert_eq!(session.text(private, CKA_LABEL).unwrap(), name);
            assert_eq!(session.value(private, CKA_ID).unwrap(), [0xAB, 1], "{name}");
            assert_eq!(session.flag(private, CKA_TOKEN), Ok(true));
            let is_java = name == "SunPKCS11";
            assert_eq!(session.flag(public, CKA_TOKEN), Ok(!is_java), "{name}");
            assert_eq!(session.flag(private, CKA_SENSITIVE), Ok(true));
            assert_eq!(session.flag(private, CKA_EXTRACTABLE), Ok(false));
            let bundle = emulator.vault(service).key(KeyRef::current(name)).unwrap();
            let kty = bundle.key.kty.clone();
            let kind = if mechanism.kind == CKM_EC_KEY_PAIR_GEN { kinds[1] } else { kinds[0] };
            assert_eq!(kty.as_deref(), Some(kind), "{name}");
            // Found again by who comes later, by label and by id.
            let later = Module::start(&emulator.tokens());
            let later = later.open(slot);
            let found = later.object(CKO_PRIVATE_KEY, name);
            assert_eq!(later.value(found, CKA_ID).unwrap(), [0xAB, 1], "{name}");
            let by_id = [bytes(CKA_ID, [0xAB, 1]), number(CKA_CLASS, CKO_PRIVATE_KEY)];
            let labels: Vec<_> = later.find(&by_id).unwrap();
            let labels = labels.iter().map(|key| later.text(*key, CKA_LABEL).unwrap());
            assert!(labels.into_iter().any(|label| label == name), "{name}");
        }
    }
}

/// CKA_TOKEN false or absent: in this process, for this session.
#[test]
fn the_same_templates_make_session_pairs() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let session = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    for (name, mechanism, public, private) in clients() {
        for token in [Some(flag(CKA_TOKEN, false)), None] {
            let of_session = |template: &Template| -> Template {
                let rest = template.iter().filter(|(kind, _)| *kind != CKA_TOKEN).cloned();
                rest.chain(token.clone()).collect()
            };
            let made = session.generate(&mechanism, &of_session(&public), &of_session(&private));
            let (public, private) = made.unwrap_or_else(|rv| panic!("{name}: {rv:#x}"));
            is_pair(&session, public, private);
            assert_eq!(session.flag(private, CKA_PRIVATE), Ok(false), "nobody logs in: {name}");
            assert_eq!(session.flag(private, CKA_TOKEN), Ok(false), "{name}");
            assert_eq!(session.flag(public, CKA_TOKEN), Ok(false), "{name}");
        }
    }
    assert_eq!(emulator.requests(VAULT), 0);
}

#[test]
fn every_size_and_curve_can_be_made() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        for bits in [2048, 3072, 4096] {
            let public = [number(CKA_MODULUS_BITS, bits)];
            let private = [flag(CKA_TOKEN, true), bytes(CKA_LABEL, format!("rsa{bits}"))];
            let (public, private) = session.generate(&rsa(), &public, &private).unwrap();
            assert_eq!(session.number(public, CKA_MODULUS_BITS), Ok(bits));
            assert_eq!(session.value(public, CKA_PUBLIC_EXPONENT).unwrap(), F4);
            is_pair(&session, public, private);
        }
        for (name, params) in EC_KEYS {
            let public = [bytes(CKA_EC_PARAMS, params)];
            let private = [flag(CKA_TOKEN, true), bytes(CKA_LABEL, name)];
            let (public, private) = session.generate(&ec(), &public, &private).unwrap();
            assert_eq!(session.value(public, CKA_EC_PARAMS).unwrap(), params);
            is_pair(&session, public, private);
        }
    }
}

#[test]
fn a_name_that_exists_is_not_made_again() {
    let emulator = Emulator::start("keys = [{ name = 'Web', kty = 'EC', curve = 'P-256' }]");
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let public = [bytes(CKA_EC_PARAMS, P256)];
    let private = |label: &str| [flag(CKA_TOKEN, true), bytes(CKA_LABEL, label)];
    for label in ["Web", "web", "WEB"] {
        let refused = session.generate(&ec(), &public, &private(label));
        assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT), "{label}");
    }
    assert_eq!(emulator.counts(VAULT).get("keys/create"), None);
    let version = |vault: &akv_pkcs11::vault::Vault| {
        let bundle = vault.key(KeyRef::current("Web")).unwrap();
        bundle.key.name_and_version().unwrap().1.to_owned()
    };
    let vault = emulator.vault(VAULT);
    let before = version(&vault);
    let more = Module::start(&emulator.token(VAULT, "generate_on_existing = 'new-version'"));
    let session = more.open(0);
    let (public_key, private_key) = session.generate(&ec(), &public, &private("Web")).unwrap();
    is_pair(&session, public_key, private_key);
    assert_ne!(version(&vault), before);
    // A name that was deleted is not free either.
    vault.delete_key("Web").unwrap();
    let session = module.open(0);
    assert!(session.generate(&ec(), &public, &private("Web")).is_err());
    let purges = Module::start(&emulator.token(VAULT, "on_deleted_name = 'purge'"));
    let session = purges.open(0);
    let (public_key, private_key) = session.generate(&ec(), &public, &private("Web")).unwrap();
    is_pair(&session, public_key, private_key);
    // Recovered, it is a name that exists: nothing is made, and the key is the one it was.
    let before = version(&vault);
    vault.delete_key("Web").unwrap();
    let recovers = Module::start(&emulator.token(VAULT, "on_deleted_name = 'recover'"));
    let session = recovers.open(0);
    let refused = session.generate(&ec(), &public, &private("Web"));
    assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT));
    let bundle = vault.key(KeyRef::current("Web")).unwrap();
    assert_eq!(bundle.attributes.enabled, Some(true));
    assert_eq!(version(&vault), before);
    let (private_key, public_key) = session.pair("Web");
    is_pair(&session, public_key, private_key);
}

/// Any label is possible: what is no legal name is kept in a tag.
#[test]
fn labels_and_ids_are_kept_as_they_were_given() {
    let emulator = Emulator::start("");
    let toml = emulator.tokens();
    for slot in [0, 1] {
        for (label, id) in [
            ("Web server (prod)", &[1u8][..]),
            ("Schlüssel für Ä", &[0; 64]),
            ("under_score", b"an id of text"),
            ("日本語", &[0xFF; 20]),
            ("dots.and/slashes", &[2]),
            ("plain", &[3]),
        ] {
            let public = [bytes(CKA_EC_PARAMS, P256)];
            let private = [flag(CKA_TOKEN, true), bytes(CKA_LABEL, label), bytes(CKA_ID, id)];
            let maker = Module::start(&toml);
            let session = maker.open(slot);
            let (public, private) = session.generate(&ec(), &public, &private).unwrap();
            for key in [public, private] {
                assert_eq!(session.text(key, CKA_LABEL).unwrap(), label);
                assert_eq!(session.value(key, CKA_ID).unwrap(), id);
            }
            let later = Module::start(&toml);
            let session = later.open(slot);
            let found = session.object(CKO_PRIVATE_KEY, label);
            assert_eq!(session.value(found, CKA_ID).unwrap(), id, "{label}");
            let by_id = [bytes(CKA_ID, id), number(CKA_CLASS, CKO_PUBLIC_KEY)];
            assert_eq!(session.find(&by_id).unwrap().len(), 1, "{label}");
            session.sign(&Mechanism::plain(CKM_ECDSA), found, &[1; 32]).unwrap();
            // The same label again is the same name.
            let again = session.generate(
                &ec(),
                &[bytes(CKA_EC_PARAMS, P256)],
                &[flag(CKA_TOKEN, true), bytes(CKA_LABEL, label)],
            );
            assert_eq!(again, Err(CKR_TEMPLATE_INCONSISTENT), "{label}");
        }
    }
    let module = Module::start(&toml);
    let session = module.open(0);
    let nameless = [flag(CKA_TOKEN, true)];
    let (_, private) = session.generate(&ec(), &[bytes(CKA_EC_PARAMS, P256)], &nameless).unwrap();
    let label = session.text(private, CKA_LABEL).unwrap();
    assert!(label.len() == 36 && label.starts_with("p11-"), "{label}");
}

/// The usages of both templates are the key's operations, and the dates its validity.
#[test]
fn usages_and_dates_go_to_the_service() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let public = [number(CKA_MODULUS_BITS, 2048), flag(CKA_VERIFY, true)];
    let private = [
        flag(CKA_TOKEN, true),
        bytes(CKA_LABEL, "signs"),
        flag(CKA_SIGN, true),
        flag(CKA_DECRYPT, false),
        bytes(CKA_START_DATE, b"20260102"),
        bytes(CKA_END_DATE, b"20991231"),
    ];
    let (_, key) = session.generate(&rsa(), &public, &private).unwrap();
    assert_eq!(session.flag(key, CKA_SIGN), Ok(true));
    assert_eq!(session.flag(key, CKA_DECRYPT), Ok(false));
    assert_eq!(session.value(key, CKA_START_DATE).unwrap(), b"20260102");
    assert_eq!(session.value(key, CKA_END_DATE).unwrap(), b"20991231");
    let refused = session.init(Family::Decrypt, &Mechanism::plain(CKM_RSA_PKCS), key);
    assert_eq!(refused, Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    let bundle = emulator.vault(VAULT).key(KeyRef::current("signs")).unwrap();
    let mut operations = bundle.key.key_ops.unwrap();
    operations.sort();
    assert_eq!(operations, ["sign", "verify"]);
    assert_eq!(bundle.attributes.nbf, Some(1_767_312_000));
    assert_eq!(bundle.attributes.exp, Some(4_102_444_799));
}

#[test]
fn a_template_that_cannot_be_honoured_makes_nothing() {
    const BRAINPOOL: &[u8] = &[6, 9, 0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7];
    const ED25519: &[u8] = &[6, 3, 0x2b, 0x65, 0x70];
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let bits = || number(CKA_MODULUS_BITS, 2048);
    let curve = || bytes(CKA_EC_PARAMS, P256);
    let long = "x".repeat(300);
    let cases: Vec<(&str, Mechanism, Template, Template, CK_RV)> = vec![
        ("no size", rsa(), vec![], vec![], CKR_TEMPLATE_INCOMPLETE),
        (
            "1024 bits",
            rsa(),
            vec![number(CKA_MODULUS_BITS, 1024)],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "2047 bits",
            rsa(),
            vec![number(CKA_MODULUS_BITS, 2047)],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "8192 bits",
            rsa(),
            vec![number(CKA_MODULUS_BITS, 8192)],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "exponent 1",
            rsa(),
            vec![bits(), bytes(CKA_PUBLIC_EXPONENT, [1])],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "exponent 4",
            rsa(),
            vec![bits(), bytes(CKA_PUBLIC_EXPONENT, [4])],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "no exponent",
            rsa(),
            vec![bits(), bytes(CKA_PUBLIC_EXPONENT, [])],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        ("no curve", ec(), vec![], vec![], CKR_TEMPLATE_INCOMPLETE),
        ("brainpool", ec(), vec![bytes(CKA_EC_PARAMS, BRAINPOOL)], vec![], CKR_CURVE_NOT_SUPPORTED),
        ("Ed25519", ec(), vec![bytes(CKA_EC_PARAMS, ED25519)], vec![], CKR_CURVE_NOT_SUPPORTED),
        ("no DER", ec(), vec![bytes(CKA_EC_PARAMS, [1, 2, 3])], vec![], CKR_DOMAIN_PARAMS_INVALID),
        (
            "RSA of type EC",
            rsa(),
            vec![bits(), number(CKA_KEY_TYPE, CKK_EC)],
            vec![],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "EC of type RSA",
            ec(),
            vec![curve()],
            vec![number(CKA_KEY_TYPE, CKK_RSA)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "classes swapped",
            rsa(),
            vec![bits(), number(CKA_CLASS, CKO_PRIVATE_KEY)],
            vec![],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "not sensitive",
            rsa(),
            vec![bits()],
            vec![flag(CKA_SENSITIVE, false)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "extractable",
            rsa(),
            vec![bits()],
            vec![flag(CKA_EXTRACTABLE, true)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "asks before each use",
            rsa(),
            vec![bits()],
            vec![flag(CKA_ALWAYS_AUTHENTICATE, true)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "trusted",
            rsa(),
            vec![bits(), flag(CKA_TRUSTED, true)],
            vec![],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "not modifiable",
            rsa(),
            vec![bits()],
            vec![flag(CKA_MODIFIABLE, false)],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        ("local", rsa(), vec![bits()], vec![flag(CKA_LOCAL, true)], CKR_ATTRIBUTE_READ_ONLY),
        (
            "a unique id",
            rsa(),
            vec![bits()],
            vec![bytes(CKA_UNIQUE_ID, "x")],
            CKR_ATTRIBUTE_READ_ONLY,
        ),
        (
            "a vendor's attribute",
            rsa(),
            vec![bits()],
            vec![flag(0x8001_E101, true)],
            CKR_ATTRIBUTE_TYPE_INVALID,
        ),
        (
            "verify in the private key",
            rsa(),
            vec![bits()],
            vec![flag(CKA_VERIFY, true)],
            CKR_ATTRIBUTE_TYPE_INVALID,
        ),
        (
            "a modulus",
            rsa(),
            vec![bits(), bytes(CKA_MODULUS, [1; 256])],
            vec![],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "two bytes of bool",
            rsa(),
            vec![bits()],
            vec![(CKA_SIGN, vec![1, 1])],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "four bytes of size",
            rsa(),
            vec![(CKA_MODULUS_BITS, vec![0, 8, 0, 0])],
            vec![],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "a date that is none",
            rsa(),
            vec![bits()],
            vec![bytes(CKA_END_DATE, b"20261341")],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "a label in Latin-1",
            rsa(),
            vec![bits()],
            vec![bytes(CKA_LABEL, [0xFC])],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "a label and id too long",
            rsa(),
            vec![bits()],
            vec![bytes(CKA_LABEL, &long)],
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "two labels",
            rsa(),
            vec![bits()],
            vec![bytes(CKA_LABEL, "a"), bytes(CKA_LABEL, "b")],
            CKR_TEMPLATE_INCONSISTENT,
        ),
        (
            "no generation",
            Mechanism::plain(CKM_RSA_PKCS),
            vec![bits()],
            vec![],
            CKR_MECHANISM_INVALID,
        ),
        (
            "not there",
            Mechanism::plain(CKM_DSA_KEY_PAIR_GEN),
            vec![bits()],
            vec![],
            CKR_MECHANISM_INVALID,
        ),
        (
            "a parameter",
            Mechanism { kind: CKM_RSA_PKCS_KEY_PAIR_GEN, parameter: Parameter::Bytes(vec![1]) },
            vec![bits()],
            vec![],
            CKR_MECHANISM_PARAM_INVALID,
        ),
    ];
    for (what, mechanism, public, mut private, wanted) in cases {
        private.push(flag(CKA_TOKEN, true));
        let made = session.generate(&mechanism, &public, &private);
        assert_eq!(made, Err(wanted), "{what}");
    }
    let half =
        session.generate(&rsa(), &[bits(), flag(CKA_TOKEN, true)], &[flag(CKA_TOKEN, false)]);
    assert_eq!(half, Err(CKR_TEMPLATE_INCONSISTENT), "only the public key on the token");
    let read_only = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    let refused = read_only.generate(&rsa(), &[bits()], &[flag(CKA_TOKEN, true)]);
    assert_eq!(refused, Err(CKR_SESSION_READ_ONLY));
    assert_eq!(emulator.counts(VAULT).get("keys/create"), None, "nothing was made");
    assert_eq!(session.find(&[]).unwrap(), NOTHING);
}

/// Keys of the service are destroyed where the configuration says so, and only there.
#[test]
fn keys_are_destroyed_only_if_allowed() {
    let emulator = Emulator::start("keys = [{ name = 'ec', kty = 'EC', curve = 'P-256' }]");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    let (private, public) = session.pair("ec");
    for key in [private, public] {
        assert_eq!(session.flag(key, CKA_DESTROYABLE), Ok(false));
        assert_eq!(session.destroy(key), Err(CKR_ACTION_PROHIBITED));
    }
    assert_eq!(emulator.counts(VAULT).get("keys/delete"), None);
    let module = Module::start(&emulator.token(VAULT, "allow_delete = true"));
    let session = module.open(0);
    let (private, _) = session.pair("ec");
    assert_eq!(session.flag(private, CKA_DESTROYABLE), Ok(true));
    let read_only = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(read_only.destroy(private), Err(CKR_SESSION_READ_ONLY));
    session.destroy(private).unwrap();
    assert_eq!(session.find(&[bytes(CKA_LABEL, "ec")]).unwrap(), NOTHING);
    assert_eq!(emulator.counts(VAULT)["keys/delete"], 1);
}
