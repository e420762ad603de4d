//! CKA_WRAP_TEMPLATE and CKA_UNWRAP_TEMPLATE: which keys a key wraps, and what it adds to those it
//! unwraps. Their values are templates, as C has them.

#![allow(unsafe_code)]

use std::ptr;

use cryptoki_sys::*;

use super::{ALL, secret, template};
use crate::{
    life::on_token,
    service::{Emulator, HSM},
    token::{Mechanism, Module, Rv, Session, Template, bytes, call, check, flag, number},
};

/// C_CreateObject with a template that is a value.
fn create(s: &Session<'_>, outer: &Template, kind: CK_ATTRIBUTE_TYPE, inner: &Template) -> Rv<u64> {
    let raw = |template: &Template| -> Vec<CK_ATTRIBUTE> {
        let entry = |(kind, value): &(CK_ATTRIBUTE_TYPE, Vec<u8>)| CK_ATTRIBUTE {
            type_: *kind,
            pValue: value.as_ptr().cast_mut().cast(),
            ulValueLen: value.len() as CK_ULONG,
        };
        template.iter().map(entry).collect()
    };
    let mut inside = raw(inner);
    let mut all = raw(outer);
    all.push(CK_ATTRIBUTE {
        type_: kind,
        pValue: inside.as_mut_ptr().cast(),
        ulValueLen: (inside.len() * size_of::<CK_ATTRIBUTE>()) as CK_ULONG,
    });
    let mut object = 0;
    let (start, count) = (all.as_mut_ptr(), all.len() as CK_ULONG);
    check(call!(s.module, C_CreateObject(s.handle, start, count, &raw mut object)))?;
    Ok(object)
}

/// C_GetAttributeValue of a template with two attributes: the lengths of their values, then the
/// values.
fn read(s: &Session<'_>, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Template {
    let empty = || CK_ATTRIBUTE { type_: 0, pValue: ptr::null_mut(), ulValueLen: 0 };
    let ask = |outer: &mut CK_ATTRIBUTE| {
        call!(s.module, C_GetAttributeValue(s.handle, object, &raw mut *outer, 1))
    };
    let mut outer = CK_ATTRIBUTE { type_: kind, ..empty() };
    assert_eq!(ask(&mut outer), CKR_OK);
    assert_eq!(outer.ulValueLen as usize, 2 * size_of::<CK_ATTRIBUTE>());
    let mut inner = [empty(), empty()];
    outer.pValue = inner.as_mut_ptr().cast();
    outer.ulValueLen -= 1;
    assert_eq!(ask(&mut outer), CKR_BUFFER_TOO_SMALL);
    outer.ulValueLen = size_of_val(&inner) as CK_ULONG;
    assert_eq!(ask(&mut outer), CKR_OK);
    let mut values: Vec<Vec<u8>> =
        inner.iter().map(|entry| vec![0; entry.ulValueLen as usize]).collect();
    for (entry, value) in inner.iter_mut().zip(&mut values) {
        entry.pValue = value.as_mut_ptr().cast();
    }
    inner[1].ulValueLen -= 1;
    assert_eq!(ask(&mut outer), CKR_BUFFER_TOO_SMALL);
    assert_eq!(inner[1].ulValueLen, CK_UNAVAILABLE_INFORMATION);
    outer.ulValueLen = size_of_val(&inner) as CK_ULONG;
    inner[1].ulValueLen = values[1].len() as CK_ULONG;
    assert_eq!(ask(&mut outer), CKR_OK);
    inner.iter().map(|entry| entry.type_).zip(values).collect()
}

#[test]
fn a_wrapping_key_wraps_what_its_template_fits_and_adds_to_what_it_unwraps() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(HSM, ALL));
    let s = module.open(0);
    let kwp = Mechanism::plain(CKM_AES_KEY_WRAP_KWP);
    let aes = [template(CKK_AES), vec![bytes(CKA_VALUE, [1; 16])]].concat();
    let wanted = vec![number(CKA_KEY_TYPE, CKK_AES), flag(CKA_SENSITIVE, true)];
    let wrapping = create(&s, &aes, CKA_WRAP_TEMPLATE, &wanted).expect("C_CreateObject");
    assert_eq!(read(&s, wrapping, CKA_WRAP_TEMPLATE), wanted);
    let fits = secret(&s, CKK_AES, &[2; 16], vec![flag(CKA_SENSITIVE, true)]);
    let open = secret(&s, CKK_AES, &[2; 16], vec![]);
    let generic = secret(&s, CKK_GENERIC_SECRET, &[2; 16], vec![flag(CKA_SENSITIVE, true)]);
    let wrapped = s.wrap(&kwp, wrapping, fits).expect("C_WrapKey");
    for other in [open, generic] {
        assert_eq!(s.wrap(&kwp, wrapping, other), Err(CKR_KEY_HANDLE_INVALID));
    }
    let added = vec![flag(CKA_SENSITIVE, true), flag(CKA_EXTRACTABLE, false)];
    let unwrapping = create(&s, &aes, CKA_UNWRAP_TEMPLATE, &added).expect("C_CreateObject");
    let key = s.unwrap(&kwp, unwrapping, &wrapped, &template(CKK_AES)).expect("C_UnwrapKey");
    assert_eq!(s.flag(key, CKA_SENSITIVE), Ok(true));
    assert_eq!(s.flag(key, CKA_EXTRACTABLE), Ok(false));
    let same = [template(CKK_AES), vec![flag(CKA_SENSITIVE, true)]].concat();
    assert!(s.unwrap(&kwp, unwrapping, &wrapped, &same).is_ok());
    let conflict = [template(CKK_AES), vec![flag(CKA_EXTRACTABLE, true)]].concat();
    let refused = s.unwrap(&kwp, unwrapping, &wrapped, &conflict);
    assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT));
    // The service cannot keep them, and forgetting them would open the key.
    let there = [aes.clone(), on_token("there")].concat();
    let refused = create(&s, &there, CKA_WRAP_TEMPLATE, &wanted);
    assert_eq!(refused, Err(CKR_TEMPLATE_INCONSISTENT));
    assert_eq!(s.copy(wrapping, &on_token("copied")), Err(CKR_TEMPLATE_INCONSISTENT));
    let odd = [aes, vec![bytes(CKA_UNWRAP_TEMPLATE, [0; 23])]].concat();
    assert_eq!(s.create(&odd), Err(CKR_ATTRIBUTE_VALUE_INVALID));
    assert_eq!(emulator.requests(HSM), 0);
}
