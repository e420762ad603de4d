//! AES, against OpenSSL: each mode and key size, whole and in parts.

mod ctr;
mod gcm;
mod refused;

use std::{cell::RefCell, ops::RangeInclusive};

use cryptoki_sys::*;

use super::protocol::{Protocol, ended};
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, Session},
    context::{Context, need, one_of},
    keys::{Key, Kind, secret},
    mechanism::{Mechanism, Mode, Scheme, scheme},
    names,
    oracle::aes,
    samples::{broken, pairs, usual},
};

/// The group.
pub const GROUP: Group = Group {
    name: "ciphers",
    title: "AES, checked by OpenSSL",
    patience: 120,
    cases: &[
        Case {
            id: "encrypts",
            clause: "5.8 C_Encrypt",
            title: "Data of each length around a block's end is encrypted as OpenSSL does.",
            run: |context| each_mode(context, Family::Encrypt, encrypts),
        },
        Case {
            id: "decrypts",
            clause: "5.10 C_Decrypt",
            title: "What OpenSSL encrypts is decrypted, for each length around a block's end.",
            run: |context| each_mode(context, Family::Decrypt, decrypts),
        },
        Case {
            id: "encrypts-parts",
            clause: "5.2, 5.8 C_EncryptUpdate",
            title: "Parts of any length give the same ciphertext, each block as soon as it is \
                    complete.",
            run: |context| each_mode(context, Family::Encrypt, in_parts),
        },
        Case {
            id: "decrypts-parts",
            clause: "5.2, 5.10 C_DecryptUpdate",
            title: "Parts of any length give the same plaintext, each block as soon as it is known \
                    not to be padding.",
            run: |context| each_mode(context, Family::Decrypt, in_parts),
        },
        Case {
            id: "encrypts-buffers",
            clause: "5.2, 5.8 C_EncryptUpdate, C_EncryptFinal",
            title: "A query and a short buffer take nothing: the same part can be given again.",
            run: |context| each_mode(context, Family::Encrypt, part_buffers),
        },
        Case {
            id: "decrypts-buffers",
            clause: "5.2, 5.10 C_DecryptUpdate, C_DecryptFinal",
            title: "A query and a short buffer take nothing: the same part can be given again.",
            run: |context| each_mode(context, Family::Decrypt, part_buffers),
        },
        Case {
            id: "in-place",
            clause: "5.8, 6.10",
            title: "Input and output may be the same memory.",
            run: |context| each_mode(context, Family::Encrypt, in_place),
        },
        Case {
            id: "lengths-wrong",
            clause: "6.10.4, 6.10.5, 6.10.6, 6.16.3",
            title: "What is no whole number of blocks is refused by its length, and ends the \
                    operation.",
            run: refused::lengths_wrong,
        },
        Case {
            id: "padding-wrong",
            clause: "6.10.6",
            title: "Each padding that is none is CKR_ENCRYPTED_DATA_INVALID, whole and in parts.",
            run: refused::padding_wrong,
        },
        Case {
            id: "parameter-wrong",
            clause: "6.10, 6.11.2, 6.13.7, 6.16.2",
            title: "An IV, counter or tag of the wrong size is CKR_MECHANISM_PARAM_INVALID.",
            run: refused::parameter_wrong,
        },
        Case {
            id: "gcm-settings",
            clause: "6.13.2",
            title: "Each length of IV, of additional data and of the tag is as OpenSSL has it, or \
                    refused at Init.",
            run: gcm::settings,
        },
        Case {
            id: "gcm-forged",
            clause: "6.13.2",
            title: "A changed ciphertext, tag, IV or additional data is refused, whole and in \
                    parts, before any plaintext.",
            run: gcm::forged,
        },
        Case {
            id: "ctr-overflow",
            clause: "6.11.3",
            title: "Data is taken up to the counter's last value, and no byte more: \
                    CKR_DATA_LEN_RANGE.",
            run: ctr::overflow,
        },
        Case {
            id: "key-sizes",
            clause: "6.10.2",
            title: "An AES key of another size than 16, 24 or 32 bytes is refused.",
            run: key_sizes,
        },
    ],
};

/// One mode with one key, in one direction.
struct Subject {
    kind: CK_MECHANISM_TYPE,
    mode: Mode,
    mechanism: Mechanism,
    family: Family,
    handle: CK_OBJECT_HANDLE,
    value: Vec<u8>,
}

impl Subject {
    fn new(kind: CK_MECHANISM_TYPE, mode: Mode, family: Family, key: &Key) -> Option<Subject> {
        let mechanism = Mechanism::usual(kind);
        let value = key.value.clone()?;
        Some(Subject { kind, mode, mechanism, family, handle: key.private, value })
    }

    /// What goes in and what must come out, for plaintext of this length.
    fn known(&self, size: usize) -> Outcome<(Vec<u8>, Vec<u8>)> {
        let plain: Vec<u8> = (0..size).map(|n| (n * 5 + 1) as u8).collect();
        let sealed = aes::seal(self.mode, &self.value, usual(self.mode), &plain).map_err(broken)?;
        Ok(match self.family {
            Family::Encrypt => (plain, sealed),
            _ => (sealed, plain),
        })
    }

    fn init(&self, session: Session) -> Outcome {
        need(session.init(self.family, &self.mechanism, self.handle), "Init")
    }

    /// How much output there is of so much input: as much as can be computed of it (5.2).
    fn due(&self, given: usize) -> RangeInclusive<usize> {
        match (self.mode, self.family) {
            (Mode::CbcPad, Family::Decrypt) => {
                let known = given.saturating_sub(1) / 16 * 16;
                known..=known
            }
            (Mode::Ecb | Mode::Cbc | Mode::CbcPad, _) => given / 16 * 16..=given / 16 * 16,
            (Mode::Ctr, _) => given..=given,
            // A module may keep all until the tag is made; of plaintext it must.
            _ => 0..=given,
        }
    }

    /// Lengths of plaintext around a block's end.
    fn sizes(&self) -> Vec<usize> {
        let block = self.mode.block().unwrap_or(1);
        // Key wrap takes two semiblocks at least; the padded one takes a byte.
        let least = match self.mode {
            Mode::Kw => 16,
            Mode::Kwp => 1,
            _ => 0,
        };
        let around = [0, 1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 64, 100, 160, 1000];
        around.into_iter().filter(|size| *size >= least && size % block == 0).collect()
    }
}

fn subjects(context: &mut Context, family: Family) -> Outcome<Vec<(String, Subject)>> {
    let mut subjects = Vec::new();
    for (kind, key) in pairs(context, family)? {
        let Some(Scheme::Aes(mode)) = scheme(kind) else { continue };
        if let Some(subject) = Subject::new(kind, mode, family, &key) {
            subjects.push((format!("{}, {key}", names::mechanism(kind)), subject));
        }
    }
    match subjects.is_empty() {
        true => skip("no AES mechanism with a key that can be imported"),
        false => Ok(subjects),
    }
}

fn each_mode(
    context: &mut Context,
    family: Family,
    attempt: fn(Session, &Subject) -> Outcome,
) -> Outcome {
    for (name, subject) in subjects(context, family)? {
        context.each(name, |context| attempt(context.user()?, &subject));
    }
    Ok(())
}

fn encrypts(session: Session, subject: &Subject) -> Outcome {
    for size in subject.sizes() {
        let (plain, sealed) = subject.known(size)?;
        subject.init(session)?;
        let told = need(session.one_shot(Family::Encrypt, &plain), &format!("{size} bytes"))?;
        ensure(told == sealed, || format!("{size} bytes: not what OpenSSL makes of them"))?;
    }
    Ok(())
}

fn decrypts(session: Session, subject: &Subject) -> Outcome {
    for size in subject.sizes() {
        let (sealed, plain) = subject.known(size)?;
        subject.init(session)?;
        let told = need(session.one_shot(Family::Decrypt, &sealed), &format!("{size} bytes"))?;
        ensure(told == plain, || format!("{size} bytes: another plaintext comes back"))?;
    }
    Ok(())
}

fn in_parts(session: Session, subject: &Subject) -> Outcome {
    if !subject.mode.is_multi_part() {
        return skip("the mechanism is single-part");
    }
    for size in [16, 160, 1008] {
        let (input, wanted) = subject.known(size)?;
        for part in [1, 7, 15, 16, 17, 64, 500] {
            subject.init(session)?;
            let (mut out, mut given) = (Vec::new(), 0);
            for part in input.chunks(part) {
                given += part.len();
                out.extend(need(session.update(subject.family, part), "Update")?);
                need(session.update(subject.family, &[]), "Update of nothing")?;
                let due = subject.due(given);
                ensure(due.contains(&out.len()), || format!("{} of {given} bytes", out.len()))?;
            }
            out.extend(need(session.last(subject.family), "Final")?);
            ensure(out == wanted, || format!("{size} bytes in parts of {part} give another"))?;
        }
    }
    Ok(())
}

fn part_buffers(session: Session, subject: &Subject) -> Outcome {
    if !subject.mode.is_multi_part() {
        return skip("the mechanism is single-part");
    }
    let (input, wanted) = subject.known(80)?;
    let (first, second) = input.split_at(40);
    let (family, out) = (subject.family, RefCell::new(Vec::new()));
    // The call that is tried comes after so many parts, and the rest after it.
    for tried in 0..3 {
        let give = |part: &[u8]| -> Outcome {
            out.borrow_mut().extend(need(session.update(family, part), "Update")?);
            Ok(())
        };
        let begin = || {
            out.borrow_mut().clear();
            subject.init(session)?;
            [first, second][..tried].iter().try_for_each(|part| give(part))
        };
        let call = |room| match tried {
            2 => session.last_in(family, room),
            n => session.update_in(family, [first, second][n], room),
        };
        let then = |bytes: &[u8]| {
            out.borrow_mut().extend_from_slice(bytes);
            if tried < 2 {
                [first, second][tried + 1..].iter().try_for_each(|part| give(part))?;
                out.borrow_mut().extend(need(session.last(family), "Final")?);
            }
            ensure(*out.borrow() == wanted, || "the output is another".to_owned())?;
            ended(session.last(family), "Final")
        };
        // Padding is known at the end only, and a tag too.
        let exact = family == Family::Encrypt;
        Protocol { begin: &begin, call: &call, then: &then, exact }.holds()?;
    }
    Ok(())
}

fn in_place(session: Session, subject: &Subject) -> Outcome {
    if !matches!(subject.mode, Mode::Ecb | Mode::Cbc | Mode::Ctr) {
        return skip("the output is longer than the input");
    }
    let (input, wanted) = subject.known(64)?;
    subject.init(session)?;
    let told = need(session.one_shot_in_place(subject.family, &input), "C_Encrypt")?;
    ensure(told == wanted, || "the output is another".to_owned())
}

fn key_sizes(context: &mut Context) -> Outcome {
    let session = context.user()?;
    let refused = [
        CKR_ATTRIBUTE_VALUE_INVALID,
        CKR_KEY_SIZE_RANGE,
        CKR_TEMPLATE_INCONSISTENT,
        CKR_TEMPLATE_INCOMPLETE,
    ];
    let right = session.create(&secret(Kind::Aes(16), &[1; 16]));
    let Ok(object) = right else { return skip("no AES key can be imported") };
    need(session.destroy(object), "C_DestroyObject")?;
    for size in [0, 1, 8, 15, 17, 31, 33, 64] {
        context.each(format!("{size} bytes"), |_| {
            let made = session.create(&secret(Kind::Aes(size), &vec![1; size]));
            if let Ok(object) = made {
                need(session.destroy(object), "C_DestroyObject")?;
            }
            one_of(made, &refused, "C_CreateObject")
        });
    }
    Ok(())
}
