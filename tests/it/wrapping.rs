//! C_WrapKey, C_UnwrapKey and what goes with them, each blob made or read by OpenSSL as well.

mod imported;
mod refused;
mod templates;

use cryptoki_sys::*;
use openssl::{
    cipher::Cipher,
    cipher_ctx::{CipherCtx, CipherCtxFlags},
    md::Md,
    pkey::{PKey, Private},
    pkey_ctx::PkeyCtx,
    rsa::{Padding, Rsa},
    symm,
};

use crate::{
    life::{on_token, rsa_template},
    messages::Gcm,
    service::{Emulator, HSM, VAULT},
    token::{Mechanism, Module, Parameter, Rv, Session, Template, bytes, flag, number},
};

const ALL: &str = "mechanisms = ['+*']\n";
const IV: [u8; 16] = [9; 16];

/// A session or token key with these bytes.
fn secret(s: &Session<'_>, kind: CK_KEY_TYPE, value: &[u8], more: Template) -> CK_OBJECT_HANDLE {
    let template =
        [number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, kind), bytes(CKA_VALUE, value)];
    s.create(&[&template[..], &more].concat()).expect("C_CreateObject")
}

fn template(kind: CK_KEY_TYPE) -> Template {
    vec![number(CKA_CLASS, CKO_SECRET_KEY), number(CKA_KEY_TYPE, kind)]
}

fn sized(kind: CK_KEY_TYPE, length: usize) -> Template {
    [template(kind), vec![number(CKA_VALUE_LEN, length as CK_ULONG)]].concat()
}

fn oaep(sha256: bool) -> Mechanism {
    match sha256 {
        true => Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256),
        false => Mechanism::oaep(CKM_SHA_1, CKG_MGF1_SHA1),
    }
}

fn with_iv(kind: CK_MECHANISM_TYPE) -> Mechanism {
    Mechanism { kind, parameter: Parameter::Bytes(IV.to_vec()) }
}

/// OpenSSL's RSA encryption (true) or decryption; a hash for OAEP, none for PKCS #1 v1.5.
fn rsa(key: &PKey<Private>, hash: Option<bool>, encrypt: bool, data: &[u8]) -> Vec<u8> {
    let mut ctx = PkeyCtx::new(key).unwrap();
    match encrypt {
        true => ctx.encrypt_init().unwrap(),
        false => ctx.decrypt_init().unwrap(),
    }
    match hash {
        None => ctx.set_rsa_padding(Padding::PKCS1).unwrap(),
        Some(sha256) => {
            let md = if sha256 { Md::sha256() } else { Md::sha1() };
            ctx.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
            ctx.set_rsa_oaep_md(md).unwrap();
            ctx.set_rsa_mgf1_md(md).unwrap();
        }
    }
    let mut output = Vec::new();
    match encrypt {
        true => ctx.encrypt_to_vec(data, &mut output).unwrap(),
        false => ctx.decrypt_to_vec(data, &mut output).unwrap(),
    };
    output
}

/// OpenSSL's AES key wrap, with padding or without.
fn key_wrap(kek: &[u8], padded: bool, encrypt: bool, data: &[u8]) -> Vec<u8> {
    let cipher = match (kek.len(), padded) {
        (16, false) => Cipher::aes_128_wrap(),
        (24, false) => Cipher::aes_192_wrap(),
        (_, false) => Cipher::aes_256_wrap(),
        (16, true) => Cipher::aes_128_wrap_pad(),
        (24, true) => Cipher::aes_192_wrap_pad(),
        (_, true) => Cipher::aes_256_wrap_pad(),
    };
    let mut ctx = CipherCtx::new().unwrap();
    ctx.set_flags(CipherCtxFlags::FLAG_WRAP_ALLOW);
    match encrypt {
        true => ctx.encrypt_init(Some(cipher), Some(kek), None).unwrap(),
        false => ctx.decrypt_init(Some(cipher), Some(kek), None).unwrap(),
    }
    let mut output = Vec::new();
    ctx.cipher_update_vec(data, &mut output).unwrap();
    ctx.cipher_final_vec(&mut output).unwrap();
    output
}

fn gcm_cipher(kek: &[u8]) -> symm::Cipher {
    match kek.len() {
        16 => symm::Cipher::aes_128_gcm(),
        24 => symm::Cipher::aes_192_gcm(),
        _ => symm::Cipher::aes_256_gcm(),
    }
}

fn cbc_cipher(kek: &[u8]) -> symm::Cipher {
    match kek.len() {
        16 => symm::Cipher::aes_128_cbc(),
        24 => symm::Cipher::aes_192_cbc(),
        _ => symm::Cipher::aes_256_cbc(),
    }
}

/// Unwraps and gives back the bytes.
fn unwrapped(
    s: &Session<'_>,
    m: &Mechanism,
    key: CK_OBJECT_HANDLE,
    wrapped: &[u8],
    template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
) -> Rv<Vec<u8>> {
    let handle = s.unwrap(m, key, wrapped, template)?;
    // By the standard an unwrapped key is extractable, and a secret one not sensitive.
    assert_eq!(s.flag(handle, CKA_EXTRACTABLE), Ok(true));
    assert_eq!(s.flag(handle, CKA_NEVER_EXTRACTABLE), Ok(false));
    assert_eq!(s.flag(handle, CKA_ALWAYS_SENSITIVE), Ok(false));
    assert_eq!(s.flag(handle, CKA_LOCAL), Ok(false));
    let value = s.value(handle, CKA_VALUE);
    s.destroy(handle).expect("C_DestroyObject");
    value
}

#[test]
fn session_keys_wrap_as_openssl_does() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ALL));
    let s = module.open(0);
    let pair = Rsa::generate(2048).unwrap();
    let private = s.create(&rsa_template(&pair)).expect("RSA");
    let public = s
        .create(&[
            number(CKA_CLASS, CKO_PUBLIC_KEY),
            number(CKA_KEY_TYPE, CKK_RSA),
            bytes(CKA_MODULUS, pair.n().to_vec()),
            bytes(CKA_PUBLIC_EXPONENT, pair.e().to_vec()),
        ])
        .expect("RSA");
    let pair = PKey::from_rsa(pair).unwrap();
    let value: Vec<u8> = (0..32).collect();
    let target = secret(&s, CKK_AES, &value, vec![]);
    for (m, hash) in [
        (Mechanism::plain(CKM_RSA_PKCS), None),
        (oaep(false), Some(false)),
        (oaep(true), Some(true)),
    ] {
        let wrapped = s.wrap(&m, public, target).expect("C_WrapKey");
        assert_eq!(rsa(&pair, hash, false, &wrapped), value);
        let made = rsa(&pair, hash, true, &value);
        for template in [template(CKK_AES), sized(CKK_AES, 32), sized(CKK_GENERIC_SECRET, 32)] {
            assert_eq!(unwrapped(&s, &m, private, &made, &template), Ok(value.clone()));
        }
    }
    for length in [16, 24, 32] {
        let kek: Vec<u8> = (0..length).map(|i| 255 - i as u8).collect();
        let wrapping = secret(&s, CKK_AES, &kek, vec![]);
        for (kind, padded) in
            [(CKM_AES_KEY_WRAP, false), (CKM_AES_KEY_WRAP_PAD, true), (CKM_AES_KEY_WRAP_KWP, true)]
        {
            let m = Mechanism::plain(kind);
            let wrapped = s.wrap(&m, wrapping, target).expect("C_WrapKey");
            assert_eq!(wrapped, key_wrap(&kek, padded, true, &value));
            let back = unwrapped(&s, &m, wrapping, &wrapped, &template(CKK_AES));
            assert_eq!(back, Ok(value.clone()));
        }
        let odd = secret(&s, CKK_GENERIC_SECRET, &value[..21], vec![]);
        let m = with_iv(CKM_AES_CBC_PAD);
        let wrapped = s.wrap(&m, wrapping, odd).expect("C_WrapKey");
        let made = symm::encrypt(cbc_cipher(&kek), &kek, Some(&IV), &value[..21]).unwrap();
        assert_eq!(wrapped, made);
        let back = unwrapped(&s, &m, wrapping, &made, &template(CKK_GENERIC_SECRET));
        assert_eq!(back.as_deref(), Ok(&value[..21]));
        // Without padding zeros fill up the last block, and CKA_VALUE_LEN tells the end.
        let m = with_iv(CKM_AES_CBC);
        let wrapped = s.wrap(&m, wrapping, odd).expect("C_WrapKey");
        let mut filled = value[..21].to_vec();
        filled.resize(32, 0);
        let mut made = symm::encrypt(cbc_cipher(&kek), &kek, Some(&IV), &filled).unwrap();
        made.truncate(32);
        assert_eq!(wrapped, made);
        let back = unwrapped(&s, &m, wrapping, &made, &sized(CKK_GENERIC_SECRET, 21));
        assert_eq!(back.as_deref(), Ok(&value[..21]));
        for (template, wanted) in [
            (template(CKK_GENERIC_SECRET), CKR_TEMPLATE_INCOMPLETE),
            (template(CKK_AES), CKR_TEMPLATE_INCOMPLETE),
            (sized(CKK_GENERIC_SECRET, 16), CKR_WRAPPED_KEY_LEN_RANGE),
            (sized(CKK_GENERIC_SECRET, 33), CKR_WRAPPED_KEY_LEN_RANGE),
        ] {
            assert_eq!(unwrapped(&s, &m, wrapping, &made, &template), Err(wanted));
        }
        let parameter = Parameter::Gcm { iv: vec![5; 12], aad: b"aad".to_vec(), tag_bits: 96 };
        let m = Mechanism { kind: CKM_AES_GCM, parameter };
        let wrapped = s.wrap(&m, wrapping, target).expect("C_WrapKey");
        let mut tag = [0; 12];
        let cipher = gcm_cipher(&kek);
        let made = symm::encrypt_aead(cipher, &kek, Some(&[5; 12]), b"aad", &value, &mut tag);
        assert_eq!(wrapped, [made.unwrap(), tag.to_vec()].concat());
        let back = unwrapped(&s, &m, wrapping, &wrapped, &template(CKK_AES));
        assert_eq!(back, Ok(value.clone()));
    }
    assert_eq!(emulator.requests(VAULT), 0);
}

#[test]
fn private_keys_travel_as_pkcs8() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ALL));
    let s = module.open(0);
    let kek = [3; 32];
    let wrapping = secret(&s, CKK_AES, &kek, vec![]);
    let pair = Rsa::generate(2048).unwrap();
    let here = s.create(&rsa_template(&pair)).expect("RSA");
    let pkcs8 = PKey::from_rsa(pair).unwrap().private_key_to_pkcs8().unwrap();
    let padded = with_iv(CKM_AES_CBC_PAD);
    let wrapped = s.wrap(&padded, wrapping, here).expect("C_WrapKey");
    let plain = symm::decrypt(symm::Cipher::aes_256_cbc(), &kek, Some(&IV), &wrapped).unwrap();
    assert_eq!(PKey::private_key_from_pkcs8(&plain).unwrap().bits(), 2048);
    for m in [Mechanism::plain(CKM_AES_KEY_WRAP_KWP), padded] {
        let made = match m.kind {
            CKM_AES_CBC_PAD => {
                symm::encrypt(symm::Cipher::aes_256_cbc(), &kek, Some(&IV), &pkcs8).unwrap()
            }
            _ => key_wrap(&kek, true, true, &pkcs8),
        };
        let rsa = [number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, CKK_RSA)];
        let back = s.unwrap(&m, wrapping, &made, &rsa).expect("C_UnwrapKey");
        assert_eq!(s.value(back, CKA_PUBLIC_KEY_INFO), s.value(here, CKA_PUBLIC_KEY_INFO));
        assert_eq!(s.flag(back, CKA_EXTRACTABLE), Ok(true));
        let ec = [number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, CKK_EC)];
        assert_eq!(s.unwrap(&m, wrapping, &made, &ec), Err(CKR_TEMPLATE_INCONSISTENT));
    }
}

/// The keys that [`known_keys`] brings onto a Managed HSM.
struct Known {
    aes: Vec<(Vec<u8>, CK_OBJECT_HANDLE)>,
    rsa: PKey<Private>,
    public: CK_OBJECT_HANDLE,
    private: CK_OBJECT_HANDLE,
}

fn known_keys(s: &Session<'_>) -> Known {
    let aes = [16, 24, 32].map(|length| {
        let value: Vec<u8> = (0..length).map(|i| 7 * i as u8).collect();
        let key = secret(s, CKK_AES, &value, on_token(&format!("kek{length}")));
        (value, key)
    });
    let rsa = Rsa::generate(2048).unwrap();
    s.create(&[rsa_template(&rsa), on_token("kekrsa")].concat()).expect("RSA");
    let (private, public) = s.pair("kekrsa");
    Known { aes: aes.to_vec(), rsa: PKey::from_rsa(rsa).unwrap(), public, private }
}

#[test]
fn keys_of_the_service_wrap_as_openssl_does() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(HSM, &format!("{ALL}api_version = '7.6'\n")));
    let s = module.open(0);
    let known = known_keys(&s);
    let value: Vec<u8> = (0..24).collect();
    let target = secret(&s, CKK_AES, &value, vec![]);
    for (kek, key) in &known.aes {
        for (kind, padded) in
            [(CKM_AES_KEY_WRAP, false), (CKM_AES_KEY_WRAP_PAD, true), (CKM_AES_KEY_WRAP_KWP, true)]
        {
            let m = Mechanism::plain(kind);
            emulator.reset();
            let wrapped = s.wrap(&m, *key, target).expect("C_WrapKey");
            assert_eq!(
                emulator.counts(HSM)["keys/wrapkey"],
                1,
                "query and short buffer ask nobody"
            );
            assert_eq!(wrapped, key_wrap(kek, padded, true, &value));
            let back = unwrapped(&s, &m, *key, &wrapped, &template(CKK_AES));
            assert_eq!(back, Ok(value.clone()));
            assert_eq!(emulator.counts(HSM)["keys/unwrapkey"], 1);
            let mut damaged = wrapped.clone();
            damaged[9] ^= 1;
            let refused = unwrapped(&s, &m, *key, &damaged, &template(CKK_AES));
            assert_eq!(refused, Err(CKR_WRAPPED_KEY_INVALID));
            let refused = unwrapped(&s, &m, *key, &damaged[1..], &template(CKK_AES));
            assert_eq!(refused, Err(CKR_WRAPPED_KEY_LEN_RANGE));
        }
        let mut gcm = Gcm::new(CKG_GENERATE);
        let wrapped = s.wrap_authenticated(&mut gcm, *key, target, b"aad").expect("wrap");
        let plain =
            symm::decrypt_aead(gcm_cipher(kek), kek, Some(&gcm.iv), b"aad", &wrapped, &gcm.tag);
        assert_eq!(plain.unwrap(), value, "the service's IV and tag came back");
        let caller = Parameter::Gcm { iv: vec![5; 12], aad: vec![], tag_bits: 128 };
        let caller = Mechanism { kind: CKM_AES_GCM, parameter: caller };
        assert_eq!(s.wrap(&caller, *key, target), Err(CKR_MECHANISM_PARAM_INVALID));
        let sealed = [wrapped, gcm.tag.clone()].concat();
        let opened = Parameter::Gcm { iv: gcm.iv, aad: b"aad".to_vec(), tag_bits: 128 };
        let opened = Mechanism { kind: CKM_AES_GCM, parameter: opened };
        let back = unwrapped(&s, &opened, *key, &sealed, &template(CKK_AES));
        assert_eq!(back, Ok(value.clone()));
    }
    for (m, hash) in [
        (Mechanism::plain(CKM_RSA_PKCS), None),
        (oaep(false), Some(false)),
        (oaep(true), Some(true)),
    ] {
        emulator.reset();
        let wrapped = s.wrap(&m, known.public, target).expect("C_WrapKey");
        assert_eq!(rsa(&known.rsa, hash, false, &wrapped), value);
        assert_eq!(emulator.requests(HSM), 0, "public keys wrap here");
        let made = rsa(&known.rsa, hash, true, &value);
        let back = unwrapped(&s, &m, known.private, &made, &template(CKK_AES));
        assert_eq!(back, Ok(value.clone()));
        assert_eq!(emulator.counts(HSM)["keys/unwrapkey"], 1);
    }
}

#[test]
fn an_iv_for_a_wrapped_key_is_made_and_given_back() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(HSM, ALL));
    let s = module.open(0);
    let value = [8; 32];
    let kek = [2; 16];
    let target = secret(&s, CKK_AES, &value, vec![]);
    let there = secret(&s, CKK_AES, &kek, on_token("there"));
    let here = secret(&s, CKK_AES, &kek, vec![]);
    for key in [here, there] {
        let mut iv = [0; 12];
        let aad = *b"aad";
        let parameter = CK_GCM_WRAP_PARAMS {
            pIv: iv.as_mut_ptr(),
            ulIvLen: 12,
            ulIvFixedBits: 0,
            ivGenerator: CKG_GENERATE_RANDOM,
            pAAD: aad.as_ptr().cast_mut(),
            ulAADLen: 3,
            ulTagBits: 128,
        };
        let raw = [
            parameter.pIv as u64,
            parameter.ulIvLen,
            parameter.ulIvFixedBits,
            parameter.ivGenerator,
            parameter.pAAD as u64,
            parameter.ulAADLen,
            parameter.ulTagBits,
        ];
        let raw: Vec<u8> = raw.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let m = Mechanism { kind: CKM_AES_GCM, parameter: Parameter::Bytes(raw) };
        let wrapped = s.wrap(&m, key, target).expect("C_WrapKey");
        // Written through the pointer in the parameter.
        let iv = std::hint::black_box(iv);
        assert_ne!(iv, [0; 12]);
        let (ciphertext, tag) = wrapped.split_at(32);
        let cipher = symm::Cipher::aes_128_gcm();
        let plain = symm::decrypt_aead(cipher, &kek, Some(&iv), &aad, ciphertext, tag);
        assert_eq!(plain.unwrap(), value);
        let back = unwrapped(&s, &m, key, &wrapped, &template(CKK_AES));
        assert_eq!(back.as_deref(), Ok(&value[..]));
    }
}

#[test]
fn nobody_learns_whether_a_pkcs1_padding_was_good() {
    let emulator = Emulator::start("keys = [{ name = 'kek', kty = 'RSA', size = 2048 }]");
    let module = Module::start(&emulator.token(VAULT, ALL));
    let s = module.open(0);
    let (there, there_public) = s.pair("kek");
    let rsa_gen = Mechanism::plain(CKM_RSA_PKCS_KEY_PAIR_GEN);
    let (public, here) = s.generate(&rsa_gen, &[number(CKA_MODULUS_BITS, 2048)], &[]).expect("RSA");
    let m = Mechanism::plain(CKM_RSA_PKCS);
    let target = secret(&s, CKK_AES, &[4; 32], vec![]);
    for (private, public) in [(there, there_public), (here, public)] {
        let good = s.wrap(&m, public, target).expect("C_WrapKey");
        let mut bad = good.clone();
        bad[77] ^= 1;
        let first = unwrapped(&s, &m, private, &bad, &sized(CKK_AES, 32)).expect("a key");
        assert_eq!(first.len(), 32);
        assert_ne!(first, [4; 32]);
        let again = unwrapped(&s, &m, private, &bad, &sized(CKK_AES, 32));
        assert_eq!(again, Ok(first), "the same each time");
        // A good padding around a key of another length is no better.
        let short = unwrapped(&s, &m, private, &good, &sized(CKK_AES, 16)).expect("a key");
        assert_eq!(short.len(), 16);
        assert_ne!(short, [4; 16]);
        let any = unwrapped(&s, &m, private, &bad, &template(CKK_GENERIC_SECRET)).expect("a key");
        assert!((1..=245).contains(&any.len()));
        let lengths = [
            unwrapped(&s, &m, private, &good[1..], &sized(CKK_AES, 32)),
            unwrapped(&s, &m, private, &good, &sized(CKK_AES, 20)),
            unwrapped(&s, &m, private, &good, &sized(CKK_GENERIC_SECRET, 246)),
        ];
        assert_eq!(lengths, [const { Err(CKR_WRAPPED_KEY_LEN_RANGE) }; 3]);
        assert_eq!(s.info().expect("C_GetSessionInfo").ulDeviceError, 0);
    }
    let off = Module::start(&emulator.token(VAULT, "rsa_pkcs1_decrypt = false\n"));
    let s = off.open(0);
    let (there, public) = s.pair("kek");
    assert_eq!(s.unwrap(&m, there, &[1; 256], &sized(CKK_AES, 32)), Err(CKR_MECHANISM_INVALID));
    let flags = off.mechanism_info(0, CKM_RSA_PKCS).expect("info").flags;
    assert_eq!(flags & (CKF_UNWRAP | CKF_DECRYPT | CKF_WRAP), CKF_WRAP);
    let template = [flag(CKA_EXTRACTABLE, true)];
    let ec = [bytes(CKA_EC_PARAMS, crate::signing::P256)];
    let ec_gen = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
    let (_, target) = s.generate(&ec_gen, &ec, &template).expect("EC");
    assert_eq!(s.wrap(&m, public, target), Err(CKR_KEY_NOT_WRAPPABLE), "PKCS#8 is too long");
}
