//! Data objects: secrets of a vault, and what clients make for a session.

use cryptoki_sys::*;

use crate::{
    arguments::Asked,
    service::{Emulator, HSM, VAULT},
    token::{Module, NOTHING, Session, Template, bytes, flag, number},
};

const SEED: &str = "
keys = [{ name = 'web', kty = 'EC', curve = 'P-256' }]
certificates = [{ name = 'tls', subject = 'CN=tls', kty = 'EC', curve = 'P-256' }]
secrets = [
    { name = 'Password', value = \"Grüße, \\u0000 and more\", content_type = 'text/plain' },
    { name = 'other', value = '' },
    { name = 'off', value = 'x', enabled = false },
]";
const PASSWORD: &[u8] = "Grüße, \0 and more".as_bytes();

fn data() -> Template {
    vec![number(CKA_CLASS, CKO_DATA)]
}

fn labels(session: &Session<'_>, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Vec<String> {
    let found = session.find(template).unwrap();
    let mut labels: Vec<_> =
        found.iter().map(|object| session.text(*object, CKA_LABEL).unwrap()).collect();
    labels.sort();
    labels
}

/// How often the service was asked for secrets: listings, values.
fn asked(emulator: &Emulator) -> (u64, u64) {
    let counts = emulator.counts(VAULT);
    let count = |what| counts.get(what).copied().unwrap_or(0);
    (count("secrets/list"), count("secrets/get"))
}

#[test]
fn secrets_are_shown_and_read_where_the_configuration_says_so() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, "secrets = ['*']"));
    let session = module.open_with(0, CKF_SERIAL_SESSION).unwrap();
    assert_eq!(labels(&session, &data()), ["Password", "off", "other"], "not the certificate's");
    assert_eq!(asked(&emulator), (1, 0), "no value is fetched to be shown");
    let password = session.object(CKO_DATA, "Password");
    for (kind, value) in [
        flag(CKA_TOKEN, true),
        flag(CKA_PRIVATE, false),
        flag(CKA_MODIFIABLE, false),
        flag(CKA_COPYABLE, false),
        flag(CKA_DESTROYABLE, false),
        bytes(CKA_APPLICATION, "Azure Key Vault"),
        bytes(CKA_OBJECT_ID, []),
        bytes(CKA_UNIQUE_ID, "Password#data"),
    ] {
        assert_eq!(session.value(password, kind), Ok(value), "{kind:#x}");
    }
    assert_eq!(session.value(password, CKA_ID), Err(CKR_ATTRIBUTE_TYPE_INVALID));
    assert_eq!(asked(&emulator), (1, 0));
    assert_eq!(session.value(password, CKA_VALUE), Ok(PASSWORD.to_vec()));
    assert_eq!(asked(&emulator), (1, 1), "length and value are one request");
    assert_eq!(session.value(password, CKA_VALUE), Ok(PASSWORD.to_vec()));
    assert_eq!(asked(&emulator), (1, 2), "nothing is kept");
    let other = session.object(CKO_DATA, "other");
    assert_eq!(session.value(other, CKA_VALUE), Ok(vec![]));
    let off = session.object(CKO_DATA, "off");
    assert_eq!(session.value(off, CKA_VALUE), Err(CKR_FUNCTION_REJECTED));
    assert_eq!(session.info().unwrap().ulDeviceError, 403);

    assert_eq!(labels(&session, &[bytes(CKA_UNIQUE_ID, "Password#data")]), ["Password"]);
    assert_eq!(labels(&session, &[bytes(CKA_APPLICATION, "Azure Key Vault")]).len(), 3);
    let by_value = [number(CKA_CLASS, CKO_DATA), bytes(CKA_VALUE, PASSWORD)];
    assert_eq!(session.find(&by_value).unwrap(), NOTHING, "no search reads values");
    assert!(labels(&session, &[]).contains(&"Password".to_owned()), "an open search shows all");
    assert_eq!(asked(&emulator).0, 1, "one listing for all of that");
    session.pair("web");
}

/// One call with room for the value needs no question about its length; a buffer that is too small
/// is no reason to ask again.
#[test]
fn a_value_goes_to_the_session_that_asked_and_stays_nowhere() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, "secrets = ['*']"));
    let (one, two) = (module.open(0), module.open(0));
    let password = one.object(CKO_DATA, "Password");
    let length = PASSWORD.len() as CK_ULONG;
    let mut room = [Asked::room(CKA_LABEL, 20), Asked::room(CKA_VALUE, 100)];
    assert_eq!(one.values(password, &mut room), CKR_OK);
    assert_eq!((room[0].length, room[1].length), (8, length));
    assert_eq!(asked(&emulator), (1, 1));
    let mut small = [Asked::room(CKA_VALUE, 3)];
    assert_eq!(one.values(password, &mut small), CKR_BUFFER_TOO_SMALL);
    assert_eq!(asked(&emulator).1, 2);
    let mut room = [Asked::room(CKA_VALUE, 100)];
    assert_eq!(one.values(password, &mut room), CKR_OK);
    assert_eq!(asked(&emulator).1, 2, "kept for the session that was told its buffer is too small");
    assert_eq!(one.values(password, &mut [Asked::length(CKA_VALUE)]), CKR_OK);
    assert_eq!(asked(&emulator).1, 3);
    assert_eq!(two.value(password, CKA_VALUE), Ok(PASSWORD.to_vec()));
    assert_eq!(asked(&emulator).1, 4, "another session gets nothing of it");
    // A secret is not changed, copied or destroyed through PKCS#11.
    assert_eq!(one.set(password, &[bytes(CKA_LABEL, "x")]), Err(CKR_ACTION_PROHIBITED));
    assert_eq!(one.copy(password, &[]), Err(CKR_ACTION_PROHIBITED));
    assert_eq!(one.destroy(password), Err(CKR_ACTION_PROHIBITED));
    let value = [number(CKA_CLASS, CKO_DATA), bytes(CKA_VALUE, "x"), flag(CKA_TOKEN, true)];
    assert_eq!(one.create(&value), Err(CKR_TEMPLATE_INCONSISTENT), "none is made either");
}

/// Their value is here: no secret is asked for, whatever they are called.
#[test]
fn data_objects_of_a_session_are_made_changed_copied_and_gone_with_it() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.token(VAULT, "secrets = ['*']"));
    let (one, two) = (module.open(0), module.open_with(0, CKF_SERIAL_SESSION).unwrap());
    let empty = two.create(&data()).expect("in a read-only session");
    for (kind, value) in [
        flag(CKA_TOKEN, false),
        flag(CKA_PRIVATE, false),
        flag(CKA_MODIFIABLE, true),
        flag(CKA_COPYABLE, true),
        flag(CKA_DESTROYABLE, true),
        bytes(CKA_LABEL, []),
        bytes(CKA_APPLICATION, []),
        bytes(CKA_OBJECT_ID, []),
        bytes(CKA_VALUE, []),
    ] {
        assert_eq!(two.value(empty, kind), Ok(value), "{kind:#x} by default");
    }
    for kind in [CKA_UNIQUE_ID, CKA_ID, CKA_SENSITIVE] {
        assert_eq!(two.value(empty, kind), Err(CKR_ATTRIBUTE_TYPE_INVALID), "{kind:#x}");
    }
    let given = [
        bytes(CKA_LABEL, "Password"),
        bytes(CKA_APPLICATION, "tests"),
        bytes(CKA_OBJECT_ID, [6, 3, 0x2a, 3, 4]),
        bytes(CKA_VALUE, "the first value"),
    ];
    let object = one.create(&[&data()[..], &given].concat()).unwrap();
    for (kind, value) in &given {
        assert_eq!(two.value(object, *kind), Ok(value.clone()), "{kind:#x} for every session");
        assert_eq!(two.find(&[flag(CKA_TOKEN, false), (*kind, value.clone())]).unwrap(), [object]);
    }
    let size = one.size(object).unwrap();
    for (kind, value) in [
        bytes(CKA_VALUE, "a second and longer value"),
        bytes(CKA_APPLICATION, "others"),
        bytes(CKA_OBJECT_ID, []),
        bytes(CKA_LABEL, "renamed"),
    ] {
        one.set(object, &[(kind, value.clone())]).unwrap();
        assert_eq!(one.value(object, kind), Ok(value), "{kind:#x}");
    }
    assert!(one.size(object).unwrap() > size);
    let third = [bytes(CKA_VALUE, "the third value"), flag(CKA_MODIFIABLE, false)];
    let copy = two.copy(object, &third).expect("a copy with another value");
    assert_eq!(two.value(copy, CKA_VALUE), Ok(b"the third value".to_vec()));
    assert_eq!(two.text(copy, CKA_APPLICATION), Ok("others".to_owned()));
    assert_eq!(two.set(copy, &[bytes(CKA_VALUE, "x")]), Err(CKR_ACTION_PROHIBITED));
    let on_token = one.copy(object, &[flag(CKA_TOKEN, true)]);
    assert_eq!(on_token, Err(CKR_TEMPLATE_INCONSISTENT));
    for (what, more, wanted) in [
        ("a key's", flag(CKA_SENSITIVE, true), CKR_ATTRIBUTE_TYPE_INVALID),
        ("the token's", bytes(CKA_UNIQUE_ID, "x"), CKR_ATTRIBUTE_READ_ONLY),
    ] {
        assert_eq!(one.create(&[&data()[..], &[more]].concat()), Err(wanted), "{what}");
    }
    one.destroy(empty).unwrap();
    assert_eq!(two.value(empty, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
    one.close().unwrap();
    assert_eq!(two.value(object, CKA_VALUE), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(
        two.value(copy, CKA_VALUE),
        Ok(b"the third value".to_vec()),
        "its maker is still here"
    );
    assert_eq!(asked(&emulator), (0, 0));
}

#[test]
fn without_the_key_of_the_configuration_nothing_is_asked() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    for slot in [0, 1] {
        let session = module.open(slot);
        assert_eq!(session.find(&data()).unwrap(), NOTHING);
        assert!(!labels(&session, &[]).contains(&"Password".to_owned()));
    }
    assert_eq!(asked(&emulator), (0, 0));
    let refused = Module::load().initialize(&emulator.token(HSM, "secrets = ['*']"));
    assert_eq!(refused, Err(CKR_ARGUMENTS_BAD), "a Managed HSM has none");
}

/// Names in the configuration are found without the permission to list, and nothing else is.
#[test]
fn named_secrets_need_no_permission_to_list() {
    const FORBIDDEN: &str = "[[fault]]\nservice = 'vault:kv1'\noperation = 'secrets/list'\n\
        status = 403\ncode = 'Forbidden'\n";
    let emulator = Emulator::with(SEED, FORBIDDEN);
    let module = Module::start(&emulator.token(VAULT, "secrets = ['password', 'tls', 'none']"));
    let session = module.open(0);
    assert_eq!(labels(&session, &data()), ["Password"], "not the secret behind a certificate");
    let password = session.object(CKO_DATA, "Password");
    assert_eq!(session.value(password, CKA_VALUE), Ok(PASSWORD.to_vec()));
    let module = Module::start(&emulator.token(VAULT, "secrets = ['*']"));
    let session = module.open(0);
    assert_eq!(session.find(&data()), Err(CKR_FUNCTION_REJECTED));
    session.pair("web");
    assert!(labels(&session, &[]).contains(&"web".to_owned()), "keys are not hidden by that");
}

/// With a login mode secrets are private objects.
#[test]
fn secrets_are_hidden_before_login() {
    let emulator = Emulator::start(SEED);
    let (client, secret) = emulator.client_and_secret();
    let login = "login = \"client-secret\"\nsecrets = ['Password']\n";
    let module = Module::start(&emulator.token(VAULT, login));
    let session = module.open(0);
    assert_eq!(session.find(&data()).unwrap(), NOTHING);
    assert_eq!(session.create(&data()), Err(CKR_USER_NOT_LOGGED_IN), "so is a session's");
    let open = [&data()[..], &[flag(CKA_PRIVATE, false)]].concat();
    session.create(&open).expect("unless its template says otherwise");
    session.login(CKU_USER, &format!("{client}:{secret}")).unwrap();
    let password = session.object(CKO_DATA, "Password");
    assert_eq!(session.flag(password, CKA_PRIVATE), Ok(true));
    let named = [&data()[..], &[flag(CKA_TOKEN, true)]].concat();
    assert_eq!(labels(&session, &named), ["Password"], "only those named");
    let made =
        session.create(&[&data()[..], &[bytes(CKA_VALUE, "kept to itself")]].concat()).unwrap();
    assert_eq!(session.flag(made, CKA_PRIVATE), Ok(true));
    session.logout().unwrap();
    assert_eq!(session.value(made, CKA_VALUE), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(session.value(password, CKA_VALUE), Err(CKR_OBJECT_HANDLE_INVALID));
}
