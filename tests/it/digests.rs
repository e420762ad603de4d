//! Digests and random bytes.

#![allow(unsafe_code)]

use cryptoki_sys::*;
use openssl::hash::{MessageDigest, hash};

use crate::{
    service::{Emulator, HSM, VAULT},
    token::{Family, Mechanism, Module, call, check},
};

/// Digests against OpenSSL, in one piece and in many.
#[test]
fn digests_are_openssls() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.token(VAULT, ""));
    let session = module.open(0);
    let data: Vec<u8> = (0..5000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    for kind in module.mechanisms(0) {
        if module.mechanism_info(0, kind).unwrap().flags & CKF_DIGEST == 0 {
            continue;
        }
        let md = match kind {
            CKM_SHA_1 => MessageDigest::sha1(),
            CKM_SHA224 => MessageDigest::sha224(),
            CKM_SHA256 => MessageDigest::sha256(),
            CKM_SHA384 => MessageDigest::sha384(),
            CKM_SHA512 => MessageDigest::sha512(),
            CKM_SHA3_224 => MessageDigest::sha3_224(),
            CKM_SHA3_256 => MessageDigest::sha3_256(),
            CKM_SHA3_384 => MessageDigest::sha3_384(),
            CKM_SHA3_512 => MessageDigest::sha3_512(),
            other => panic!("digest {other:#x} is listed, and no test knows it"),
        };
        let mechanism = Mechanism::plain(kind);
        let wanted = hash(md, &data).unwrap().to_vec();
        assert_eq!(session.run(Family::Digest, &mechanism, 0, &data).unwrap(), wanted);
        session.init(Family::Digest, &mechanism, 0).unwrap();
        for part in data.chunks(7) {
            session.update(Family::Digest, part).unwrap();
        }
        assert_eq!(session.last(Family::Digest).unwrap(), wanted);
    }
    assert_eq!(emulator.requests(VAULT), 0);
}

/// A Managed HSM's random bytes are the service's, in chunks; a vault has none.
#[test]
fn random_bytes_come_in_any_number() {
    let emulator = Emulator::start("");
    let module = Module::start(&emulator.tokens());
    for (slot, service) in [(0, VAULT), (1, HSM)] {
        let session = module.open(slot);
        for count in [0, 1, 127, 128, 129, 1000] {
            emulator.reset();
            let bytes = session.random(count).unwrap();
            if count >= 127 {
                assert!(bytes.iter().filter(|byte| **byte == 0).count() < count / 4);
                assert_ne!(bytes, session.random(count).unwrap());
            }
            let asked = emulator.counts(service).get("rng").copied().unwrap_or(0);
            let calls = if count >= 127 { 2 } else { 1 };
            let wanted = if slot == 0 { 0 } else { calls * (count as u64).div_ceil(128) };
            assert_eq!(asked, wanted, "slot {slot}, {count} bytes");
        }
        let refused =
            check(call!(module, C_SeedRandom(session.handle, b"s".as_ptr().cast_mut(), 1)));
        assert_eq!(refused, Err(CKR_RANDOM_SEED_NOT_SUPPORTED));
    }
}
