//! What a key looks like: the truth table of docs/attributes.md on real objects, and how
//! C_GetAttributeValue answers.

use std::sync::LazyLock;

use akv_pkcs11::{
    object::attribute::{ATTRIBUTES, Classes, row_of},
    vault::KeyRef,
};
use akv_wire::{KeyAttributes, KeyUpdateParameters};
use cryptoki_sys::*;
use openssl::x509::X509;

use crate::{
    service::{Emulator, HSM, VAULT},
    signing::{P256, SEED, session_ec, session_rsa},
    token::{Asked, Mechanism, Module, Session, bytes, flag},
};

/// What a test says of an attribute of an object.
#[derive(Clone, Debug)]
enum Truth {
    Yes,
    No,
    Number(CK_ULONG),
    Text(&'static str),
    Empty,
    /// Something is there.
    Some,
    /// CKR_ATTRIBUTE_SENSITIVE.
    Secret,
    /// CKR_ATTRIBUTE_TYPE_INVALID.
    Absent,
}

use Truth::{Absent, Empty, No, Number, Secret, Some as Present, Text, Yes};

type Table = Vec<(CK_ATTRIBUTE_TYPE, Truth)>;

/// What all keys of the service share.
static KEY: LazyLock<Table> = LazyLock::new(|| {
    vec![
        (CKA_TOKEN, Yes),
        (CKA_PRIVATE, No),
        (CKA_MODIFIABLE, Yes),
        (CKA_COPYABLE, No),
        (CKA_DESTROYABLE, No),
        (CKA_DERIVE, No),
        (CKA_LOCAL, No),
        (CKA_KEY_GEN_MECHANISM, Number(CK_ULONG::MAX)),
        (CKA_START_DATE, Empty),
        (CKA_END_DATE, Empty),
        (CKA_ID, Present),
        (CKA_UNIQUE_ID, Present),
        (CKA_ALLOWED_MECHANISMS, Present),
    ]
});

/// What all private keys of the service share.
static PRIVATE: LazyLock<Table> = LazyLock::new(|| {
    let own = vec![
        (CKA_CLASS, Number(CKO_PRIVATE_KEY)),
        (CKA_SENSITIVE, Yes),
        (CKA_EXTRACTABLE, No),
        (CKA_ALWAYS_SENSITIVE, No),
        (CKA_NEVER_EXTRACTABLE, No),
        (CKA_ALWAYS_AUTHENTICATE, No),
        (CKA_WRAP_WITH_TRUSTED, No),
        (CKA_SIGN, Yes),
        (CKA_SUBJECT, Empty),
        (CKA_PUBLIC_KEY_INFO, Present),
    ];
    [KEY.clone(), own].concat()
});

/// What all public keys of the service share.
static PUBLIC: LazyLock<Table> = LazyLock::new(|| {
    let own = vec![
        (CKA_CLASS, Number(CKO_PUBLIC_KEY)),
        (CKA_TRUSTED, No),
        (CKA_VERIFY, Yes),
        (CKA_SUBJECT, Empty),
        (CKA_PUBLIC_KEY_INFO, Present),
        (CKA_SENSITIVE, Absent),
        (CKA_EXTRACTABLE, Absent),
    ];
    [KEY.clone(), own].concat()
});

fn rsa_secrets(truth: &Truth) -> Table {
    [
        CKA_PRIVATE_EXPONENT,
        CKA_PRIME_1,
        CKA_PRIME_2,
        CKA_EXPONENT_1,
        CKA_EXPONENT_2,
        CKA_COEFFICIENT,
    ]
    .map(|kind| (kind, truth.clone()))
    .to_vec()
}

fn rsa_private() -> Table {
    let own = vec![
        (CKA_LABEL, Text("rsa2048")),
        (CKA_KEY_TYPE, Number(CKK_RSA)),
        (CKA_DECRYPT, Yes),
        (CKA_SIGN_RECOVER, Yes),
        (CKA_UNWRAP, Yes),
        (CKA_MODULUS, Present),
        (CKA_PUBLIC_EXPONENT, Present),
        (CKA_MODULUS_BITS, Absent),
        (CKA_EC_PARAMS, Absent),
        (CKA_EC_POINT, Absent),
    ];
    [PRIVATE.clone(), own, rsa_secrets(&Secret)].concat()
}

fn rsa_public() -> Table {
    let own = vec![
        (CKA_LABEL, Text("rsa2048")),
        (CKA_KEY_TYPE, Number(CKK_RSA)),
        (CKA_ENCRYPT, Yes),
        (CKA_WRAP, Yes),
        (CKA_MODULUS, Present),
        (CKA_VERIFY_RECOVER, Yes),
        (CKA_MODULUS_BITS, Number(2048)),
        (CKA_PUBLIC_EXPONENT, Present),
        (CKA_VALUE, Absent),
    ];
    [PUBLIC.clone(), own, rsa_secrets(&Absent)].concat()
}

fn ec_private() -> Table {
    let own = vec![
        (CKA_LABEL, Text("p256")),
        (CKA_KEY_TYPE, Number(CKK_EC)),
        (CKA_SIGN_RECOVER, No),
        (CKA_DECRYPT, No),
        (CKA_UNWRAP, No),
        (CKA_EC_PARAMS, Present),
        (CKA_EC_POINT, Present),
        (CKA_MODULUS, Absent),
        (CKA_VALUE, Secret),
    ];
    [PRIVATE.clone(), own].concat()
}

fn ec_public() -> Table {
    let own = vec![
        (CKA_LABEL, Text("p256")),
        (CKA_KEY_TYPE, Number(CKK_EC)),
        (CKA_ENCRYPT, No),
        (CKA_WRAP, No),
        (CKA_EC_PARAMS, Present),
        (CKA_EC_POINT, Present),
        (CKA_MODULUS_BITS, Absent),
        (CKA_VERIFY_RECOVER, No),
    ];
    [PUBLIC.clone(), own].concat()
}

fn aes() -> Table {
    let own = vec![
        (CKA_CLASS, Number(CKO_SECRET_KEY)),
        (CKA_LABEL, Text("aes256")),
        (CKA_KEY_TYPE, Number(CKK_AES)),
        // Asked for with api-version 2025-07-01 where the configured one does not tell it.
        (CKA_VALUE_LEN, Number(32)),
        (CKA_VALUE, Secret),
        (CKA_SENSITIVE, Yes),
        (CKA_EXTRACTABLE, No),
        (CKA_ALWAYS_SENSITIVE, No),
        (CKA_NEVER_EXTRACTABLE, No),
        (CKA_TRUSTED, No),
        (CKA_WRAP_WITH_TRUSTED, No),
        (CKA_ENCRYPT, Yes),
        (CKA_DECRYPT, Yes),
        (CKA_WRAP, Yes),
        (CKA_UNWRAP, Yes),
        (CKA_SIGN, No),
        (CKA_VERIFY, No),
        (CKA_MODULUS, Absent),
        (CKA_SUBJECT, Absent),
    ];
    // What can be done with it is another table's: no mechanism may be offered for it yet.
    let common = KEY.iter().filter(|(kind, _)| *kind != CKA_ALLOWED_MECHANISMS).cloned();
    [common.collect(), own].concat()
}

fn certificate() -> Table {
    vec![
        (CKA_CLASS, Number(CKO_CERTIFICATE)),
        (CKA_TOKEN, Yes),
        (CKA_PRIVATE, No),
        (CKA_LABEL, Text("tls")),
        (CKA_CERTIFICATE_TYPE, Number(CKC_X_509)),
        (CKA_TRUSTED, No),
        (CKA_MODIFIABLE, No),
        (CKA_COPYABLE, No),
        (CKA_SUBJECT, Present),
        (CKA_ISSUER, Present),
        (CKA_SERIAL_NUMBER, Present),
        (CKA_VALUE, Present),
        (CKA_ID, Present),
        (CKA_PUBLIC_KEY_INFO, Present),
        (CKA_KEY_TYPE, Absent),
        (CKA_MODULUS, Absent),
    ]
}

/// Checks a table, and that no attribute is there that neither it nor `also` knows.
fn check(
    session: &Session<'_>,
    object: CK_OBJECT_HANDLE,
    table: &Table,
    also: &[CK_ATTRIBUTE_TYPE],
) {
    for (kind, truth) in table {
        let name = row_of(*kind).expect("a row").name;
        let value = session.value(object, *kind);
        match truth {
            Yes => assert_eq!(value, Ok(vec![CK_TRUE]), "{name}"),
            No => assert_eq!(value, Ok(vec![CK_FALSE]), "{name}"),
            Number(n) => assert_eq!(value, Ok(n.to_ne_bytes().to_vec()), "{name}"),
            Text(text) => assert_eq!(value.as_deref(), Ok(text.as_bytes()), "{name}"),
            Empty => assert_eq!(value, Ok(vec![]), "{name}"),
            Present => assert!(value.as_ref().is_ok_and(|v| !v.is_empty()), "{name}: {value:?}"),
            Secret => assert_eq!(value, Err(CKR_ATTRIBUTE_SENSITIVE), "{name}"),
            Absent => assert_eq!(value, Err(CKR_ATTRIBUTE_TYPE_INVALID), "{name}"),
        }
    }
    for row in ATTRIBUTES {
        if table.iter().all(|(kind, _)| *kind != row.kind) && !also.contains(&row.kind) {
            let value = session.value(object, row.kind);
            assert_eq!(value, Err(CKR_ATTRIBUTE_TYPE_INVALID), "{} is in no table", row.name);
        }
    }
}

#[test]
fn keys_of_the_service_are_as_the_table_says() {
    let seed = format!(
        "{}\ncertificates = [{{ name = 'tls', subject = 'CN=tls', kty = 'EC', curve = 'P-256' }}]",
        *SEED
    );
    let emulator = Emulator::start(&seed);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        let (private, public) = session.pair("rsa2048");
        check(&session, private, &rsa_private(), &[]);
        check(&session, public, &rsa_public(), &[]);
        let (private, public) = session.pair("p256");
        check(&session, private, &ec_private(), &[]);
        check(&session, public, &ec_public(), &[]);
    }
    let hsm = module.open(1);
    check(&hsm, hsm.object(CKO_SECRET_KEY, "aes256"), &aes(), &[CKA_ALLOWED_MECHANISMS]);
    let newer = Module::start(&emulator.token(HSM, "api_version = '2025-07-01'"));
    let newer = newer.open(0);
    let aes = newer.object(CKO_SECRET_KEY, "aes256");
    assert_eq!(newer.number(aes, CKA_VALUE_LEN), Ok(32));
    let vault = module.open(0);
    let object = vault.object(CKO_CERTIFICATE, "tls");
    check(
        &vault,
        object,
        &certificate(),
        &[
            CKA_UNIQUE_ID,
            CKA_CERTIFICATE_CATEGORY,
            CKA_JAVA_MIDP_SECURITY_DOMAIN,
            CKA_URL,
            CKA_HASH_OF_SUBJECT_PUBLIC_KEY,
            CKA_HASH_OF_ISSUER_PUBLIC_KEY,
            CKA_NAME_HASH_ALGORITHM,
            CKA_CHECK_VALUE,
            CKA_START_DATE,
            CKA_END_DATE,
            CKA_DESTROYABLE,
        ],
    );
    let x509 = X509::from_der(&vault.value(object, CKA_VALUE).unwrap()).unwrap();
    assert_eq!(vault.value(object, CKA_SUBJECT).unwrap(), x509.subject_name().to_der().unwrap());
    assert_eq!(vault.value(object, CKA_ISSUER).unwrap(), x509.issuer_name().to_der().unwrap());
    let serial = x509.serial_number().to_bn().unwrap().to_vec();
    let der = vault.value(object, CKA_SERIAL_NUMBER).unwrap();
    assert_eq!((der[0], der[1] as usize), (2, der.len() - 2), "a DER INTEGER");
    assert_eq!(der[2..].iter().skip_while(|b| **b == 0).copied().collect::<Vec<_>>(), serial);
    let (private, public) = vault.pair("tls");
    for other in [private, public] {
        assert_eq!(vault.value(object, CKA_ID), vault.value(other, CKA_ID), "one id for all");
    }
}

#[test]
fn session_pairs_are_as_their_templates_say() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    for (public, private) in [session_rsa(&session, 2048), session_ec(&session, P256)] {
        for (object, kind, truth) in [
            (private, CKA_TOKEN, false),
            (public, CKA_TOKEN, false),
            (private, CKA_LOCAL, true),
            (public, CKA_LOCAL, true),
            (private, CKA_SIGN, true),
            (public, CKA_VERIFY, true),
            (private, CKA_ALWAYS_AUTHENTICATE, false),
        ] {
            let name = row_of(kind).unwrap().name;
            assert_eq!(session.flag(object, kind), Ok(truth), "{name}");
        }
        let generated = session.number(private, CKA_KEY_GEN_MECHANISM).unwrap();
        assert!([CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_EC_KEY_PAIR_GEN].contains(&generated));
        let info = session.value(public, CKA_PUBLIC_KEY_INFO).unwrap();
        assert_eq!(session.value(private, CKA_PUBLIC_KEY_INFO), Ok(info));
        for secret in [CKA_PRIVATE_EXPONENT, CKA_PRIME_1, CKA_VALUE] {
            let value = session.value(private, secret);
            let exists = row_of(secret).unwrap().classes.has(Classes::PRIVATE);
            assert!(value.is_err() && exists, "{secret:#x} of a sensitive key");
        }
    }
    // A key that may be seen is seen.
    let mechanism = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    let public = [bytes(CKA_EC_PARAMS, P256)];
    let (_, private) = session.generate(&mechanism, &public, &open).unwrap();
    assert_eq!(session.value(private, CKA_VALUE).unwrap().len(), 32);
    assert_eq!(session.flag(private, CKA_SENSITIVE), Ok(false));
    assert_eq!(session.flag(private, CKA_NEVER_EXTRACTABLE), Ok(false));
    assert_eq!(session.flag(private, CKA_ALWAYS_SENSITIVE), Ok(false));
    // Once sensitive, never again open; once not extractable, never again extractable.
    session.set(private, &[flag(CKA_SENSITIVE, true)]).unwrap();
    assert_eq!(session.value(private, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    assert!(session.set(private, &[flag(CKA_SENSITIVE, false)]).is_err());
    session.set(private, &[flag(CKA_EXTRACTABLE, false)]).unwrap();
    assert!(session.set(private, &[flag(CKA_EXTRACTABLE, true)]).is_err());
}

/// Every entry of a template is treated, whatever is wrong with another.
#[test]
fn one_attribute_that_cannot_be_told_hides_no_other() {
    const NONE: CK_ULONG = CK_ULONG::MAX;
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "p256");
    let unknown = 0x8000_1234;
    let (good, long) = (Asked::room(CKA_SIGN, 1), Asked::room(CKA_EC_PARAMS, 100));
    let (short, secret) = (Asked::room(CKA_LABEL, 3), Asked::room(CKA_VALUE, 32));
    let other_class = Asked::length(CKA_VALUE_LEN);
    for (asked, wanted, lengths) in [
        (vec![good.clone(), long.clone()], CKR_OK, vec![1, P256.len() as CK_ULONG]),
        (vec![secret.clone(), good.clone()], CKR_ATTRIBUTE_SENSITIVE, vec![NONE, 1]),
        (vec![Asked::length(unknown), good.clone()], CKR_ATTRIBUTE_TYPE_INVALID, vec![NONE, 1]),
        (vec![other_class, good.clone()], CKR_ATTRIBUTE_TYPE_INVALID, vec![NONE, 1]),
        (vec![short.clone(), good.clone()], CKR_BUFFER_TOO_SMALL, vec![NONE, 1]),
        (vec![good.clone(), short.clone()], CKR_BUFFER_TOO_SMALL, vec![1, NONE]),
        (
            vec![short.clone(), secret.clone(), good.clone()],
            CKR_ATTRIBUTE_SENSITIVE,
            vec![NONE, NONE, 1],
        ),
        (
            vec![secret.clone(), Asked::length(unknown), short],
            CKR_ATTRIBUTE_SENSITIVE,
            vec![NONE, NONE, NONE],
        ),
        (vec![Asked::length(unknown), secret], CKR_ATTRIBUTE_TYPE_INVALID, vec![NONE, NONE]),
        (vec![good.clone(), good.clone()], CKR_OK, vec![1, 1]),
        (vec![Asked::room(CKA_START_DATE, 8), Asked::length(CKA_END_DATE)], CKR_OK, vec![0, 0]),
        (vec![Asked::length(CKA_LABEL), Asked::length(CKA_CLASS)], CKR_OK, vec![4, 8]),
        (vec![], CKR_OK, vec![]),
    ] {
        let mut asked = asked;
        let before = asked.clone();
        assert_eq!(session.values(key, &mut asked), wanted, "{before:?}");
        let stored: Vec<CK_ULONG> = asked.iter().map(|one| one.length).collect();
        assert_eq!(stored, lengths, "{before:?}");
        for (one, before) in asked.iter().zip(&before) {
            match (one.length, &one.value) {
                (NONE, value) => assert_eq!(value, &before.value, "nothing is written"),
                (n, Some(value)) => {
                    assert!(value[n as usize..].iter().all(|byte| *byte == 0xA5));
                }
                (_, None) => {}
            }
        }
    }
}

#[test]
fn validity_and_operations_are_the_services() {
    let emulator = Emulator::start("keys = [{ name = 'k', kty = 'RSA', size = 2048 }]");
    let vault = emulator.vault(HSM);
    // 2026-06-01T12:00:00Z and 2027-06-01T12:00:00Z: days round outwards.
    let (from, to) = (1_780_315_200, 1_811_851_200);
    let update = KeyUpdateParameters {
        key_ops: Some(vec!["decrypt".into(), "verify".into()]),
        attributes: Some(KeyAttributes {
            nbf: Some(from),
            exp: Some(to),
            ..KeyAttributes::default()
        }),
        ..KeyUpdateParameters::default()
    };
    vault.update_key(KeyRef::current("k"), &update).unwrap();
    let module = Module::start(&emulator.tokens());
    let session = module.open(1);
    let (private, public) = session.pair("k");
    assert_eq!(session.value(private, CKA_START_DATE).unwrap(), b"20260601");
    assert_eq!(session.value(private, CKA_END_DATE).unwrap(), b"20270601");
    for (kind, truth) in [(CKA_SIGN, false), (CKA_DECRYPT, true), (CKA_UNWRAP, false)] {
        assert_eq!(session.flag(private, kind), Ok(truth), "{kind:#x}");
    }
    for kind in [CKA_VERIFY, CKA_ENCRYPT, CKA_WRAP] {
        assert_eq!(session.flag(public, kind), Ok(true), "what is local is not the service's");
    }
}

/// CKA_ALLOWED_MECHANISMS is what the half of a pair can do: without RSNULL nobody signs SHA-1, and
/// everybody verifies it.
#[test]
fn allowed_mechanisms_are_those_of_the_half() {
    let emulator = Emulator::start(&SEED);
    let module = Module::start(&emulator.token(HSM, ""));
    let session = module.open(0);
    let allowed = |key| -> Vec<CK_ULONG> {
        let value = session.value(key, CKA_ALLOWED_MECHANISMS).unwrap();
        value.chunks_exact(8).map(|one| CK_ULONG::from_ne_bytes(one.try_into().unwrap())).collect()
    };
    let (private, public) = session.pair("rsa2048");
    for (kind, signs, verifies) in [
        (CKM_SHA256_RSA_PKCS, true, true),
        (CKM_SHA1_RSA_PKCS, false, true),
        (CKM_SHA1_RSA_PKCS_PSS, false, true),
        (CKM_RSA_X_509, false, true),
        (CKM_RSA_PKCS_OAEP, true, true),
        (CKM_RSA_PKCS_KEY_PAIR_GEN, false, false),
        (CKM_ECDSA, false, false),
    ] {
        assert_eq!(allowed(private).contains(&kind), signs, "private key, {kind:#x}");
        assert_eq!(allowed(public).contains(&kind), verifies, "public key, {kind:#x}");
    }
    let (public, private) = session_rsa(&session, 2048);
    assert!(allowed(private).contains(&CKM_SHA1_RSA_PKCS), "a session key needs no service");
    assert!(allowed(public).contains(&CKM_SHA1_RSA_PKCS_PSS));
    let (_, public) = session.pair("p256");
    assert!(allowed(public).contains(&CKM_ECDSA_SHA256));
    let secret = session.object(CKO_SECRET_KEY, "aes256");
    assert!(allowed(secret).contains(&CKM_AES_GCM) && !allowed(secret).contains(&CKM_AES_ECB));
}
