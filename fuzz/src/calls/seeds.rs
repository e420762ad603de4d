//! Sequences to begin with: what a good client does with each kind of mechanism, and a bad one.

use std::mem::discriminant;

use akv_pkcs11::{
    mechanism::{AesMode, MECHANISMS, Scheme},
    object::attribute::ATTRIBUTES,
};
use cryptoki_sys::*;

use super::functions::{ALL, Function, Role};
use crate::{
    Seed,
    parameter::{LAST, OWN},
    template::NUMBERS,
};

/// What [`super::run`] reads, written by the name of the function.
struct Script(Vec<u8>);

impl Script {
    fn new() -> Script {
        Script(vec![0])
    }

    /// A call in the first session, with these arguments.
    fn call(&mut self, function: &str, arguments: &[&[u8]]) -> &mut Self {
        self.0.extend([Function::named(function).0 as u8, 0]);
        self.0.extend(arguments.concat());
        self
    }
}

/// Arguments: of a template, a count and attributes.
const NO_TEMPLATE: &[u8] = &[0];
/// A buffer with room for everything.
const ROOM: &[u8] = &[0];
/// Room for a handle.
const HANDLE: &[u8] = &[0];
/// Bytes that the last call has given out.
const LAST_OUTPUT: &[u8] = &[4];
const DATA: &[u8] = b"\x00\x20sixteen bytes...sixteen bytes...";

fn mechanism(kind: CK_MECHANISM_TYPE) -> Vec<u8> {
    let at = MECHANISMS.iter().position(|row| row.kind == kind).expect("a mechanism");
    let parameter: &[u8] = match MECHANISMS[at].scheme {
        // hashAlg SHA-256, its mask, a salt of its length.
        Scheme::Pss(_) => &[OWN, 1, 2, 32],
        Scheme::Oaep => &[OWN, 1, 2, 1, 0],
        Scheme::RsaAesWrap => &[OWN, 0, 0, 1, 2, 1, 0],
        Scheme::Hmac(_, true) => &[OWN, 12],
        Scheme::Aes(AesMode::Cbc | AesMode::CbcPad) => b"\x80\x10sixteen bytes...",
        Scheme::Aes(AesMode::Ctr) => b"\x80\x80sixteen bytes...",
        Scheme::Aes(AesMode::Gcm) => b"\x80\x0ctwelve bytes\x00\x80",
        _ => &[0],
    };
    [&[at as u8], parameter].concat()
}

fn attribute(kind: CK_ATTRIBUTE_TYPE, value: &[u8]) -> Vec<u8> {
    let at = ATTRIBUTES.iter().position(|row| row.kind == kind).expect("an attribute");
    [&[at as u8], value].concat()
}

fn number(kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Vec<u8> {
    let at = NUMBERS.iter().position(|number| *number == value).expect("a number");
    attribute(kind, &[at as u8])
}

fn template(attributes: &[Vec<u8>]) -> Vec<u8> {
    [&[attributes.len() as u8][..], &attributes.concat()].concat()
}

/// A value of [`super::samples`].
const fn sample(at: u8) -> [u8; 1] {
    [0x40 + at]
}
/// Where the encodings of curves begin there.
const CURVES: u8 = 13;

/// A pair of session keys: handles 0, public, and 1, private.
fn pair(script: &mut Script, key_type: CK_KEY_TYPE) {
    if key_type == CKK_EC {
        let public = template(&[attribute(CKA_EC_PARAMS, &sample(CURVES))]);
        let arguments = [&mechanism(CKM_EC_KEY_PAIR_GEN), &public, NO_TEMPLATE, HANDLE, HANDLE];
        script.call("C_GenerateKeyPair", &arguments);
        return;
    }
    let key = |class, rest: &[Vec<u8>]| {
        let common = [number(CKA_CLASS, class), number(CKA_KEY_TYPE, CKK_RSA)];
        template(&[&common, rest].concat())
    };
    let parts = [
        CKA_MODULUS,
        CKA_PUBLIC_EXPONENT,
        CKA_PRIVATE_EXPONENT,
        CKA_PRIME_1,
        CKA_PRIME_2,
        CKA_EXPONENT_1,
        CKA_EXPONENT_2,
        CKA_COEFFICIENT,
    ];
    let parts: Vec<_> = (0..).zip(parts).map(|(at, kind)| attribute(kind, &sample(at))).collect();
    script.call("C_CreateObject", &[&key(CKO_PUBLIC_KEY, &parts[..2]), HANDLE]);
    script.call("C_CreateObject", &[&key(CKO_PRIVATE_KEY, &parts), HANDLE]);
}

/// A secret session key: the next handle.
fn secret(script: &mut Script, kind: CK_MECHANISM_TYPE) {
    let mut usages: Vec<_> = [CKA_ENCRYPT, CKA_DECRYPT, CKA_SIGN, CKA_VERIFY, CKA_WRAP, CKA_UNWRAP]
        .map(|usage| attribute(usage, &[1]))
        .into();
    usages.push(attribute(CKA_EXTRACTABLE, &[1]));
    usages.push(attribute(CKA_SENSITIVE, &[0]));
    usages.push(number(CKA_VALUE_LEN, 32));
    script.call("C_GenerateKey", &[&mechanism(kind), &template(&usages), HANDLE]);
}

/// What can be done with a mechanism: by its flag, in an order where each finds what it needs.
fn uses(script: &mut Script, kind: CK_MECHANISM_TYPE, flags: CK_FLAGS, keys: [u8; 2]) {
    let (with, [public, private]) = (mechanism(kind), keys);
    let (public, private): (&[u8], &[u8]) = (&[public], &[private]);
    if flags & CKF_DIGEST != 0 {
        script.call("C_DigestInit", &[&with]).call("C_Digest", &[DATA, ROOM]);
        script.call("C_DigestInit", &[&with]).call("C_DigestUpdate", &[DATA]);
        script.call("C_DigestFinal", &[ROOM]);
    }
    if flags & CKF_SIGN != 0 {
        script.call("C_SignInit", &[&with, private]).call("C_Sign", &[DATA, &[3]]);
        script.call("C_Sign", &[DATA, ROOM]);
        script.call("C_VerifyInit", &[&with, public]).call("C_Verify", &[DATA, LAST_OUTPUT]);
        script.call("C_VerifySignatureInit", &[&with, public, LAST_OUTPUT]);
        script.call("C_VerifySignature", &[DATA]);
        script.call("C_SignInit", &[&with, private]).call("C_SignUpdate", &[DATA]);
        script.call("C_SignFinal", &[ROOM]);
    }
    if flags & CKF_SIGN_RECOVER != 0 {
        script.call("C_SignRecoverInit", &[&with, private]).call("C_SignRecover", &[DATA, ROOM]);
        script.call("C_VerifyRecoverInit", &[&with, public]);
        script.call("C_VerifyRecover", &[LAST_OUTPUT, ROOM]);
    }
    if flags & CKF_ENCRYPT != 0 {
        script.call("C_EncryptInit", &[&with, public]).call("C_Encrypt", &[DATA, ROOM]);
        script.call("C_DecryptInit", &[&with, private]).call("C_Decrypt", &[LAST_OUTPUT, ROOM]);
        script.call("C_EncryptInit", &[&with, public]).call("C_EncryptUpdate", &[DATA, ROOM]);
        script.call("C_EncryptFinal", &[ROOM]);
    }
    if flags & CKF_WRAP != 0 {
        secret(script, CKM_AES_KEY_GEN);
        let (key, attributes): (&[u8], _) =
            (&[2], [number(CKA_CLASS, 4), number(CKA_KEY_TYPE, CKK_AES)]);
        script.call("C_WrapKey", &[&with, public, key, ROOM]);
        let arguments = [&with, private, LAST_OUTPUT, &template(&attributes), HANDLE];
        script.call("C_UnwrapKey", &arguments);
    }
    if flags & CKF_MESSAGE_ENCRYPT != 0 {
        // An IV of twelve bytes, a tag of sixteen.
        let fresh: &[u8] = b"\x80\x0ctwelve bytes\x10\x00\x00";
        let last: &[u8] = &[OWN, LAST, 0, 0];
        let aad: &[u8] = b"\x00\x03aad";
        script.call("C_MessageEncryptInit", &[&with, public]);
        script.call("C_EncryptMessage", &[fresh, aad, DATA, ROOM]);
        script.call("C_MessageDecryptInit", &[&with, private]);
        script.call("C_DecryptMessage", &[last, aad, LAST_OUTPUT, ROOM]);
        script.call("C_MessageDecryptFinal", &[]).call("C_MessageEncryptFinal", &[]);
    }
    if flags & CKF_MESSAGE_SIGN != 0 {
        script.call("C_MessageSignInit", &[&with, private]);
        script.call("C_SignMessage", &[&[0], DATA, ROOM]);
        script.call("C_MessageVerifyInit", &[&with, public]);
        script.call("C_VerifyMessage", &[&[0], DATA, LAST_OUTPUT]);
    }
}

/// One sequence for each kind of mechanism, and some that belong to none.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut seen = Vec::new();
    for row in MECHANISMS.iter().filter(|row| row.session != 0 || row.service & CKF_DIGEST != 0) {
        // The hash in a mechanism's name changes nothing here, the mode of AES all.
        let (kind, hashed) = (discriminant(&row.scheme), row.name.contains("SHA"));
        let is_aes = matches!(row.scheme, Scheme::Aes(_) | Scheme::AesWrap(_));
        if !is_aes && seen.contains(&(kind, hashed)) {
            continue;
        }
        seen.push((kind, hashed));
        let mut script = Script::new();
        let mut keys = [0, 1];
        match row.key_type() {
            Some(CKK_AES) => {
                secret(&mut script, CKM_AES_KEY_GEN);
                keys = [0, 0];
            }
            Some(CKK_GENERIC_SECRET) => {
                secret(&mut script, CKM_GENERIC_SECRET_KEY_GEN);
                keys = [0, 0];
            }
            Some(kind @ (CKK_RSA | CKK_EC)) => pair(&mut script, kind),
            Some(_) => secret(&mut script, row.kind),
            None => {}
        }
        uses(&mut script, row.kind, row.session | row.service & CKF_DIGEST, keys);
        seeds.push(Seed::new(row.name.trim_start_matches("CKM_").to_ascii_lowercase(), script.0));
    }
    seeds.extend(others());
    seeds.extend(each());
    seeds
}

fn others() -> Vec<Seed> {
    let mut objects = Script::new();
    secret(&mut objects, CKM_AES_KEY_GEN);
    let label = attribute(CKA_LABEL, b"\x80\x03abc");
    objects.call("C_SetAttributeValue", &[&[0], &template(std::slice::from_ref(&label))]);
    objects.call("C_CopyObject", &[&[0], &template(&[attribute(CKA_PRIVATE, &[0])]), HANDLE]);
    let asked: Vec<_> = ATTRIBUTES.iter().take(15).map(|row| attribute(row.kind, &[8])).collect();
    objects.call("C_GetAttributeValue", &[&[1], &template(&asked)]);
    objects.call("C_GetObjectSize", &[&[1], HANDLE]);
    let here = template(&[attribute(CKA_TOKEN, &[0]), label]);
    objects.call("C_FindObjectsInit", &[&here]).call("C_FindObjects", &[&[7], HANDLE]);
    objects.call("C_FindObjectsFinal", &[]).call("C_DestroyObject", &[&[0]]);

    let mut certificate = Script::new();
    let value = [
        number(CKA_CLASS, 1),
        number(CKA_CERTIFICATE_TYPE, CKC_X_509),
        attribute(CKA_VALUE, &sample(10)),
    ];
    certificate.call("C_CreateObject", &[&template(&value), HANDLE]);

    let mut nested = Script::new();
    let label = attribute(CKA_LABEL, b"\x80\x01a");
    let wrapping =
        [attribute(CKA_WRAP_TEMPLATE, &[&[0, 1][..], &label].concat()), number(CKA_VALUE_LEN, 32)];
    let arguments = [&mechanism(CKM_AES_KEY_GEN), &template(&wrapping), HANDLE];
    nested.call("C_GenerateKey", &arguments);
    let asked = template(&[attribute(CKA_WRAP_TEMPLATE, &[4])]);
    nested.call("C_GetAttributeValue", &[&[0], &asked]);

    let mut before = Script(vec![1]);
    before.call("C_GetInfo", &[]).call("C_Sign", &[DATA, ROOM]).call("C_Initialize", &[]);
    let mut login = Script::new();
    login.call("C_Login", &[&[1], b"\x00\x041234"]).call("C_Logout", &[]);
    login.call("C_GenerateRandom", &[&[32]]).call("C_SeedRandom", &[DATA]);
    let mut cancel = Script::new();
    cancel.call("C_DigestInit", &[&mechanism(CKM_SHA256)]).call("C_SessionCancel", &[&[0xff]]);
    let mut open = Script::new();
    open.call("C_FindObjectsInit", &[NO_TEMPLATE]).call("C_FindObjects", &[&[7], HANDLE]);
    [
        ("objects", objects),
        ("certificate", certificate),
        ("nested", nested),
        ("before", before),
        ("login", login),
        ("cancel", cancel),
        ("open-search", open),
    ]
    .map(|(name, script)| Seed::new(name, script.0))
    .into()
}

/// Every function once, with nothing: empty templates, no data, room for results.
fn each() -> Vec<Seed> {
    let all: Vec<_> = ALL.iter().filter(|function| function.name != "C_Finalize").collect();
    let scripts = all.chunks(super::MOST_CALLS).map(|functions| {
        let mut script = vec![0];
        for function in functions {
            script.push(Function::named(function.name).0 as u8);
            script.extend(function.roles.iter().flat_map(|role| match role {
                Role::In => &[0; 2][..],
                Role::Mechanism => &[1, 0],
                _ => &[0],
            }));
        }
        script
    });
    (1..).zip(scripts).map(|(at, script)| Seed::new(format!("each-{at}"), script)).collect()
}
