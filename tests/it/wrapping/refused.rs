//! What C_WrapKey and C_UnwrapKey refuse, with which code, and that the service is not asked for it.

use cryptoki_sys::*;

use super::{ALL, key_wrap, oaep, secret, sized, template, with_iv};
use crate::{
    messages::Gcm,
    service::{Emulator, HSM, VAULT},
    token::{Mechanism, Module, Template, bytes, flag, number},
};

#[test]
fn what_cannot_be_wrapped_is_refused_with_its_code() {
    let emulator = Emulator::start(
        "keys = [{ name = 'aes', kty = 'oct-HSM', size = 128, ops = ['wrapKey', 'unwrapKey'] },
                 { name = 'used', kty = 'oct-HSM', size = 128, ops = ['encrypt', 'decrypt'] },
                 { name = 'rsa', kty = 'RSA', size = 2048 }]",
    );
    let module = Module::start(&emulator.token(HSM, &format!("{ALL}max_aes_payload = 64\n")));
    let s = module.open(0);
    let (aes, used) = (s.object(CKO_SECRET_KEY, "aes"), s.object(CKO_SECRET_KEY, "used"));
    let (private, public) = s.pair("rsa");
    let kek = secret(&s, CKK_AES, &[1; 16], vec![]);
    let no_wrap = secret(&s, CKK_AES, &[1; 16], vec![flag(CKA_WRAP, false)]);
    let generic = secret(&s, CKK_GENERIC_SECRET, &[2; 40], vec![]);
    let odd = secret(&s, CKK_GENERIC_SECRET, &[2; 41], vec![]);
    let long = secret(&s, CKK_GENERIC_SECRET, &[2; 300], vec![]);
    let closed = secret(&s, CKK_AES, &[3; 16], vec![flag(CKA_EXTRACTABLE, false)]);
    let only_trusted = secret(&s, CKK_AES, &[3; 16], vec![flag(CKA_WRAP_WITH_TRUSTED, true)]);
    let generated = s
        .generate_key(&Mechanism::plain(CKM_AES_KEY_GEN), &[number(CKA_VALUE_LEN, 16)])
        .expect("AES");
    let kw = Mechanism::plain(CKM_AES_KEY_WRAP);
    let kwp = Mechanism::plain(CKM_AES_KEY_WRAP_KWP);
    emulator.reset();
    for (m, wrapping, key, wanted) in [
        (&kw, kek, aes, CKR_KEY_UNEXTRACTABLE),
        (&kwp, kek, private, CKR_KEY_UNEXTRACTABLE),
        (&kw, kek, closed, CKR_KEY_UNEXTRACTABLE),
        (&kw, kek, generated, CKR_KEY_UNEXTRACTABLE),
        (&kw, kek, public, CKR_KEY_NOT_WRAPPABLE),
        (&kw, kek, only_trusted, CKR_KEY_NOT_WRAPPABLE),
        (&kw, kek, odd, CKR_KEY_SIZE_RANGE),
        (&kw, aes, odd, CKR_KEY_SIZE_RANGE),
        (&kw, aes, long, CKR_KEY_SIZE_RANGE),
        (&oaep(false), public, long, CKR_KEY_SIZE_RANGE),
        (&Mechanism::plain(CKM_RSA_PKCS), public, long, CKR_KEY_SIZE_RANGE),
        (&kw, no_wrap, generic, CKR_KEY_FUNCTION_NOT_PERMITTED),
        (&kw, used, generic, CKR_KEY_FUNCTION_NOT_PERMITTED),
        (&kw, public, generic, CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
        (&oaep(true), private, generic, CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
        (&oaep(true), kek, generic, CKR_WRAPPING_KEY_TYPE_INCONSISTENT),
        (&kw, 0, generic, CKR_WRAPPING_KEY_HANDLE_INVALID),
        (&kw, kek, 0, CKR_KEY_HANDLE_INVALID),
        (&with_iv(CKM_AES_KEY_WRAP), kek, generic, CKR_MECHANISM_PARAM_INVALID),
        (&Mechanism::plain(CKM_AES_CBC), kek, generic, CKR_MECHANISM_PARAM_INVALID),
        (&with_iv(CKM_AES_CBC), aes, generic, CKR_MECHANISM_INVALID),
        (&Mechanism::plain(CKM_AES_ECB), kek, generic, CKR_MECHANISM_INVALID),
        (&Mechanism::plain(CKM_SHA256), kek, generic, CKR_MECHANISM_INVALID),
    ] {
        let refused = s.wrap(m, wrapping, key);
        assert_eq!(refused, Err(wanted), "{m:?} with {wrapping} of {key}");
    }
    let mut counter = Gcm::new(CKG_GENERATE_COUNTER);
    let refused = s.wrap_authenticated(&mut counter, aes, generic, b"");
    assert_eq!(refused, Err(CKR_MECHANISM_PARAM_INVALID), "the service makes all of the IV");
    assert_eq!(s.set(generic, &[flag(CKA_WRAP_WITH_TRUSTED, true)]), Ok(()));
    let refused = s.set(generic, &[flag(CKA_WRAP_WITH_TRUSTED, false)]);
    assert_eq!(refused, Err(CKR_ATTRIBUTE_READ_ONLY), "never again false");
    assert_eq!(s.wrap(&kw, kek, generic), Err(CKR_KEY_NOT_WRAPPABLE));
    assert_eq!(emulator.requests(HSM), 0);
}

#[test]
fn what_cannot_be_unwrapped_is_refused_with_its_code() {
    let emulator = Emulator::start("keys = [{ name = 'rsa', kty = 'RSA', size = 2048 }]");
    let module = Module::start(&emulator.token(VAULT, ALL));
    let s = module.open(0);
    let (private, public) = s.pair("rsa");
    let kek = secret(&s, CKK_AES, &[1; 16], vec![]);
    let no_unwrap = secret(&s, CKK_AES, &[1; 16], vec![flag(CKA_UNWRAP, false)]);
    let kwp = Mechanism::plain(CKM_AES_KEY_WRAP_KWP);
    let wrapped = key_wrap(&[1; 16], true, true, &[5; 24]);
    let seventeen = key_wrap(&[1; 16], true, true, &[5; 17]);
    let aes = template(CKK_AES);
    let with = |more: Template| [aes.clone(), more].concat();
    let pair = vec![number(CKA_CLASS, CKO_PRIVATE_KEY), number(CKA_KEY_TYPE, CKK_RSA)];
    let certificate = vec![number(CKA_CLASS, CKO_CERTIFICATE)];
    let sha384 = Mechanism::oaep(CKM_SHA384, CKG_MGF1_SHA384);
    emulator.reset();
    for (m, key, wrapped, template, wanted) in [
        (&kwp, kek, &wrapped[..], vec![], CKR_TEMPLATE_INCOMPLETE),
        (&kwp, kek, &wrapped, vec![aes[0].clone()], CKR_TEMPLATE_INCOMPLETE),
        (&kwp, kek, &wrapped, template(CKK_DES3), CKR_ATTRIBUTE_VALUE_INVALID),
        (&kwp, kek, &wrapped, with(vec![bytes(CKA_VALUE, "x")]), CKR_TEMPLATE_INCONSISTENT),
        (&kwp, kek, &wrapped, with(vec![flag(CKA_TOKEN, true)]), CKR_TEMPLATE_INCONSISTENT),
        (&kwp, kek, &wrapped, with(vec![flag(CKA_LOCAL, true)]), CKR_ATTRIBUTE_READ_ONLY),
        (&kwp, kek, &wrapped, with(vec![flag(CKA_TRUSTED, true)]), CKR_TEMPLATE_INCONSISTENT),
        (&kwp, kek, &wrapped, certificate, CKR_TEMPLATE_INCONSISTENT),
        (&kwp, kek, &wrapped, sized(CKK_AES, 16), CKR_WRAPPED_KEY_LEN_RANGE),
        (&kwp, kek, &seventeen, aes.clone(), CKR_WRAPPED_KEY_LEN_RANGE),
        (&kwp, kek, &wrapped, pair.clone(), CKR_WRAPPED_KEY_INVALID),
        (&kwp, kek, &[7; 24], aes.clone(), CKR_WRAPPED_KEY_INVALID),
        (&kwp, kek, &wrapped[1..], aes.clone(), CKR_WRAPPED_KEY_LEN_RANGE),
        (&kwp, kek, &[], aes.clone(), CKR_WRAPPED_KEY_LEN_RANGE),
        (&with_iv(CKM_AES_CBC_PAD), kek, &[7; 32], aes.clone(), CKR_WRAPPED_KEY_INVALID),
        (&with_iv(CKM_AES_CBC_PAD), kek, &[7; 31], aes.clone(), CKR_WRAPPED_KEY_LEN_RANGE),
        (&with_iv(CKM_AES_CBC), kek, &[7; 16], pair.clone(), CKR_TEMPLATE_INCONSISTENT),
        (&kwp, no_unwrap, &wrapped, aes.clone(), CKR_KEY_FUNCTION_NOT_PERMITTED),
        (&kwp, private, &wrapped, aes.clone(), CKR_MECHANISM_INVALID),
        (&oaep(true), public, &[7; 256], aes.clone(), CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT),
        (&oaep(true), kek, &[7; 256], aes.clone(), CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT),
        (&oaep(true), 0, &[7; 256], aes.clone(), CKR_UNWRAPPING_KEY_HANDLE_INVALID),
        (&oaep(true), private, &[7; 255], aes.clone(), CKR_WRAPPED_KEY_LEN_RANGE),
        (&sha384, private, &[7; 256], aes.clone(), CKR_MECHANISM_PARAM_INVALID),
    ] {
        let refused = s.unwrap(m, key, wrapped, &template);
        assert_eq!(refused, Err(wanted), "{m:?} with {key}, {template:?}");
    }
    assert_eq!(emulator.requests(VAULT), 0);
    let refused = s.unwrap(&oaep(true), private, &[7; 256], &aes);
    assert_eq!(refused, Err(CKR_WRAPPED_KEY_INVALID), "the service was asked");
    let mut gcm = Gcm::new(CKG_NO_GENERATE);
    for (wrapped, wanted) in
        [(&[7; 16][..], CKR_WRAPPED_KEY_INVALID), (&[], CKR_WRAPPED_KEY_LEN_RANGE)]
    {
        assert_eq!(s.unwrap_authenticated(&mut gcm, kek, wrapped, &aes, b""), Err(wanted));
    }
    let read_only = module.open_with(0, CKF_SERIAL_SESSION).expect("C_OpenSession");
    let token = with(vec![flag(CKA_TOKEN, true)]);
    assert_eq!(read_only.unwrap(&kwp, kek, &wrapped, &token), Err(CKR_SESSION_READ_ONLY));
}
