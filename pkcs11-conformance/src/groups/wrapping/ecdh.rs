//! CKM_ECDH1_DERIVE.

use cryptoki_sys::*;
use openssl::{
    derive::Deriver,
    pkey::{PKey, Private, Public},
};

use crate::{
    case::{Outcome, ensure, skip},
    client::{flag, number},
    context::{Context, need},
    mechanism::{HASHES, Hash, Mechanism},
    names,
    oracle::{self, CURVES},
    samples::broken,
};

/// The key derivation functions of X9.63, each with its hash.
const KDFS: [(CK_EC_KDF_TYPE, Option<&Hash>); 9] = [
    (CKD_NULL, None),
    (CKD_SHA1_KDF, Some(&HASHES[0])),
    (CKD_SHA224_KDF, Some(&HASHES[1])),
    (CKD_SHA256_KDF, Some(&HASHES[2])),
    (CKD_SHA384_KDF, Some(&HASHES[3])),
    (CKD_SHA512_KDF, Some(&HASHES[4])),
    (CKD_SHA3_256_KDF, Some(&HASHES[6])),
    (CKD_SHA3_384_KDF, Some(&HASHES[7])),
    (CKD_SHA3_512_KDF, Some(&HASHES[8])),
];

const SHARED: &[u8] = b"shared";

/// The secret of two keys, by OpenSSL.
fn secret(own: &PKey<Private>, theirs: &PKey<Public>) -> Outcome<Vec<u8>> {
    let mut deriver = Deriver::new(own).map_err(broken)?;
    deriver.set_peer(theirs).map_err(broken)?;
    deriver.derive_to_vec().map_err(broken)
}

pub fn derives(context: &mut Context) -> Outcome {
    let offered = context.offered(CKF_DERIVE)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_ECDH1_DERIVE) {
        return skip("CKM_ECDH1_DERIVE is not offered");
    }
    for curve in CURVES {
        let session = context.user()?;
        let public = vec![(CKA_TOKEN, flag(false)), (CKA_EC_PARAMS, curve.oid.to_vec())];
        let private =
            vec![(CKA_TOKEN, flag(false)), (CKA_DERIVE, flag(true)), (CKA_SIGN, flag(true))];
        let pair = Mechanism::plain(CKM_EC_KEY_PAIR_GEN);
        let Ok((public, private)) = session.generate_pair(&pair, &public, &private) else {
            context.each(curve.name, |_| skip("no key on this curve can be made"));
            continue;
        };
        let point = need(session.value(public, CKA_EC_POINT), "CKA_EC_POINT")?;
        let theirs = oracle::ec_public(curve, &point).map_err(broken)?;
        let own = oracle::ec_pair(curve).map_err(broken)?;
        let shared = secret(&own, &theirs)?;
        let point = oracle::ec_point(&own).map_err(broken)?;
        // The point bare, which every version allows, and in DER, which it may (6.3.16).
        let bare = &point[point.len() - 1 - 2 * curve.size()..];
        for (kdf, hash) in KDFS {
            for (form, point) in [("bare", bare), ("DER", &point)] {
                let of = hash.map_or("no KDF", |hash| hash.name);
                context.each(format!("{}, {of}, {form}", curve.name), |_| {
                    let (wanted, data) = match hash {
                        None => (shared.clone(), &b""[..]),
                        Some(hash) => {
                            (hash.digest(&[&shared, &[0, 0, 0, 1][..], SHARED].concat()), SHARED)
                        }
                    };
                    let template = vec![
                        (CKA_CLASS, number(CKO_SECRET_KEY)),
                        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
                        (CKA_TOKEN, flag(false)),
                        (CKA_SENSITIVE, flag(false)),
                        (CKA_EXTRACTABLE, flag(true)),
                        (CKA_VALUE_LEN, number(wanted.len() as CK_ULONG)),
                    ];
                    let mechanism = Mechanism::ecdh(kdf, data, point);
                    let key = match session.derive(&mechanism, private, &template) {
                        Err(rv @ CKR_MECHANISM_PARAM_INVALID)
                            if form == "DER" || hash.is_some() =>
                        {
                            return skip(names::rv(rv));
                        }
                        key => need(key, "C_DeriveKey")?,
                    };
                    let told = session.value(key, CKA_VALUE);
                    ensure(told == Ok(wanted), || "another secret".to_owned())
                });
            }
        }
    }
    Ok(())
}
