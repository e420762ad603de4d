//! EC keys: the quirks of the service's JWKs, points that are none, private values.

use cryptoki_sys::{
    CKR_ATTRIBUTE_VALUE_INVALID, CKR_KEY_TYPE_INCONSISTENT, CKR_OK, CKR_PUBLIC_KEY_INVALID,
};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcKey, EcPoint},
    pkey::PKey,
};

use super::*;

#[test]
fn coordinates_are_padded_and_stripped() {
    for curve in Curve::ALL {
        let field = curve.field_bytes();
        // A point whose x begins with a zero byte, which the service may send without it.
        let key = std::iter::repeat_with(|| PrivateKey::generate_ec(curve).unwrap().public())
            .find(|key| key.coordinates().unwrap().0[0] == 0)
            .unwrap();
        let (x, y) = key.coordinates().unwrap();
        assert_eq!((x.len(), y.len()), (field, field));
        let long = [&[0], y].concat();
        for (what, x, y) in [
            ("as they are", x, y),
            ("x a byte short", &x[1..], y),
            ("y a byte long", x, &long),
            ("both", &x[1..], &long),
        ] {
            let quirky = PublicKey::ec(curve, x, y).unwrap();
            assert_eq!(quirky, key, "{curve:?}, {what}");
            assert_eq!(quirky.key_id(), key.key_id(), "{curve:?}, {what}");
        }
    }
}

#[test]
fn points_that_are_none() {
    for curve in Curve::ALL {
        let field = curve.field_bytes();
        let key = PrivateKey::generate_ec(curve).unwrap().public();
        let (x, y) = key.coordinates().unwrap();
        let mut off = y.to_vec();
        off[field - 1] ^= 1;
        let p = prime(curve);
        let mut above = BigNum::from_slice(x).unwrap();
        above = &above + &p;
        for (what, x, y) in [
            ("off the curve", x.to_vec(), off),
            ("the origin", vec![0; field], vec![0; field]),
            ("empty", vec![], vec![]),
            ("a coordinate too long", [&[1], x].concat(), y.to_vec()),
            ("x and y exchanged", y.to_vec(), x.to_vec()),
            ("x above the prime", above.to_vec(), y.to_vec()),
            ("x the prime", p.to_vec(), y.to_vec()),
        ] {
            assert_eq!(
                rv(PublicKey::ec(curve, &x, &y)),
                CKR_PUBLIC_KEY_INVALID,
                "{curve:?} {what}"
            );
        }
        let other = Curve::ALL.into_iter().find(|other| *other != curve).unwrap();
        assert_eq!(rv(PublicKey::ec(other, x, y)), CKR_PUBLIC_KEY_INVALID, "{other:?}");
    }
}

#[test]
fn encoded_points() {
    for curve in Curve::ALL {
        let key = PrivateKey::generate_ec(curve).unwrap().public();
        let (bare, der) = (key.subject_public_key_bits(), key.ec_point_der().unwrap());
        assert_eq!(bare.len(), 1 + 2 * curve.field_bytes());
        assert_eq!(der.len(), bare.len() + if curve == Curve::P521 { 3 } else { 2 });
        for (what, point, expected) in [
            ("bare", bare.clone(), CKR_OK),
            ("DER", der.clone(), CKR_OK),
            ("empty", vec![], CKR_PUBLIC_KEY_INVALID),
            ("infinity", vec![0], CKR_PUBLIC_KEY_INVALID),
            ("compressed", [&[2], &bare[1..=curve.field_bytes()]].concat(), CKR_PUBLIC_KEY_INVALID),
            ("hybrid", [&[6], &bare[1..]].concat(), CKR_PUBLIC_KEY_INVALID),
            ("a byte short", bare[..bare.len() - 1].to_vec(), CKR_PUBLIC_KEY_INVALID),
            ("a byte long", [&bare[..], &[0]].concat(), CKR_PUBLIC_KEY_INVALID),
            ("DER and a byte", [&der[..], &[0]].concat(), CKR_PUBLIC_KEY_INVALID),
        ] {
            let got = PublicKey::from_ec_point(curve, &point);
            assert!(got.as_ref().map_or(true, |got| *got == key), "{curve:?}, {what}");
            assert_eq!(rv(got), expected, "{curve:?}, {what}");
        }
    }
}

#[test]
fn private_values() {
    for curve in Curve::ALL {
        let group = EcGroup::from_curve_name(nid(curve)).unwrap();
        let mut order = BigNum::new().unwrap();
        group.order(&mut order, &mut BigNumContext::new().unwrap()).unwrap();
        let mut last = order.to_owned().unwrap();
        last.sub_word(1).unwrap();
        let random = EcKey::generate(&group).unwrap().private_key().to_vec();
        let full = |d: &BigNum| d.to_vec_padded(curve.field_bytes() as i32).unwrap();
        for (what, d) in [
            ("1", vec![1]),
            ("2 with leading zeros", [vec![0; 80], vec![2]].concat()),
            ("random", random),
            ("order - 1", full(&last)),
        ] {
            let key = PrivateKey::from_ec(curve, &d).unwrap();
            let d = BigNum::from_slice(&d).unwrap();
            let mut point = EcPoint::new(&group).unwrap();
            let mut context = BigNumContext::new().unwrap();
            point.mul_generator2(&group, &d, &mut context).unwrap();
            let expected = EcKey::from_public_key(&group, &point).unwrap();
            assert_eq!(
                key.public().spki_der(),
                expected.public_key_to_der().unwrap(),
                "{curve:?}, {what}"
            );
            assert_eq!(*key.ec_secret().unwrap(), full(&d), "{curve:?}, {what}");
            let digest = bytes(32);
            let signature = key.sign_ecdsa(&digest).unwrap();
            assert_eq!(rv(key.public().verify_ecdsa(&digest, &signature)), CKR_OK);
        }
        for (what, d) in [
            ("empty", vec![]),
            ("0", vec![0; curve.field_bytes()]),
            ("the order", full(&order)),
            ("all ff", vec![0xff; curve.field_bytes()]),
            ("too long", vec![1; curve.field_bytes() + 1]),
        ] {
            let got = rv(PrivateKey::from_ec(curve, &d));
            assert_eq!(got, CKR_ATTRIBUTE_VALUE_INVALID, "{curve:?}, {what}");
        }
    }
}

#[test]
fn pkcs8_goes_both_ways() {
    for curve in Curve::ALL {
        let ours = PrivateKey::generate_ec(curve).unwrap();
        let theirs = PKey::private_key_from_pkcs8(&ours.pkcs8_der().unwrap()).unwrap();
        assert_eq!(theirs.public_key_to_der().unwrap(), ours.public().spki_der());
        let back = PrivateKey::from_pkcs8(&theirs.private_key_to_pkcs8().unwrap()).unwrap();
        assert_eq!(back.public(), ours.public());
        assert_eq!(back.ec_secret().unwrap(), ours.ec_secret().unwrap());
        let der = ours.pkcs8_der().unwrap();
        for bit in 0..der.len() * 8 {
            let mut changed = der.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Refused, or a key whose halves belong together; never a panic.
            if let Ok(key) = PrivateKey::from_pkcs8(&changed) {
                let signature = key.sign_ecdsa(&[7; 32]).unwrap();
                assert_eq!(rv(key.public().verify_ecdsa(&[7; 32], &signature)), CKR_OK, "{bit}");
            }
        }
        assert_eq!(format!("{back:?}"), format!("PrivateKey({})", curve.name()));
    }
    let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let rsa = PrivateKey::from_pkcs8(&rsa.private_key_to_pkcs8().unwrap()).unwrap();
    assert_eq!(rv(rsa.ec_secret()), CKR_KEY_TYPE_INCONSISTENT);
    assert_eq!(rv(rsa.sign_ecdsa(&[1; 32])), CKR_KEY_TYPE_INCONSISTENT);
    assert_eq!(rv(rsa.public().verify_ecdsa(&[1; 32], &[1; 64])), CKR_KEY_TYPE_INCONSISTENT);
}

/// The prime of the curve's field.
fn prime(curve: Curve) -> BigNum {
    let group = EcGroup::from_curve_name(nid(curve)).unwrap();
    let [mut p, mut a, mut b] = [(); 3].map(|()| BigNum::new().unwrap());
    let mut context = BigNumContext::new().unwrap();
    group.components_gfp(&mut p, &mut a, &mut b, &mut context).unwrap();
    p
}
