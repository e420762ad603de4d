//! RSA with a session private key, against OpenSSL.

use std::sync::LazyLock;

use cryptoki_sys::{
    CKR_ATTRIBUTE_VALUE_INVALID, CKR_DATA_INVALID, CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID,
    CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_KEY_SIZE_RANGE, CKR_MECHANISM_PARAM_INVALID, CKR_OK,
};
use openssl::{
    bn::{BigNum, BigNumContext},
    encrypt::Encrypter,
    pkey::{PKey, Private, Public},
    rsa::{Padding, Rsa},
    sign::{RsaPssSaltlen, Verifier},
};

use super::*;
use crate::crypto::private::RsaInput;

/// One key for the tests that only use one.
static KEY: LazyLock<PrivateKey> =
    LazyLock::new(|| PrivateKey::generate_rsa(2048, &[1, 0, 1]).unwrap());

#[test]
fn generated_keys_are_sound() {
    for (bits, exponent) in [(2048, &[1u8, 0, 1][..]), (3072, &[0, 1, 0, 1]), (4096, &[1, 0, 1])] {
        let key = PrivateKey::generate_rsa(bits, exponent).unwrap();
        assert_eq!(key.public().size_bits(), bits);
        assert_eq!(format!("{key:?}"), format!("PrivateKey(RSA {bits})"));
        let theirs = openssl(&key.rsa_components().unwrap());
        assert!(theirs.check_key().unwrap(), "{bits}");
        assert_eq!(theirs.public_key_to_der().unwrap(), key.public().spki_der());
        let other = PrivateKey::generate_rsa(bits, exponent).unwrap();
        assert_ne!(other.public(), key.public());
    }
    for (bits, exponent, expected) in [
        (1024, &[1u8, 0, 1][..], CKR_KEY_SIZE_RANGE),
        (2049, &[1, 0, 1], CKR_KEY_SIZE_RANGE),
        (0, &[1, 0, 1], CKR_KEY_SIZE_RANGE),
        (usize::MAX, &[1, 0, 1], CKR_KEY_SIZE_RANGE),
        (2048, &[3], CKR_ATTRIBUTE_VALUE_INVALID),
        (2048, &[], CKR_ATTRIBUTE_VALUE_INVALID),
        (2048, &[1, 0, 1, 0], CKR_ATTRIBUTE_VALUE_INVALID),
    ] {
        assert_eq!(rv(PrivateKey::generate_rsa(bits, exponent)), expected, "{bits} {exponent:?}");
    }
}

#[test]
fn missing_integers_are_computed() {
    let full = KEY.rsa_components().unwrap();
    let whole = input(&full);
    let none = RsaInput { p: None, q: None, dp: None, dq: None, qi: None, ..whole };
    let padded = [&[0; 3], &full.d[..]].concat();
    for (what, input) in [
        ("everything", whole),
        ("n, e, d", none),
        ("n, e, d, p, q", RsaInput { p: whole.p, q: whole.q, ..none }),
        ("n, e, d and what CRT needs but no primes", RsaInput { d: &padded, ..none }),
    ] {
        let key = PrivateKey::from_rsa_components(input).unwrap();
        assert_eq!(key.public(), KEY.public(), "{what}");
        let theirs = openssl(&key.rsa_components().unwrap());
        assert!(theirs.check_key().unwrap(), "{what}");
    }
    // Primes the other way round are as good; the coefficient then is another one.
    let swapped =
        RsaInput { p: whole.q, q: whole.p, dp: whole.dq, dq: whole.dp, qi: None, ..whole };
    let swapped = PrivateKey::from_rsa_components(swapped).unwrap();
    assert!(openssl(&swapped.rsa_components().unwrap()).check_key().unwrap());
}

#[test]
fn small_exponents_and_unbalanced_primes() {
    let number = |text: u32| BigNum::from_u32(text).unwrap();
    let three = Rsa::generate_with_e(2048, &number(3)).unwrap();
    let parts = [three.n(), three.e(), three.d(), three.p().unwrap(), three.q().unwrap()];
    let [n, e, d, p, q] = parts.map(|part| part.to_vec());
    let input = RsaInput { n: &n, e: &e, d: &d, p: Some(&p), q: Some(&q), ..EMPTY };
    let key = PrivateKey::from_rsa_components(input).unwrap();
    let content = bytes(36);
    let signature = key.sign_pkcs1(&content).unwrap();
    assert_eq!(rv(key.public().verify_pkcs1(&content, &signature)), CKR_OK);
    // Factors are recovered for exponents above 65536 only.
    let input = RsaInput { p: None, q: None, ..input };
    assert_eq!(rv(PrivateKey::from_rsa_components(input)), CKR_ATTRIBUTE_VALUE_INVALID);

    // A prime of 1000 bits and one of 1048: sound arithmetic, and a loop of 2^48 rounds.
    let e = number(65537);
    let [p, q] = [1000, 1048].map(|bits| {
        let mut prime = BigNum::new().unwrap();
        prime.generate_prime(bits, false, None, None).unwrap();
        prime
    });
    let one = number(1);
    let phi = &(&p - &one) * &(&q - &one);
    let mut d = BigNum::new().unwrap();
    d.mod_inverse(&e, &phi, &mut BigNumContext::new().unwrap()).unwrap();
    let [n, e, d, p, q] = [&p * &q, e, d, p, q].map(|part| part.to_vec());
    for (p, q) in [(&p, &q), (&q, &p)] {
        let input = RsaInput { n: &n, e: &e, d: &d, p: Some(p), q: Some(q), ..EMPTY };
        assert_eq!(rv(PrivateKey::from_rsa_components(input)), CKR_ATTRIBUTE_VALUE_INVALID);
    }
    let input = RsaInput { n: &n, e: &e, d: &d, ..EMPTY };
    assert_eq!(rv(PrivateKey::from_rsa_components(input)), CKR_ATTRIBUTE_VALUE_INVALID);
}

#[test]
fn integers_that_do_not_belong_together() {
    let full = KEY.rsa_components().unwrap();
    let whole = input(&full);
    let other = PrivateKey::generate_rsa(2048, &[1, 0, 1]).unwrap().rsa_components().unwrap();
    let bad = CKR_ATTRIBUTE_VALUE_INVALID;
    for (what, input, expected) in [
        ("another n", RsaInput { n: &other.n, ..whole }, bad),
        ("another d", RsaInput { d: &other.d, ..whole }, bad),
        ("another d, no primes", RsaInput { n: &full.n, e: &full.e, d: &other.d, ..EMPTY }, bad),
        ("another e", RsaInput { e: &[3], ..whole }, bad),
        ("d = 0", RsaInput { d: &[], ..whole }, bad),
        ("d = 1", RsaInput { d: &[1], ..whole }, bad),
        ("d = n", RsaInput { d: &full.n, ..whole }, bad),
        ("e = 0", RsaInput { e: &[0, 0], ..whole }, bad),
        ("e = 1", RsaInput { e: &[1], ..whole }, bad),
        ("d = 0, no primes", RsaInput { n: &full.n, e: &full.e, d: &[0], ..EMPTY }, bad),
        ("one prime", RsaInput { q: None, ..whole }, bad),
        ("p = q", RsaInput { q: whole.p, ..whole }, bad),
        ("p = 0", RsaInput { p: Some(&[]), ..whole }, bad),
        ("p = 1, q = n", RsaInput { p: Some(&[1]), q: Some(&full.n), ..whole }, bad),
        ("p and q of another key", RsaInput { p: Some(&other.p), q: Some(&other.q), ..whole }, bad),
        ("another dp", RsaInput { dp: Some(&other.dp), ..whole }, bad),
        ("another dq", RsaInput { dq: Some(&other.dq), ..whole }, bad),
        ("another qi", RsaInput { qi: Some(&other.qi), ..whole }, bad),
        ("nothing", EMPTY, CKR_KEY_SIZE_RANGE),
        ("a megabyte", RsaInput { qi: Some(&[1; 1 << 20]), ..whole }, CKR_KEY_SIZE_RANGE),
    ] {
        assert_eq!(rv(PrivateKey::from_rsa_components(input)), expected, "{what}");
    }
    let small = Rsa::generate(1024).unwrap();
    let small = PKey::from_rsa(small).unwrap().private_key_to_pkcs8().unwrap();
    assert_eq!(rv(PrivateKey::from_pkcs8(&small)), CKR_KEY_SIZE_RANGE);
}

#[test]
fn pkcs8_goes_both_ways() {
    let theirs = PKey::private_key_from_pkcs8(&KEY.pkcs8_der().unwrap()).unwrap();
    assert_eq!(theirs.public_key_to_der().unwrap(), KEY.public().spki_der());
    let der = theirs.private_key_to_pkcs8().unwrap();
    assert_eq!(PrivateKey::from_pkcs8(&der).unwrap().public(), KEY.public());
    for end in (0..der.len()).step_by(7) {
        assert_ne!(rv(PrivateKey::from_pkcs8(&der[..end])), CKR_OK, "the first {end} bytes");
    }
    for bit in (0..der.len() * 8).step_by(61) {
        let mut changed = der.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        // Refused, or a key that works; never a panic.
        if let Ok(key) = PrivateKey::from_pkcs8(&changed) {
            assert_eq!(rv(key.sign_pkcs1(b"content")), CKR_OK, "bit {bit}");
        }
    }
    let megabyte = vec![0x30; 1 << 20];
    assert_eq!(rv(PrivateKey::from_pkcs8(&megabyte)), CKR_ATTRIBUTE_VALUE_INVALID);
    let ed25519 = PKey::generate_ed25519().unwrap().private_key_to_pkcs8().unwrap();
    assert_eq!(rv(PrivateKey::from_pkcs8(&ed25519)), CKR_ATTRIBUTE_VALUE_INVALID);
}

#[test]
fn pkcs1_signatures() {
    let public = KEY.public();
    let mut contents: Vec<Vec<u8>> =
        Hash::ALL.iter().map(|hash| digest_info::encode(*hash, &hash.digest(b"message"))).collect();
    contents.extend([vec![], bytes(36), bytes(256 - 11)]);
    for content in contents {
        let signature = KEY.sign_pkcs1(&content).unwrap();
        let mut recovered = vec![0; 256];
        let len = theirs().public_decrypt(&signature, &mut recovered, Padding::PKCS1).unwrap();
        assert_eq!(recovered[..len], content);
        assert_eq!(rv(public.verify_pkcs1(&content, &signature)), CKR_OK);
    }
    assert_eq!(rv(KEY.sign_pkcs1(&bytes(256 - 10))), CKR_DATA_LEN_RANGE);
}

#[test]
fn pss_signatures() {
    let key = PKey::from_rsa(theirs()).unwrap();
    for &hash in Hash::ALL {
        let longest = 256 - hash.len() - 2;
        for salt in [0, 20, hash.len(), longest] {
            let signature = KEY.sign_pss(hash, hash, salt, &hash.digest(b"message")).unwrap();
            let mut verifier = Verifier::new(openssl_digest(hash), &key).unwrap();
            verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            verifier.set_rsa_mgf1_md(openssl_digest(hash)).unwrap();
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt as i32)).unwrap();
            verifier.update(b"message").unwrap();
            assert!(verifier.verify(&signature).unwrap(), "{hash}, salt {salt}");
        }
        let digest = hash.digest(b"message");
        let long = KEY.sign_pss(hash, hash, longest + 1, &digest);
        assert_eq!(rv(long), CKR_MECHANISM_PARAM_INVALID, "{hash}");
        assert_eq!(rv(KEY.sign_pss(hash, hash, 0, &digest[1..])), CKR_DATA_LEN_RANGE, "{hash}");
    }
    let digest = Hash::Sha256.digest(b"");
    let mixed = KEY.sign_pss(Hash::Sha256, Hash::Sha1, 32, &digest);
    assert_eq!(rv(mixed), CKR_MECHANISM_PARAM_INVALID);
}

#[test]
fn pkcs1_decryption() {
    for len in [0, 1, 48, 256 - 11] {
        let data = bytes(len);
        let ciphertext = encrypt(&data, Padding::PKCS1);
        assert_eq!(*KEY.decrypt_pkcs1(&ciphertext).unwrap(), data, "{len} bytes");
    }
    let mut refusals = Vec::new();
    for (what, ciphertext) in unpadded() {
        let error = KEY.decrypt_pkcs1(&ciphertext).expect_err(what);
        assert_eq!(error.rv(), CKR_ENCRYPTED_DATA_INVALID, "{what}");
        refusals.push(error.to_string());
    }
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "one sentence for every failure");
    for len in [0, 255, 257] {
        assert_eq!(rv(KEY.decrypt_pkcs1(&vec![1; len])), CKR_ENCRYPTED_DATA_LEN_RANGE);
        let implicit = KEY.decrypt_pkcs1_implicit(&vec![1; len], &[16]);
        assert_eq!(rv(implicit), CKR_ENCRYPTED_DATA_LEN_RANGE);
    }
}

#[test]
fn implicit_rejection() {
    let data = bytes(48);
    let good = encrypt(&data, Padding::PKCS1);
    assert_eq!(*KEY.decrypt_pkcs1_implicit(&good, &[48]).unwrap(), data);
    let mut cases = unpadded();
    cases.push(("good, of another length", good.clone()));
    let mut seen = Vec::new();
    for (what, ciphertext) in cases {
        for len in [16, 32, 47, 100] {
            let first = KEY.decrypt_pkcs1_implicit(&ciphertext, &[len]).unwrap();
            assert_eq!(first.len(), len, "{what}");
            let again = KEY.decrypt_pkcs1_implicit(&ciphertext, &[len]).unwrap();
            assert_eq!(first, again, "{what}: a change would tell that it was rejected");
            assert_ne!(first[..16], data[..16], "{what}");
            if len == 16 {
                seen.push(first.to_vec());
            }
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "another ciphertext, another key");
    assert_eq!(KEY.decrypt_pkcs1_implicit(&good, &[0]).unwrap().len(), 0);
    assert_eq!(rv(KEY.decrypt_pkcs1_implicit(&good, &[246])), CKR_DATA_LEN_RANGE);
    assert_eq!(rv(KEY.decrypt_pkcs1_implicit(&good, &[usize::MAX])), CKR_DATA_LEN_RANGE);
}

#[test]
fn oaep_decryption() {
    let key = PKey::from_rsa(theirs()).unwrap();
    for &hash in Hash::ALL {
        for &mgf in Hash::ALL {
            for (label, len) in [(&b""[..], 32), (b"label", 256 - 2 * hash.len() - 2)] {
                let what = format!("{hash} {mgf} {label:?}");
                let data = bytes(len);
                let mut encrypter = Encrypter::new(&key).unwrap();
                encrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
                encrypter.set_rsa_oaep_md(openssl_digest(hash)).unwrap();
                encrypter.set_rsa_mgf1_md(openssl_digest(mgf)).unwrap();
                if !label.is_empty() {
                    encrypter.set_rsa_oaep_label(label).unwrap();
                }
                let mut ciphertext = vec![0; encrypter.encrypt_len(&data).unwrap()];
                encrypter.encrypt(&data, &mut ciphertext).unwrap();
                let got = KEY.decrypt_oaep(hash, mgf, label, &ciphertext).unwrap();
                assert_eq!(*got, data, "{what}");
                let other = KEY.decrypt_oaep(hash, mgf, b"another", &ciphertext);
                assert_eq!(rv(other), CKR_ENCRYPTED_DATA_INVALID, "{what}");
                ciphertext[200] ^= 1;
                let damaged = KEY.decrypt_oaep(hash, mgf, label, &ciphertext);
                assert_eq!(rv(damaged), CKR_ENCRYPTED_DATA_INVALID, "{what}");
                let short = KEY.decrypt_oaep(hash, mgf, label, &ciphertext[1..]);
                assert_eq!(rv(short), CKR_ENCRYPTED_DATA_LEN_RANGE, "{what}");
            }
        }
    }
}

#[test]
fn raw_blocks() {
    let public = KEY.public();
    for block in [[vec![0], bytes(255)].concat(), bytes(20), vec![], vec![0; 256]] {
        let padded = to_length(&block, 256).unwrap();
        let power = KEY.raw(&block).unwrap();
        assert_eq!(power.len(), 256);
        assert_eq!(public.raw(&power).unwrap(), padded);
        assert_eq!(*KEY.raw(&public.raw(&block).unwrap()).unwrap(), padded);
    }
    assert_eq!(rv(KEY.raw(public.modulus().unwrap())), CKR_DATA_INVALID);
    assert_eq!(rv(KEY.raw(&[0; 257])), CKR_DATA_LEN_RANGE);
}

#[test]
fn nothing_secret_is_printed() {
    let components = KEY.rsa_components().unwrap();
    for printed in [format!("{:?}", *KEY), format!("{components:?}"), format!("{:?}", EMPTY)] {
        assert!(printed.len() < 60, "{printed}");
    }
}

const EMPTY: RsaInput<'static> =
    RsaInput { n: &[], e: &[], d: &[], p: None, q: None, dp: None, dq: None, qi: None };

/// Ciphertexts whose block is no type-2 padding.
fn unpadded() -> Vec<(&'static str, Vec<u8>)> {
    let block = |head: &[u8], fill: usize, tail: &[u8]| {
        let mut block = [head, &vec![0x5a; fill], tail].concat();
        block.resize(256, 1);
        block
    };
    [
        ("type 1", block(&[0, 1], 20, &[0])),
        ("no zero in front", block(&[1, 2], 20, &[0])),
        ("seven bytes of padding", block(&[0, 2], 7, &[0])),
        ("no separator", block(&[0, 2], 254, &[])),
        ("zero", vec![0; 256]),
    ]
    .into_iter()
    .map(|(what, block)| (what, encrypt(&block, Padding::NONE)))
    .chain([("not below the modulus", vec![0xff; 256])])
    .collect()
}

fn encrypt(data: &[u8], padding: Padding) -> Vec<u8> {
    let mut ciphertext = vec![0; 256];
    theirs().public_encrypt(data, &mut ciphertext, padding).unwrap();
    ciphertext
}

fn theirs() -> Rsa<Public> {
    Rsa::public_key_from_der(&KEY.public().spki_der()).unwrap()
}

fn input(full: &RsaComponents) -> RsaInput<'_> {
    RsaInput {
        n: &full.n,
        e: &full.e,
        d: &full.d,
        p: Some(&full.p),
        q: Some(&full.q),
        dp: Some(&full.dp),
        dq: Some(&full.dq),
        qi: Some(&full.qi),
    }
}

fn openssl(full: &RsaComponents) -> Rsa<Private> {
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
    Rsa::from_private_components(
        number(&full.n),
        number(&full.e),
        number(&full.d),
        number(&full.p),
        number(&full.q),
        number(&full.dp),
        number(&full.dq),
        number(&full.qi),
    )
    .unwrap()
}
