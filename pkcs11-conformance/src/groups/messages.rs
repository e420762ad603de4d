//! Message functions: many messages under one Init.

use std::cell::RefCell;

use cryptoki_sys::*;

use super::protocol::{Protocol, nothing};
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{
        Output, PLENTY, Session, check,
        messages::{DECRYPT, ENCRYPT, Five, GcmMessage, SIGN, VERIFY},
    },
    context::{Context, PARAMETER_REFUSED, is, need, one_of},
    ffi::{NULL, Word, length, read},
    functions::Function::*,
    keys::{Key, Kind},
    mechanism::{IV, Mechanism, Mode, scheme},
    names,
    oracle::aes::{self, Setting},
    samples::{broken, fits, to_sign},
};

/// The group.
pub const GROUP: Group = Group {
    name: "messages",
    title: "message functions",
    patience: 90,
    cases: &[
        Case {
            id: "encrypts",
            clause: "5.9 C_EncryptMessage, 6.13.2",
            title: "Each message has an IV of its own and a tag, and OpenSSL decrypts it.",
            run: |context| each_key(context, CKF_MESSAGE_ENCRYPT, encrypts),
        },
        Case {
            id: "generators",
            clause: "6.13.3 CK_GCM_MESSAGE_PARAMS",
            title: "Each generator keeps the fixed bits and makes another IV each time, or is refused.",
            run: |context| each_key(context, CKF_MESSAGE_ENCRYPT, generators),
        },
        Case {
            id: "encrypts-parts",
            clause: "5.9 C_EncryptMessageNext",
            title: "A message in parts is what OpenSSL makes of it whole.",
            run: |context| each_key(context, CKF_MESSAGE_ENCRYPT, encrypts_parts),
        },
        Case {
            id: "decrypts",
            clause: "5.11 C_DecryptMessage, 6.13.2",
            title: "OpenSSL's messages are decrypted, whole and in parts.",
            run: |context| each_key(context, CKF_MESSAGE_DECRYPT, decrypts),
        },
        Case {
            id: "forged",
            clause: "5.11 C_DecryptMessage",
            title: "A changed ciphertext, tag, IV or AAD is refused; the next message is not.",
            run: |context| each_key(context, CKF_MESSAGE_DECRYPT, forged),
        },
        Case {
            id: "buffers",
            clause: "5.2, 5.9, 5.11",
            title: "C_EncryptMessage, C_DecryptMessage and each C_…MessageNext keep the protocol.",
            run: |context| each_key(context, CKF_MESSAGE_DECRYPT, buffers),
        },
        Case {
            id: "states",
            clause: "5.9, 5.11",
            title: "Init twice is CKR_OPERATION_ACTIVE; what has not begun is \
                    CKR_OPERATION_NOT_INITIALIZED; C_SessionCancel ends it.",
            run: |context| each_key(context, CKF_MESSAGE_ENCRYPT, states),
        },
        Case {
            id: "signs",
            clause: "5.14 C_SignMessage",
            title: "Each message is signed, whole and in parts; C_Verify accepts each signature.",
            run: |context| each_pair(context, signs),
        },
        Case {
            id: "verifies",
            clause: "5.16 C_VerifyMessage",
            title: "Each message is verified, whole and in parts; a changed one is refused, and \
                    the next is not.",
            run: |context| each_pair(context, verifies),
        },
        Case {
            id: "sign-states",
            clause: "5.14, 5.16",
            title: "Init twice is CKR_OPERATION_ACTIVE; after Final, and after C_SessionCancel, \
                    there is no operation.",
            run: |context| each_pair(context, sign_states),
        },
        Case {
            id: "sign-buffers",
            clause: "5.2, 5.14 C_SignMessage, C_SignMessageNext",
            title: "C_SignMessage and the last C_SignMessageNext keep the protocol.",
            run: |context| each_pair(context, sign_buffers),
        },
    ],
};

const NO: CK_RV = CKR_OPERATION_NOT_INITIALIZED;

fn each_key(
    context: &mut Context,
    flag: CK_FLAGS,
    attempt: fn(Session, &Key) -> Outcome,
) -> Outcome {
    context.needs(C_MessageEncryptInit)?;
    let (known, other): (Vec<_>, Vec<_>) =
        context.offered(flag)?.into_iter().partition(|(kind, _)| *kind == CKM_AES_GCM);
    for (kind, _) in other {
        context.each(names::mechanism(kind), |_| skip("not known to this program"));
    }
    let Some((kind, info)) = known.into_iter().next() else {
        return skip("CKM_AES_GCM is not offered for it");
    };
    let keys = context.keys()?;
    for key in keys.iter().filter(|key| key.value.is_some() && fits(kind, key, &info)) {
        let name = format!("{}, {key}", names::mechanism(kind));
        context.each(name, |context| attempt(context.user()?, key));
    }
    Ok(())
}

fn gcm() -> Mechanism {
    Mechanism::plain(CKM_AES_GCM)
}

fn value(key: &Key) -> Outcome<&[u8]> {
    key.value.as_deref().map_or_else(|| skip("the key's value is not known"), Ok)
}

fn made() -> GcmMessage {
    GcmMessage { iv: vec![0; 12], fixed_bits: 0, generator: CKG_GENERATE, tag: vec![0; 16] }
}

/// What OpenSSL makes of a message, and the parameter to decrypt it with.
fn sealed(key: &Key, aad: &[u8], data: &[u8]) -> Outcome<(Vec<u8>, GcmMessage)> {
    let iv = &IV[..12];
    let setting = Setting { iv, aad, tag: 16 };
    let mut cipher = aes::seal(Mode::Gcm, value(key)?, setting, data).map_err(broken)?;
    let tag = cipher.split_off(data.len());
    let generator = CKG_NO_GENERATE;
    Ok((cipher, GcmMessage { iv: iv.to_vec(), fixed_bits: 0, generator, tag }))
}

/// OpenSSL decrypts what the module made.
fn opens(key: &Key, aad: &[u8], message: &GcmMessage, cipher: &[u8], plain: &[u8]) -> Outcome {
    let whole = [cipher, &message.tag].concat();
    let setting = Setting { iv: &message.iv, aad, tag: message.tag.len() };
    match aes::open(Mode::Gcm, value(key)?, setting, &whole) {
        Ok(told) => ensure(told == plain, || "OpenSSL decrypts something else".to_owned()),
        Err(_) => fail("OpenSSL refuses the message"),
    }
}

fn encrypts(session: Session, key: &Key) -> Outcome {
    need(session.message_init(ENCRYPT, &gcm(), key.private), "C_MessageEncryptInit")?;
    let mut ivs = std::collections::BTreeSet::new();
    for (size, aad) in [(0, &b""[..]), (1, b"aad"), (16, b""), (100, b"more aad"), (1000, b"x")] {
        let plain = vec![0x37; size];
        let mut message = made();
        let out = session.message(ENCRYPT, &mut message, aad, &plain, PLENTY);
        let cipher = need(out.result(), &format!("C_EncryptMessage of {size} bytes"))?;
        ensure(cipher.len() == size, || format!("{} bytes for {size}", cipher.len()))?;
        ensure(ivs.insert(message.iv.clone()), || "an IV comes twice".to_owned())?;
        opens(key, aad, &message, &cipher, &plain)?;
    }
    need(session.message_final(ENCRYPT), "C_MessageEncryptFinal")
}

fn generators(session: Session, key: &Key) -> Outcome {
    let mut tried = false;
    for generator in
        [CKG_GENERATE, CKG_GENERATE_COUNTER, CKG_GENERATE_RANDOM, CKG_GENERATE_COUNTER_XOR]
    {
        for fixed in [0, 32, 61] {
            need(session.message_init(ENCRYPT, &gcm(), key.private), "C_MessageEncryptInit")?;
            let what = format!("generator {generator} with {fixed} fixed bits");
            let mut ivs = std::collections::BTreeSet::new();
            for _ in 0..5 {
                let iv = vec![0xee; 12];
                let mut message =
                    GcmMessage { iv, fixed_bits: fixed as CK_ULONG, generator, tag: vec![0; 16] };
                let out = session.message(ENCRYPT, &mut message, b"aad", b"data", PLENTY);
                if ivs.is_empty() && PARAMETER_REFUSED.contains(&out.rv) {
                    break;
                }
                let cipher = need(out.result(), &what)?;
                opens(key, b"aad", &message, &cipher, b"data")?;
                let kept = (0..fixed).all(|n| (message.iv[n / 8] ^ 0xee) & (0x80 >> (n % 8)) == 0);
                ensure(kept, || format!("{what}: they are changed"))?;
                ensure(ivs.insert(message.iv), || format!("{what}: an IV comes twice"))?;
                tried = true;
            }
            need(session.message_final(ENCRYPT), "C_MessageEncryptFinal")?;
        }
    }
    if tried { Ok(()) } else { skip("every generator is PARAMETER_REFUSED") }
}

fn encrypts_parts(session: Session, key: &Key) -> Outcome {
    need(session.message_init(ENCRYPT, &gcm(), key.private), "C_MessageEncryptInit")?;
    for part in [1, 16, 33] {
        let (plain, mut message) = (vec![0x73; 66], made());
        let begin = session.message_begin(ENCRYPT, &mut message, b"aad");
        need(begin, "C_EncryptMessageBegin")?;
        let mut cipher = Vec::new();
        for (n, bytes) in plain.chunks(part).enumerate() {
            let last = (n + 1) * part >= plain.len();
            let out = session.message_next(ENCRYPT, &mut message, bytes, PLENTY, last);
            cipher.extend(need(out.result(), "C_EncryptMessageNext")?);
        }
        opens(key, b"aad", &message, &cipher, &plain)?;
    }
    need(session.message_final(ENCRYPT), "C_MessageEncryptFinal")
}

fn decrypts(session: Session, key: &Key) -> Outcome {
    need(session.message_init(DECRYPT, &gcm(), key.private), "C_MessageDecryptInit")?;
    for size in [0, 1, 15, 16, 17, 500] {
        let plain = vec![0x19; size];
        let (cipher, mut message) = sealed(key, b"aad", &plain)?;
        let out = session.message(DECRYPT, &mut message, b"aad", &cipher, PLENTY);
        let told = need(out.result(), &format!("C_DecryptMessage of {size} bytes"))?;
        ensure(told == plain, || "another plaintext comes back".to_owned())?;
        let begin = session.message_begin(DECRYPT, &mut message, b"aad");
        need(begin, "C_DecryptMessageBegin")?;
        let mut told = Vec::new();
        for part in cipher.chunks(7) {
            let out = session.message_next(DECRYPT, &mut message, part, PLENTY, false);
            told.extend(need(out.result(), "C_DecryptMessageNext")?);
        }
        let out = session.message_next(DECRYPT, &mut message, &[], PLENTY, true);
        told.extend(need(out.result(), "the last C_DecryptMessageNext")?);
        ensure(told == plain, || "another plaintext comes back in parts".to_owned())?;
    }
    need(session.message_final(DECRYPT), "C_MessageDecryptFinal")
}

fn forged(session: Session, key: &Key) -> Outcome {
    let refused = [CKR_AEAD_DECRYPT_FAILED, CKR_ENCRYPTED_DATA_INVALID];
    need(session.message_init(DECRYPT, &gcm(), key.private), "C_MessageDecryptInit")?;
    let (cipher, message) = sealed(key, b"aad", &[0x44; 40])?;
    let mut iv = message.clone();
    iv.iv[0] ^= 1;
    let mut tag = message.clone();
    tag.tag[15] ^= 1;
    let mut changed = cipher.clone();
    changed[20] ^= 1;
    let cases = [
        ("the ciphertext", message.clone(), &b"aad"[..], &changed),
        ("the tag", tag, b"aad", &cipher),
        ("the IV", iv, b"aad", &cipher),
        ("the AAD", message.clone(), b"other", &cipher),
    ];
    for (what, mut forged, aad, data) in cases {
        let out = session.message(DECRYPT, &mut forged, aad, data, PLENTY);
        one_of(out.result(), &refused, &format!("C_DecryptMessage, {what} changed"))?;
        let mut right = message.clone();
        let out = session.message(DECRYPT, &mut right, b"aad", &cipher, PLENTY);
        need(out.result(), "the next message")?;
    }
    need(session.message_final(DECRYPT), "C_MessageDecryptFinal")
}

/// The protocol of 5.2 for each call of one direction: a message whole, a part of one, its last.
/// `fresh` makes the parameter of a message, `right` says whether the output is.
fn protocol(
    session: Session,
    five: Five,
    data: &[u8],
    fresh: &dyn Fn() -> GcmMessage,
    right: &dyn Fn(&GcmMessage, &[u8]) -> Outcome,
) -> Outcome {
    let message = RefCell::new(fresh());
    let exact = five == ENCRYPT;
    Protocol {
        begin: &|| {
            message.replace(fresh());
            Ok(())
        },
        call: &|room| session.message(five, &mut message.borrow_mut(), b"aad", data, room),
        then: &|out| right(&message.borrow(), out),
        exact,
    }
    .holds()?;
    let (first, second) = data.split_at(25);
    let out = RefCell::new(Vec::new());
    let next = |part: &[u8], room, last| {
        session.message_next(five, &mut message.borrow_mut(), part, room, last)
    };
    for last in [false, true] {
        let begin = || {
            message.replace(fresh());
            out.borrow_mut().clear();
            need(session.message_begin(five, &mut message.borrow_mut(), b"aad"), "Begin")?;
            if last {
                out.borrow_mut().extend(need(next(first, PLENTY, false).result(), "Next")?);
            }
            Ok(())
        };
        let call = |room| next(if last { second } else { first }, room, last);
        let then = |bytes: &[u8]| {
            out.borrow_mut().extend_from_slice(bytes);
            if !last {
                out.borrow_mut().extend(need(next(second, PLENTY, true).result(), "Next")?);
            }
            right(&message.borrow(), &out.borrow())
        };
        Protocol { begin: &begin, call: &call, then: &then, exact }.holds()?;
    }
    Ok(())
}

fn buffers(session: Session, key: &Key) -> Outcome {
    let plain = [0x44; 40];
    let (cipher, message) = sealed(key, b"aad", &plain)?;
    need(session.message_init(DECRYPT, &gcm(), key.private), "C_MessageDecryptInit")?;
    let right = |_: &GcmMessage, told: &[u8]| {
        ensure(told == plain, || "another plaintext comes back".to_owned())
    };
    protocol(session, DECRYPT, &cipher, &|| message.clone(), &right)?;
    need(session.message_final(DECRYPT), "C_MessageDecryptFinal")?;
    need(session.message_init(ENCRYPT, &gcm(), key.private), "C_MessageEncryptInit")?;
    let right = |message: &GcmMessage, cipher: &[u8]| opens(key, b"aad", message, cipher, &plain);
    protocol(session, ENCRYPT, &plain, &made, &right)?;
    need(session.message_final(ENCRYPT), "C_MessageEncryptFinal")
}

fn states(session: Session, key: &Key) -> Outcome {
    for (five, flag) in [(ENCRYPT, CKF_MESSAGE_ENCRYPT), (DECRYPT, CKF_MESSAGE_DECRYPT)] {
        let (cipher, message) = sealed(key, b"", &[1; 16])?;
        let whole = |five: Five| {
            let mut message = message.clone();
            session.message(five, &mut message, b"", &cipher, PLENTY).result().map(|_| ())
        };
        is(whole(five), NO, "a message before Init")?;
        is(session.message_final(five), NO, "Final before Init")?;
        is(session.message_begin(five, &mut message.clone(), b""), NO, "Begin before Init")?;
        need(session.message_init(five, &gcm(), key.private), "Init")?;
        let again = session.message_init(five, &gcm(), key.private);
        is(again, CKR_OPERATION_ACTIVE, "Init again")?;
        let next = session.message_next(five, &mut message.clone(), &[1], PLENTY, true);
        is(next.result(), NO, "Next before Begin")?;
        need(session.message_final(five), "Final")?;
        is(whole(five), NO, "a message after Final")?;
        need(session.message_init(five, &gcm(), key.private), "Init after Final")?;
        let cancel = check(session.call(C_SessionCancel, &[flag.into()]));
        need(cancel, "C_SessionCancel")?;
        is(whole(five), NO, "a message after C_SessionCancel")?;
    }
    Ok(())
}

/// A mechanism that signs messages, a key of it, data for it.
struct Signer {
    mechanism: Mechanism,
    private: CK_OBJECT_HANDLE,
    public: CK_OBJECT_HANDLE,
    data: Vec<u8>,
    multi_part: bool,
}

fn each_pair(context: &mut Context, attempt: fn(Session, &Signer) -> Outcome) -> Outcome {
    context.needs(C_MessageSignInit)?;
    let offered = context.offered(CKF_MESSAGE_SIGN)?;
    if offered.is_empty() {
        return skip("no mechanism signs messages");
    }
    let keys = context.keys()?;
    for (kind, info) in offered {
        let Some(scheme) = scheme(kind) else {
            context.each(names::mechanism(kind), |_| skip("not known to this program"));
            continue;
        };
        // One key of each type says what the others would.
        let usual = |key: &&Key| match key.kind {
            Kind::Ec(curve) => curve.name == "P-256",
            _ => true,
        };
        let key = keys.iter().filter(usual).find(|key| fits(kind, key, &info));
        let Some(key) = key else { continue };
        let Some(public) = key.public else { continue };
        let signer = Signer {
            mechanism: Mechanism::usual(kind),
            private: key.private,
            public,
            data: to_sign(scheme, key),
            multi_part: scheme.is_multi_part(),
        };
        let name = format!("{}, {key}", names::mechanism(kind));
        context.each(name, |context| attempt(context.user()?, &signer));
    }
    Ok(())
}

fn signs(session: Session, signer: &Signer) -> Outcome {
    let Signer { mechanism, data, .. } = signer;
    need(session.message_init(SIGN, mechanism, signer.private), "C_MessageSignInit")?;
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(need(session.sign_message(data, PLENTY).result(), "C_SignMessage")?);
    }
    if signer.multi_part {
        let (first, second) = data.split_at(1);
        let whole = session.sign_message_parts(&[first, &[], second], PLENTY);
        all.push(need(whole, "C_SignMessageNext")?);
    }
    need(session.message_final(SIGN), "C_MessageSignFinal")?;
    for signature in all {
        need(session.verify(mechanism, signer.public, data, &signature), "C_Verify")?;
    }
    Ok(())
}

fn verifies(session: Session, signer: &Signer) -> Outcome {
    let Signer { mechanism, data, .. } = signer;
    let family = crate::client::Family::Sign;
    let signature = session.run(family, mechanism, signer.private, data);
    let signature = need(signature, "C_Sign")?;
    let mut changed = signature.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    need(session.message_init(VERIFY, mechanism, signer.public), "C_MessageVerifyInit")?;
    for _ in 0..2 {
        need(session.verify_message(data, &signature), "C_VerifyMessage")?;
        is(session.verify_message(data, &changed), CKR_SIGNATURE_INVALID, "a changed signature")?;
    }
    if signer.multi_part {
        let (first, second) = data.split_at(1);
        let parts = [first, second];
        need(session.verify_message_parts(&parts, &signature), "C_VerifyMessageNext")?;
        let rv = session.verify_message_parts(&parts, &changed);
        is(rv, CKR_SIGNATURE_INVALID, "a changed signature in parts")?;
        need(session.verify_message_parts(&parts, &signature), "the next message")?;
    }
    need(session.message_final(VERIFY), "C_MessageVerifyFinal")
}

fn sign_states(session: Session, signer: &Signer) -> Outcome {
    let Signer { mechanism, data, .. } = signer;
    let uses =
        [(SIGN, CKF_MESSAGE_SIGN, signer.private), (VERIFY, CKF_MESSAGE_VERIFY, signer.public)];
    for (five, flag, key) in uses {
        let whole = || match five[1] {
            C_SignMessage => session.sign_message(data, PLENTY).result().map(|_| ()),
            _ => session.verify_message(data, &[0; 8]),
        };
        is(whole(), NO, "a message before Init")?;
        is(session.message_final(five), NO, "Final before Init")?;
        need(session.message_init(five, mechanism, key), "Init")?;
        is(session.message_init(five, mechanism, key), CKR_OPERATION_ACTIVE, "Init again")?;
        need(session.message_final(five), "Final")?;
        is(whole(), NO, "a message after Final")?;
        need(session.message_init(five, mechanism, key), "Init after Final")?;
        need(check(session.call(C_SessionCancel, &[flag.into()])), "C_SessionCancel")?;
        is(whole(), NO, "a message after C_SessionCancel")?;
    }
    Ok(())
}

fn sign_buffers(session: Session, signer: &Signer) -> Outcome {
    let Signer { mechanism, data, .. } = signer;
    need(session.message_init(SIGN, mechanism, signer.private), "C_MessageSignInit")?;
    let call = |room| session.sign_message(data, room);
    Protocol { begin: &nothing, call: &call, then: &|_| Ok(()), exact: true }.holds()?;
    if signer.multi_part {
        let (first, second) = data.split_at(1);
        let next = |part: &[u8], out: Word<'_>, size: Word<'_>| {
            session.call(C_SignMessageNext, &[NULL, 0.into(), read(part), length(part), out, size])
        };
        let begin = || {
            need(check(session.call(C_SignMessageBegin, &[NULL, 0.into()])), "C_SignMessageBegin")?;
            need(check(next(first, NULL, NULL)), "C_SignMessageNext")
        };
        let call = |room| Output::of(room, |out, size| next(second, out, size));
        Protocol { begin: &begin, call: &call, then: &|_| Ok(()), exact: true }.holds()?;
    }
    need(session.message_final(SIGN), "C_MessageSignFinal")
}
