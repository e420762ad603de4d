//! The test vectors of Project Wycheproof, which have broken other implementations: for each key
//! that a module lets us import, as a session object.

mod decryption;
mod secret;
mod signatures;

use cryptoki_sys::*;
use wycheproof::{HashFunction, TestResult};

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    context::Context,
    mechanism::{HASHES, Hash},
};

/// The group.
pub const GROUP: Group = Group {
    name: "vectors",
    title: "the vectors of Project Wycheproof",
    patience: 300,
    cases: &[
        Case {
            id: "aes-gcm",
            clause: "6.13.2",
            title: "AES-GCM: valid vectors are decrypted and made again, no other is.",
            run: secret::aes_gcm,
        },
        Case {
            id: "aes-cbc-pad",
            clause: "6.10.6",
            title: "AES-CBC with padding: valid vectors are decrypted and made again, no other is.",
            run: secret::aes_cbc_pad,
        },
        Case {
            id: "aes-key-wrap",
            clause: "6.16.3",
            title: "AES key wrap: valid vectors are decrypted, or unwrapped to keys, and made again, no \
                    other is.",
            run: secret::key_wrap,
        },
        Case {
            id: "hmac",
            clause: "6.20.4",
            title: "HMAC: valid tags are made and verified, changed ones are refused.",
            run: secret::hmacs,
        },
        Case {
            id: "ecdsa",
            clause: "6.3.13",
            title: "ECDSA: valid signatures are verified, no other is.",
            run: signatures::ecdsas,
        },
        Case {
            id: "rsa-pkcs1",
            clause: "6.1.6, 6.1.14",
            title: "RSASSA-PKCS1-v1_5: valid signatures are verified, no other is.",
            run: signatures::rsa_pkcs1,
        },
        Case {
            id: "rsa-pss",
            clause: "6.1.10",
            title: "RSASSA-PSS: valid signatures are verified, no other is.",
            run: signatures::rsa_pss,
        },
        Case {
            id: "rsa-pkcs1-decryption",
            clause: "6.1.6",
            title: "RSAES-PKCS1-v1_5: what is valid is decrypted; nothing else gives a plaintext \
                    that an attacker chose.",
            run: decryption::pkcs1_decryption,
        },
        Case {
            id: "rsa-oaep-decryption",
            clause: "6.1.8",
            title: "RSAES-OAEP: what is valid is decrypted, nothing else is.",
            run: decryption::oaep_decryption,
        },
    ],
};

/// What the module makes of a vector.
#[derive(Clone, Copy)]
struct Told {
    /// It takes it as valid, and gives what the vector says.
    taken: bool,
    /// It makes the same itself, where it can be asked to.
    made: bool,
}

impl Told {
    /// Of what a module is only asked to take.
    fn taken(taken: bool) -> Told {
        Told { taken, made: true }
    }
}

/// What came of a set of vectors.
#[derive(Default)]
struct Tally {
    seen: usize,
    wrong: Vec<String>,
}

impl Tally {
    /// Counts one vector.
    fn count(&mut self, id: usize, result: TestResult, told: Told, comment: &str) {
        self.seen += 1;
        let what = match result {
            TestResult::Valid if !told.taken => "is refused",
            TestResult::Valid if !told.made => "is made otherwise",
            TestResult::Invalid if told.taken => "is accepted",
            _ => return,
        };
        self.wrong.push(format!("{id} ({comment}) {what}"));
    }

    fn outcome(self) -> Outcome {
        if self.seen == 0 {
            return skip("no key of these vectors can be imported");
        }
        ensure(self.wrong.is_empty(), || {
            let some: Vec<&str> = self.wrong.iter().take(4).map(String::as_str).collect();
            format!("{} of {} vectors: {}", self.wrong.len(), self.seen, some.join(", "))
        })
    }
}

fn hash(function: HashFunction) -> Option<&'static Hash> {
    let name = match function {
        HashFunction::Sha1 => "SHA-1",
        HashFunction::Sha2_224 => "SHA-224",
        HashFunction::Sha2_256 => "SHA-256",
        HashFunction::Sha2_384 => "SHA-384",
        HashFunction::Sha2_512 => "SHA-512",
        HashFunction::Sha3_224 => "SHA3-224",
        HashFunction::Sha3_256 => "SHA3-256",
        HashFunction::Sha3_384 => "SHA3-384",
        HashFunction::Sha3_512 => "SHA3-512",
        _ => return None,
    };
    HASHES.iter().find(|hash| hash.name == name)
}

/// Whether a mechanism is offered for a use.
fn offered(context: &mut Context, kind: CK_MECHANISM_TYPE, flag: CK_FLAGS) -> Outcome<bool> {
    Ok(context.offered(flag)?.iter().any(|(one, _)| *one == kind))
}

fn load<T>(set: Result<T, impl std::fmt::Display>) -> Outcome<T> {
    set.map_err(|error| crate::case::Stop::Fail(format!("the vectors cannot be read: {error}")))
}
