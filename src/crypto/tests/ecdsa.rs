//! ECDSA over digests of every length.

use cryptoki_sys::{
    CKR_DATA_LEN_RANGE, CKR_KEY_TYPE_INCONSISTENT, CKR_OK, CKR_SIGNATURE_INVALID,
    CKR_SIGNATURE_LEN_RANGE,
};
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    pkey::Private,
};

use super::*;

const LENGTHS: std::ops::RangeInclusive<usize> = 1..=128;

#[test]
fn the_input_is_the_integer_of_the_leftmost_bits() {
    let mut fits = 0;
    for curve in Curve::ALL {
        for (len, digest) in LENGTHS.flat_map(|len| digests(len).map(|digest| (len, digest))) {
            let expected = leftmost_bits(curve, &digest);
            let what = format!("{curve:?}, {len} bytes, {:02x?}…", &digest[..len.min(3)]);
            match ecdsa_input(curve, &digest) {
                Ok(input) => {
                    assert_eq!(input.len(), curve.digest_bytes(), "{what}");
                    // Of these lengths nothing is cut off any more.
                    assert_eq!(leftmost_bits(curve, &input), expected, "{what}");
                    fits += 1;
                }
                Err(error) => {
                    assert_eq!(error.rv(), CKR_DATA_LEN_RANGE, "{what}");
                    assert!(expected.num_bits() as usize > 8 * curve.digest_bytes(), "{what}");
                    assert_eq!(curve, Curve::P521, "{what}");
                }
            }
        }
        assert_eq!(rv(ecdsa_input(curve, &[])), CKR_DATA_LEN_RANGE, "{curve:?}, empty");
    }
    // All of three curves; of P-521 up to 64 bytes, and beyond what begins with enough zero bits.
    assert!(fits > 3 * 128 * 4 + 64 * 4, "{fits}");
}

#[test]
fn the_edge_of_p521() {
    for (first, len, fits) in [
        (vec![0xff], 64, true),
        (vec![0x00, 0xff], 65, true),
        (vec![0x01], 65, false),
        // 528 bits, of which 521 count: nine zero bits leave 512.
        (vec![0x00, 0x7f], 66, true),
        (vec![0x00, 0x80], 66, false),
        (vec![0x00, 0x7f], 128, true),
        (vec![0x01], 128, false),
        (vec![], 1000, true),
    ] {
        let mut digest = vec![0; len];
        digest[..first.len()].copy_from_slice(&first);
        digest[len - 1] = 1;
        assert_eq!(ecdsa_input(Curve::P521, &digest).is_ok(), fits, "{first:02x?}, {len} bytes");
    }
}

#[test]
fn openssl_signs_and_we_verify_every_length() {
    for curve in Curve::ALL {
        let (theirs, ours) = pair(curve);
        for special in [vec![0; 32], vec![0; 64], vec![0xff; 32], vec![0xff; 64]] {
            let signature = sign(curve, &theirs, &special);
            assert_eq!(rv(ours.verify_ecdsa(&special, &signature)), CKR_OK, "{curve:?}");
        }
        for digest in LENGTHS.flat_map(digests) {
            let len = digest.len();
            let signature = sign(curve, &theirs, &digest);
            assert_eq!(rv(ours.verify_ecdsa(&digest, &signature)), CKR_OK, "{curve:?}, {len}");
            let mut other = digest.clone();
            // A bit that counts: the first of the integer is always among the leftmost.
            let counted = len.min(curve.digest_bytes());
            other[counted - 1] ^= 1 << 7;
            assert_eq!(
                rv(ours.verify_ecdsa(&other, &signature)),
                CKR_SIGNATURE_INVALID,
                "{curve:?}, {len}, another digest"
            );
        }
    }
}

#[test]
fn we_sign_and_openssl_verifies_every_length() {
    for curve in Curve::ALL {
        let key = PrivateKey::generate_ec(curve).unwrap();
        let theirs = EcKey::public_key_from_der(&key.public().spki_der()).unwrap();
        for digest in LENGTHS.flat_map(digests) {
            let len = digest.len();
            let signature = key.sign_ecdsa(&digest).unwrap();
            assert_eq!(signature.len(), key.public().signature_len());
            let (r, s) = signature.split_at(signature.len() / 2);
            let [r, s] = [r, s].map(|half| BigNum::from_slice(half).unwrap());
            let signature = EcdsaSig::from_private_components(r, s).unwrap();
            assert!(signature.verify(&digest, &theirs).unwrap(), "{curve:?}, {len}");
        }
    }
}

#[test]
fn every_changed_byte_of_a_signature_is_seen() {
    for curve in Curve::ALL {
        let key = PrivateKey::generate_ec(curve).unwrap();
        let digest = bytes(curve.field_bytes());
        let signature = key.sign_ecdsa(&digest).unwrap();
        for index in 0..signature.len() {
            let mut changed = signature.clone();
            changed[index] ^= 0x40;
            assert_eq!(
                rv(key.public().verify_ecdsa(&digest, &changed)),
                CKR_SIGNATURE_INVALID,
                "{curve:?}, byte {index}"
            );
        }
    }
}

#[test]
fn signatures_of_other_lengths_and_ranges() {
    for curve in Curve::ALL {
        let key = PrivateKey::generate_ec(curve).unwrap().public();
        let whole = key.signature_len();
        let order = EcGroup::from_curve_name(nid(curve)).unwrap();
        let mut n = BigNum::new().unwrap();
        order.order(&mut n, &mut openssl::bn::BigNumContext::new().unwrap()).unwrap();
        let n = n.to_vec_padded(curve.field_bytes() as i32).unwrap();
        let one = to_length(&[1], curve.field_bytes()).unwrap();
        for (what, signature, expected) in [
            ("empty", vec![], CKR_SIGNATURE_LEN_RANGE),
            ("odd", vec![1; whole - 1], CKR_SIGNATURE_LEN_RANGE),
            ("too long", vec![1; whole + 2], CKR_SIGNATURE_LEN_RANGE),
            ("two bytes", vec![1, 1], CKR_SIGNATURE_INVALID),
            ("all zero", vec![0; whole], CKR_SIGNATURE_INVALID),
            ("all ff", vec![0xff; whole], CKR_SIGNATURE_INVALID),
            ("r = n", [n.clone(), one.clone()].concat(), CKR_SIGNATURE_INVALID),
            ("s = n", [one.clone(), n.clone()].concat(), CKR_SIGNATURE_INVALID),
            ("s = 0", [one.clone(), vec![0; n.len()]].concat(), CKR_SIGNATURE_INVALID),
        ] {
            for digest in [bytes(curve.digest_bytes()), vec![0xff; curve.field_bytes()]] {
                let got = rv(key.verify_ecdsa(&digest, &signature));
                assert_eq!(got, expected, "{curve:?}, {what}, {} bytes", digest.len());
            }
        }
    }
}

#[test]
fn a_signature_without_common_leading_zeros_verifies() {
    // PKCS#11 3.1, 6.3.1: halves of equal length may be shorter. On P-521 one signature in four
    // has two halves that begin with a zero byte.
    let key = PrivateKey::generate_ec(Curve::P521).unwrap();
    let digest = bytes(64);
    let signature = std::iter::repeat_with(|| key.sign_ecdsa(&digest).unwrap())
        .take(1000)
        .find(|signature| signature[0] == 0 && signature[66] == 0)
        .expect("one in a thousand");
    let short = [&signature[1..66], &signature[67..]].concat();
    assert_eq!(short.len(), 130);
    assert_eq!(rv(key.public().verify_ecdsa(&digest, &short)), CKR_OK);
}

#[test]
fn rsa_is_another_key_type() {
    let key = PrivateKey::generate_ec(Curve::P256).unwrap();
    let public = key.public();
    let hash = Hash::Sha256;
    let digest = hash.digest(b"message");
    for (what, got) in [
        ("verify", rv(public.verify_pkcs1(&digest, &digest))),
        ("verify PSS", rv(public.verify_pss(hash, hash, 32, &digest, &digest))),
        ("recover", rv(public.recover_pkcs1(&digest))),
        ("raw", rv(public.raw(&digest))),
        ("encrypt", rv(public.encrypt_pkcs1(&digest))),
        ("encrypt OAEP", rv(public.encrypt_oaep(hash, hash, b"", &digest))),
        ("sign", rv(key.sign_pkcs1(&digest))),
        ("sign PSS", rv(key.sign_pss(hash, hash, 32, &digest))),
        ("decrypt", rv(key.decrypt_pkcs1(&digest))),
        ("decrypt implicitly", rv(key.decrypt_pkcs1_implicit(&digest, &[16]))),
        ("decrypt OAEP", rv(key.decrypt_oaep(hash, hash, b"", &digest))),
        ("raw private", rv(key.raw(&digest))),
        ("components", rv(key.rsa_components())),
    ] {
        assert_eq!(got, CKR_KEY_TYPE_INCONSISTENT, "{what}");
    }
}

/// The integer that ECDSA makes of a digest (FIPS 186-5, 6.4.1), by OpenSSL's arithmetic.
fn leftmost_bits(curve: Curve, digest: &[u8]) -> BigNum {
    let whole = BigNum::from_slice(digest).unwrap();
    let excess = (8 * digest.len()).saturating_sub(curve.bits());
    let mut cut = BigNum::new().unwrap();
    cut.rshift(&whole, excess as i32).unwrap();
    cut
}

/// Digests of `len` bytes that are hard in different ways.
fn digests(len: usize) -> [Vec<u8>; 5] {
    let mut small = vec![0; len];
    small[len - 1] = 1;
    let mut nearly = bytes(len);
    nearly[0] = 0;
    if let Some(second) = nearly.get_mut(1) {
        *second &= 0x7f;
    }
    [bytes(len), vec![0xff; len], vec![0; len], small, nearly]
}

fn pair(curve: Curve) -> (EcKey<Private>, PublicKey) {
    let group = EcGroup::from_curve_name(nid(curve)).unwrap();
    let theirs = EcKey::generate(&group).unwrap();
    let ours = PublicKey::from_spki_der(&theirs.public_key_to_der().unwrap()).unwrap();
    (theirs, ours)
}

/// r||s of OpenSSL, each half of full length.
fn sign(curve: Curve, key: &EcKey<Private>, digest: &[u8]) -> Vec<u8> {
    let signature = EcdsaSig::sign(digest, key).unwrap();
    [signature.r(), signature.s()]
        .map(|half| half.to_vec_padded(curve.field_bytes() as i32).unwrap())
        .concat()
}
