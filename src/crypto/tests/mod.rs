//! The whole of local cryptography against OpenSSL, which shares no code with it, against published
//! vectors and against signatures that the real service made.

mod aes;
mod ecdsa;
mod ecdsa_keys;
mod encodings;
mod pkcs12;
mod recordings;
mod rsa_private;
mod rsa_public;
mod wrap_mac;
mod wycheproof;

use cryptoki_sys::CK_RV;
use openssl::{hash::MessageDigest, nid::Nid};

use super::*;

/// The bytes of a hexadecimal string; white space is ignored.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8)
        .collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// OpenSSL's implementation of a hash.
pub(super) fn openssl_digest(hash: Hash) -> MessageDigest {
    match hash {
        Hash::Sha1 => MessageDigest::sha1(),
        Hash::Sha224 => MessageDigest::sha224(),
        Hash::Sha256 => MessageDigest::sha256(),
        Hash::Sha384 => MessageDigest::sha384(),
        Hash::Sha512 => MessageDigest::sha512(),
        Hash::Sha3_224 => MessageDigest::sha3_224(),
        Hash::Sha3_256 => MessageDigest::sha3_256(),
        Hash::Sha3_384 => MessageDigest::sha3_384(),
        Hash::Sha3_512 => MessageDigest::sha3_512(),
    }
}

/// OpenSSL's number of a curve.
fn nid(curve: Curve) -> Nid {
    match curve {
        Curve::P256 => Nid::X9_62_PRIME256V1,
        Curve::P256K => Nid::SECP256K1,
        Curve::P384 => Nid::SECP384R1,
        Curve::P521 => Nid::SECP521R1,
    }
}

/// The return value of a refusal; `CKR_OK` for what succeeded.
fn rv<T>(result: Result<T>) -> CK_RV {
    match result {
        Ok(_) => cryptoki_sys::CKR_OK,
        Err(error) => error.rv(),
    }
}

/// `len` random bytes.
fn bytes(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    random(&mut bytes).unwrap();
    bytes
}

/// Keys are shared by sessions, operations move between the threads that drive a session.
const _: fn() = || {
    fn shared<T: Send + Sync + Clone>() {}
    fn moved<T: Send>() {}
    shared::<PublicKey>();
    shared::<PrivateKey>();
    moved::<Hasher>();
    moved::<symmetric::Cipher>();
    moved::<symmetric::Hmac>();
};

#[test]
fn operations_print_neither_key_nor_data() {
    let mode = symmetric::Mode::CbcPad { iv: [7; 16] };
    let cipher = symmetric::Cipher::new(symmetric::Direction::Encrypt, mode, &[0x5a; 16]).unwrap();
    assert_eq!(format!("{cipher:?}"), "Cipher { direction: Encrypt, .. }");
    let hmac = symmetric::Hmac::new(Hash::Sha256, &[0x5a; 32]).unwrap();
    assert_eq!(format!("{hmac:?}"), "Hmac { hash: Sha256, .. }");
}

#[test]
fn random_bytes_differ_and_fill_the_whole_buffer() {
    let (first, second) = (bytes(64), bytes(64));
    assert_ne!(first, second);
    // Sixteen zero bytes in a row at the end would be an unfilled tail.
    assert_ne!(first[48..], [0u8; 16]);
    random(&mut []).unwrap();
}

#[test]
fn integers_are_padded_and_stripped() {
    for (integer, length, expected) in [
        (&[1u8, 2][..], 4, Some(vec![0, 0, 1, 2])),
        (&[0, 0, 1, 2], 2, Some(vec![1, 2])),
        (&[0, 0, 1, 2], 3, Some(vec![0, 1, 2])),
        (&[1, 2, 3], 2, None),
        (&[], 2, Some(vec![0, 0])),
        (&[0, 0, 0], 1, Some(vec![0])),
    ] {
        assert_eq!(to_length(integer, length), expected, "{integer:?} to {length}");
    }
    assert_eq!(without_leading_zeros(&[0, 0, 5, 0]), [5, 0]);
    assert!(without_leading_zeros(&[0, 0]).is_empty());
}
