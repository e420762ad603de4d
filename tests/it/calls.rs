//! The protocols that many functions share, through the C functions: output buffers
//! (PKCS#11 3.2, 5.2), the states of an operation, arguments that cannot be.

#![allow(unsafe_code)]

use std::ptr;

use cryptoki_sys::*;

use crate::{
    service::Emulator,
    signing::{P256, session_ec, session_rsa},
    token::{
        Family, Mechanism, Module, NOTHING, Output, Room, Session, bytes, call, check, number,
    },
};

const SEED: &str = "
keys = [
    { name = 'rsa', kty = 'RSA', size = 2048 },
    { name = 'ec', kty = 'EC', curve = 'P-256' },
]";

/// One operation with a result, of the service or of this process.
struct Operation {
    name: &'static str,
    family: Family,
    mechanism: Mechanism,
    key: CK_OBJECT_HANDLE,
    input: Vec<u8>,
    /// What a query answers before there is a result.
    bound: usize,
    /// The result's length.
    length: usize,
}

fn operations(session: &Session<'_>) -> Vec<Operation> {
    let (rsa, rsa_public) = session.pair("rsa");
    let (ec, _) = session.pair("ec");
    let (here_public, here) = session_rsa(session, 2048);
    let (_, here_ec) = session_ec(session, P256);
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    let oaep = Mechanism::oaep(CKM_SHA256, CKG_MGF1_SHA256);
    let encrypted =
        |m: &Mechanism, key| session.run(Family::Encrypt, m, key, b"seventeen bytes..").unwrap();
    let of = |name, family, mechanism: &Mechanism, key, input: &[u8], bound, length| Operation {
        name,
        family,
        mechanism: mechanism.clone(),
        key,
        input: input.to_vec(),
        bound,
        length,
    };
    use Family::{Decrypt, Digest, Encrypt, Sign};
    let ecdsa = Mechanism::plain(CKM_ECDSA_SHA256);
    vec![
        of("digest", Digest, &Mechanism::plain(CKM_SHA384), 0, b"data", 48, 48),
        of("RSA signature", Sign, &Mechanism::plain(CKM_SHA256_RSA_PKCS), rsa, b"data", 256, 256),
        of("EC signature", Sign, &ecdsa, ec, b"data", 64, 64),
        of("RSA signature here", Sign, &pkcs1, here, b"data", 256, 256),
        of("EC signature here", Sign, &ecdsa, here_ec, b"data", 64, 64),
        of("encryption", Encrypt, &pkcs1, rsa_public, b"data", 256, 256),
        of("OAEP encryption", Encrypt, &oaep, rsa_public, b"data", 256, 256),
        of("decryption", Decrypt, &pkcs1, rsa, &encrypted(&pkcs1, rsa_public), 256, 17),
        of("OAEP decryption", Decrypt, &oaep, rsa, &encrypted(&oaep, rsa_public), 256, 17),
        of("decryption here", Decrypt, &pkcs1, here, &encrypted(&pkcs1, here_public), 256, 17),
    ]
}

impl Operation {
    fn begin(&self, session: &Session<'_>) {
        assert_eq!(session.init(self.family, &self.mechanism, self.key), Ok(()), "{}", self.name);
    }

    fn is_over(&self, session: &Session<'_>) {
        for ended in [
            session.one_shot_in(self.family, &self.input, Room::Bytes(1024)),
            session.last_in(self.family, Room::Bytes(1024)),
        ] {
            assert_eq!(ended.rv, CKR_OPERATION_NOT_INITIALIZED, "{}", self.name);
        }
        let ended = session.update(self.family, b"more");
        assert_eq!(ended, Err(CKR_OPERATION_NOT_INITIALIZED), "{}", self.name);
    }

    /// The result's last call, by name: the one-shot function, or Final after Updates.
    fn last(&self, session: &Session<'_>, one_shot: bool, room: Room) -> Output {
        match one_shot {
            true => session.one_shot_in(self.family, &self.input, room),
            false => session.last_in(self.family, room),
        }
    }

    fn feed(&self, session: &Session<'_>) {
        let (a, b) = self.input.split_at(self.input.len() / 2);
        for part in [a, &[], b] {
            session.update(self.family, part).expect(self.name);
        }
    }
}

#[test]
fn a_buffer_is_asked_about_too_small_exact_or_large() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    for operation in operations(&session) {
        let (bound, length) = (operation.bound, operation.length);
        let short = if bound == length { bound - 1 } else { length - 1 };
        for one_shot in [true, false] {
            let what = format!("{}, one-shot {one_shot}", operation.name);
            // Query, query, nothing, one short, exact.
            operation.begin(&session);
            if !one_shot {
                operation.feed(&session);
            }
            for room in [Room::Query, Room::Query] {
                let output = operation.last(&session, one_shot, room);
                assert_eq!((output.rv, output.length), (CKR_OK, bound), "{what}");
            }
            for room in [Room::Bytes(0), Room::Bytes(short)] {
                let output = operation.last(&session, one_shot, room);
                let wanted = (CKR_BUFFER_TOO_SMALL, length);
                assert_eq!((output.rv, output.length), wanted, "{what}, {room:?}");
            }
            let output = operation.last(&session, one_shot, Room::Bytes(length));
            assert_eq!((output.rv, output.bytes.len()), (CKR_OK, length), "{what}");
            operation.is_over(&session);
            // Large at once.
            operation.begin(&session);
            if !one_shot {
                operation.feed(&session);
            }
            let output = operation.last(&session, one_shot, Room::Bytes(1000));
            assert_eq!((output.rv, output.bytes.len()), (CKR_OK, length), "{what}");
            operation.is_over(&session);
        }
    }
}

#[test]
fn an_operation_begins_goes_on_and_ends_in_order() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    for operation in operations(&session) {
        let Operation { name, family, mechanism, key, input, .. } = &operation;
        operation.is_over(&session);
        // A second Init is refused and disturbs nothing; other families do not mind.
        operation.begin(&session);
        let again = session.init(*family, mechanism, *key);
        assert_eq!(again, Err(CKR_OPERATION_ACTIVE), "{name}");
        let find = [number(CKA_CLASS, CKO_PUBLIC_KEY), bytes(CKA_LABEL, "ec")];
        assert_eq!(session.find(&find).unwrap().len(), 1, "{name}");
        if *family != Family::Digest {
            let digest = Mechanism::plain(CKM_SHA_1);
            session.run(Family::Digest, &digest, 0, b"in between").expect(name);
        }
        session.one_shot(*family, input).expect(name);
        // The one-shot call cannot end what Update began, and ends it.
        operation.begin(&session);
        session.update(*family, &input[..1]).expect(name);
        let mixed = session.one_shot(*family, input);
        assert_eq!(mixed, Err(CKR_OPERATION_NOT_INITIALIZED), "{name}");
        operation.is_over(&session);
        // NULL for a mechanism cancels, and so does C_SessionCancel; doing so twice is no error.
        let flags = match family {
            Family::Digest => CKF_DIGEST,
            Family::Sign => CKF_SIGN,
            Family::Verify => CKF_VERIFY,
            Family::Encrypt => CKF_ENCRYPT,
            Family::Decrypt => CKF_DECRYPT,
        };
        operation.begin(&session);
        session.cancel(!flags & (CKF_DIGEST | CKF_SIGN | CKF_ENCRYPT | CKF_DECRYPT)).unwrap();
        session.update(*family, &input[..1]).expect("another family was cancelled");
        for _ in 0..2 {
            session.cancel(flags).unwrap();
            operation.is_over(&session);
        }
        operation.begin(&session);
        for _ in 0..2 {
            session.init_null(*family).unwrap();
            operation.is_over(&session);
        }
    }
}

#[test]
fn a_null_where_a_pointer_is_needed_ends_the_operation() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (h, null) = (session.handle, ptr::null_mut());
    for operation in operations(&session) {
        let mut out = [0u8; 512];
        let (out, mut len) = (out.as_mut_ptr(), 512);
        let input = operation.input.as_ptr().cast_mut();
        let n = operation.input.len() as CK_ULONG;
        let no_length: *mut CK_ULONG = ptr::null_mut();
        for (what, data, data_len, wants_length) in [
            ("no data", null, n, true),
            ("absurd length", input, CK_ULONG::MAX, true),
            ("no output length", input, n, false),
        ] {
            operation.begin(&session);
            let len = if wants_length { &raw mut len } else { no_length };
            let rv = match operation.family {
                Family::Digest => call!(module, C_Digest(h, data, data_len, out, len)),
                Family::Sign => call!(module, C_Sign(h, data, data_len, out, len)),
                Family::Encrypt => call!(module, C_Encrypt(h, data, data_len, out, len)),
                Family::Decrypt => call!(module, C_Decrypt(h, data, data_len, out, len)),
                Family::Verify => unreachable!(),
            };
            assert_eq!(rv, CKR_ARGUMENTS_BAD, "{}: {what}", operation.name);
            operation.is_over(&session);
        }
        // Updates: a part without bytes is one, a NULL with a length is none.
        operation.begin(&session);
        session.update(operation.family, &[]).expect(operation.name);
        let rv = match operation.family {
            Family::Digest => call!(module, C_DigestUpdate(h, null, 1)),
            Family::Sign => call!(module, C_SignUpdate(h, null, 1)),
            Family::Encrypt => call!(module, C_EncryptUpdate(h, null, 1, out, &raw mut len)),
            Family::Decrypt => call!(module, C_DecryptUpdate(h, null, 1, out, &raw mut len)),
            Family::Verify => unreachable!(),
        };
        assert_eq!(rv, CKR_ARGUMENTS_BAD, "{}", operation.name);
        operation.is_over(&session);
        // Finals.
        operation.begin(&session);
        operation.feed(&session);
        let rv = match operation.family {
            Family::Digest => call!(module, C_DigestFinal(h, out, no_length)),
            Family::Sign => call!(module, C_SignFinal(h, out, no_length)),
            Family::Encrypt => call!(module, C_EncryptFinal(h, out, no_length)),
            Family::Decrypt => call!(module, C_DecryptFinal(h, out, no_length)),
            Family::Verify => unreachable!(),
        };
        assert_eq!(rv, CKR_ARGUMENTS_BAD, "{}", operation.name);
        operation.is_over(&session);
    }
}

/// The empty message is a message.
#[test]
fn no_data_is_signed_and_digested_like_any() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("rsa");
    let mechanism = Mechanism::plain(CKM_SHA256_RSA_PKCS);
    let signature = session.sign(&mechanism, private, &[]).unwrap();
    session.verify(&mechanism, public, &[], &signature).unwrap();
    // Final without any Update is the same.
    session.init(Family::Sign, &mechanism, private).unwrap();
    assert_eq!(session.last(Family::Sign).unwrap(), signature, "PKCS#1 signatures do not vary");
    session.init(Family::Verify, &mechanism, public).unwrap();
    session.verify_last(&signature).unwrap();
    let digest = Mechanism::plain(CKM_SHA_1);
    let empty = session.run(Family::Digest, &digest, 0, &[]).unwrap();
    assert_eq!(empty[..4], [0xda, 0x39, 0xa3, 0xee]);
}

#[test]
fn verification_ends_with_its_first_answer() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("ec");
    let mechanism = Mechanism::plain(CKM_ECDSA_SHA256);
    let good = session.sign(&mechanism, private, b"data").unwrap();
    let over = Err(CKR_OPERATION_NOT_INITIALIZED);
    for (data, signature, wanted) in [
        (&b"data"[..], &good[..], Ok(())),
        (b"tada", &good, Err(CKR_SIGNATURE_INVALID)),
        (b"data", &good[1..], Err(CKR_SIGNATURE_LEN_RANGE)),
        (b"data", &[], Err(CKR_SIGNATURE_LEN_RANGE)),
    ] {
        session.init(Family::Verify, &mechanism, public).unwrap();
        assert_eq!(session.verify_data(data, signature), wanted);
        assert_eq!(session.verify_data(data, signature), over);
        session.init(Family::Verify, &mechanism, public).unwrap();
        session.update(Family::Verify, data).unwrap();
        assert_eq!(session.verify_last(signature), wanted);
        assert_eq!(session.verify_last(signature), over);
        assert_eq!(session.update(Family::Verify, data).map(drop), over);
    }
    session.init(Family::Verify, &mechanism, public).unwrap();
    session.update(Family::Verify, b"data").unwrap();
    assert_eq!(session.verify_data(b"data", &good), over, "one-shot after Update");
    let (h, null) = (session.handle, ptr::null_mut());
    session.init(Family::Verify, &mechanism, public).unwrap();
    assert_eq!(call!(module, C_Verify(h, null, 0, null, 64)), CKR_ARGUMENTS_BAD);
    assert_eq!(session.verify_data(b"data", &good), over);
}

/// C_VerifySignature… of 3.2: the signature comes first.
#[test]
fn a_signature_can_come_before_its_data() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("ec");
    let plain = Mechanism::plain(CKM_ECDSA_SHA256);
    let mut signature = session.sign(&plain, private, b"data").unwrap();
    let mut mechanism = CK_MECHANISM {
        mechanism: CKM_ECDSA_SHA256,
        pParameter: ptr::null_mut(),
        ulParameterLen: 0,
    };
    let h = session.handle;
    let mut begin = |signature: &mut Vec<u8>| {
        let (start, length) = (signature.as_mut_ptr(), signature.len() as CK_ULONG);
        call!(module, C_VerifySignatureInit(h, &raw mut mechanism, public, start, length))
    };
    let data = b"data".as_ptr().cast_mut();
    assert_eq!(begin(&mut signature), CKR_OK);
    assert_eq!(begin(&mut signature), CKR_OPERATION_ACTIVE);
    assert_eq!(call!(module, C_VerifySignature(h, data, 4)), CKR_OK);
    assert_eq!(call!(module, C_VerifySignature(h, data, 4)), CKR_OPERATION_NOT_INITIALIZED);
    assert_eq!(begin(&mut signature), CKR_OK);
    assert_eq!(call!(module, C_VerifySignatureUpdate(h, data, 2)), CKR_OK);
    assert_eq!(call!(module, C_VerifySignatureUpdate(h, data.wrapping_add(2), 2)), CKR_OK);
    assert_eq!(call!(module, C_VerifySignatureFinal(h)), CKR_OK);
    assert_eq!(call!(module, C_VerifySignatureFinal(h)), CKR_OPERATION_NOT_INITIALIZED);
    signature[3] ^= 1;
    assert_eq!(begin(&mut signature), CKR_OK);
    assert_eq!(call!(module, C_VerifySignature(h, data, 4)), CKR_SIGNATURE_INVALID);
    assert_eq!(begin(&mut signature), CKR_OK);
    session.cancel(CKF_VERIFY).unwrap();
    assert_eq!(call!(module, C_VerifySignature(h, data, 4)), CKR_OPERATION_NOT_INITIALIZED);
}

/// EncryptUpdate collects: the length of its output is known, and nothing is fed by asking.
#[test]
fn parts_of_an_encryption_give_nothing_until_the_end() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let (private, public) = session.pair("rsa");
    let pkcs1 = Mechanism::plain(CKM_RSA_PKCS);
    session.init(Family::Encrypt, &pkcs1, public).unwrap();
    let query = session.update_in(Family::Encrypt, b"never fed", Room::Query);
    assert_eq!((query.rv, query.length), (CKR_OK, 0));
    session.update(Family::Encrypt, b"in ").unwrap();
    session.update(Family::Encrypt, b"parts").unwrap();
    let ciphertext = session.last(Family::Encrypt).unwrap();
    session.init(Family::Decrypt, &pkcs1, private).unwrap();
    for part in ciphertext.chunks(100) {
        assert_eq!(session.update(Family::Decrypt, part), Ok(vec![]));
    }
    assert_eq!(session.last(Family::Decrypt).unwrap(), b"in parts");
    // More than fits ends it.
    session.init(Family::Encrypt, &pkcs1, public).unwrap();
    assert_eq!(session.update(Family::Encrypt, &[1; 246]), Err(CKR_DATA_LEN_RANGE));
    assert_eq!(session.last(Family::Encrypt), Err(CKR_OPERATION_NOT_INITIALIZED));
    session.init(Family::Decrypt, &pkcs1, private).unwrap();
    let long = session.update(Family::Decrypt, &[1; 257]);
    assert_eq!(long, Err(CKR_ENCRYPTED_DATA_LEN_RANGE));
    assert_eq!(session.last(Family::Decrypt), Err(CKR_OPERATION_NOT_INITIALIZED));
}

#[test]
fn lists_with_too_little_room_tell_how_much_there_must_be() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let mut slots = [99; 4];
    for (room, wanted, count) in
        [(0, CKR_BUFFER_TOO_SMALL, 2), (1, CKR_BUFFER_TOO_SMALL, 2), (2, CKR_OK, 2), (4, CKR_OK, 2)]
    {
        let mut n = room;
        let rv = call!(module, C_GetSlotList(CK_FALSE, slots.as_mut_ptr(), &raw mut n));
        assert_eq!((rv, n), (wanted, count), "{room}");
    }
    assert_eq!(slots, [0, 1, 99, 99]);
    let all = module.mechanisms(0);
    assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "once each");
    let mut n = 0;
    assert_eq!(call!(module, C_GetMechanismList(0, ptr::null_mut(), &raw mut n)), CKR_OK);
    assert_eq!(n as usize, all.len());
    let mut some = vec![7; all.len()];
    n -= 1;
    let rv = call!(module, C_GetMechanismList(0, some.as_mut_ptr(), &raw mut n));
    assert_eq!((rv, n as usize), (CKR_BUFFER_TOO_SMALL, all.len()));
    assert!(some.iter().all(|one| *one == 7), "nothing is written");
    for kind in [0x8000_0000, CK_ULONG::MAX, CKM_VENDOR_DEFINED, CKM_MD5_RSA_PKCS] {
        assert_eq!(module.mechanism_info(0, kind).map(drop), Err(CKR_MECHANISM_INVALID));
    }
    for kind in all {
        let info = module.mechanism_info(0, kind).unwrap();
        assert!(info.ulMinKeySize <= info.ulMaxKeySize && info.flags != 0, "{kind:#x}");
    }
}

#[test]
fn counts_and_lengths_beyond_reason_are_bad_arguments() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let h = session.handle;
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let mut attribute = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: ptr::null_mut(), ulValueLen: 5 };
    let one = &raw mut attribute;
    let mut handle = 0;
    let mut byte = 0u8;
    for (what, rv) in [
        ("find, count without template", call!(module, C_FindObjectsInit(h, ptr::null_mut(), 1))),
        ("find, absurd count", call!(module, C_FindObjectsInit(h, one, 1 << 32))),
        ("find, length without value", call!(module, C_FindObjectsInit(h, one, 1))),
        ("attributes, count", call!(module, C_GetAttributeValue(h, key, ptr::null_mut(), 3))),
        ("attributes, absurd count", call!(module, C_GetAttributeValue(h, key, one, 1 << 40))),
        (
            "create, NULL handle",
            call!(module, C_CreateObject(h, ptr::null_mut(), 0, ptr::null_mut())),
        ),
        ("create, count", call!(module, C_CreateObject(h, ptr::null_mut(), 7, &raw mut handle))),
        ("set, count", call!(module, C_SetAttributeValue(h, key, ptr::null_mut(), 1))),
        ("random", call!(module, C_GenerateRandom(h, ptr::null_mut(), 1))),
        ("random, absurd", call!(module, C_GenerateRandom(h, &raw mut byte, CK_ULONG::MAX))),
        ("login", call!(module, C_Login(h, CKU_USER, ptr::null_mut(), 4))),
        ("seed", call!(module, C_SeedRandom(h, ptr::null_mut(), 4))),
        (
            "generate",
            call!(
                module,
                C_GenerateKeyPair(
                    h,
                    ptr::null_mut(),
                    one,
                    1,
                    one,
                    1,
                    &raw mut handle,
                    &raw mut handle
                )
            ),
        ),
    ] {
        assert_eq!(rv, CKR_ARGUMENTS_BAD, "{what}");
    }
    assert_eq!(session.find_next(1), Err(CKR_OPERATION_NOT_INITIALIZED));
    session.find_init(&[]).unwrap();
    assert_eq!(
        check(call!(module, C_FindObjects(h, ptr::null_mut(), 3, &raw mut handle))),
        Err(CKR_ARGUMENTS_BAD)
    );
    assert_eq!(session.find_next(0).unwrap(), NOTHING, "no room asked for, none filled");
    session.find_final().unwrap();
}

/// Lengths that no buffer has are found before the bytes are read: one byte is behind each.
#[test]
fn lengths_that_no_buffer_has_are_not_followed() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let h = session.handle;
    let (mut byte, mut out, mut n, mut handle) = (0_u8, [0_u8; 32], 32, 0);
    let start = &raw mut byte;
    let mut sha = CK_MECHANISM { mechanism: CKM_SHA256, ..CK_MECHANISM::default() };
    for length in [(1 << 47) + 1, isize::MAX as CK_ULONG, 1 << 63, CK_ULONG::MAX] {
        assert_eq!(call!(module, C_DigestInit(h, &raw mut sha)), CKR_OK);
        let rv = call!(module, C_Digest(h, start, length, out.as_mut_ptr(), &raw mut n));
        assert_eq!(rv, CKR_ARGUMENTS_BAD, "{length:#x}");
        assert_eq!(call!(module, C_GenerateRandom(h, start, length)), CKR_ARGUMENTS_BAD);
    }
    for length in [(1 << 24) + 1, CK_ULONG::from(u32::MAX), CK_ULONG::MAX] {
        let mut label = CK_ATTRIBUTE { type_: CKA_LABEL, pValue: start.cast(), ulValueLen: length };
        let one = &raw mut label;
        let rv = call!(module, C_CreateObject(h, one, 1, &raw mut handle));
        assert_eq!(rv, CKR_ATTRIBUTE_VALUE_INVALID, "{length:#x}");
        let rv = call!(module, C_FindObjectsInit(h, one, 1));
        assert_eq!(rv, CKR_ATTRIBUTE_VALUE_INVALID, "{length:#x}");
    }
}

#[test]
fn handles_of_another_kind_are_no_handles() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let key = session.object(CKO_PRIVATE_KEY, "ec");
    let other = Session { module: &module, handle: 0x1000 + key };
    assert_eq!(other.info().map(drop), Err(CKR_SESSION_HANDLE_INVALID));
    for object in [0, 0x1000 + key, CK_ULONG::MAX] {
        assert_eq!(session.value(object, CKA_LABEL), Err(CKR_OBJECT_HANDLE_INVALID));
        assert_eq!(session.destroy(object), Err(CKR_OBJECT_HANDLE_INVALID));
        assert_eq!(session.copy(object, &[]), Err(CKR_OBJECT_HANDLE_INVALID));
    }
    // One token's objects are not another's.
    let hsm = module.open(1);
    let of_hsm = hsm.object(CKO_PRIVATE_KEY, "ec");
    let label = session.value(of_hsm, CKA_UNIQUE_ID);
    assert_ne!(label, hsm.value(of_hsm, CKA_UNIQUE_ID));
    let closed = module.open(0);
    closed.close().unwrap();
    assert_eq!(closed.info().map(drop), Err(CKR_SESSION_HANDLE_INVALID));
    assert_eq!(closed.close(), Err(CKR_SESSION_HANDLE_INVALID));
    let last = module.open(0);
    assert_eq!(check(call!(module, C_CloseAllSessions(0))), Ok(()));
    for gone in [last, session] {
        assert_eq!(gone.info().map(drop), Err(CKR_SESSION_HANDLE_INVALID));
    }
    assert!(hsm.info().is_ok(), "the other token's sessions stay");
}

/// No validation (FIPS 140 and its like) is claimed for what a session did.
#[test]
fn validation_flags_are_none() {
    let emulator = Emulator::start(SEED);
    let module = Module::start(&emulator.tokens());
    let session = module.open(0);
    let mut flags = CK_FLAGS::MAX;
    let mut ask = |kind| {
        check(call!(module, C_GetSessionValidationFlags(session.handle, kind, &raw mut flags)))
    };
    assert_eq!(ask(CKS_LAST_VALIDATION_OK), Ok(()));
    assert_eq!(ask(CKS_LAST_VALIDATION_OK + 1), Err(CKR_ARGUMENTS_BAD));
    assert_eq!(flags, 0);
}
