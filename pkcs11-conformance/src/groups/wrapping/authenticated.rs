//! C_WrapKeyAuthenticated and C_UnwrapKeyAuthenticated, with CKM_AES_GCM.

use std::cell::RefCell;

use cryptoki_sys::*;

use super::{
    super::protocol::{Protocol, nothing},
    Wrap, Wrapper, unwrapped, wrapped_key, wrapper,
};
use crate::{
    case::{Outcome, ensure, fail, skip},
    client::{Output, Rv, Session, Template, check},
    context::{Context, is, need, one_of},
    ffi::{address_mut, attribute, length, place, read, write},
    functions::Function::*,
    keys::value,
    mechanism::{IV, Mechanism, Mode},
    oracle::aes::{self, Setting},
    samples::broken,
};

const AAD: &[u8] = b"aad";

/// CK_GCM_MESSAGE_PARAMS over IV and tag, which the module may write.
fn gcm(iv: &mut [u8], tag: &mut [u8], generator: CK_ULONG) -> Mechanism {
    let (iv_size, tag_bits) = (iv.len(), 8 * tag.len());
    let words = [address_mut(iv), iv_size, 0, generator as usize, address_mut(tag), tag_bits];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    Mechanism::bytes(CKM_AES_GCM, &bytes)
}

/// A wrapping key of the session, where the mechanism is offered for the use.
fn key(context: &mut Context, use_: CK_FLAGS) -> Outcome<(Session, Wrapper)> {
    if !context.offered(use_)?.iter().any(|(kind, _)| *kind == CKM_AES_GCM) {
        return skip("CKM_AES_GCM is not offered for it");
    }
    let session = context.user()?;
    Ok((session, wrapper(session, CKM_AES_GCM, Wrap::Aes(Mode::Gcm), use_, true)?))
}

pub fn wraps(context: &mut Context) -> Outcome {
    context.needs(C_WrapKeyAuthenticated)?;
    let (session, under) = key(context, CKF_WRAP)?;
    let key = wrapped_key(session, true)?;
    let (iv, tag) = (RefCell::new([0; 12]), RefCell::new([0; 16]));
    let call = |room| {
        let (mut iv, mut tag) = (iv.borrow_mut(), tag.borrow_mut());
        let mechanism = gcm(&mut *iv, &mut *tag, CKG_GENERATE);
        let handle = under.handle;
        Output::of(room, |out, size| {
            mechanism.with(|raw| {
                let aad = (read(AAD), length(AAD));
                let args = [raw, handle.into(), key.into(), aad.0, aad.1, out, size];
                session.call(C_WrapKeyAuthenticated, &args)
            })
        })
    };
    if call(crate::client::PLENTY).rv == CKR_FUNCTION_NOT_SUPPORTED {
        return skip("not supported");
    }
    let then = |wrapped: &[u8]| {
        let (iv, tag) = (iv.borrow(), tag.borrow());
        let setting = Setting { iv: &*iv, aad: AAD, tag: 16 };
        match aes::open(Mode::Gcm, &under.value, setting, &[wrapped, &tag[..]].concat()) {
            Ok(told) => ensure(told == value(24), || "OpenSSL unwraps another value".to_owned()),
            Err(_) => fail("OpenSSL refuses the wrapped key"),
        }
    };
    Protocol { begin: &nothing, call: &call, then: &then, exact: true }.holds()
}

fn unwrap(
    session: Session,
    under: &Wrapper,
    (iv, tag): (&mut [u8], &mut [u8]),
    wrapped: &[u8],
    mut template: Template,
    aad: &[u8],
) -> Rv<CK_OBJECT_HANDLE> {
    let mechanism = gcm(iv, tag, CKG_NO_GENERATE);
    let mut list: Vec<CK_ATTRIBUTE> =
        template.iter_mut().map(|(kind, value)| attribute(*kind, value)).collect();
    let (count, mut key) = (length(&list), CK_INVALID_HANDLE);
    let start = write(&mut list);
    check(mechanism.with(|raw| {
        let handle = under.handle.into();
        let (bytes, size) = (read(wrapped), length(wrapped));
        let (more, more_size) = (read(aad), length(aad));
        let args = [raw, handle, bytes, size, start, count, more, more_size, place(&mut key)];
        session.call(C_UnwrapKeyAuthenticated, &args)
    }))?;
    Ok(key)
}

pub fn unwraps(context: &mut Context) -> Outcome {
    context.needs(C_UnwrapKeyAuthenticated)?;
    let (session, under) = key(context, CKF_UNWRAP)?;
    let mut iv = IV[..12].to_vec();
    let setting = Setting { iv: &iv.clone(), aad: AAD, tag: 16 };
    let mut wrapped = aes::seal(Mode::Gcm, &under.value, setting, &value(24)).map_err(broken)?;
    let mut tag = wrapped.split_off(24);
    let template = || unwrapped(under.wrap);
    let key = match unwrap(session, &under, (&mut iv, &mut tag), &wrapped, template(), AAD) {
        Err(CKR_FUNCTION_NOT_SUPPORTED) => return skip("not supported"),
        key => need(key, "C_UnwrapKeyAuthenticated")?,
    };
    let told = session.value(key, CKA_VALUE);
    ensure(told == Ok(value(24)), || "the value is another".to_owned())?;
    let refused = [CKR_AEAD_DECRYPT_FAILED, CKR_WRAPPED_KEY_INVALID];
    let rv = unwrap(session, &under, (&mut iv, &mut tag), &wrapped, template(), b"other");
    one_of(rv, &refused, "other additional data")?;
    tag[0] ^= 1;
    let rv = unwrap(session, &under, (&mut iv, &mut tag), &wrapped, template(), AAD);
    one_of(rv, &refused, "another tag")?;
    tag[0] ^= 1;
    wrapped[5] ^= 1;
    let rv = unwrap(session, &under, (&mut iv, &mut tag), &wrapped, template(), AAD);
    one_of(rv, &refused, "another wrapped key")?;
    wrapped[5] ^= 1;
    let nobody = Wrapper { handle: super::NOBODY, ..under };
    let rv = unwrap(session, &nobody, (&mut iv, &mut tag), &wrapped, unwrapped(nobody.wrap), AAD);
    is(rv, CKR_UNWRAPPING_KEY_HANDLE_INVALID, "an unwrapping key that is none")
}
