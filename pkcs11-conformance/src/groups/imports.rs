//! Keys whose values are known here, as templates of session objects.

use std::sync::OnceLock;

use cryptoki_sys::*;
use openssl::{
    bn::BigNumRef,
    pkey::{PKey, Private},
    rsa::Rsa,
};

use crate::{
    case::{Outcome, skip},
    client::{Session, Template, flag, number},
    names,
    oracle::{self, Curve},
    samples::broken,
};

fn key(class: CK_OBJECT_CLASS, key_type: CK_KEY_TYPE, more: Template) -> Template {
    let mut template = vec![
        (CKA_CLASS, number(class)),
        (CKA_KEY_TYPE, number(key_type)),
        (CKA_TOKEN, flag(false)),
    ];
    template.extend(more);
    template
}

/// A public key that verifies and encrypts. Zeros before the numbers are left out.
pub fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Template {
    let bare = |bytes: &[u8]| bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    let more = vec![
        (CKA_VERIFY, flag(true)),
        (CKA_ENCRYPT, flag(true)),
        (CKA_MODULUS, bare(modulus)),
        (CKA_PUBLIC_EXPONENT, bare(exponent)),
    ];
    key(CKO_PUBLIC_KEY, CKK_RSA, more)
}

/// A public key nobody has the private one of.
pub fn rsa_nobody() -> Template {
    rsa_public(&[0xc5; 256], &[1, 0, 1])
}

/// A public key that verifies.
pub fn ec_public(curve: &Curve, point: Vec<u8>) -> Template {
    let more =
        vec![(CKA_VERIFY, flag(true)), (CKA_EC_PARAMS, curve.oid.to_vec()), (CKA_EC_POINT, point)];
    key(CKO_PUBLIC_KEY, CKK_EC, more)
}

/// A private key with all it is computed with, and what it may be used for.
pub fn rsa_private(of: &Rsa<Private>, uses: &[(CK_ATTRIBUTE_TYPE, bool)]) -> Template {
    let mut more: Template = uses.iter().map(|(kind, on)| (*kind, flag(*on))).collect();
    let parts: [(CK_ATTRIBUTE_TYPE, Option<&BigNumRef>); 8] = [
        (CKA_MODULUS, Some(of.n())),
        (CKA_PUBLIC_EXPONENT, Some(of.e())),
        (CKA_PRIVATE_EXPONENT, Some(of.d())),
        (CKA_PRIME_1, of.p()),
        (CKA_PRIME_2, of.q()),
        (CKA_EXPONENT_1, of.dmp1()),
        (CKA_EXPONENT_2, of.dmq1()),
        (CKA_COEFFICIENT, of.iqmp()),
    ];
    more.extend(parts.into_iter().filter_map(|(kind, part)| Some((kind, part?.to_vec()))));
    key(CKO_PRIVATE_KEY, CKK_RSA, more)
}

/// An RSA key pair of OpenSSL's of 2048 bits, made once: that takes its time.
pub fn own_rsa() -> Outcome<&'static PKey<Private>> {
    static OWN: OnceLock<PKey<Private>> = OnceLock::new();
    match OWN.get() {
        Some(own) => Ok(own),
        None => {
            let made = Rsa::generate(2048).and_then(PKey::from_rsa).map_err(broken)?;
            Ok(OWN.get_or_init(|| made))
        }
    }
}

/// The public half of a pair of OpenSSL's as a session object.
pub fn imported(
    session: Session,
    pair: &PKey<Private>,
    curve: Option<&Curve>,
) -> Outcome<CK_OBJECT_HANDLE> {
    let template = match curve {
        Some(curve) => ec_public(curve, oracle::ec_point(pair).map_err(broken)?),
        None => {
            let rsa = pair.rsa().map_err(broken)?;
            rsa_public(&rsa.n().to_vec(), &rsa.e().to_vec())
        }
    };
    match session.create(&template) {
        Ok(object) => Ok(object),
        Err(rv) => skip(format!("a public key cannot be imported: {}", names::rv(rv))),
    }
}
