//! AES and HMAC: what they cost at the service, what is refused before anything is sent, and what
//! session keys show of themselves.

use cryptoki_sys::*;
use openssl::{
    hash::MessageDigest,
    pkey::PKey,
    sign::Signer,
    symm::{Cipher, decrypt, encrypt},
};

use crate::{
    messages::Gcm,
    service::{Emulator, HSM, VAULT},
    signing::P256,
    token::{Family, Mechanism, Module, Parameter, Room, Rv, Session, bytes, flag, number},
};

const SEED: &str = "
keys = [
    { name = 'aes192', kty = 'oct-HSM', size = 192, ops = ['encrypt', 'decrypt'] },
    { name = 'mac', kty = 'oct-HSM', size = 256, ops = ['sign', 'verify'] },
]
";

fn cbc(kind: CK_MECHANISM_TYPE, iv: &[u8]) -> Mechanism {
    Mechanism { kind, parameter: Parameter::Bytes(iv.to_vec()) }
}

fn gcm(iv: usize, tag_bits: CK_ULONG) -> Mechanism {
    let parameter = Parameter::Gcm { iv: vec![1; iv], aad: vec![], tag_bits };
    Mechanism { kind: CKM_AES_GCM, parameter }
}

/// A session key with these bytes.
fn brought(s: &Session<'_>, kind: CK_KEY_TYPE, value: &[u8]) -> Rv<CK_OBJECT_HANDLE> {
    s.create(&[
        number(CKA_CLASS, CKO_SECRET_KEY),
        number(CKA_KEY_TYPE, kind),
        bytes(CKA_VALUE, value),
    ])
}

fn one_shot(
    s: &Session<'_>,
    f: Family,
    m: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
) -> Rv<Vec<u8>> {
    s.init(f, m, key)?;
    s.one_shot_in(f, data, Room::Bytes(data.len() + 64)).result()
}

#[test]
fn cbc_chains_requests_and_pads_the_last() {
    let emulator = Emulator::with(SEED, "max_aes_payload = 64\n");
    let module = Module::start(&emulator.token(HSM, "max_aes_payload = 70\n"));
    let s = module.open(0);
    let key = s.object(CKO_SECRET_KEY, "aes192");
    for (length, requests) in [(1, 1), (15, 1), (16, 1), (64, 1), (65, 2), (200, 4)] {
        let data: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let padded = cbc(CKM_AES_CBC_PAD, &[3; 16]);
        emulator.reset();
        let ciphertext = one_shot(&s, Family::Encrypt, &padded, key, &data).expect("encrypt");
        assert_eq!(ciphertext.len(), (length / 16 + 1) * 16);
        assert_eq!(emulator.counts(HSM).get("keys/encrypt"), Some(&requests), "{length}");
        assert_eq!(one_shot(&s, Family::Decrypt, &padded, key, &ciphertext), Ok(data.clone()));
        // In parts of any length it is the same ciphertext.
        for size in [1, 16, 33] {
            s.init(Family::Encrypt, &padded, key).expect("Init");
            let mut parts = Vec::new();
            for part in data.chunks(size) {
                parts.extend(s.update(Family::Encrypt, part).expect("Update"));
            }
            parts.extend(s.last(Family::Encrypt).expect("Final"));
            assert_eq!(parts, ciphertext, "{length} in parts of {size}");
        }
    }
    emulator.reset();
    let plain = cbc(CKM_AES_CBC, &[3; 16]);
    assert_eq!(one_shot(&s, Family::Encrypt, &plain, key, &[1; 31]), Err(CKR_DATA_LEN_RANGE));
    let odd = one_shot(&s, Family::Decrypt, &plain, key, &[1; 31]);
    assert_eq!(odd, Err(CKR_ENCRYPTED_DATA_LEN_RANGE));
    assert_eq!(
        s.init(Family::Encrypt, &cbc(CKM_AES_CBC, &[3; 15]), key),
        Err(CKR_MECHANISM_PARAM_INVALID)
    );
    assert_eq!(one_shot(&s, Family::Encrypt, &plain, key, &[]), Ok(vec![]));
    assert_eq!(emulator.requests(HSM), 0, "nothing of that was sent");
    // One ciphertext in 256 ends like padding by chance; not four in a row.
    let padded = cbc(CKM_AES_CBC_PAD, &[3; 16]);
    let wrong = (1..=4).map(|byte| one_shot(&s, Family::Decrypt, &padded, key, &[byte; 32]));
    assert!(wrong.into_iter().any(|answer| answer == Err(CKR_ENCRYPTED_DATA_INVALID)));
}

#[test]
fn gcm_of_the_service_is_one_request_within_its_bound() {
    let emulator = Emulator::with(SEED, "gcm_caller_iv_refused = true\n");
    let module = Module::start(&emulator.token(HSM, "max_aes_payload = 1000\n"));
    let s = module.open(0);
    let key = s.object(CKO_SECRET_KEY, "aes192");
    emulator.reset();
    assert_eq!(s.init(Family::Encrypt, &gcm(12, 128), key), Err(CKR_MECHANISM_INVALID));
    for (iv, tag) in [(16, 128), (12, 96), (0, 128)] {
        let refused = s.init(Family::Decrypt, &gcm(iv, tag), key);
        assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "IV of {iv}, tag of {tag}");
    }
    let long = one_shot(&s, Family::Decrypt, &gcm(12, 128), key, &[0; 1017]);
    assert_eq!(long, Err(CKR_ENCRYPTED_DATA_LEN_RANGE));
    s.message_init(true, key).expect("C_MessageEncryptInit");
    for (generator, fixed, iv) in [
        (CKG_NO_GENERATE, 0, 12),
        (CKG_GENERATE_COUNTER, 0, 12),
        (CKG_GENERATE_COUNTER_XOR, 0, 12),
        (CKG_GENERATE, 32, 12),
        (CKG_GENERATE, 0, 16),
    ] {
        let mut parameter = Gcm { iv: vec![0; iv], fixed, ..Gcm::new(generator) };
        let refused = s.message(true, &mut parameter, b"", b"data", Room::Bytes(99));
        assert_eq!(refused.rv, CKR_MECHANISM_PARAM_INVALID, "generator {generator}");
    }
    let mut parameter = Gcm::new(CKG_GENERATE);
    let long = s.message(true, &mut parameter, b"", &[0; 1001], Room::Bytes(2000));
    assert_eq!(long.rv, CKR_DATA_LEN_RANGE);
    assert_eq!(emulator.requests(HSM), 0, "nothing of that was sent");
    let made = s.message(true, &mut parameter, b"", &[0; 1000], Room::Bytes(1000)).result();
    assert_eq!(made.expect("the longest message").len(), 1000);
    assert_eq!(emulator.counts(HSM).get("keys/encrypt"), Some(&1));
    assert_eq!(s.message_begin(true, &mut parameter, b""), Ok(()));
    let busy = s.message(true, &mut parameter, b"", b"x", Room::Bytes(99));
    assert_eq!(busy.rv, CKR_OPERATION_ACTIVE);
    assert_eq!(s.message_final(true), Ok(()));
    assert_eq!(s.message_final(true), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn the_size_of_a_key_is_asked_for_once_and_kept_of_our_own() {
    let emulator = Emulator::start(SEED);
    let toml = emulator.token(HSM, "cache_ttl = \"0s\"\n");
    let module = Module::start(&toml);
    let s = module.open(0);
    emulator.reset();
    for _ in 0..3 {
        let key = s.object(CKO_SECRET_KEY, "aes192");
        assert_eq!(s.number(key, CKA_VALUE_LEN), Ok(24));
    }
    let asked = emulator.counts(HSM).get("keys/get").copied();
    assert_eq!(asked, Some(4), "three times for the key, once for its size");
    let template = [
        flag(CKA_TOKEN, true),
        number(CKA_VALUE_LEN, 16),
        bytes(CKA_LABEL, "ours"),
        bytes(CKA_ID, [7; 3]),
        flag(CKA_DECRYPT, true),
    ];
    let ours = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template).expect("AES");
    assert_eq!(s.value(ours, CKA_ID), Ok(vec![7; 3]));
    assert_eq!(s.flag(ours, CKA_DECRYPT), Ok(true));
    assert_eq!(s.flag(ours, CKA_ENCRYPT), Ok(false));
    assert_eq!(s.value(ours, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    let again = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template);
    assert_eq!(again, Err(CKR_TEMPLATE_INCONSISTENT), "the name exists");
    for bad in [
        vec![],
        vec![number(CKA_VALUE_LEN, 20)],
        vec![number(CKA_VALUE_LEN, 16), flag(CKA_SIGN, true)],
    ] {
        let template = [vec![flag(CKA_TOKEN, true)], bad].concat();
        assert!(s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template).is_err());
    }
    drop(module);
    let other = Module::start(&toml);
    let s = other.open(0);
    emulator.reset();
    let ours = s.object(CKO_SECRET_KEY, "ours");
    assert_eq!(s.number(ours, CKA_VALUE_LEN), Ok(16));
    assert_eq!(emulator.counts(HSM).get("keys/get"), Some(&1), "its tag tells the size");
}

#[test]
fn hmac_is_the_services_only_where_it_is_told() {
    let emulator = Emulator::with(SEED, "hmac_any_length = true\n");
    let module = Module::start(&emulator.token(HSM, "hmac = true\napi_version = '7.6'\n"));
    let s = module.open(0);
    let key = s.object(CKO_SECRET_KEY, "mac");
    assert_eq!(s.number(key, CKA_KEY_TYPE), Ok(CKK_GENERIC_SECRET));
    let mac = Mechanism::plain(CKM_SHA256_HMAC);
    emulator.reset();
    let made = s.sign(&mac, key, b"any length").expect("HMAC");
    assert_eq!(made.len(), 32);
    assert_eq!(s.verify(&mac, key, b"any length", &made), Ok(()));
    assert_eq!(s.verify(&mac, key, b"another", &made), Err(CKR_SIGNATURE_INVALID));
    assert_eq!(s.verify(&mac, key, b"another", &made[1..]), Err(CKR_SIGNATURE_LEN_RANGE));
    let counts = emulator.counts(HSM);
    assert_eq!((counts.get("keys/sign"), counts.get("keys/verify")), (Some(&1), Some(&2)));
    assert_eq!(s.sign(&mac, key, &[0; 4097]), Err(CKR_DATA_LEN_RANGE));
}

#[test]
fn session_keys_show_their_value_if_they_may_and_work_as_openssls() {
    let emulator = Emulator::start("");
    let module = Module::start(
        &emulator.token(VAULT, "mechanisms = ['+AES_*', '+GENERIC_SECRET_KEY_GEN', '-RSA_PKCS']\n"),
    );
    let s = module.open(0);
    assert!(!module.mechanisms(0).contains(&CKM_RSA_PKCS), "taken away");
    let value: Vec<u8> = (0..32).collect();
    let key = brought(&s, CKK_AES, &value).expect("AES");
    // By the standard not sensitive, and extractable: whoever brings a key has it in clear.
    assert_eq!(s.value(key, CKA_VALUE), Ok(value.clone()));
    let closed = s.copy(key, &[flag(CKA_SENSITIVE, true)]).expect("a copy");
    assert_eq!(s.value(closed, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    assert_eq!(s.number(key, CKA_VALUE_LEN), Ok(32));
    let zeros = encrypt(Cipher::aes_256_ecb(), &value, None, &[0; 16]).expect("OpenSSL");
    assert_eq!(s.value(key, CKA_CHECK_VALUE), Ok(zeros[..3].to_vec()));
    assert_eq!(s.flag(key, CKA_LOCAL), Ok(false));
    let padded = cbc(CKM_AES_CBC_PAD, &[9; 16]);
    let ciphertext = one_shot(&s, Family::Encrypt, &padded, key, b"some data").expect("CBC");
    let opened = decrypt(Cipher::aes_256_cbc(), &value, Some(&[9; 16]), &ciphertext);
    assert_eq!(opened.expect("OpenSSL"), b"some data");
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    for (mechanism, length) in [(CKM_AES_KEY_GEN, 24), (CKM_GENERIC_SECRET_KEY_GEN, 7)] {
        let template = [vec![number(CKA_VALUE_LEN, length)], open.to_vec()].concat();
        let key = s.generate_key(&Mechanism::plain(mechanism), &template).expect("a key");
        assert_eq!(s.value(key, CKA_VALUE).expect("its value").len(), length as usize);
        assert_eq!(s.flag(key, CKA_LOCAL), Ok(true));
        let closed = s.copy(key, &[flag(CKA_SENSITIVE, true)]).expect("a copy");
        assert_eq!(s.value(closed, CKA_VALUE), Err(CKR_ATTRIBUTE_SENSITIVE));
    }
    for (kind, length) in [(CKK_AES, 17), (CKK_AES, 0), (CKK_GENERIC_SECRET, 0), (CKK_DES3, 24)] {
        assert_eq!(brought(&s, kind, &vec![1; length]), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    }
    // C_DigestKey, and the keys that go with their session.
    s.init(Family::Digest, &Mechanism::plain(CKM_SHA256), 0).expect("C_DigestInit");
    assert_eq!(s.digest_key(key), Ok(()));
    assert_eq!(s.last(Family::Digest), Ok(openssl::sha::sha256(&value).to_vec()));
    let other = module.open(0);
    assert_eq!(other.number(key, CKA_VALUE_LEN), Ok(32), "seen by all sessions of the token");
    s.close().expect("C_CloseSession");
    assert_eq!(other.number(key, CKA_VALUE_LEN), Err(CKR_OBJECT_HANDLE_INVALID));
    assert_eq!(emulator.requests(VAULT), 0);
}

/// Clause 4.1.1: what a template is taken with is the object's. Clients name usages that they never
/// ask for.
#[test]
fn usages_that_a_template_names_are_kept_and_told_apart_by_the_key_type() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, "mechanisms = ['+*']\n"));
    let s = module.open(0);
    let made = |usages: &[CK_ATTRIBUTE_TYPE]| {
        let usages = usages.iter().map(|usage| flag(*usage, true));
        let template: Vec<_> = usages.chain([number(CKA_VALUE_LEN, 16)]).collect();
        s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template).expect("AES")
    };
    let key = made(&[CKA_SIGN, CKA_ENCRYPT, CKA_DERIVE]);
    for (usage, wanted) in [
        (CKA_SIGN, true),
        (CKA_ENCRYPT, true),
        (CKA_DERIVE, true),
        (CKA_VERIFY, false),
        (CKA_DECRYPT, false),
    ] {
        assert_eq!(s.flag(key, usage), Ok(wanted), "{usage:#x}");
    }
    let mac = Mechanism::plain(CKM_SHA256_HMAC);
    assert_eq!(s.init(Family::Sign, &mac, key), Err(CKR_KEY_TYPE_INCONSISTENT));
    assert_eq!(s.flag(made(&[CKA_SIGN, CKA_VERIFY]), CKA_SIGN), Ok(true), "nothing else");
    let plain = made(&[]);
    assert_eq!((s.flag(plain, CKA_ENCRYPT), s.flag(plain, CKA_SIGN)), (Ok(true), Ok(false)));
    let ec = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let usages = [flag(CKA_SIGN, true), flag(CKA_DECRYPT, true)];
    let (public, private) =
        s.generate(&ec, &[bytes(CKA_EC_PARAMS, P256), flag(CKA_WRAP, true)], &usages).expect("EC");
    assert_eq!((s.flag(private, CKA_DECRYPT), s.flag(private, CKA_UNWRAP)), (Ok(true), Ok(false)));
    assert_eq!((s.flag(public, CKA_WRAP), s.flag(public, CKA_VERIFY)), (Ok(true), Ok(false)));
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    assert_eq!(s.init(Family::Decrypt, &pkcs1, private), Err(CKR_KEY_TYPE_INCONSISTENT));
}

/// The key types of clauses 6.20.4 and its like: for one HMAC each, with what a generic secret has.
#[test]
fn hmac_keys_are_for_their_hash() {
    let emulator = Emulator::with("", "hmac_any_length = true\n");
    let more = "mechanisms = ['+*']\nhmac = true\napi_version = '7.6'\n";
    let module = Module::start(&emulator.token(HSM, more));
    let s = module.open(0);
    let value: Vec<u8> = (0..50).collect();
    let key = brought(&s, CKK_SHA384_HMAC, &value).expect("HMAC");
    let own = [CKM_SHA384_HMAC, CKM_SHA384_HMAC_GENERAL];
    let allowed: Vec<u8> = own.into_iter().flat_map(CK_ULONG::to_ne_bytes).collect();
    assert_eq!(s.value(key, CKA_ALLOWED_MECHANISMS), Ok(allowed));
    assert_eq!(s.value(key, CKA_VALUE), Ok(value.clone()));
    assert_eq!((s.flag(key, CKA_SIGN), s.flag(key, CKA_ENCRYPT)), (Ok(true), Ok(false)));
    let pair = PKey::hmac(&value).expect("OpenSSL");
    let mut signer = Signer::new(MessageDigest::sha384(), &pair).expect("OpenSSL");
    let theirs = signer.sign_oneshot_to_vec(b"data").expect("OpenSSL");
    assert_eq!(s.sign(&Mechanism::plain(CKM_SHA384_HMAC), key, b"data"), Ok(theirs));
    let other = s.init(Family::Sign, &Mechanism::plain(CKM_SHA256_HMAC), key);
    assert_eq!(other, Err(CKR_KEY_TYPE_INCONSISTENT));
    let made = s.generate_key(&Mechanism::plain(CKM_SHA384_KEY_GEN), &[]);
    assert_eq!(made, Err(CKR_TEMPLATE_INCOMPLETE), "of no length");
    let wrong = [number(CKA_VALUE_LEN, 48), number(CKA_KEY_TYPE, CKK_SHA256_HMAC)];
    let made = s.generate_key(&Mechanism::plain(CKM_SHA384_KEY_GEN), &wrong);
    assert_eq!(made, Err(CKR_TEMPLATE_INCONSISTENT));
    let sized = [number(CKA_VALUE_LEN, 48)];
    let made = s.generate_key(&Mechanism::plain(CKM_SHA384_KEY_GEN), &sized).expect("HMAC");
    assert_eq!(s.number(made, CKA_KEY_GEN_MECHANISM), Ok(CKM_SHA384_KEY_GEN));
    for (kind, length) in [(CKK_SHA384_HMAC, 0), (CKK_SHA384_HMAC, 513), (CKK_MD5_HMAC, 16)] {
        assert_eq!(brought(&s, kind, &vec![1; length]), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    }
    emulator.reset();
    let at_service = s.copy(key, &[flag(CKA_TOKEN, true), bytes(CKA_LABEL, "mac")]);
    assert_eq!(at_service, Err(CKR_TEMPLATE_INCONSISTENT), "there it is a generic secret");
    assert_eq!(emulator.requests(HSM), 0);
}

#[test]
fn allowed_mechanisms_of_a_template_are_kept_to() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, "mechanisms = ['+AES_*']\n"));
    let s = module.open(0);
    let only = CKM_AES_CTR.to_ne_bytes();
    let template = [number(CKA_VALUE_LEN, 16), bytes(CKA_ALLOWED_MECHANISMS, only)];
    let key = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template).expect("AES");
    assert_eq!(
        s.init(Family::Encrypt, &Mechanism::plain(CKM_AES_ECB), key),
        Err(CKR_MECHANISM_INVALID)
    );
    let counter = [64u64.to_ne_bytes().to_vec(), vec![0; 16]].concat();
    let ctr = Mechanism { kind: CKM_AES_CTR, parameter: Parameter::Bytes(counter) };
    assert_eq!(s.init(Family::Encrypt, &ctr, key), Ok(()));
    // A list of none allows none.
    let none = [number(CKA_VALUE_LEN, 16), bytes(CKA_ALLOWED_MECHANISMS, [])];
    let key = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &none).expect("AES");
    let other = module.open(0);
    assert_eq!(other.init(Family::Encrypt, &ctr, key), Err(CKR_MECHANISM_INVALID));
    // Where nobody logs in nothing is private: whoever makes a key can use it.
    let private = [number(CKA_VALUE_LEN, 16), flag(CKA_PRIVATE, true)];
    let key = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &private).expect("AES");
    assert_eq!(s.flag(key, CKA_PRIVATE), Ok(false));
    assert_eq!(s.init(Family::Decrypt, &ctr, key), Ok(()));
}

#[test]
fn ivs_are_made_as_their_generator_says_and_never_twice() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, "mechanisms = ['+AES_*']\n"));
    let s = module.open(0);
    let template = [number(CKA_VALUE_LEN, 16)];
    let key = s.generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &template).expect("AES");
    let base = [0xff; 12];
    let mut seen = std::collections::BTreeSet::new();
    for (generator, fixed) in [
        (CKG_GENERATE, 0),
        (CKG_GENERATE, 92),
        (CKG_GENERATE_RANDOM, 12),
        (CKG_GENERATE_COUNTER, 32),
        (CKG_GENERATE_COUNTER_XOR, 32),
    ] {
        s.message_init(true, key).expect("C_MessageEncryptInit");
        let mut parameter = Gcm { iv: base.to_vec(), fixed, ..Gcm::new(generator) };
        for _ in 0..3 {
            let made = s.message(true, &mut parameter, b"", b"text", Room::Bytes(4)).result();
            made.expect("C_EncryptMessage");
            let whole = fixed as usize / 8;
            assert_eq!(parameter.iv[..whole], base[..whole], "{generator}: the fixed bits");
            if fixed % 8 != 0 {
                assert_eq!(parameter.iv[whole] >> 4, 0xf, "{generator}: the fixed half byte");
            }
            assert!(seen.insert(parameter.iv.clone()), "{generator}: an IV twice");
        }
        s.message_final(true).expect("C_MessageEncryptFinal");
    }
    // Four bits have counted to their end after sixteen messages of this key.
    s.message_init(true, key).expect("C_MessageEncryptInit");
    let mut parameter = Gcm { iv: base.to_vec(), fixed: 92, ..Gcm::new(CKG_GENERATE_COUNTER) };
    let ends = (0..17).map(|_| s.message(true, &mut parameter, b"", b"", Room::Bytes(0)).rv);
    assert_eq!(ends.last(), Some(CKR_MECHANISM_PARAM_INVALID));
    let mut bad = Gcm { fixed: 96, ..Gcm::new(CKG_GENERATE_RANDOM) };
    let refused = s.message(true, &mut bad, b"", b"", Room::Bytes(0)).rv;
    assert_eq!(refused, CKR_MECHANISM_PARAM_INVALID, "no bit is free");
}
