//! AES, against OpenSSL: each mode and key size, whole and in parts.

use cryptoki_sys::*;

use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{Family, Output, Room, Session, check},
    context::{Context, is, need, one_of},
    keys::{Key, Kind, secret},
    mechanism::{IV, Mechanism, Mode, Scheme, scheme},
    names,
    oracle::aes::{self, Setting},
    samples::{broken, fits, usual},
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
            clause: "5.8 C_EncryptUpdate",
            title: "Parts of any length give the same ciphertext, as early as they may.",
            run: |context| each_mode(context, Family::Encrypt, in_parts),
        },
        Case {
            id: "decrypts-parts",
            clause: "5.10 C_DecryptUpdate",
            title: "Parts of any length give the same plaintext.",
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
            run: lengths_wrong,
        },
        Case {
            id: "padding-wrong",
            clause: "6.10.6",
            title: "Each padding that is none is CKR_ENCRYPTED_DATA_INVALID, whole and in parts.",
            run: padding_wrong,
        },
        Case {
            id: "parameter-wrong",
            clause: "6.10, 6.11.2, 6.13.7, 6.16.2",
            title: "An IV, counter or tag of the wrong size is CKR_MECHANISM_PARAM_INVALID.",
            run: parameter_wrong,
        },
        Case {
            id: "gcm-settings",
            clause: "6.13.2",
            title: "Each length of IV, of additional data and of the tag is as OpenSSL has it, or \
                    refused at Init.",
            run: gcm_settings,
        },
        Case {
            id: "gcm-forged",
            clause: "6.13.2",
            title: "A changed ciphertext, tag, IV or additional data is refused, whole and in \
                    parts, before any plaintext.",
            run: gcm_forged,
        },
        Case {
            id: "ctr-carry",
            clause: "6.11.3",
            title: "A counter that is all ones becomes zero, or the data is refused.",
            run: ctr_carry,
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
    let keys = context.distinct_keys()?;
    let mut subjects = Vec::new();
    for (kind, info) in context.offered(family.flag())? {
        let Some(Scheme::Aes(mode)) = scheme(kind) else { continue };
        for key in keys.iter().filter(|key| fits(kind, key, &info)) {
            if let Some(subject) = Subject::new(kind, mode, family, key) {
                subjects.push((format!("{}, {key}", names::mechanism(kind)), subject));
            }
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
                ensure(out.len() <= given, || format!("{} of {given} bytes", out.len()))?;
            }
            out.extend(need(session.last(subject.family), "Final")?);
            ensure(out == wanted, || format!("{size} bytes in parts of {part} give another"))?;
        }
    }
    Ok(())
}

/// One call of a multi-part operation by the whole protocol: a query, a buffer that is too short,
/// one of the length told.
fn by_protocol(call: &dyn Fn(Room) -> Output, wanted: usize) -> Outcome<Vec<u8>> {
    let query = call(Room::Query);
    is(check(query.rv), CKR_OK, "the query")?;
    ensure(query.length >= wanted, || format!("told {}, {wanted} are needed", query.length))?;
    let mut told = query.length;
    for room in [0, wanted / 2, wanted.saturating_sub(1)] {
        if room >= wanted {
            continue;
        }
        let short = call(Room::Bytes(room));
        is(check(short.rv), CKR_BUFFER_TOO_SMALL, &format!("{room} of {wanted} bytes"))?;
        ensure(!short.overrun, || format!("{room} of {wanted} bytes: written beyond them"))?;
        ensure(short.length >= wanted, || format!("told {} of {wanted}", short.length))?;
        told = short.length;
    }
    let output = call(Room::Bytes(told));
    ensure(!output.overrun, || "written beyond the buffer".to_owned())?;
    need(output.result(), &format!("{told} bytes, as told"))
}

fn part_buffers(session: Session, subject: &Subject) -> Outcome {
    if !subject.mode.is_multi_part() {
        return skip("the mechanism is single-part");
    }
    let (input, wanted) = subject.known(80)?;
    let (first, second) = input.split_at(40);
    // How much each call gives is the module's choice; it gives the same again.
    subject.init(session)?;
    let mut sizes = Vec::new();
    for part in [first, second] {
        sizes.push(need(session.update(subject.family, part), "Update")?.len());
    }
    sizes.push(need(session.last(subject.family), "Final")?.len());
    subject.init(session)?;
    let mut out = Vec::new();
    for (part, size) in [first, second].into_iter().zip(&sizes) {
        out.extend(by_protocol(&|room| session.update_in(subject.family, part, room), *size)?);
    }
    out.extend(by_protocol(&|room| session.last_in(subject.family, room), sizes[2])?);
    ensure(out == wanted, || "the output is another".to_owned())?;
    let again = session.last(subject.family);
    is(again, CKR_OPERATION_NOT_INITIALIZED, "Final again")
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

fn lengths_wrong(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        for (name, subject) in subjects(context, family)? {
            let refused = match (family, subject.mode) {
                (_, Mode::Ctr | Mode::Gcm) => continue,
                (Family::Encrypt, Mode::CbcPad | Mode::Kwp) => continue,
                (Family::Encrypt, _) => [CKR_DATA_LEN_RANGE, CKR_DATA_LEN_RANGE],
                (_, Mode::Kw | Mode::Kwp) => {
                    [CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID]
                }
                _ => [CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE],
            };
            context.each(format!("{family:?}, {name}"), |context| {
                let session = context.user()?;
                for size in [1, 15, 17, 33] {
                    subject.init(session)?;
                    let rv = session.one_shot(family, &vec![7; size]);
                    one_of(rv, &refused, &format!("{size} bytes"))?;
                    let after = session.one_shot(family, &[7; 16]);
                    is(after, CKR_OPERATION_NOT_INITIALIZED, "the call after it")?;
                    if !subject.mode.is_multi_part() {
                        continue;
                    }
                    subject.init(session)?;
                    need(session.update(family, &vec![7; size]), "Update")?;
                    one_of(session.last(family), &refused, &format!("Final after {size} bytes"))?;
                    let after = session.last(family);
                    is(after, CKR_OPERATION_NOT_INITIALIZED, "Final after it")?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

fn padding_wrong(context: &mut Context) -> Outcome {
    for (name, subject) in subjects(context, Family::Decrypt)? {
        if subject.mode != Mode::CbcPad {
            continue;
        }
        context.each(name, |context| {
            let session = context.user()?;
            let refused = [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE];
            let ends: [&[u8]; 6] = [&[0], &[17], &[255], &[1, 2], &[2, 3, 3], &[3, 2, 3, 3, 4]];
            for end in ends {
                let plain = [&vec![0x55; 32 - end.len()][..], end].concat();
                let sealed = aes::seal(Mode::Cbc, &subject.value, usual(Mode::Cbc), &plain);
                let sealed = sealed.map_err(broken)?;
                subject.init(session)?;
                let rv = session.one_shot(Family::Decrypt, &sealed);
                one_of(rv, &refused, &format!("padding that ends with {end:?}"))?;
                subject.init(session)?;
                need(session.update(Family::Decrypt, &sealed), "C_DecryptUpdate")?;
                let rv = session.last(Family::Decrypt);
                one_of(rv, &refused, &format!("C_DecryptFinal, {end:?}"))?;
            }
            subject.init(session)?;
            one_of(session.one_shot(Family::Decrypt, &[]), &refused, "no ciphertext")
        });
    }
    Ok(())
}

fn parameter_wrong(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        for (name, subject) in subjects(context, family)? {
            if subject.value.len() != 16 {
                continue;
            }
            let kind = subject.kind;
            let wrong = match subject.mode {
                Mode::Cbc | Mode::CbcPad => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV[..15]),
                    Mechanism::bytes(kind, &[&IV[..], &[1]].concat()),
                ],
                Mode::Ctr => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV),
                    Mechanism::ctr(0, IV),
                    Mechanism::ctr(129, IV),
                ],
                Mode::Gcm => vec![
                    Mechanism::plain(kind),
                    Mechanism::bytes(kind, &IV),
                    Mechanism::gcm(&IV[..12], &[], 129),
                    Mechanism::gcm(&IV[..12], &[], 1000),
                    Mechanism::gcm(&[], &[], 128),
                ],
                Mode::Kw => vec![Mechanism::bytes(kind, &IV[..7])],
                Mode::Kwp => vec![Mechanism::bytes(kind, &IV[..7])],
                Mode::Ecb => continue,
            };
            context.each(format!("{family:?}, {name}"), |context| {
                let session = context.user()?;
                let refused = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];
                for mechanism in wrong {
                    let rv = session.init(family, &mechanism, subject.handle);
                    one_of(rv, &refused, &format!("Init with {mechanism:?}"))?;
                }
                Ok(())
            });
        }
    }
    Ok(())
}

/// The GCM subjects of a direction, one per key.
fn gcm(context: &mut Context, family: Family) -> Outcome<Vec<(String, Subject)>> {
    let mut all = subjects(context, family)?;
    all.retain(|(_, subject)| subject.mode == Mode::Gcm);
    if all.is_empty() { skip("CKM_AES_GCM is not offered for this") } else { Ok(all) }
}

fn gcm_settings(context: &mut Context) -> Outcome {
    for family in [Family::Encrypt, Family::Decrypt] {
        let all = match gcm(context, family) {
            Err(crate::case::Stop::Skip(why)) => {
                context.each(format!("{family:?}"), |_| skip(why));
                continue;
            }
            all => all?,
        };
        let Some((_, subject)) = all.into_iter().next() else { continue };
        let settings = [1, 8, 11, 12, 13, 16, 60, 128].into_iter().flat_map(|iv| {
            [(0, 16), (1, 16), (20, 15), (300, 14), (16, 13), (5, 12), (7, 8), (9, 4)]
                .map(|(aad, tag)| (iv, aad, tag))
        });
        for (iv, aad, tag) in settings {
            let name = format!("{family:?}, IV {iv}, AAD {aad}, tag {tag}");
            context.each(name, |context| {
                let session = context.user()?;
                let (iv, aad) = (vec![0x1f; iv], vec![0xaa; aad]);
                let mechanism = Mechanism::gcm(&iv, &aad, 8 * tag);
                match session.init(family, &mechanism, subject.handle) {
                    Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                    rv => need(rv, "Init")?,
                }
                let plain = vec![0x42; 37];
                let setting = Setting { iv: &iv, aad: &aad, tag };
                let sealed = aes::seal(Mode::Gcm, &subject.value, setting, &plain);
                let sealed = sealed.map_err(broken)?;
                let (input, wanted) = match family {
                    Family::Encrypt => (plain, sealed),
                    _ => (sealed, plain),
                };
                let told = need(session.one_shot(family, &input), "the call")?;
                ensure(told == wanted, || "not what OpenSSL makes of it".to_owned())
            });
        }
    }
    Ok(())
}

fn gcm_forged(context: &mut Context) -> Outcome {
    let refused =
        [CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE, CKR_AEAD_DECRYPT_FAILED];
    for (name, subject) in gcm(context, Family::Decrypt)? {
        context.each(name, |context| {
            let session = context.user()?;
            let (sealed, _) = subject.known(50)?;
            let usual = usual(Mode::Gcm);
            let changed = |at: usize| {
                let mut bytes = sealed.clone();
                bytes[at] ^= 0x80;
                bytes
            };
            let mut iv = usual.iv.to_vec();
            iv[11] ^= 1;
            let same = || Mechanism::gcm(usual.iv, usual.aad, 128);
            let cases = [
                ("the ciphertext", changed(3), same()),
                ("the tag", changed(65), same()),
                ("the tag's begin", changed(50), same()),
                ("the length", sealed[..65].to_vec(), same()),
                ("everything but the tag", sealed[50..].to_vec(), same()),
                ("all", Vec::new(), same()),
                ("the IV", sealed.clone(), Mechanism::gcm(&iv, usual.aad, 128)),
                ("the AAD", sealed.clone(), Mechanism::gcm(usual.iv, b"other", 128)),
            ];
            for (what, data, mechanism) in cases {
                let begin = session.init(Family::Decrypt, &mechanism, subject.handle);
                need(begin, "C_DecryptInit")?;
                let rv = session.one_shot(Family::Decrypt, &data);
                one_of(rv, &refused, &format!("C_Decrypt with {what} changed"))?;
                let after = session.one_shot(Family::Decrypt, &data);
                is(after, CKR_OPERATION_NOT_INITIALIZED, "C_Decrypt after it")?;
                let begin = session.init(Family::Decrypt, &mechanism, subject.handle);
                need(begin, "C_DecryptInit")?;
                for part in data.chunks(16) {
                    let out = need(session.update(Family::Decrypt, part), "C_DecryptUpdate")?;
                    ensure(out.is_empty(), || "plaintext before the tag is known".to_owned())?;
                }
                let rv = session.last(Family::Decrypt);
                one_of(rv, &refused, &format!("C_DecryptFinal with {what} changed"))?;
            }
            Ok(())
        });
    }
    Ok(())
}

fn ctr_carry(context: &mut Context) -> Outcome {
    let all = subjects(context, Family::Encrypt)?;
    let Some((_, subject)) = all.into_iter().find(|(_, subject)| subject.mode == Mode::Ctr) else {
        return skip("CKM_AES_CTR is not offered");
    };
    for bits in [128, 64, 32, 16] {
        context.each(format!("{bits} bits"), |context| {
            let session = context.user()?;
            let mut block = IV;
            block[16 - bits / 8..].fill(0xff);
            block[15] = 0xfe;
            let plain = vec![0x10; 64];
            // OpenSSL's counter has all 128 bits: block by block, each has its own.
            let mut wanted = Vec::new();
            for n in 0..4_u128 {
                let mask = u128::MAX >> (128 - bits);
                let whole = u128::from_be_bytes(block);
                let counter = (whole & !mask) | (whole.wrapping_add(n) & mask);
                let setting = Setting { iv: &counter.to_be_bytes(), aad: &[], tag: 0 };
                let part = aes::seal(Mode::Ctr, &subject.value, setting, &plain[..16]);
                wanted.extend(part.map_err(broken)?);
            }
            let mechanism = Mechanism::ctr(bits, block);
            match session.init(Family::Encrypt, &mechanism, subject.handle) {
                Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                rv => need(rv, "C_EncryptInit")?,
            }
            match session.one_shot(Family::Encrypt, &plain) {
                // Data that would make a counter come again must not be encrypted (6.11.3).
                Err(CKR_DATA_LEN_RANGE) => Ok(()),
                Err(rv) => fail(format!("C_Encrypt: {}", names::rv(rv))),
                Ok(told) => ensure(told == wanted, || "the counter is another".to_owned()),
            }
        });
    }
    Ok(())
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
