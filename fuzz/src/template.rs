//! Templates: arrays of CK_ATTRIBUTE as a C caller has them, to the module's template and back.

use akv_pkcs11::{
    abi::arg::{self, CK_UNAVAILABLE_INFORMATION},
    object::{
        attribute::{ATTRIBUTES, Kind, row_of},
        dates, nested,
        template::Template,
    },
};
use cryptoki_sys::*;

use crate::{
    Seed,
    memory::{At, Memory},
    parameter::Input,
};

/// Classes with rows of their own, and one without.
const CLASSES: &[CK_OBJECT_CLASS] =
    &[CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY, CKO_CERTIFICATE, CKO_DATA, CKO_PROFILE];

/// The first byte chooses the class; attributes follow.
pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let class = input.one_of(CLASSES);
    let mut memory = Memory::default();
    let mut given = Vec::new();
    while !input.is_empty() && given.len() < 16 {
        given.push(attribute(&mut input, &mut memory));
    }
    let array = array(&mut memory, &given);
    // SAFETY: an array of so many attributes, each of whose values is there.
    let template = unsafe { arg::Template::promised(array.cast(), given.len() as CK_ULONG) };
    if let Ok(values) = template.values() {
        assert_eq!(values.len(), given.len());
        let values: Vec<_> = values.iter().map(|(kind, value)| (*kind, &**value)).collect();
        let encoded = nested::encode(&values);
        assert_eq!(nested::decode(&encoded).expect("what was encoded"), values);
        read(class, &values);
        fill(&values, &mut input);
    }
    memory.check("the parser");
}

/// The type and the value of an attribute.
pub fn attribute(input: &mut Input<'_>, memory: &mut Memory) -> CK_ATTRIBUTE {
    let kind = kind(input);
    let (pointer, length) = match input.byte() {
        _ if nested::is_nested(kind) => {
            let inner: Vec<_> = (0..input.byte() % 4).map(|_| plain(input, memory)).collect();
            let pointer = array(memory, &inner);
            (pointer, inner.len() * size_of::<CK_ATTRIBUTE>())
        }
        0xff => (std::ptr::null_mut(), input.byte().into()),
        0xfe => (memory.input(&[]), usize::MAX),
        choice => {
            let bytes = value(choice, kind, input);
            (memory.input(&bytes), bytes.len())
        }
    };
    CK_ATTRIBUTE { type_: kind, pValue: pointer.cast(), ulValueLen: length as CK_ULONG }
}

/// An attribute whose value is no template.
fn plain(input: &mut Input<'_>, memory: &mut Memory) -> CK_ATTRIBUTE {
    let kind = kind(input);
    let kind = if nested::is_nested(kind) { CKA_LABEL } else { kind };
    let bytes = value(input.byte(), kind, input);
    let pValue = memory.input(&bytes).cast();
    CK_ATTRIBUTE { type_: kind, pValue, ulValueLen: bytes.len() as CK_ULONG }
}

/// An attribute of the table, or any number.
pub fn kind(input: &mut Input<'_>) -> CK_ATTRIBUTE_TYPE {
    match input.byte() {
        0xf0.. => {
            let mut kind = [0; 8];
            let bytes = input.bytes(4);
            kind[..bytes.len()].copy_from_slice(bytes);
            CK_ATTRIBUTE_TYPE::from_le_bytes(kind)
        }
        row => ATTRIBUTES[usize::from(row) % ATTRIBUTES.len()].kind,
    }
}

/// Numbers that mean something.
pub const NUMBERS: &[CK_ULONG] = &[
    0,
    1,
    2,
    3,
    4,
    16,
    24,
    32,
    128,
    256,
    1024,
    !0,
    CKK_RSA,
    CKK_EC,
    CKK_AES,
    CKK_GENERIC_SECRET,
    CKM_RSA_PKCS,
    CKM_AES_GCM,
    CKC_X_509,
];

/// A value that the attribute can have, or any bytes.
fn value(choice: u8, kind: CK_ATTRIBUTE_TYPE, input: &mut Input<'_>) -> Vec<u8> {
    let right = row_of(kind).filter(|_| choice < 0x80).map(|row| row.value);
    match right {
        Some(Kind::Bool) => vec![choice & 1],
        Some(Kind::Ulong) => {
            let number = NUMBERS[usize::from(choice) % NUMBERS.len()];
            number.to_ne_bytes().to_vec()
        }
        Some(Kind::Mechanisms) => {
            let all = [CKM_RSA_PKCS, CKM_ECDSA, CKM_AES_GCM, !0];
            all[..usize::from(choice % 5)].iter().flat_map(|kind| kind.to_ne_bytes()).collect()
        }
        Some(Kind::Date) => b"20261122"[..usize::from(choice % 9)].to_vec(),
        _ => sample(choice).map_or_else(|| input.string().to_vec(), <[u8]>::to_vec),
    }
}

/// Encodings that chance does not find: keys' parts and a certificate.
fn sample(choice: u8) -> Option<&'static [u8]> {
    let samples = crate::calls::samples();
    (0x40..0x80).contains(&choice).then(|| &*samples[usize::from(choice - 0x40) % samples.len()])
}

/// The attributes in memory, to be read and written.
pub fn array(memory: &mut Memory, attributes: &[CK_ATTRIBUTE]) -> *mut u8 {
    let bytes: Vec<u8> = attributes.iter().flat_map(bytes_of).collect();
    let at = memory.block(&bytes);
    memory.pointer(at)
}

fn bytes_of(attribute: &CK_ATTRIBUTE) -> [u8; size_of::<CK_ATTRIBUTE>()] {
    // SAFETY: a structure of three words without padding.
    unsafe { std::mem::transmute_copy(attribute) }
}

/// What a template says is what its attributes say.
fn read(class: CK_OBJECT_CLASS, values: &[(CK_ATTRIBUTE_TYPE, &[u8])]) {
    let Ok(template) = Template::new(class, values) else {
        return;
    };
    for (kind, value) in values {
        assert_eq!(template.bytes(*kind), Some(*value));
        assert!(row_of(*kind).is_some_and(|row| row.check(value).is_ok()));
        if let Ok(Some(text)) = template.text(*kind) {
            assert_eq!(text.as_bytes(), *value);
        }
    }
    let all: Vec<_> = template.iter().collect();
    assert!(all.windows(2).all(|two| two[0].0 < two[1].0), "each attribute once");
    let again = Template::new(class, &all).expect("the same again");
    assert!(again.iter().eq(template.iter()));
    let encoded = nested::encode(&all);
    let added = template.with_added(class, &encoded).expect("what it has already");
    assert!(added.iter().eq(template.iter()));
    let usages = [CKA_SIGN, CKA_VERIFY, CKA_ENCRYPT, CKA_DECRYPT, CKA_WRAP, CKA_UNWRAP];
    for usage in template.usages(&usages) {
        assert_ne!(template.flag(usage), Some(false));
    }
    if let Ok((Some(first), Some(last))) = dates::bounds(&template) {
        assert!(first <= last, "{first} to {last}");
    }
}

/// Asks for the values with buffers of all sizes, as C_GetAttributeValue does.
fn fill(values: &[(CK_ATTRIBUTE_TYPE, &[u8])], input: &mut Input<'_>) {
    let mut memory = Memory::default();
    let mut asked: Vec<(CK_ATTRIBUTE, Option<At>)> = Vec::new();
    for (kind, value) in values.iter().filter(|(kind, _)| !nested::is_nested(*kind)) {
        let room = match input.byte() % 4 {
            0 => None,
            1 => Some(value.len()),
            2 => Some(value.len().saturating_sub(1)),
            _ => Some(value.len() + 1),
        };
        let at = room.map(|room| memory.room(room));
        let pValue = at.map_or(std::ptr::null_mut(), |at| memory.pointer(at).cast());
        let ulValueLen = room.unwrap_or(7) as CK_ULONG;
        asked.push((CK_ATTRIBUTE { type_: *kind, pValue, ulValueLen }, at));
    }
    let attributes: Vec<_> = asked.iter().map(|(attribute, _)| *attribute).collect();
    let bytes: Vec<u8> = attributes.iter().flat_map(bytes_of).collect();
    let array = memory.block(&bytes);
    let count = attributes.len() as CK_ULONG;
    // SAFETY: an array of so many attributes, each with as much room as it says.
    let template = unsafe { arg::Template::promised(memory.pointer(array).cast(), count) };
    let find = |kind| values.iter().find(|(found, _)| *found == kind).map(|(_, value)| *value);
    let outcome = template.fill(|kind| Ok(find(kind).unwrap_or_default()));
    memory.check("the template");
    let mut too_small = false;
    let unit = size_of::<CK_ATTRIBUTE>();
    for ((before, at), after) in asked.iter().zip(memory.bytes(array).chunks_exact(unit)) {
        let length = after[unit - 8..].try_into().map_or(0, CK_ULONG::from_ne_bytes);
        let value = find(before.type_).unwrap_or_default();
        match at {
            Some(at) if (before.ulValueLen as usize) < value.len() => {
                assert_eq!(length, CK_UNAVAILABLE_INFORMATION);
                assert!(memory.is_untouched(*at));
                too_small = true;
            }
            Some(at) => {
                assert_eq!(length as usize, value.len());
                assert_eq!(&memory.bytes(*at)[..value.len()], value);
            }
            None => assert_eq!(length as usize, value.len()),
        }
    }
    assert_eq!(outcome.is_err(), too_small);
}

/// A template for each class, with every attribute that it may have, and some that are wrong.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (at, class) in CLASSES.iter().enumerate() {
        let mut input = vec![at as u8];
        for (row, _) in ATTRIBUTES.iter().enumerate().filter(|(_, row)| {
            row.classes.has(akv_pkcs11::object::attribute::Classes::of(*class))
                && row.giver != akv_pkcs11::object::attribute::Giver::Token
                && row.kind != CKA_CLASS
        }) {
            input.extend([row as u8, 1, 3, b'a', b'b', b'c']);
        }
        seeds.push(Seed::new(format!("class-{class}"), input));
    }
    let nested = ATTRIBUTES.iter().position(|row| nested::is_nested(row.kind)).unwrap_or(0) as u8;
    let label = ATTRIBUTES.iter().position(|row| row.kind == CKA_LABEL).unwrap_or(0) as u8;
    seeds.push(Seed::new("nested", [2, nested, 0, 2, label, 0x80, 1, b'a', label, 0x80, 1, b'b']));
    seeds.push(Seed::new("twice", [0, label, 0x80, 1, b'a', label, 0x80, 1, b'b']));
    seeds.push(Seed::new("null", [0, label, 0xff, 9]));
    seeds.push(Seed::new("endless", [0, label, 0xfe]));
    seeds.push(Seed::new("number", [0, 0xf0, 1, 2, 3, 4, 0x80, 1, 1]));
    seeds
}
