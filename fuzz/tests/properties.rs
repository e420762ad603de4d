//! Properties of the C functions that hold for any data, any buffer and any cut: proptest makes them
//! up, the same ones each time, and shrinks what fails.

#![allow(unsafe_code)]
#![allow(non_snake_case)]

use std::{
    ffi::c_void,
    ptr,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use akv_pkcs11_fuzz::{
    calls::{
        CONFIGURATION,
        functions::{Function, Word},
    },
    memory::{At, Memory, void},
};
use cryptoki_sys::*;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// Calls by name. What a test passes is what a C caller may pass.
fn call(name: &str, words: &[Word]) -> CK_RV {
    // SAFETY: pointers into `Memory`, with the lengths they have there.
    unsafe { Function::named(name).1.call(words) }
}

use Word::{Number, Pointer};

/// A session of the one module of this process; the tests take turns.
struct Session {
    handle: CK_SESSION_HANDLE,
    _turn: MutexGuard<'static, ()>,
}

impl Session {
    fn open() -> Session {
        static TURN: Mutex<()> = Mutex::new(());
        static MODULE: LazyLock<()> = LazyLock::new(|| {
            let mut memory = Memory::default();
            let text = std::ffi::CString::new(CONFIGURATION).expect("no NUL");
            let pReserved = void(memory.input(text.as_bytes_with_nul()));
            let arguments = CK_C_INITIALIZE_ARGS { pReserved, ..Default::default() };
            let arguments = void(memory.place(&arguments));
            assert_eq!(call("C_Initialize", &[Pointer(arguments)]), CKR_OK);
        });
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        LazyLock::force(&MODULE);
        let mut memory = Memory::default();
        let room = memory.room(8);
        let flags = CKF_SERIAL_SESSION | CKF_RW_SESSION;
        let (null, room_at) = (Pointer(ptr::null_mut()), at(&memory, room));
        let words = [Number(0), Number(flags), null, Number(0), room_at];
        assert_eq!(call("C_OpenSession", &words), CKR_OK);
        Session { handle: memory.number(room), _turn: turn }
    }

    fn word(&self) -> Word {
        Number(self.handle)
    }

    /// A secret key with these attributes beside its length.
    fn key(&self, kind: CK_MECHANISM_TYPE, attributes: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> u64 {
        let mut all = attributes.to_vec();
        all.push((CKA_VALUE_LEN, 32_u64.to_ne_bytes().to_vec()));
        let mut memory = Memory::default();
        let mechanism = mechanism(&mut memory, kind, &[]);
        let [template, count] = template(&mut memory, &all);
        let room = memory.room(8);
        let words = [self.word(), mechanism, template, count, at(&memory, room)];
        assert_eq!(call("C_GenerateKey", &words), CKR_OK);
        memory.number(room)
    }

    fn init(&self, operation: &Operation, inverse: bool, key: u64) {
        let mut memory = Memory::default();
        let mechanism = mechanism(&mut memory, operation.mechanism, operation.parameter);
        let (name, with_key) = match (operation.family, inverse) {
            ("Digest", _) => ("C_DigestInit", false),
            ("Sign", _) => ("C_SignInit", true),
            (_, false) => ("C_EncryptInit", true),
            (_, true) => ("C_DecryptInit", true),
        };
        let words = [self.word(), mechanism, Number(key)];
        assert_eq!(call(name, &words[..2 + usize::from(with_key)]), CKR_OK);
    }

    /// Handles of the session objects with these attributes.
    fn find(&self, attributes: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Vec<u64> {
        let mut all = attributes.to_vec();
        all.push((CKA_TOKEN, vec![0]));
        let mut memory = Memory::default();
        let [template, count] = template(&mut memory, &all);
        assert_eq!(call("C_FindObjectsInit", &[self.word(), template, count]), CKR_OK);
        let (room, found) = (memory.room(8 * 16), memory.room(8));
        let words = [self.word(), at(&memory, room), Number(16), at(&memory, found)];
        assert_eq!(call("C_FindObjects", &words), CKR_OK);
        assert_eq!(call("C_FindObjectsFinal", &[self.word()]), CKR_OK);
        let handles = memory.bytes(room).chunks_exact(8).take(memory.number(found) as usize);
        handles.map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        assert_eq!(call("C_CloseSession", &[self.word()]), CKR_OK);
    }
}

fn at(memory: &Memory, block: At) -> Word {
    Pointer(void(memory.pointer(block)))
}

fn mechanism(memory: &mut Memory, kind: CK_MECHANISM_TYPE, parameter: &[u8]) -> Word {
    let pParameter = void(memory.input(parameter));
    let ulParameterLen = parameter.len() as CK_ULONG;
    Pointer(void(memory.place(&CK_MECHANISM { mechanism: kind, pParameter, ulParameterLen })))
}

fn template(memory: &mut Memory, all: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> [Word; 2] {
    let attributes: Vec<_> = all
        .iter()
        .map(|(kind, value)| CK_ATTRIBUTE {
            type_: *kind,
            pValue: void(memory.input(value)),
            ulValueLen: value.len() as CK_ULONG,
        })
        .collect();
    let array = akv_pkcs11_fuzz::template::array(memory, &attributes);
    [Pointer(void(array)), Number(all.len() as u64)]
}

/// What came of a call with a buffer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    rv: CK_RV,
    length: usize,
    /// What was written; None where nothing was.
    bytes: Option<Vec<u8>>,
}

/// Calls with data and a buffer of so many bytes, or NULL.
fn answer(name: &str, session: &Session, data: Option<&[u8]>, room: Option<usize>) -> Answer {
    let mut memory = Memory::default();
    let buffer = room.map(|room| memory.room(room));
    let length = memory.block(&(room.unwrap_or(0) as u64).to_ne_bytes());
    let mut words = vec![session.word()];
    if let Some(data) = data {
        words.extend([Pointer(void(memory.input(data))), Number(data.len() as u64)]);
    }
    words.push(buffer.map_or(Pointer(ptr::null_mut::<c_void>()), |block| at(&memory, block)));
    words.push(at(&memory, length));
    let rv = call(name, &words);
    memory.check(name);
    let length = memory.number(length) as usize;
    let bytes = buffer.filter(|block| rv == CKR_OK || !memory.is_untouched(*block));
    let bytes = bytes.map(|block| memory.bytes(block)[..length].to_vec());
    Answer { rv, length, bytes }
}

/// An operation of this process whose result follows from its input.
#[derive(Debug)]
struct Operation {
    family: &'static str,
    mechanism: CK_MECHANISM_TYPE,
    parameter: &'static [u8],
    /// Its input has whole blocks only.
    blocks: bool,
}

const OPERATIONS: &[Operation] = &[
    operation("Digest", CKM_SHA256, b"", false),
    operation("Digest", CKM_SHA3_512, b"", false),
    operation("Sign", CKM_SHA384_HMAC, b"", false),
    operation("Encrypt", CKM_AES_ECB, b"", true),
    operation("Encrypt", CKM_AES_CBC, b"sixteen bytes...", true),
    operation("Encrypt", CKM_AES_CBC_PAD, b"sixteen bytes...", false),
    operation("Encrypt", CKM_AES_KEY_WRAP_KWP, b"", false),
];

const fn operation(
    family: &'static str,
    mechanism: CK_MECHANISM_TYPE,
    parameter: &'static [u8],
    blocks: bool,
) -> Operation {
    Operation { family, mechanism, parameter, blocks }
}

impl Operation {
    fn key(&self, session: &Session) -> u64 {
        match self.family {
            "Digest" => 0,
            "Sign" => session.key(CKM_GENERIC_SECRET_KEY_GEN, &[(CKA_SIGN, vec![1])]),
            _ => session.key(CKM_AES_KEY_GEN, &[(CKA_ENCRYPT, vec![1]), (CKA_DECRYPT, vec![1])]),
        }
    }

    fn name(&self, suffix: &str) -> String {
        format!("C_{}{suffix}", self.family)
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Clause 5.2: a query and a buffer that is too small change nothing, and any that is large
    /// enough gets the same bytes; so do parts of any length, and what is encrypted comes back.
    #[test]
    fn a_result_depends_on_neither_buffer_nor_parts(
        choice in any::<Index>(),
        data in vec(any::<u8>(), 1..400),
        rooms in vec(0_usize..500, 0..4),
        cuts in vec(any::<Index>(), 0..4),
    ) {
        let operation = choice.get(OPERATIONS);
        let mut data = data;
        if operation.blocks {
            data.resize(data.len().next_multiple_of(16), 0);
        }
        let session = Session::open();
        let key = operation.key(&session);
        let whole = operation.name("");

        session.init(operation, false, key);
        let query = answer(&whole, &session, Some(&data), None);
        prop_assert_eq!(query.rv, CKR_OK);
        for room in rooms.iter().filter(|room| **room < query.length) {
            let small = answer(&whole, &session, Some(&data), Some(*room));
            let too_small =
                Answer { rv: CKR_BUFFER_TOO_SMALL, length: query.length, bytes: None };
            // A bound may be larger than the result.
            if small.rv != CKR_OK {
                prop_assert_eq!(small, too_small);
            } else {
                session.init(operation, false, key);
            }
        }
        let result = answer(&whole, &session, Some(&data), Some(query.length));
        prop_assert_eq!(result.rv, CKR_OK);
        prop_assert!(result.length <= query.length);
        let result = result.bytes.unwrap_or_default();
        let over = answer(&whole, &session, Some(&data), Some(query.length));
        prop_assert_eq!(over.rv, CKR_OPERATION_NOT_INITIALIZED);

        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(data.len())).collect();
        at.extend([0, data.len()]);
        at.sort_unstable();
        session.init(operation, false, key);
        let mut parts = Vec::new();
        for two in at.windows(2) {
            let (part, update) = (&data[two[0]..two[1]], operation.name("Update"));
            if operation.family == "Encrypt" {
                let given = answer(&update, &session, Some(part), Some(data.len() + 32));
                prop_assert_eq!(given.rv, CKR_OK);
                parts.extend(given.bytes.unwrap_or_default());
            } else {
                let mut memory = Memory::default();
                let start = Pointer(void(memory.input(part)));
                let words = [session.word(), start, Number(part.len() as u64)];
                prop_assert_eq!(call(&update, &words), CKR_OK);
            }
        }
        let last = answer(&operation.name("Final"), &session, None, Some(data.len() + 64));
        prop_assert_eq!(last.rv, CKR_OK);
        parts.extend(last.bytes.unwrap_or_default());
        prop_assert_eq!(&parts, &result, "{:?} cut at {:?}", operation, at);

        if operation.family == "Encrypt" {
            session.init(operation, true, key);
            let back = answer("C_Decrypt", &session, Some(&result), Some(result.len()));
            prop_assert_eq!(back, Answer { rv: CKR_OK, length: data.len(), bytes: Some(data) });
        }
    }

    /// What a template gives comes back, in whatever room is offered, and finds its object.
    #[test]
    fn attributes_come_back_and_find_their_object(
        labels in vec(vec(select(vec!['a', 'b', 'é', ' ']), 0..4), 1..4),
        ids in vec(vec(any::<u8>(), 0..4), 1..4),
        asked in vec((any::<bool>(), proptest::option::of(0_usize..8)), 1..6),
    ) {
        let session = Session::open();
        let pairs = labels.iter().zip(&ids);
        let given: Vec<_> = pairs
            .map(|(label, id)| {
                [(CKA_LABEL, String::from_iter(label).into_bytes()), (CKA_ID, id.clone())]
            })
            .collect();
        let keys: Vec<u64> =
            given.iter().map(|attributes| session.key(CKM_AES_KEY_GEN, attributes)).collect();
        for (key, attributes) in keys.iter().zip(&given) {
            let mut memory = Memory::default();
            let mut blocks = Vec::new();
            let mut wanted = Vec::new();
            let mut too_small = false;
            for (is_label, room) in &asked {
                let (kind, value) = &attributes[usize::from(!is_label)];
                let block = room.map(|room| memory.room(room));
                let pValue = block.map_or(ptr::null_mut(), |at| void(memory.pointer(at)));
                let ulValueLen = room.unwrap_or(3) as CK_ULONG;
                blocks.push((CK_ATTRIBUTE { type_: *kind, pValue, ulValueLen }, block));
                let fits = room.is_none_or(|room| value.len() <= room);
                too_small |= !fits;
                wanted.push((if fits { value.len() as u64 } else { !0 }, value, fits));
            }
            let attributes: Vec<_> = blocks.iter().map(|(attribute, _)| *attribute).collect();
            let array = akv_pkcs11_fuzz::template::array(&mut memory, &attributes);
            let words =
                [session.word(), Number(*key), Pointer(void(array)), Number(asked.len() as u64)];
            let rv = call("C_GetAttributeValue", &words);
            memory.check("C_GetAttributeValue");
            prop_assert_eq!(rv, if too_small { CKR_BUFFER_TOO_SMALL } else { CKR_OK });
            for (at, ((_, block), (length, value, fits))) in blocks.iter().zip(&wanted).enumerate() {
                let entry = array.wrapping_add(at * size_of::<CK_ATTRIBUTE>());
                // SAFETY: the entry of an array of as many as were asked for.
                let entry: CK_ATTRIBUTE = unsafe { entry.cast::<CK_ATTRIBUTE>().read_unaligned() };
                prop_assert_eq!(entry.ulValueLen, *length);
                if let (Some(block), true) = (block, fits) {
                    prop_assert_eq!(&memory.bytes(*block)[..value.len()], value.as_slice());
                }
            }
        }
        for attributes in &given {
            for searched in [&attributes[..], &attributes[..1], &attributes[1..]] {
                let expected = keys.iter().zip(&given).filter(|(_, other)| {
                    searched.iter().all(|attribute| other.contains(attribute))
                });
                let mut found = session.find(searched);
                found.sort_unstable();
                prop_assert_eq!(found, expected.map(|(key, _)| *key).collect::<Vec<_>>());
            }
        }
    }
}
