//! RSA with the public key: verification of OpenSSL's signatures, encryption for OpenSSL.

use cryptoki_sys::{
    CKR_DATA_INVALID, CKR_DATA_LEN_RANGE, CKR_MECHANISM_PARAM_INVALID, CKR_OK,
    CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE,
};
use openssl::{
    bn::BigNum,
    encrypt::Decrypter,
    pkey::{PKey, Private},
    pkey_ctx::PkeyCtx,
    rsa::{Padding, Rsa},
    sign::RsaPssSaltlen,
};

use super::*;

/// A size that aws-lc-rs takes, one below, and one whose last byte has a single bit.
const SIZES: [u32; 3] = [2048, 1024, 2049];

#[test]
fn pkcs1_signatures_of_every_hash() {
    for (theirs, ours) in SIZES.map(pair) {
        for &hash in Hash::ALL {
            let digest = hash.digest(b"message");
            let mut context = PkeyCtx::new(&PKey::from_rsa(theirs.clone()).unwrap()).unwrap();
            context.sign_init().unwrap();
            context.set_rsa_padding(Padding::PKCS1).unwrap();
            context.set_signature_md(md(hash)).unwrap();
            let mut signature = Vec::new();
            context.sign_to_vec(&digest, &mut signature).unwrap();

            // OpenSSL's idea of the DigestInfo is ours.
            let content = digest_info::encode(hash, &digest);
            assert_eq!(ours.recover_pkcs1(&signature).unwrap(), content, "{ours:?} {hash}");
            check(&ours, &content, &signature, &format!("{ours:?} {hash}"));
        }
    }
}

#[test]
fn pkcs1_signatures_of_any_content() {
    for (theirs, ours) in SIZES.map(pair) {
        let longest = ours.modulus_len().unwrap() - 11;
        let mut null_absent = hex("302f300b06096086480165030402010420");
        null_absent.extend([7; 32]);
        for (what, content) in [
            ("empty", vec![]),
            ("TLS 1.1", bytes(36)),
            ("parameters absent", null_absent),
            ("longest", bytes(longest)),
            ("zeros", vec![0; 20]),
            ("ff", vec![0xff; 20]),
        ] {
            let signature = private(&theirs, &content, Padding::PKCS1);
            let what = format!("{ours:?} {what}");
            assert_eq!(ours.recover_pkcs1(&signature).unwrap(), content, "{what}");
            assert_eq!(rv(ours.verify_pkcs1(&content, &signature)), CKR_OK, "{what}");
        }
        let long = bytes(longest + 1);
        assert_eq!(rv(ours.verify_pkcs1(&long, &vec![1; longest + 11])), CKR_DATA_LEN_RANGE);
    }
}

#[test]
fn blocks_that_are_no_pkcs1_padding() {
    let (theirs, ours) = pair(2048);
    let content = digest_info::encode(Hash::Sha256, &Hash::Sha256.digest(b"message"));
    let block = |head: &[u8], fill: usize, tail: &[u8]| {
        let mut block = [head, &vec![0xff; fill], &[0], &content, tail].concat();
        block.resize(256, 0);
        block
    };
    let whole = 256 - 3 - content.len();
    for (what, block, recovers) in [
        ("right", block(&[0, 1], whole, &[]), true),
        // Bleichenbacher 2006: the content in front, room for a cube root behind it.
        ("garbage behind", block(&[0, 1], 8, &[0x5a; 100]), true),
        ("seven ff", block(&[0, 1], 7, &[]), false),
        ("type 2", block(&[0, 2], whole, &[]), false),
        ("no zero in front", block(&[1, 1], whole - 1, &[]), false),
        ("no separator", [&[0, 1][..], &[0xff; 254]].concat(), false),
        ("a hole in the ff", block(&[0, 1, 0xff, 0xfe], whole - 2, &[]), false),
    ] {
        // The block as a number must be below the modulus, which begins with a one bit.
        if block[0] > 0 {
            assert!(block[0] < 0x80);
        }
        let signature = private(&theirs, &block, Padding::NONE);
        assert_eq!(ours.recover_pkcs1(&signature).is_ok(), recovers, "{what}");
        let verdict = rv(ours.verify_pkcs1(&content, &signature));
        assert_eq!(verdict == CKR_OK, what == "right", "{what}");
    }
}

#[test]
fn pss_signatures_of_every_hash_and_salt() {
    for (theirs, ours) in SIZES.map(pair) {
        for &hash in Hash::ALL {
            let Some(longest) = (ours.size_bits() - 1).div_ceil(8).checked_sub(hash.len() + 2)
            else {
                continue;
            };
            for salt in [0, 1, 20, hash.len(), longest] {
                if salt > longest {
                    continue;
                }
                let what = format!("{ours:?} {hash} salt {salt}");
                let digest = hash.digest(what.as_bytes());
                let signature = sign_pss(&theirs, hash, salt, &digest);
                let verify = |salt, digest: &[u8], signature: &[u8]| {
                    rv(ours.verify_pss(hash, hash, salt, digest, signature))
                };
                assert_eq!(verify(salt, &digest, &signature), CKR_OK, "{what}");
                let other = if salt == 0 { 1 } else { salt - 1 };
                assert_eq!(verify(other, &digest, &signature), CKR_SIGNATURE_INVALID, "{what}");
                let another = hash.digest(b"another");
                assert_eq!(verify(salt, &another, &signature), CKR_SIGNATURE_INVALID, "{what}");
                let mut forged = signature.clone();
                forged[10] ^= 1;
                assert_eq!(verify(salt, &digest, &forged), CKR_SIGNATURE_INVALID, "{what}");
                assert_eq!(verify(salt, &digest[1..], &signature), CKR_DATA_LEN_RANGE, "{what}");
                let short = verify(salt, &digest, &signature[1..]);
                assert_eq!(short, CKR_SIGNATURE_LEN_RANGE, "{what}");
                let beyond = plus_modulus(&ours, &signature);
                assert_ne!(verify(salt, &digest, &beyond), CKR_OK, "{what}, s + n");
            }
            for salt in [longest + 1, usize::MAX] {
                let got = ours.verify_pss(hash, hash, salt, &hash.digest(b""), &[]);
                assert_eq!(rv(got), CKR_MECHANISM_PARAM_INVALID, "{ours:?} {hash} {salt}");
            }
        }
        let digest = Hash::Sha256.digest(b"");
        let mixed = ours.verify_pss(Hash::Sha256, Hash::Sha1, 32, &digest, &[]);
        assert_eq!(rv(mixed), CKR_MECHANISM_PARAM_INVALID);
    }
}

#[test]
fn encryption_for_openssl() {
    for (theirs, ours) in SIZES.map(pair) {
        let k = ours.modulus_len().unwrap();
        for len in [0, 1, 32, k - 11] {
            let data = bytes(len);
            let ciphertext = ours.encrypt_pkcs1(&data).unwrap();
            let mut plaintext = vec![0; k];
            let got = theirs.private_decrypt(&ciphertext, &mut plaintext, Padding::PKCS1).unwrap();
            assert_eq!(plaintext[..got], data, "{ours:?}, {len} bytes");
        }
        assert_eq!(rv(ours.encrypt_pkcs1(&vec![0; k - 10])), CKR_DATA_LEN_RANGE);
    }
}

#[test]
fn oaep_of_every_hash_and_mgf() {
    for (theirs, ours) in [2048, 1024].map(pair) {
        let k = ours.modulus_len().unwrap();
        for &hash in Hash::ALL {
            let Some(longest) = k.checked_sub(2 * hash.len() + 2) else {
                let got = ours.encrypt_oaep(hash, hash, b"", b"");
                assert_eq!(rv(got), CKR_DATA_LEN_RANGE, "{ours:?} {hash}");
                continue;
            };
            for &mgf in Hash::ALL {
                for (label, len) in [(&b""[..], longest), (b"label", 0), (b"", 16.min(longest))] {
                    let what = format!("{ours:?} {hash} {mgf} {label:?} {len}");
                    let data = bytes(len);
                    let ciphertext = ours.encrypt_oaep(hash, mgf, label, &data).unwrap();
                    let got = decrypt_oaep(&theirs, hash, mgf, label, &ciphertext);
                    assert_eq!(got, data, "{what}");
                }
                let long = ours.encrypt_oaep(hash, mgf, b"", &vec![0; longest + 1]);
                assert_eq!(rv(long), CKR_DATA_LEN_RANGE, "{hash} {mgf}");
            }
        }
        // Bytes that are no text: where aws-lc-rs does it they are a label like any other.
        let label = [0xff, 0x00, 0xfe];
        let sha256 = Hash::Sha256;
        if ours.size_bits() == 2048 {
            let ciphertext = ours.encrypt_oaep(sha256, sha256, &label, b"data").unwrap();
            assert_eq!(decrypt_oaep(&theirs, sha256, sha256, &label, &ciphertext), b"data");
        }
        let mixed = ours.encrypt_oaep(Hash::Sha1, sha256, &label, b"data");
        assert_eq!(rv(mixed), CKR_MECHANISM_PARAM_INVALID);
    }
}

#[test]
fn raw_blocks() {
    for (theirs, ours) in SIZES.map(pair) {
        let k = ours.modulus_len().unwrap();
        let n = ours.modulus().unwrap().to_vec();
        let mut below = BigNum::from_slice(&n).unwrap();
        below.sub_word(1).unwrap();
        for (what, block) in [
            ("random", [vec![0], bytes(k - 1)].concat()),
            ("short", bytes(20)),
            ("empty", vec![]),
            ("n - 1", below.to_vec()),
        ] {
            let mut expected = vec![0; k];
            let padded = to_length(&block, k).unwrap();
            theirs.public_encrypt(&padded, &mut expected, Padding::NONE).unwrap();
            assert_eq!(ours.raw(&block).unwrap(), expected, "{ours:?} {what}");
        }
        assert_eq!(rv(ours.raw(&n)), CKR_DATA_INVALID);
        assert_eq!(rv(ours.raw(&vec![0; k + 1])), CKR_DATA_LEN_RANGE);
    }
}

/// The right content verifies, and nothing near it does.
fn check(key: &PublicKey, content: &[u8], signature: &[u8], what: &str) {
    assert_eq!(rv(key.verify_pkcs1(content, signature)), CKR_OK, "{what}");
    for index in [0, content.len() / 2, content.len() - 1] {
        let mut other = content.to_vec();
        other[index] ^= 1;
        assert_eq!(rv(key.verify_pkcs1(&other, signature)), CKR_SIGNATURE_INVALID, "{what}");
    }
    for index in [0, signature.len() / 2, signature.len() - 1] {
        let mut forged = signature.to_vec();
        forged[index] ^= 1;
        assert_eq!(rv(key.verify_pkcs1(content, &forged)), CKR_SIGNATURE_INVALID, "{what}");
        assert_ne!(key.recover_pkcs1(&forged).ok().as_deref(), Some(content), "{what}");
    }
    for length in [0, signature.len() - 1] {
        let short = &signature[..length];
        assert_eq!(rv(key.verify_pkcs1(content, short)), CKR_SIGNATURE_LEN_RANGE, "{what}");
        assert_eq!(rv(key.recover_pkcs1(short)), CKR_SIGNATURE_LEN_RANGE, "{what}");
    }
    let long = [signature, &[0]].concat();
    assert_eq!(rv(key.verify_pkcs1(content, &long)), CKR_SIGNATURE_LEN_RANGE, "{what}");
    let beyond = plus_modulus(key, signature);
    assert_ne!(rv(key.verify_pkcs1(content, &beyond)), CKR_OK, "{what}, s + n");
    assert_ne!(rv(key.recover_pkcs1(&beyond)), CKR_OK, "{what}, s + n");
}

/// The signature as another number of the same residue; a byte longer where it does not fit.
fn plus_modulus(key: &PublicKey, signature: &[u8]) -> Vec<u8> {
    let n = BigNum::from_slice(key.modulus().unwrap()).unwrap();
    let sum = &BigNum::from_slice(signature).unwrap() + &n;
    to_length(&sum.to_vec(), signature.len()).unwrap_or_else(|| sum.to_vec())
}

fn pair(bits: u32) -> (Rsa<Private>, PublicKey) {
    let theirs = Rsa::generate(bits).unwrap();
    let ours = PublicKey::rsa(&theirs.n().to_vec(), &theirs.e().to_vec()).unwrap();
    (theirs, ours)
}

fn private(key: &Rsa<Private>, content: &[u8], padding: Padding) -> Vec<u8> {
    let mut signature = vec![0; key.size() as usize];
    key.private_encrypt(content, &mut signature, padding).unwrap();
    signature
}

fn md(hash: Hash) -> &'static openssl::md::MdRef {
    openssl::md::Md::from_nid(openssl_digest(hash).type_()).unwrap()
}

fn sign_pss(key: &Rsa<Private>, hash: Hash, salt: usize, digest: &[u8]) -> Vec<u8> {
    let mut context = PkeyCtx::new(&PKey::from_rsa(key.clone()).unwrap()).unwrap();
    context.sign_init().unwrap();
    context.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    context.set_signature_md(md(hash)).unwrap();
    context.set_rsa_mgf1_md(md(hash)).unwrap();
    context.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt as i32)).unwrap();
    let mut signature = Vec::new();
    context.sign_to_vec(digest, &mut signature).unwrap();
    signature
}

fn decrypt_oaep(
    key: &Rsa<Private>,
    hash: Hash,
    mgf: Hash,
    label: &[u8],
    ciphertext: &[u8],
) -> Vec<u8> {
    let key = PKey::from_rsa(key.clone()).unwrap();
    let mut decrypter = Decrypter::new(&key).unwrap();
    decrypter.set_rsa_padding(Padding::PKCS1_OAEP).unwrap();
    decrypter.set_rsa_oaep_md(openssl_digest(hash)).unwrap();
    decrypter.set_rsa_mgf1_md(openssl_digest(mgf)).unwrap();
    if !label.is_empty() {
        decrypter.set_rsa_oaep_label(label).unwrap();
    }
    let mut plaintext = vec![0; decrypter.decrypt_len(ciphertext).unwrap()];
    let len = decrypter.decrypt(ciphertext, &mut plaintext).unwrap();
    plaintext.truncate(len);
    plaintext
}
