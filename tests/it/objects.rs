//! Objects that clients bring, change, copy and destroy.

use akv_pkcs11::vault::KeyRef;
use cryptoki_sys::*;
use openssl::{
    bn::BigNumContext,
    ec::{EcGroup, EcKey, PointConversionForm},
    ecdsa::EcdsaSig,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::{Padding, Rsa},
    sha::sha256,
};

use crate::{
    service::{Emulator, VAULT},
    signing::{P256, session_ec, session_rsa},
    token::{Family, Mechanism, Module, NOTHING, Template, bytes, flag, number},
};

const SEED: &str =
    "keys = [{ name = 'ec', kty = 'EC', curve = 'P-256', tags = { owner = 'web' } }]";

fn rsa_public(key: &Rsa<Private>) -> Template {
    vec![
        number(CKA_CLASS, CKO_PUBLIC_KEY),
        number(CKA_KEY_TYPE, CKK_RSA),
        bytes(CKA_MODULUS, key.n().to_vec()),
        bytes(CKA_PUBLIC_EXPONENT, key.e().to_vec()),
    ]
}

fn without(template: &Template, left_out: CK_ATTRIBUTE_TYPE) -> Template {
    template.iter().filter(|(kind, _)| *kind != left_out).cloned().collect()
}

fn with(template: &Template, one: (CK_ATTRIBUTE_TYPE, Vec<u8>)) -> Template {
    let mut template = without(template, one.0);
    template.push(one);
    template
}

/// As SunPKCS11 verifies when it is the first provider.
#[test]
fn public_keys_of_anybody_verify_and_encrypt() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    let rsa = Rsa::generate(2048).unwrap();
    let key = session.create(&rsa_public(&rsa)).unwrap();
    let pair = PKey::from_rsa(rsa.clone()).unwrap();
    let mut signer =
        openssl::sign::Signer::new(openssl::hash::MessageDigest::sha384(), &pair).unwrap();
    let signature = signer.sign_oneshot_to_vec(b"data").unwrap();
    session.verify(&Mechanism::plain(CKM_SHA384_RSA_PKCS), key, b"data", &signature).unwrap();
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let ciphertext = session.run(Family::Encrypt, &pkcs1, key, b"data").unwrap();
    let mut plaintext = vec![0; 256];
    let length = rsa.private_decrypt(&ciphertext, &mut plaintext, Padding::PKCS1).unwrap();
    assert_eq!(&plaintext[..length], b"data");

    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let ec = EcKey::generate(&group).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let form = PointConversionForm::UNCOMPRESSED;
    let point = ec.public_key().to_bytes(&group, form, &mut context).unwrap();
    let template = vec![
        number(CKA_CLASS, CKO_PUBLIC_KEY),
        number(CKA_KEY_TYPE, CKK_EC),
        bytes(CKA_EC_PARAMS, P256),
        bytes(CKA_EC_POINT, [&[4, 65][..], &point].concat()),
    ];
    let key = session.create(&template).unwrap();
    let signature = EcdsaSig::sign(&sha256(b"data"), &ec).unwrap();
    let (r, s) =
        (signature.r().to_vec_padded(32).unwrap(), signature.s().to_vec_padded(32).unwrap());
    let raw = [r, s].concat();
    session.verify(&Mechanism::plain(CKM_ECDSA_SHA256), key, b"data", &raw).unwrap();
    assert_eq!(session.flag(key, CKA_LOCAL), Ok(false));

    let mut off_curve = point.clone();
    off_curve[64] ^= 1;
    let rsa = rsa_public(&rsa);
    for (what, template, wanted) in [
        ("no class", without(&rsa, CKA_CLASS), CKR_TEMPLATE_INCOMPLETE),
        ("no type", without(&rsa, CKA_KEY_TYPE), CKR_TEMPLATE_INCOMPLETE),
        ("no modulus", without(&rsa, CKA_MODULUS), CKR_TEMPLATE_INCOMPLETE),
        ("no exponent", without(&rsa, CKA_PUBLIC_EXPONENT), CKR_TEMPLATE_INCOMPLETE),
        ("an even modulus", with(&rsa, bytes(CKA_MODULUS, [2; 256])), CKR_ATTRIBUTE_VALUE_INVALID),
        ("exponent 0", with(&rsa, bytes(CKA_PUBLIC_EXPONENT, [0])), CKR_ATTRIBUTE_VALUE_INVALID),
        ("no curve", without(&template, CKA_EC_PARAMS), CKR_TEMPLATE_INCOMPLETE),
        ("no point", without(&template, CKA_EC_POINT), CKR_TEMPLATE_INCOMPLETE),
        (
            "off the curve",
            with(&template, bytes(CKA_EC_POINT, [&[4, 65][..], &off_curve].concat())),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        (
            "half a point",
            with(&template, bytes(CKA_EC_POINT, [4, 1, 4])),
            CKR_ATTRIBUTE_VALUE_INVALID,
        ),
        ("trusted", with(&rsa, flag(CKA_TRUSTED, true)), CKR_TEMPLATE_INCONSISTENT),
        ("signs", with(&rsa, flag(CKA_SIGN, true)), CKR_ATTRIBUTE_TYPE_INVALID),
        ("DSA", with(&rsa, number(CKA_KEY_TYPE, CKK_DSA)), CKR_ATTRIBUTE_VALUE_INVALID),
        ("local", with(&rsa, flag(CKA_LOCAL, true)), CKR_ATTRIBUTE_READ_ONLY),
    ] {
        assert_eq!(session.create(&template), Err(wanted), "{what}");
    }
    let on_token = session.create(&with(&rsa, flag(CKA_TOKEN, true)));
    assert_eq!(on_token, Err(CKR_SESSION_READ_ONLY));
    for class in [CKO_HW_FEATURE, CKO_DOMAIN_PARAMETERS, CKO_VENDOR_DEFINED] {
        assert!(session.create(&[number(CKA_CLASS, class)]).is_err(), "class {class:#x}");
    }
    for class in [CKO_TRUST + 1, 0xDEAD_BEEF] {
        let refused = session.create(&[number(CKA_CLASS, class), flag(CKA_TOKEN, false)]);
        assert_eq!(refused, Err(CKR_ATTRIBUTE_VALUE_INVALID), "class {class:#x}");
    }
    assert_eq!(emulator.requests(VAULT), 0);
}

#[test]
fn session_objects_are_changed_in_place() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    let (public, private) = session_rsa(&session, 2048);
    for (kind, value) in [
        bytes(CKA_LABEL, "a new label"),
        bytes(CKA_ID, [1, 2, 3]),
        bytes(CKA_SUBJECT, [0x30, 0]),
        flag(CKA_SIGN, false),
        bytes(CKA_START_DATE, b"20260101"),
    ] {
        session.set(private, &[(kind, value.clone())]).unwrap();
        assert_eq!(session.value(private, kind), Ok(value), "{kind:#x}");
    }
    assert_eq!(session.find(&[bytes(CKA_LABEL, "a new label")]).unwrap(), [private]);
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let refused = session.init(Family::Sign, &pkcs1, private);
    assert_eq!(refused, Err(CKR_KEY_FUNCTION_NOT_PERMITTED));
    for (what, change, wanted) in [
        ("its class", number(CKA_CLASS, CKO_PUBLIC_KEY), CKR_ATTRIBUTE_READ_ONLY),
        ("the class it has", number(CKA_CLASS, CKO_PRIVATE_KEY), CKR_ATTRIBUTE_READ_ONLY),
        ("the origin it has", flag(CKA_LOCAL, true), CKR_ATTRIBUTE_READ_ONLY),
        ("its type", number(CKA_KEY_TYPE, CKK_EC), CKR_ATTRIBUTE_READ_ONLY),
        ("its modulus", bytes(CKA_MODULUS, [1; 256]), CKR_ATTRIBUTE_READ_ONLY),
        ("its place", flag(CKA_TOKEN, true), CKR_ATTRIBUTE_READ_ONLY),
        ("its origin", flag(CKA_LOCAL, false), CKR_ATTRIBUTE_READ_ONLY),
        ("its unique id", bytes(CKA_UNIQUE_ID, "x"), CKR_ATTRIBUTE_READ_ONLY),
        ("what it lacks", flag(CKA_VERIFY, true), CKR_ATTRIBUTE_TYPE_INVALID),
        ("a vendor's", bytes(0x8000_0001, "x"), CKR_ATTRIBUTE_TYPE_INVALID),
        ("a flag of two bytes", (CKA_DECRYPT, vec![1, 1]), CKR_ATTRIBUTE_VALUE_INVALID),
    ] {
        assert_eq!(session.set(private, &[change]), Err(wanted), "{what}");
    }
    // All or nothing.
    let mixed = [bytes(CKA_LABEL, "half"), flag(CKA_LOCAL, false)];
    assert_eq!(session.set(private, &mixed), Err(CKR_ATTRIBUTE_READ_ONLY));
    assert_eq!(session.text(private, CKA_LABEL).unwrap(), "a new label");
    session.set(private, &[bytes(CKA_LABEL, "a new label")]).expect("what it has already");
    // What can be copied may become what cannot, and stays so (clause 4.4).
    session.copy(private, &[]).expect("a copy");
    session.set(private, &[flag(CKA_COPYABLE, false)]).expect("no copies from now on");
    assert_eq!(session.copy(private, &[]), Err(CKR_ACTION_PROHIBITED));
    assert_eq!(session.set(private, &[flag(CKA_COPYABLE, true)]), Err(CKR_ATTRIBUTE_READ_ONLY));
    let fixed = [flag(CKA_MODIFIABLE, false)];
    let copy = session.copy(public, &fixed).unwrap();
    let refused = session.set(copy, &[bytes(CKA_LABEL, "x")]);
    assert_eq!(refused, Err(CKR_ACTION_PROHIBITED), "CKA_MODIFIABLE is false");
}

/// A label or an id of a key of the service is kept there, beside what others put there.
#[test]
fn keys_of_the_service_are_renamed_for_everybody() {
    let emulator = Emulator::start(SEED);
    let toml = emulator.tokens();
    for slot in [0, 1] {
        let module = Module::start(&toml);
        let read_only = module.open_with(slot, CKF_SERIAL_SESSION).unwrap();
        let key = read_only.object(CKO_PRIVATE_KEY, "ec");
        let change = [bytes(CKA_LABEL, "Ein neuer Name"), bytes(CKA_ID, [9, 9])];
        assert_eq!(read_only.set(key, &change), Err(CKR_SESSION_READ_ONLY));
        let session = module.open(slot);
        session.set(key, &change).unwrap();
        let (private, public) = session.pair("Ein neuer Name");
        for key in [private, public] {
            assert_eq!(session.value(key, CKA_ID).unwrap(), [9, 9]);
        }
        let later = Module::start(&toml);
        let session = later.open(slot);
        let (private, public) = session.pair("Ein neuer Name");
        let ecdsa = Mechanism::plain(CKM_ECDSA);
        let signature = session.sign(&ecdsa, private, &[4; 32]).unwrap();
        session.verify(&ecdsa, public, &[4; 32], &signature).unwrap();
        let old = session.find(&[bytes(CKA_LABEL, "ec")]).unwrap();
        assert_eq!(old, NOTHING, "the old label means nothing now");
        let service = ["kv1", "hsm1"][slot as usize];
        let tags = emulator.vault(service).key(KeyRef::current("ec")).unwrap().tags.unwrap();
        assert_eq!(tags.get("owner").map(String::as_str), Some("web"), "others' tags stay");
    }
}

#[test]
fn copies_disclose_nothing_their_originals_keep() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (token_key, _) = session.pair("ec");
    assert_eq!(session.copy(token_key, &[flag(CKA_TOKEN, false)]), Err(CKR_ACTION_PROHIBITED));
    assert_eq!(session.copy(token_key, &[]), Err(CKR_ACTION_PROHIBITED));
    let (_, private) = session_ec(&session, P256);
    let copy = session.copy(private, &[bytes(CKA_LABEL, "copy")]).unwrap();
    assert_eq!(session.text(copy, CKA_LABEL).unwrap(), "copy");
    for disclosing in [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)] {
        let refused = session.copy(private, &[disclosing]);
        assert!(
            [CKR_ATTRIBUTE_READ_ONLY, CKR_TEMPLATE_INCONSISTENT].contains(&refused.unwrap_err())
        );
    }
    session.destroy(private).unwrap();
    session.sign(&Mechanism::plain(CKM_ECDSA), copy, &[1; 32]).expect("a copy is a key of its own");
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    let public = [bytes(CKA_EC_PARAMS, P256)];
    let (_, private) = session.generate(&mechanism, &public, &open).unwrap();
    let hidden = session.copy(private, &[flag(CKA_SENSITIVE, true)]).unwrap();
    assert_eq!(session.value(hidden, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    assert!(session.value(private, CKA_VALUE).is_ok());
    let mechanism = Mechanism::plain(CKM_ECDSA);
    session.sign(&mechanism, hidden, &[1; 32]).unwrap();
}

/// A session key that may be seen shows all of itself, and OpenSSL takes it.
#[test]
fn keys_that_may_be_seen_are_whole() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    let mechanism = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let public = [number(CKA_MODULUS_BITS, 2048)];
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    let (public, private) = session.generate(&mechanism, &public, &open).unwrap();
    let part = |kind| {
        let value = session.value(private, kind).unwrap();
        assert_ne!(value[0], 0, "{kind:#x} without leading zeros");
        openssl::bn::BigNum::from_slice(&value).unwrap()
    };
    let key = Rsa::from_private_components(
        part(CKA_MODULUS),
        part(CKA_PUBLIC_EXPONENT),
        part(CKA_PRIVATE_EXPONENT),
        part(CKA_PRIME_1),
        part(CKA_PRIME_2),
        part(CKA_EXPONENT_1),
        part(CKA_EXPONENT_2),
        part(CKA_COEFFICIENT),
    )
    .unwrap();
    assert!(key.check_key().unwrap());
    let mut signature = vec![0; 256];
    key.private_encrypt(b"data", &mut signature, Padding::PKCS1).unwrap();
    session.verify(&Mechanism::plain(CKM_RSA_PKCS), public, b"data", &signature).unwrap();
    assert_eq!(session.number(private, CKA_KEY_TYPE), Ok(CKK_RSA));
}

#[test]
fn sessions_open_with_the_flags_that_there_are() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    for (flags, wanted) in [
        (CKF_SERIAL_SESSION, Ok(())),
        (CKF_SERIAL_SESSION | CKF_RW_SESSION, Ok(())),
        (0, Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED)),
        (CKF_RW_SESSION, Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED)),
        (CKF_SERIAL_SESSION | CKF_ASYNC_SESSION, Err(CKR_SESSION_ASYNC_NOT_SUPPORTED)),
        (CKF_SERIAL_SESSION | 0x100, Err(CKR_ARGUMENTS_BAD)),
    ] {
        assert_eq!(module.open_with(0, flags).map(drop), wanted, "{flags:#x}");
    }
    for slot in [1, 99, CK_ULONG::MAX] {
        assert_eq!(module.open_with(slot, CKF_SERIAL_SESSION).map(drop), Err(CKR_SLOT_ID_INVALID));
    }
    let many: Vec<_> = (0..500).map(|_| module.open(0).handle).collect();
    assert!(many.windows(2).all(|pair| pair[0] < pair[1]), "no handle twice");
    assert_eq!(emulator.requests(VAULT), 0);
}
