//! Private keys under a secret key: PKCS #8 (6.7).

use cryptoki_sys::*;
use openssl::pkey::PKey;

use super::{super::imports, Wrap, Wrapper};
use crate::{
    case::{Outcome, ensure, skip},
    client::{Family, Session, flag, number},
    context::need,
    mechanism::{Mechanism, Mode},
    names, oracle,
    samples::broken,
};

/// Only what keeps any length of a key.
fn pads(wrapper: &Wrapper) -> Outcome {
    match wrapper.wrap {
        Wrap::Aes(Mode::CbcPad | Mode::Kwp) => Ok(()),
        _ => skip("the mechanism does not take any length of data"),
    }
}

pub fn wraps(session: Session, wrapper: &Wrapper) -> Outcome {
    pads(wrapper)?;
    let own = imports::own_rsa()?.rsa().map_err(broken)?;
    let uses = [(CKA_SIGN, true), (CKA_EXTRACTABLE, true), (CKA_SENSITIVE, true)];
    let key = match session.create(&imports::rsa_private(&own, &uses)) {
        Ok(key) => key,
        Err(rv) => return skip(format!("no private key can be imported: {}", names::rv(rv))),
    };
    let out = session.wrap_in(&wrapper.mechanism, wrapper.handle, key, crate::client::PLENTY);
    if out.rv == CKR_KEY_NOT_WRAPPABLE {
        return skip("CKR_KEY_NOT_WRAPPABLE");
    }
    let wrapped = need(out.result(), "C_WrapKey")?;
    let told = wrapper.open(&wrapped)?;
    let told = PKey::private_key_from_pkcs8(&told).and_then(|key| key.rsa()).map_err(broken)?;
    ensure(told.n() == own.n() && told.d() == own.d(), || "another key is wrapped".to_owned())
}

pub fn unwraps(session: Session, wrapper: &Wrapper) -> Outcome {
    pads(wrapper)?;
    let own = imports::own_rsa()?;
    let wrapped = wrapper.seal(&own.private_key_to_pkcs8().map_err(broken)?)?;
    let template = vec![
        (CKA_CLASS, number(CKO_PRIVATE_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_TOKEN, flag(false)),
        (CKA_SIGN, flag(true)),
    ];
    let key = session.unwrap(&wrapper.mechanism, wrapper.handle, &wrapped, &template);
    let key = need(key, "C_UnwrapKey")?;
    let mechanism = Mechanism::plain(CKM_RSA_PKCS);
    let sig = need(session.run(Family::Sign, &mechanism, key, b"data"), "C_Sign")?;
    let rsa = own.rsa().map_err(broken)?;
    let public = oracle::rsa_public(&rsa.n().to_vec(), &rsa.e().to_vec()).map_err(broken)?;
    let told = oracle::pkcs1_recover(&public, &sig).map_err(broken)?;
    ensure(told == b"data", || "the key signs something else".to_owned())
}
