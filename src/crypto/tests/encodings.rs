//! SubjectPublicKeyInfo, EC parameters, identity.

use cryptoki_sys::{
    CKR_CURVE_NOT_SUPPORTED, CKR_DOMAIN_PARAMS_INVALID, CKR_KEY_SIZE_RANGE, CKR_OK,
    CKR_PUBLIC_KEY_INVALID,
};
use openssl::{
    ec::{Asn1Flag, EcGroup, EcKey},
    pkey::PKey,
    rsa::Rsa,
    sha::sha1,
};

use super::*;

#[test]
fn spki_is_what_openssl_writes_and_back() {
    let mut keys: Vec<Vec<u8>> = Curve::ALL
        .into_iter()
        .map(|curve| {
            let group = EcGroup::from_curve_name(nid(curve)).unwrap();
            EcKey::generate(&group).unwrap().public_key_to_der().unwrap()
        })
        .collect();
    for bits in [1024, 2048, 2056] {
        keys.push(Rsa::generate(bits).unwrap().public_key_to_der().unwrap());
    }
    for der in &keys {
        let key = PublicKey::from_spki_der(der).unwrap();
        assert_eq!(key.spki_der(), *der, "{key:?}");
        // Every one of these ends with the bits: their length is what is after the last header.
        let bits = key.subject_public_key_bits();
        assert!(der.ends_with(&bits), "{key:?}");
        assert_eq!(key.key_id(), sha1(&bits), "{key:?}");
        for end in 0..der.len() {
            let got = rv(PublicKey::from_spki_der(&der[..end]));
            assert_eq!(got, CKR_PUBLIC_KEY_INVALID, "{key:?}, the first {end} bytes");
        }
        for bit in 0..der.len() * 8 {
            let mut changed = der.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Refused, or another key; never a panic and never this one.
            if let Ok(other) = PublicKey::from_spki_der(&changed) {
                assert_ne!(other, key, "{key:?}, bit {bit}");
            }
        }
        assert_eq!(
            rv(PublicKey::from_spki_der(&[&der[..], &[0]].concat())),
            CKR_PUBLIC_KEY_INVALID
        );
    }
    // An OCTET STRING around the point belongs into CKA_EC_POINT, not here: the id would differ.
    let key = PrivateKey::generate_ec(Curve::P256).unwrap().public();
    let (spki, point) = (key.spki_der(), key.ec_point_der().unwrap());
    let mut wrapped = [&spki[..spki.len() - 65], &point].concat();
    // The outer SEQUENCE and the BIT STRING are two bytes longer.
    wrapped[1] += 2;
    wrapped[24] += 2;
    assert_eq!(wrapped[23], 0x03, "the BIT STRING");
    assert_eq!(rv(PublicKey::from_spki_der(&wrapped)), CKR_PUBLIC_KEY_INVALID);
    let ed25519 = PKey::generate_ed25519().unwrap().public_key_to_der().unwrap();
    assert_eq!(rv(PublicKey::from_spki_der(&ed25519)), CKR_PUBLIC_KEY_INVALID);
}

#[test]
fn accessors_of_both_types() {
    let rsa = Rsa::generate(2056).unwrap();
    let key = PublicKey::rsa(&rsa.n().to_vec(), &rsa.e().to_vec()).unwrap();
    assert_eq!((key.size_bits(), key.modulus_len(), key.signature_len()), (2056, Some(257), 257));
    assert_eq!(key.modulus(), Some(&rsa.n().to_vec()[..]));
    assert_eq!(key.exponent(), Some(&[1, 0, 1][..]));
    assert!(key.is_rsa() && key.curve().is_none() && key.ec_point_der().is_none());
    assert!(key.coordinates().is_none());
    assert_eq!(format!("{key:?}"), "PublicKey(RSA 2056)");

    let key = PrivateKey::generate_ec(Curve::P521).unwrap().public();
    assert_eq!((key.size_bits(), key.modulus_len(), key.signature_len()), (521, None, 132));
    assert!(!key.is_rsa() && key.modulus().is_none() && key.exponent().is_none());
    assert_eq!(key.curve(), Some(Curve::P521));
    assert_eq!(format!("{key:?}"), "PublicKey(P-521)");
}

#[test]
fn rsa_integers_as_the_service_sends_them() {
    let rsa = Rsa::generate(2048).unwrap();
    let (n, e) = (rsa.n().to_vec(), rsa.e().to_vec());
    let plain = PublicKey::rsa(&n, &e).unwrap();
    for (what, n, e) in [
        ("e = 00 01 00 01", n.clone(), vec![0, 1, 0, 1]),
        ("n of 257 bytes", [&[0], &n[..]].concat(), e.clone()),
        ("both, more zeros", [&[0; 9], &n[..]].concat(), vec![0, 0, 0, 1, 0, 1]),
    ] {
        let quirky = PublicKey::rsa(&n, &e).unwrap();
        assert_eq!(quirky, plain, "{what}");
        assert_eq!(quirky.spki_der(), rsa.public_key_to_der().unwrap(), "{what}");
        assert_eq!(quirky.exponent(), Some(&[1, 0, 1][..]), "{what}");
    }
}

#[test]
fn rsa_integers_that_are_no_key() {
    let rsa = Rsa::generate(2048).unwrap();
    let (n, e) = (rsa.n().to_vec(), rsa.e().to_vec());
    let even = [&n[..255], &[n[255] & 0xfe]].concat();
    let odd = |bits: usize| {
        let mut n = vec![0xff; bits.div_ceil(8)];
        n[0] >>= (8 - bits % 8) % 8;
        n
    };
    for (what, n, e, expected) in [
        ("1023 bits", odd(1023), e.clone(), CKR_KEY_SIZE_RANGE),
        ("1024 bits", odd(1024), e.clone(), CKR_OK),
        ("16384 bits", odd(16384), e.clone(), CKR_OK),
        ("16385 bits", odd(16385), e.clone(), CKR_KEY_SIZE_RANGE),
        ("a megabyte", vec![0xff; 1 << 20], e.clone(), CKR_KEY_SIZE_RANGE),
        ("empty", vec![], e.clone(), CKR_KEY_SIZE_RANGE),
        ("even", even, e.clone(), CKR_PUBLIC_KEY_INVALID),
        ("e empty", n.clone(), vec![], CKR_PUBLIC_KEY_INVALID),
        ("e = 1", n.clone(), vec![1], CKR_PUBLIC_KEY_INVALID),
        ("e = 2", n.clone(), vec![2], CKR_PUBLIC_KEY_INVALID),
        ("e = 3", n.clone(), vec![3], CKR_OK),
        ("e of 34 bits", n.clone(), vec![3, 0, 0, 0, 1], CKR_PUBLIC_KEY_INVALID),
        ("e = n", n.clone(), n.clone(), CKR_PUBLIC_KEY_INVALID),
    ] {
        assert_eq!(rv(PublicKey::rsa(&n, &e)), expected, "{what}");
    }
}

#[test]
fn ec_parameters() {
    for (curve, der, names) in [
        (Curve::P256, "06082a8648ce3d030107", &["P-256", "prime256v1", "secp256r1"][..]),
        (Curve::P256K, "06052b8104000a", &["P-256K", "secp256k1", "SECP256K1"]),
        (Curve::P384, "06052b81040022", &["P-384", "secp384r1"]),
        (Curve::P521, "06052b81040023", &["P-521", "secp521r1"]),
    ] {
        assert_eq!(curve.params_der(), hex(der));
        assert_eq!(Curve::from_params(&hex(der)).unwrap(), curve);
        for name in names {
            assert_eq!(Curve::from_name(name), Some(curve), "{name}");
            let printable = [&[0x13, name.len() as u8], name.as_bytes()].concat();
            assert_eq!(Curve::from_params(&printable).unwrap(), curve, "{name}");
        }
    }
    let mut group = EcGroup::from_curve_name(nid(Curve::P256)).unwrap();
    group.set_asn1_flag(Asn1Flag::EXPLICIT_CURVE);
    let explicit = EcKey::generate(&group).unwrap().public_key_to_der().unwrap();
    assert_eq!(rv(PublicKey::from_spki_der(&explicit)), CKR_CURVE_NOT_SUPPORTED);
    for (what, params, expected) in [
        ("brainpoolP256r1", "06092b2403030208010107", CKR_CURVE_NOT_SUPPORTED),
        ("edwards25519 by name", "130c656477617264733235353139", CKR_CURVE_NOT_SUPPORTED),
        ("Ed25519", "06032b6570", CKR_CURVE_NOT_SUPPORTED),
        ("explicit", "3000", CKR_CURVE_NOT_SUPPORTED),
        ("implicit (NULL)", "0500", CKR_DOMAIN_PARAMS_INVALID),
        ("empty", "", CKR_DOMAIN_PARAMS_INVALID),
        ("cut", "06082a8648ce3d0301", CKR_DOMAIN_PARAMS_INVALID),
        ("a byte more", "06052b8104002300", CKR_DOMAIN_PARAMS_INVALID),
        ("an empty OID", "0600", CKR_DOMAIN_PARAMS_INVALID),
        ("an integer", "020101", CKR_DOMAIN_PARAMS_INVALID),
    ] {
        assert_eq!(rv(Curve::from_params(&hex(params))), expected, "{what}");
    }
}
