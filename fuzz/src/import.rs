//! What comes encoded from the service or from a client: PKCS#12, PKCS#8, certificates, public keys,
//! curves, tags. The first byte says which.

use akv_pkcs11::{
    crypto::{Curve, PrivateKey, PublicKey, RsaInput, pkcs12},
    object::{certificate::Certificate, tag::Tag},
};

use crate::Seed;

macro_rules! readers {
    ($($name:ident)*) => {
        const READERS: &[(&str, fn(&[u8]))] = &[$((stringify!($name), $name)),*];
    };
}

readers! { files certificates pem private public_keys points curves tags rsa }

/// The first byte chooses the reader, the rest is read.
pub fn run(input: &[u8]) {
    if let Some((first, rest)) = input.split_first()
        && let Some((_, read)) = READERS.get(usize::from(*first))
    {
        read(rest);
    }
}

/// A PKCS#12 file.
fn files(file: &[u8]) {
    for der in pkcs12::certificates(file).unwrap_or_default() {
        certificates(&der);
    }
}

fn certificates(der: &[u8]) {
    let Ok(certificate) = Certificate::parse(der) else {
        return;
    };
    assert_eq!(certificate.der, der);
    let (first, last) = &certificate.validity;
    assert!([first, last].iter().all(|day| day.len() == 8), "{first}, {last}");
    let pem = certificate.to_pem().expect("what was parsed can be encoded");
    let again = Certificate::parse_pem(pem.as_bytes()).expect("and read again");
    assert_eq!(again.len(), 1);
    certificate.object(true, &certificate.common_name, &certificate.key_id, None);
    if let Some(public) = certificate.public_key() {
        same(&public);
    }
}

fn pem(text: &[u8]) {
    for certificate in Certificate::parse_pem(text).unwrap_or_default() {
        certificates(&certificate.der);
        let stored = certificate.to_pem().expect("what was parsed can be encoded");
        let again = Certificate::parse_pem(stored.as_bytes()).expect("and read again");
        assert_eq!(again[0].given, certificate.given);
    }
}

/// A PrivateKeyInfo, as C_UnwrapKey finds it.
fn private(der: &[u8]) {
    let Ok(key) = PrivateKey::from_pkcs8(der) else {
        return;
    };
    let written = key.pkcs8_der().expect("what was read can be written");
    let again = PrivateKey::from_pkcs8(&written).expect("and read again");
    assert!(key.public() == again.public());
    same(&key.public());
    if let Some(curve) = key.public().curve() {
        let secret = key.ec_secret().expect("an EC key");
        let again = PrivateKey::from_ec(curve, &secret).expect("its value is a key");
        assert!(key.public() == again.public());
    }
}

fn public_keys(der: &[u8]) {
    if let Ok(public) = PublicKey::from_spki_der(der) {
        same(&public);
    }
}

/// A public key is what its encoding says.
fn same(public: &PublicKey) {
    let again = PublicKey::from_spki_der(&public.spki_der()).expect("what was written is read");
    assert!(again == *public && again.key_id() == public.key_id());
    assert!(public.is_rsa() != public.curve().is_some());
}

/// A CKA_EC_POINT on each curve.
fn points(point: &[u8]) {
    for curve in Curve::ALL {
        if let Ok(public) = PublicKey::from_ec_point(curve, point) {
            same(&public);
            let (x, y) = public.coordinates().expect("a point");
            assert!(PublicKey::ec(curve, x, y).expect("the same point") == public);
            let der = public.ec_point_der().expect("a point");
            assert!(PublicKey::from_ec_point(curve, &der).expect("its encoding") == public);
        }
    }
}

/// CKA_EC_PARAMS.
fn curves(params: &[u8]) {
    if let Ok(curve) = Curve::from_params(params) {
        let written = curve.params_der();
        assert_eq!(Curve::from_params(&written).expect("its own encoding"), curve);
    }
}

/// The value of the module's tag on a key.
fn tags(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let tag = Tag::parse(text);
    if let Some(value) = tag.to_value() {
        let again = Tag::parse(&value);
        // Nothing and an empty text are the same to a reader.
        let plain = |tag: &Tag| (tag.label.clone().unwrap_or_default(), tag.id.clone(), tag.size);
        assert_eq!(plain(&again), plain(&tag), "{value}");
        assert_eq!((again.lost, again.to_value()), (tag.lost, Some(value)));
    }
}

/// Integers of an RSA key, each with its length in two bytes: n, e, d and, where they are there, p
/// and q.
fn rsa(mut rest: &[u8]) {
    let mut next = || -> Option<&[u8]> {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
        rest = after;
        Some(value)
    };
    let (Some(n), Some(e)) = (next(), next()) else {
        return;
    };
    if let Ok(public) = PublicKey::rsa(n, e) {
        same(&public);
    }
    let Some(d) = next() else {
        return;
    };
    let input = RsaInput { n, e, d, p: next(), q: next(), ..RsaInput::default() };
    if let Ok(key) = PrivateKey::from_rsa_components(input) {
        private(&key.pkcs8_der().expect("a key can be written"));
    }
}

/// Samples made by OpenSSL, as they are.
pub fn seeds() -> Vec<Seed> {
    let ec = PrivateKey::from_pkcs8(EC).expect("the sample").public();
    let rsa = PrivateKey::from_pkcs8(RSA).expect("the sample");
    let spki = rsa.public().spki_der();
    let integers = rsa.rsa_components().expect("an RSA key");
    let integers: [&[u8]; 5] = [&integers.n, &integers.e, &integers.d, &integers.p, &integers.q];
    let with_lengths = |count: usize| -> Vec<u8> {
        let parts = integers[..count].iter();
        parts.flat_map(|part| [&(part.len() as u16).to_be_bytes(), *part].concat()).collect()
    };
    let certificate = Certificate::parse(CERTIFICATE).expect("the sample").to_pem().expect("PEM");
    let params = Curve::ALL.map(|curve| (curve.name(), curve.params_der()));
    let of = |reader: &str, name: &str, input: &[u8]| {
        let at = READERS.iter().position(|(found, _)| *found == reader).expect("a reader");
        Seed::new(format!("{reader}-{name}"), [&[at as u8], input].concat())
    };
    let mut seeds = vec![
        of("files", "plain", include_bytes!("../samples/plain.p12")),
        of("files", "pbes2", include_bytes!("../samples/pbes2.p12")),
        of("files", "3des", include_bytes!("../samples/3des.p12")),
        of("files", "rc2", include_bytes!("../samples/rc2.p12")),
        of("certificates", "ec", CERTIFICATE),
        of("pem", "ec", format!("CKA_LABEL: a%20b\nCKA_ID: 0a\n{certificate}").as_bytes()),
        of("private", "ec", EC),
        of("private", "rsa", RSA),
        of("public_keys", "ec", &ec.spki_der()),
        of("public_keys", "rsa", &spki),
        of("points", "der", &ec.ec_point_der().expect("a point")),
        of("points", "bare", &ec.subject_public_key_bits()),
        of("tags", "all", b"l=a%C3%BC;i=0a0b;s=256;r=0102030405060708;x=1"),
        of("rsa", "public", &with_lengths(2)),
        of("rsa", "exponents", &with_lengths(3)),
        of("rsa", "primes", &with_lengths(5)),
    ];
    seeds.extend(params.iter().map(|(name, der)| of("curves", name, der)));
    seeds
}

/// An RSA key of 2048 bits, PKCS#8 in DER (`openssl genpkey`).
pub const RSA: &[u8] = include_bytes!("../samples/rsa.p8");
/// A key on P-256, PKCS#8 in DER.
pub const EC: &[u8] = include_bytes!("../samples/ec.p8");
/// The certificate that [`EC`] signed for itself, in DER.
pub const CERTIFICATE: &[u8] = include_bytes!("../samples/certificate.der");
