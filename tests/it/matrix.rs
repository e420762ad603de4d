//! Every mechanism × every use × key types and sizes × where the key lives × both services: what a
//! row of MECHANISMS says works, and what it does not say is refused.

use akv_pkcs11::{
    config::{Config, Env, TokenConfig},
    crypto::{Hash, symmetric::KeyWrap},
    mechanism::{AesMode, Home, MECHANISMS, Mechanism as Row, Scheme},
};
use cryptoki_sys::*;

use crate::{
    messages::Gcm,
    service::{Emulator, HSM, VAULT},
    token::{Family, Mechanism, Module, Parameter, Room, Session, bytes, flag, number},
};

const SEED: &str = "
keys = [
    { name = 'rsa2048', kty = 'RSA', size = 2048 },
    { name = 'rsa3072', kty = 'RSA', size = 3072 },
    { name = 'rsa4096', kty = 'RSA', size = 4096 },
    { name = 'p256', kty = 'EC', curve = 'P-256' },
    { name = 'p256k', kty = 'EC', curve = 'P-256K' },
    { name = 'p384', kty = 'EC', curve = 'P-384' },
    { name = 'p521', kty = 'EC', curve = 'P-521' },
    { name = 'aes128', kty = 'oct-HSM', size = 128, ops = ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'] },
    { name = 'aes192', kty = 'oct-HSM', size = 192, ops = ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'] },
    { name = 'aes256', kty = 'oct-HSM', size = 256, ops = ['encrypt', 'decrypt', 'wrapKey', 'unwrapKey'] },
    { name = 'mac256', kty = 'oct-HSM', size = 256, ops = ['sign', 'verify'] },
]
";
const CURVES: &[(&str, &[u8])] = &[
    ("p256", &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]),
    ("p256k", &[6, 5, 0x2b, 0x81, 4, 0, 10]),
    ("p384", &[6, 5, 0x2b, 0x81, 4, 0, 34]),
    ("p521", &[6, 5, 0x2b, 0x81, 4, 0, 35]),
];

/// Keys that are for one HMAC only, and what makes them.
const HMAC_KEYS: &[(CK_MECHANISM_TYPE, CK_KEY_TYPE)] = &[
    (CKM_SHA_1_KEY_GEN, CKK_SHA_1_HMAC),
    (CKM_SHA224_KEY_GEN, CKK_SHA224_HMAC),
    (CKM_SHA256_KEY_GEN, CKK_SHA256_HMAC),
    (CKM_SHA384_KEY_GEN, CKK_SHA384_HMAC),
    (CKM_SHA512_KEY_GEN, CKK_SHA512_HMAC),
];

/// A key, or the two halves of one.
struct Key {
    name: String,
    kind: CK_KEY_TYPE,
    home: Home,
    /// Signs and decrypts.
    private: CK_OBJECT_HANDLE,
    /// Verifies and encrypts.
    public: CK_OBJECT_HANDLE,
    /// Bytes of the modulus.
    modulus: usize,
}

fn keys(session: &Session<'_>, hsm: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |name: String, kind, home, public, private, modulus| {
        keys.push(Key { name, kind, home, private, public, modulus });
    };
    for (name, bits) in [("rsa2048", 2048), ("rsa3072", 3072), ("rsa4096", 4096)] {
        let (private, public) = session.pair(name);
        add(name.to_owned(), CKK_RSA, Home::Service, public, private, bits / 8);
        let template = [number(CKA_MODULUS_BITS, bits as CK_ULONG)];
        let rsa = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
        let (public, private) = session.generate(&rsa, &template, &[]).expect("RSA");
        add(format!("session {name}"), CKK_RSA, Home::Session, public, private, bits / 8);
    }
    for (name, params) in CURVES {
        let (private, public) = session.pair(name);
        add((*name).to_owned(), CKK_EC, Home::Service, public, private, 0);
        let template = [bytes(CKA_EC_PARAMS, params)];
        let ec = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
        let (public, private) = session.generate(&ec, &template, &[]).expect(name);
        add(format!("session {name}"), CKK_EC, Home::Session, public, private, 0);
    }
    for length in [16, 24, 32] {
        let template = [number(CKA_VALUE_LEN, length)];
        let aes = Mechanism::plain(CKM_AES_KEY_GEN);
        let key = session.generate_key(&aes, &template).expect("AES");
        add(format!("session aes {length}"), CKK_AES, Home::Session, key, key, 0);
    }
    let template = [number(CKA_VALUE_LEN, 40)];
    let generic = Mechanism::plain(CKM_GENERIC_SECRET_KEY_GEN);
    let key = session.generate_key(&generic, &template).expect("generic");
    add("session secret".to_owned(), CKK_GENERIC_SECRET, Home::Session, key, key, 0);
    for (maker, kind) in HMAC_KEYS {
        let made = session.generate_key(&Mechanism::plain(*maker), &template).expect("HMAC");
        assert_eq!(session.number(made, CKA_KEY_TYPE), Ok(*kind));
        let value = [
            number(CKA_CLASS, CKO_SECRET_KEY),
            number(CKA_KEY_TYPE, *kind),
            bytes(CKA_VALUE, [*kind as u8; 40]),
        ];
        let brought = session.create(&value).expect("HMAC");
        for (how, key) in [("made", made), ("brought", brought)] {
            add(format!("session {kind:#x} {how}"), *kind, Home::Session, key, key, 0);
        }
    }
    if hsm {
        for name in ["aes128", "aes192", "aes256"] {
            let key = session.object(CKO_SECRET_KEY, name);
            add(name.to_owned(), CKK_AES, Home::Service, key, key, 0);
        }
        let key = session.object(CKO_SECRET_KEY, "mac256");
        add("mac256".to_owned(), CKK_GENERIC_SECRET, Home::Service, key, key, 0);
    }
    keys
}

/// The row with a parameter that both services and this process can use.
fn mechanism(row: &Row) -> Mechanism {
    let pss = |hash: Hash| {
        let kind = |name: &str| MECHANISMS.iter().find(|row| row.name == name).expect("row").kind;
        let (digest, mgf) = match hash {
            Hash::Sha1 => (CKM_SHA_1, CKG_MGF1_SHA1),
            Hash::Sha224 => (CKM_SHA224, CKG_MGF1_SHA224),
            Hash::Sha256 => (CKM_SHA256, CKG_MGF1_SHA256),
            Hash::Sha384 => (CKM_SHA384, CKG_MGF1_SHA384),
            Hash::Sha512 => (CKM_SHA512, CKG_MGF1_SHA512),
            Hash::Sha3_224 => (kind("CKM_SHA3_224"), CKG_MGF1_SHA3_224),
            Hash::Sha3_256 => (kind("CKM_SHA3_256"), CKG_MGF1_SHA3_256),
            Hash::Sha3_384 => (kind("CKM_SHA3_384"), CKG_MGF1_SHA3_384),
            Hash::Sha3_512 => (kind("CKM_SHA3_512"), CKG_MGF1_SHA3_512),
        };
        Parameter::Pss { hash: digest, mgf, salt: hash.len() as CK_ULONG }
    };
    let parameter = match row.scheme {
        Scheme::Pss(hash) => pss(hash.unwrap_or(Hash::Sha256)),
        Scheme::Oaep => Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256).parameter,
        Scheme::RsaAesWrap => Parameter::RsaAes { bits: 256 },
        Scheme::Hmac(_, true) => Parameter::Bytes(12u64.to_ne_bytes().to_vec()),
        Scheme::Aes(AesMode::Cbc | AesMode::CbcPad) => Parameter::Bytes(vec![9; 16]),
        Scheme::Aes(AesMode::Ctr) => {
            Parameter::Bytes([64u64.to_ne_bytes().to_vec(), vec![7; 16]].concat())
        }
        Scheme::Aes(AesMode::Gcm) => {
            Parameter::Gcm { iv: vec![5; 12], aad: b"aad".to_vec(), tag_bits: 128 }
        }
        _ => Parameter::None,
    };
    Mechanism { kind: row.kind, parameter }
}

/// Inputs a signature mechanism takes, the largest last where there is one.
fn sign_inputs(row: &Row, key: &Key) -> Vec<Vec<u8>> {
    match row.scheme {
        Scheme::Pkcs1(None) => vec![vec![1], vec![3; 36], vec![7; key.modulus - 11]],
        Scheme::Pss(None) => vec![vec![3; 32]],
        Scheme::Ecdsa(None) => vec![vec![3; 20], vec![4; 32]],
        Scheme::RawRsa => vec![[vec![0], vec![0xee; key.modulus - 1]].concat()],
        _ => vec![vec![], vec![1], vec![2; 300], vec![3; 4096]],
    }
}

/// Inputs an encryption mechanism takes.
fn crypt_inputs(row: &Row, key: &Key) -> Vec<Vec<u8>> {
    let most = |overhead: usize| vec![vec![], vec![1; 32], vec![2; key.modulus - overhead]];
    match row.scheme {
        Scheme::Pkcs1(_) => most(11),
        Scheme::Oaep => most(66),
        Scheme::RawRsa => vec![[vec![0], vec![0xee; key.modulus - 1]].concat()],
        Scheme::Aes(AesMode::Ecb | AesMode::Cbc) => vec![vec![], vec![1; 16], vec![2; 5008]],
        Scheme::AesWrap(_) => vec![vec![1; 16], vec![2; 40]],
        Scheme::Aes(AesMode::Gcm) => vec![vec![], vec![1; 17], vec![2; 4096]],
        _ => vec![vec![], vec![1; 15], vec![2; 16], vec![3; 17], vec![4; 9001]],
    }
}

/// One family's protocol with an input: query, short buffer, exact buffer, then in parts.
fn protocol(
    s: &Session<'_>,
    f: Family,
    m: &Mechanism,
    key: CK_OBJECT_HANDLE,
    data: &[u8],
) -> Vec<u8> {
    s.init(f, m, key).expect("Init");
    let query = s.one_shot_in(f, data, Room::Query);
    assert_eq!(query.rv, CKR_OK, "query");
    if query.length > 0 && f != Family::Decrypt {
        let short = s.one_shot_in(f, data, Room::Bytes(query.length - 1));
        assert_eq!((short.rv, short.length), (CKR_BUFFER_TOO_SMALL, query.length), "short");
    }
    let whole = s.one_shot_in(f, data, Room::Bytes(query.length)).result().expect("one shot");
    s.init(f, m, key).expect("Init for parts");
    let mut parts = Vec::new();
    for part in data.chunks(data.len().max(1).div_ceil(3)) {
        match f {
            Family::Encrypt | Family::Decrypt => {
                let query = s.update_in(f, part, Room::Query);
                let room = Room::Bytes(query.length);
                parts.extend(s.update_in(f, part, room).result().expect("Update"));
            }
            _ => drop(s.update(f, part).expect("Update")),
        }
    }
    let query = s.last_in(f, Room::Query);
    assert_eq!(query.rv, CKR_OK, "query of Final");
    parts.extend(s.last_in(f, Room::Bytes(query.length)).result().expect("Final"));
    // A signature or a padding may be random; a length never is.
    assert_eq!(parts.len(), whole.len());
    parts
}

fn sign_and_verify(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key, uses: CK_FLAGS) {
    for data in sign_inputs(row, key) {
        if uses & CKF_SIGN == 0 {
            assert_eq!(s.init(Family::Verify, m, key.public), Ok(()));
            let wrong = s.verify_data(&data, &vec![1; key.modulus.max(8)]);
            assert!(matches!(wrong, Err(CKR_SIGNATURE_INVALID | CKR_SIGNATURE_LEN_RANGE)));
            continue;
        }
        let mut signature = protocol(s, Family::Sign, m, key.private, &data);
        assert_eq!(s.verify(m, key.public, &data, &signature), Ok(()));
        s.init(Family::Verify, m, key.public).expect("VerifyInit");
        for part in data.chunks(100) {
            s.update(Family::Verify, part).expect("VerifyUpdate");
        }
        assert_eq!(s.verify_last(&signature), Ok(()), "in parts");
        let messages = s.sign_messages(m, key.private, &[&data]).expect("messages");
        let pairs: Vec<_> = messages.iter().map(|made| (&data[..], &made[..])).collect();
        assert_eq!(s.verify_messages(m, key.public, &pairs), Ok(()));
        signature[4] ^= 1;
        assert_eq!(s.verify(m, key.public, &data, &signature), Err(CKR_SIGNATURE_INVALID));
    }
    let limit = match row.scheme {
        Scheme::Pkcs1(None) => key.modulus - 11,
        Scheme::Pss(None) => 32,
        Scheme::RawRsa => key.modulus,
        _ => return,
    };
    if uses & CKF_SIGN != 0 {
        assert_eq!(s.sign(m, key.private, &vec![1; limit + 1]), Err(CKR_DATA_LEN_RANGE));
    }
}

fn recover(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key, uses: CK_FLAGS) {
    for data in sign_inputs(row, key) {
        if uses & CKF_SIGN_RECOVER != 0 {
            let signature = s.sign_recover(m, key.private, &data).expect("C_SignRecover");
            assert_eq!(s.verify_recover(m, key.public, &signature), Ok(data));
        } else if uses & CKF_VERIFY_RECOVER != 0 {
            let block = vec![1; key.modulus];
            assert!(s.verify_recover(m, key.public, &block).is_ok(), "any block is some power");
        }
    }
}

fn encrypt_and_decrypt(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key, uses: CK_FLAGS) {
    for data in crypt_inputs(row, key) {
        if uses & CKF_ENCRYPT != 0 {
            let ciphertext = protocol(s, Family::Encrypt, m, key.public, &data);
            if uses & CKF_DECRYPT != 0 {
                assert_eq!(protocol(s, Family::Decrypt, m, key.private, &ciphertext), data);
            }
        } else if uses & CKF_DECRYPT != 0 {
            // AES-GCM with a key of the service: only messages encrypt.
            let mut gcm = Gcm::new(CKG_GENERATE);
            s.message_init(true, key.public).expect("C_MessageEncryptInit");
            let made = s.message(true, &mut gcm, b"aad", &data, Room::Bytes(data.len()));
            let sealed = [made.result().expect("C_EncryptMessage"), gcm.tag].concat();
            s.message_final(true).expect("C_MessageEncryptFinal");
            let parameter = Parameter::Gcm { iv: gcm.iv, aad: b"aad".to_vec(), tag_bits: 128 };
            let m = Mechanism { kind: CKM_AES_GCM, parameter };
            assert_eq!(protocol(s, Family::Decrypt, &m, key.private, &sealed), data);
        }
    }
}

fn messages(s: &Session<'_>, key: &Key) {
    s.message_init(true, key.public).expect("C_MessageEncryptInit");
    s.message_init(false, key.private).expect("C_MessageDecryptInit");
    for data in [vec![], vec![1; 5], vec![2; 4096]] {
        let mut gcm = Gcm::new(CKG_GENERATE_RANDOM);
        let query = s.message(true, &mut gcm, b"a", &data, Room::Query);
        assert_eq!((query.rv, query.length), (CKR_OK, data.len()));
        assert_eq!(gcm.iv, [0; 12], "a query makes nothing");
        let made = s.message(true, &mut gcm, b"a", &data, Room::Bytes(data.len())).result();
        let ciphertext = made.expect("C_EncryptMessage");
        assert_ne!((&gcm.iv[..], &gcm.tag[..]), (&[0; 12][..], &[0; 16][..]));
        let room = Room::Bytes(data.len());
        assert_eq!(s.message(false, &mut gcm, b"a", &ciphertext, room).result(), Ok(data.clone()));
        let forged = s.message(false, &mut gcm, b"b", &ciphertext, room);
        assert_eq!(forged.rv, CKR_ENCRYPTED_DATA_INVALID);
        let mut parts = Gcm::new(CKG_GENERATE);
        s.message_begin(true, &mut parts, b"a").expect("Begin");
        let (first, rest) = data.split_at(data.len() / 3);
        let nothing = s.message_next(true, &mut parts, first, false, Room::Bytes(0)).result();
        assert_eq!(nothing, Ok(vec![]));
        let sealed = s.message_next(true, &mut parts, rest, true, room).result().expect("Next");
        s.message_begin(false, &mut parts, b"a").expect("Begin");
        let opened = s.message_next(false, &mut parts, &sealed, true, room).result();
        assert_eq!(opened, Ok(data));
    }
    s.message_final(true).expect("C_MessageEncryptFinal");
    s.message_final(false).expect("C_MessageDecryptFinal");
}

/// Wraps session keys and unwraps them again: secret ones with every mechanism, private ones where
/// the mechanism keeps any length.
fn wrap(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key) {
    let open = [flag(CKA_SENSITIVE, false), flag(CKA_EXTRACTABLE, true)];
    let secret = |kind, length| {
        let template = [vec![number(CKA_VALUE_LEN, length)], open.to_vec()].concat();
        (s.generate_key(&Mechanism::plain(kind), &template).expect("a key"), length)
    };
    let mut targets = Vec::new();
    for (maker, kind, lengths) in [
        (CKM_AES_KEY_GEN, CKK_AES, &[16, 24, 32][..]),
        (CKM_GENERIC_SECRET_KEY_GEN, CKK_GENERIC_SECRET, &[16, 64]),
        (CKM_SHA256_KEY_GEN, CKK_SHA256_HMAC, &[32]),
    ] {
        for (target, length) in lengths.iter().map(|length| secret(maker, *length)) {
            let class = [number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, kind)];
            let class = [&class[..], &[number(CKA_VALUE_LEN, length)]].concat();
            targets.push((target, class));
        }
    }
    if takes_private_keys(row) {
        let params = [bytes(CKA_EC_PARAMS, CURVES[0].1)];
        let ec = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
        let (_, target) = s.generate(&ec, &params, &open).expect("EC");
        let class = [number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, CKK_EC)];
        targets.push((target, class.to_vec()));
    }
    let made_by_service = row.scheme == Scheme::Aes(AesMode::Gcm) && key.home == Home::Service;
    for (target, class) in targets {
        let template = [class, open.to_vec()].concat();
        let value = s.value(target, CKA_VALUE).expect("its value");
        if !made_by_service {
            let wrapped = s.wrap(m, key.public, target).expect("C_WrapKey");
            let back = s.unwrap(m, key.private, &wrapped, &template).expect("C_UnwrapKey");
            assert_eq!(s.value(back, CKA_VALUE), Ok(value.clone()));
        }
        if row.scheme == Scheme::Aes(AesMode::Gcm) {
            let mut gcm = Gcm::new(CKG_GENERATE);
            let wrapped = s.wrap_authenticated(&mut gcm, key.public, target, b"aad");
            let wrapped = wrapped.expect("C_WrapKeyAuthenticated");
            let back = s.unwrap_authenticated(&mut gcm, key.private, &wrapped, &template, b"aad");
            assert_eq!(s.value(back.expect("C_UnwrapKeyAuthenticated"), CKA_VALUE), Ok(value));
            let forged = s.unwrap_authenticated(&mut gcm, key.private, &wrapped, &template, b"a");
            assert_eq!(forged, Err(CKR_WRAPPED_KEY_INVALID));
        }
    }
}

/// What is not said to wrap does not.
fn not_wrapping(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key) {
    let class = [number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, CKK_AES)];
    assert_eq!(s.wrap(m, key.public, key.private), Err(CKR_MECHANISM_INVALID), "{}", row.name);
    let refused = s.unwrap(m, key.private, &[1; 256], &class);
    assert_eq!(refused, Err(CKR_MECHANISM_INVALID), "{}", row.name);
}

/// Mechanisms that wrap PKCS#8 of the tests' EC key: what keeps any length.
fn takes_private_keys(row: &Row) -> bool {
    match row.scheme {
        Scheme::RsaAesWrap | Scheme::Aes(AesMode::CbcPad | AesMode::Gcm) => true,
        Scheme::AesWrap(method) => method == KeyWrap::Rfc5649,
        _ => false,
    }
}

/// What Init must refuse with this key.
fn refusals(s: &Session<'_>, row: &Row, m: &Mechanism, key: &Key, uses: CK_FLAGS) {
    for (family, use_, handle) in [
        (Family::Sign, CKF_SIGN, key.private),
        (Family::Verify, CKF_VERIFY, key.public),
        (Family::Encrypt, CKF_ENCRYPT, key.public),
        (Family::Decrypt, CKF_DECRYPT, key.private),
    ] {
        if uses & use_ == 0 {
            let refused = s.init(family, m, handle);
            assert_eq!(refused, Err(CKR_MECHANISM_INVALID), "{family:?} is not said");
            continue;
        }
        let odd = Mechanism { kind: row.kind, parameter: Parameter::Bytes(vec![1, 2, 3]) };
        let refused = s.init(family, &odd, handle);
        assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "{family:?} with odd parameter");
    }
}

fn exercise(s: &Session<'_>, row: &Row, key: &Key, token: &TokenConfig) -> CK_FLAGS {
    let uses = row.uses_with(key.home, token);
    let m = mechanism(row);
    refusals(s, row, &m, key, uses);
    if uses & (CKF_SIGN | CKF_VERIFY) != 0 {
        sign_and_verify(s, row, &m, key, uses);
    }
    if uses & (CKF_SIGN_RECOVER | CKF_VERIFY_RECOVER) != 0 {
        recover(s, row, &m, key, uses);
    }
    if uses & (CKF_ENCRYPT | CKF_DECRYPT) != 0 {
        encrypt_and_decrypt(s, row, &m, key, uses);
    }
    if uses & CKF_MESSAGE_ENCRYPT != 0 {
        messages(s, key);
    }
    assert_eq!(uses & CKF_WRAP == 0, uses & CKF_UNWRAP == 0, "one without the other");
    match uses & CKF_WRAP {
        0 => not_wrapping(s, row, &m, key),
        _ => wrap(s, row, &m, key),
    }
    uses
}

/// Digests and key generation: no key to begin with.
fn keyless(s: &Session<'_>, row: &Row, token: &TokenConfig, flags: CK_FLAGS) -> CK_FLAGS {
    let m = mechanism(row);
    let parts = match row.scheme {
        Scheme::Digest(hash) => {
            for data in [vec![], vec![1; 3], vec![2; 9000]] {
                assert_eq!(protocol(s, Family::Digest, &m, 0, &data), hash.digest(&data));
            }
            return CKF_DIGEST;
        }
        Scheme::GenerateAes | Scheme::GenerateGeneric | Scheme::GenerateHmac(_) => [24, 32],
        _ => return flags & CKF_GENERATE_KEY_PAIR, // made, all of them, for this very test
    };
    for length in parts {
        let template = [number(CKA_VALUE_LEN, length)];
        let key = s.generate_key(&m, &template).expect("session key");
        assert_eq!(s.number(key, CKA_VALUE_LEN), Ok(length));
        assert_eq!(s.flag(key, CKA_LOCAL), Ok(true));
        let template = [
            flag(CKA_TOKEN, true),
            number(CKA_VALUE_LEN, length),
            bytes(CKA_LABEL, format!("made {} {length}", row.name)),
        ];
        let made = s.generate_key(&m, &template);
        match row.uses_with(Home::Service, token) & CKF_GENERATE {
            0 => assert_eq!(made, Err(CKR_TEMPLATE_INCONSISTENT)),
            _ => assert_eq!(s.number(made.expect("token key"), CKA_VALUE_LEN), Ok(length)),
        }
    }
    CKF_GENERATE
}

fn walk(name: &str, more: &str) {
    let emulator = Emulator::with(SEED, "hsm_rsnull = true\nhmac_any_length = true\n");
    let toml = emulator.token(name, &format!("mechanisms = [\"+*\"]\n{more}"));
    let config = Config::parse(&toml, "test", &Env::empty()).expect("configuration");
    let token = &config.tokens[0];
    let module = Module::start(&toml);
    let session = module.open(0);
    let keys = keys(&session, name == HSM);
    for kind in module.mechanisms(0) {
        let row = Row::find(kind).expect("a row");
        let info = module.mechanism_info(0, kind).expect("C_GetMechanismInfo");
        assert_eq!(info.flags, row.uses_on(token), "{}", row.name);
        let mut passed = keyless(&session, row, token, info.flags);
        for key in &keys {
            let what = format!("{name}: {} with {}", row.name, key.name);
            let done =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match row.key_type() {
                    Some(_) if row.takes(key.kind) => exercise(&session, row, key, token),
                    Some(_) => wrong_type(&session, row, key, token),
                    None => 0,
                }));
            passed |= done.unwrap_or_else(|_| panic!("{what}"));
        }
        let kept = CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS;
        assert_eq!(info.flags & !passed & !kept, 0, "{}: said and not shown", row.name);
    }
}

fn wrong_type(s: &Session<'_>, row: &Row, key: &Key, token: &TokenConfig) -> CK_FLAGS {
    let m = mechanism(row);
    let uses = row.uses_with(key.home, token);
    for (family, use_, handle) in
        [(Family::Sign, CKF_SIGN, key.private), (Family::Decrypt, CKF_DECRYPT, key.private)]
    {
        if uses & use_ != 0 {
            assert_eq!(s.init(family, &m, handle), Err(CKR_KEY_TYPE_INCONSISTENT));
        }
    }
    0
}

#[test]
fn a_vault_does_what_its_list_says() {
    walk(VAULT, "");
}

#[test]
fn a_managed_hsm_does_what_its_list_says() {
    walk(HSM, "rsnull = true\nhmac = true\napi_version = '7.6'\n");
}

#[test]
fn without_rsnull_and_new_versions_less_is_said() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let (vault, hsm) = (module.mechanisms(0), module.mechanisms(1));
    for kind in [CKM_AES_CBC, CKM_AES_GCM, CKM_AES_KEY_GEN, CKM_SHA256_HMAC, CKM_AES_ECB] {
        assert!(!vault.contains(&kind), "{kind:#x} on a vault by default");
    }
    for kind in [CKM_SHA256_HMAC, CKM_AES_ECB, CKM_AES_CTR, CKM_GENERIC_SECRET_KEY_GEN] {
        assert!(!hsm.contains(&kind), "{kind:#x} on a Managed HSM by default");
    }
    assert!(hsm.contains(&CKM_AES_KEY_WRAP), "A128KW and its like are as old as the keys");
    for kind in [CKM_AES_KEY_WRAP_PAD, CKM_AES_KEY_WRAP_KWP] {
        assert!(!hsm.contains(&kind), "{kind:#x} before api-version 7.6");
    }
    let gcm = module.mechanism_info(1, CKM_AES_GCM).expect("GCM on a Managed HSM");
    assert_eq!(gcm.flags & CKF_ENCRYPT, 0, "nobody can encrypt with C_EncryptInit there");
    let sha1 = module.mechanism_info(1, CKM_SHA1_RSA_PKCS).expect("SHA-1");
    assert_ne!(sha1.flags & CKF_SIGN, 0, "a session key signs");
    let session = module.open(1);
    let (key, _) = session.pair("rsa2048");
    let refused = session.init(Family::Sign, &Mechanism::plain(CKM_SHA1_RSA_PKCS), key);
    assert_eq!(refused, Err(CKR_MECHANISM_INVALID), "no RSNULL, no signature by the service");
}
