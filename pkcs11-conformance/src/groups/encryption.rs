//! Encryption and decryption, against OpenSSL.

use cryptoki_sys::*;
use openssl::{pkey::PKey, rsa::Rsa};

use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, flag, number},
    context::{Context, need},
    keys::{Key, Kind},
    mechanism::{HASHES, Mechanism},
    names, oracle,
    samples::broken,
};

/// The group.
pub const GROUP: Group = Group {
    name: "encryption",
    title: "RSA encryption, checked by OpenSSL",
    patience: 120,
    cases: &[
        Case {
            id: "pkcs1-decrypts",
            clause: "6.1.6",
            title: "What OpenSSL pads by PKCS #1 v1.5 is decrypted, from nothing to the most.",
            run: pkcs1_decrypts,
        },
        Case {
            id: "pkcs1-encrypts",
            clause: "6.1.6",
            title: "What the module pads by PKCS #1 v1.5 OpenSSL decrypts.",
            run: pkcs1_encrypts,
        },
        Case {
            id: "oaep-decrypts",
            clause: "6.1.8",
            title: "Each hash, MGF and label is decrypted as asked for, or refused at Init.",
            run: oaep_decrypts,
        },
        Case {
            id: "oaep-encrypts",
            clause: "6.1.8",
            title: "Each hash, MGF and label is encrypted as asked for, or refused at Init.",
            run: oaep_encrypts,
        },
    ],
};

fn rsa_keys(context: &mut Context, flag: CK_FLAGS, kind: CK_MECHANISM_TYPE) -> Outcome<Vec<Key>> {
    let offered = context.offered(flag)?;
    if !offered.iter().any(|(one, _)| *one == kind) {
        return skip(format!("{} is not offered for this", names::mechanism(kind)));
    }
    let session = context.user()?;
    let keys = context.keys()?;
    let decrypts = |key: &Key| session.value(key.private, CKA_DECRYPT) == Ok(vec![1]);
    Ok(keys.into_iter().filter(|k| matches!(k.kind, Kind::Rsa(_)) && decrypts(k)).collect())
}

fn pkcs1_decrypts(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKF_DECRYPT, CKM_RSA_PKCS)? {
        context.each(&key, |context| {
            let session = context.user()?;
            for size in [0, 1, 48, key.kind.signature() - 11] {
                let data = vec![0x33; size];
                let cipher = oracle::pkcs1_encrypt(key.oracle()?, &data).map_err(broken)?;
                let mechanism = Mechanism::plain(CKM_RSA_PKCS);
                let told = session.run(Family::Decrypt, &mechanism, key.private, &cipher);
                let told = need(told, &format!("C_Decrypt of {size} bytes"))?;
                ensure(told == data, || format!("{size} bytes come back as {}", told.len()))?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// A key pair of OpenSSL's, its public key a session object.
fn imported(context: &mut Context) -> Outcome<(PKey<openssl::pkey::Private>, CK_OBJECT_HANDLE)> {
    let own = Rsa::generate(2048).map_err(broken)?;
    let template = vec![
        (CKA_CLASS, number(CKO_PUBLIC_KEY)),
        (CKA_KEY_TYPE, number(CKK_RSA)),
        (CKA_TOKEN, flag(false)),
        (CKA_ENCRYPT, flag(true)),
        (CKA_MODULUS, own.n().to_vec()),
        (CKA_PUBLIC_EXPONENT, own.e().to_vec()),
    ];
    let session = context.user()?;
    match session.create(&template) {
        Ok(object) => Ok((PKey::from_rsa(own).map_err(broken)?, object)),
        Err(rv) => skip(format!("a public key cannot be imported: {}", names::rv(rv))),
    }
}

fn pkcs1_encrypts(context: &mut Context) -> Outcome {
    let (own, public) = imported(context)?;
    let session = context.user()?;
    let offered = context.offered(CKF_ENCRYPT)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS) {
        return skip("CKM_RSA_PKCS does not encrypt");
    }
    for size in [0, 1, 48, 245] {
        context.each(format!("{size} bytes"), |_| {
            let data = vec![0x44; size];
            let mechanism = Mechanism::plain(CKM_RSA_PKCS);
            let cipher = session.run(Family::Encrypt, &mechanism, public, &data);
            let cipher = need(cipher, "C_Encrypt")?;
            ensure(cipher.len() == 256, || format!("{} bytes", cipher.len()))?;
            let told = oracle::pkcs1_decrypt(&own, &cipher).map_err(broken)?;
            ensure(told == data, || "OpenSSL decrypts something else".to_owned())
        });
    }
    Ok(())
}

const LABELS: [&[u8]; 2] = [b"", b"a label"];

fn oaep_decrypts(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKF_DECRYPT, CKM_RSA_PKCS_OAEP)? {
        for hash in &HASHES[..5] {
            for mgf in &HASHES[..5] {
                for label in LABELS {
                    let label_name = String::from_utf8_lossy(label);
                    let name = format!("{}, MGF1 {}, {label_name:?}, {key}", hash.name, mgf.name);
                    context.each(name, |context| {
                        let session = context.user()?;
                        let mechanism = Mechanism::oaep(hash, mgf, label);
                        match session.init(Family::Decrypt, &mechanism, key.private) {
                            Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                            rv => need(rv, "C_DecryptInit")?,
                        }
                        let data = b"a secret";
                        let cipher = oracle::oaep_encrypt(key.oracle()?, hash, mgf, label, data)
                            .map_err(broken)?;
                        let told = need(session.one_shot(Family::Decrypt, &cipher), "C_Decrypt")?;
                        ensure(told == data, || "another plaintext comes back".to_owned())
                    });
                }
            }
        }
    }
    Ok(())
}

fn oaep_encrypts(context: &mut Context) -> Outcome {
    let (own, public) = imported(context)?;
    let session = context.user()?;
    let offered = context.offered(CKF_ENCRYPT)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS_OAEP) {
        return skip("CKM_RSA_PKCS_OAEP does not encrypt");
    }
    for hash in &HASHES[..5] {
        for mgf in &HASHES[..5] {
            for label in LABELS {
                let label_name = String::from_utf8_lossy(label);
                let name = format!("{}, MGF1 {}, {label_name:?}", hash.name, mgf.name);
                context.each(name, |_| {
                    let mechanism = Mechanism::oaep(hash, mgf, label);
                    match session.init(Family::Encrypt, &mechanism, public) {
                        Err(CKR_MECHANISM_PARAM_INVALID) => return skip("refused at Init"),
                        rv => need(rv, "C_EncryptInit")?,
                    }
                    let data = b"a secret";
                    let cipher = need(session.one_shot(Family::Encrypt, data), "C_Encrypt")?;
                    let told = oracle::oaep_decrypt(&own, hash, mgf, label, &cipher);
                    let told = told.map_err(broken)?;
                    ensure(told == data, || "OpenSSL decrypts something else".to_owned())
                });
            }
        }
    }
    Ok(())
}
