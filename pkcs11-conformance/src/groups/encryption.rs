//! Encryption and decryption, against OpenSSL.

use cryptoki_sys::*;
use openssl::pkey::{PKey, Private};

use super::imports;
use crate::{
    case::{Case, Group, Outcome, ensure, skip},
    client::{Family, Session},
    context::{Context, PARAMETER_REFUSED, is, need},
    keys::{Key, Kind},
    mechanism::{HASHES, Hash, Mechanism},
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
            id: "oaep-lengths",
            clause: "6.1.8",
            title: "From nothing to the most that there is room for is taken, a byte more is \
                    CKR_DATA_LEN_RANGE.",
            run: oaep_lengths,
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
fn imported(context: &mut Context) -> Outcome<(&'static PKey<Private>, CK_OBJECT_HANDLE)> {
    let own = imports::own_rsa()?;
    let object = imports::imported(context.user()?, own, None)?;
    Ok((own, object))
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
            let told = oracle::pkcs1_decrypt(own, &cipher).map_err(broken)?;
            ensure(told == data, || "OpenSSL decrypts something else".to_owned())
        });
    }
    Ok(())
}

const LABELS: [&[u8]; 2] = [b"", b"a label"];

fn oaep_lengths(context: &mut Context) -> Outcome {
    let sha1 = &HASHES[0];
    let mechanism = Mechanism::oaep(sha1, sha1, &[]);
    for key in rsa_keys(context, CKF_DECRYPT, CKM_RSA_PKCS_OAEP)? {
        context.each(format!("C_Decrypt, {key}"), |context| {
            let session = context.user()?;
            for size in [0, 1, key.kind.signature() - 2 - 2 * sha1.size] {
                let data = vec![0x17; size];
                let cipher = oracle::oaep_encrypt(key.oracle()?, sha1, sha1, &[], &data);
                let cipher = cipher.map_err(broken)?;
                let told = session.run(Family::Decrypt, &mechanism, key.private, &cipher);
                let told = need(told, &format!("C_Decrypt of {size} bytes"))?;
                ensure(told == data, || format!("{size} bytes come back as {}", told.len()))?;
            }
            Ok(())
        });
    }
    let (own, public) = imported(context)?;
    if !context.offered(CKF_ENCRYPT)?.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS_OAEP) {
        return Ok(());
    }
    let most = 256 - 2 - 2 * sha1.size;
    context.each("C_Encrypt", |context| {
        let session = context.user()?;
        for size in [0, 1, most] {
            let data = vec![0x17; size];
            let cipher = session.run(Family::Encrypt, &mechanism, public, &data);
            let cipher = need(cipher, &format!("C_Encrypt of {size} bytes"))?;
            let told = oracle::oaep_decrypt(own, sha1, sha1, &[], &cipher).map_err(broken)?;
            ensure(told == data, || format!("{size} bytes: OpenSSL decrypts something else"))?;
        }
        let longer = session.run(Family::Encrypt, &mechanism, public, &vec![0x17; most + 1]);
        is(longer, CKR_DATA_LEN_RANGE, "C_Encrypt of a byte more")
    });
    Ok(())
}

/// Each setting of OAEP that Init takes; how many it does not is one line.
fn each_setting(
    context: &mut Context,
    family: Family,
    handle: CK_OBJECT_HANDLE,
    of: &str,
    attempt: impl Fn(Session, &Hash, &Hash, &[u8]) -> Outcome,
) -> Outcome {
    let (mut refused, mut tried) = (0, 0);
    for hash in HASHES {
        for mgf in HASHES {
            for label in LABELS {
                tried += 1;
                let session = context.user()?;
                let begun = session.init(family, &Mechanism::oaep(hash, mgf, label), handle);
                if begun.is_err_and(|rv| PARAMETER_REFUSED.contains(&rv)) {
                    refused += 1;
                } else {
                    let label_name = String::from_utf8_lossy(label);
                    let name = format!("{}, MGF1 {}, {label_name:?}{of}", hash.name, mgf.name);
                    context.each(name, |_| {
                        need(begun, "Init")?;
                        attempt(session, hash, mgf, label)
                    });
                }
                need(session.close(), "C_CloseSession")?;
                context.forget(session);
            }
        }
    }
    if refused > 0 {
        let why = format!("{refused} of {tried} settings are refused at Init");
        context.each(format!("refused{of}"), |_| skip(why));
    }
    Ok(())
}

fn oaep_decrypts(context: &mut Context) -> Outcome {
    for key in rsa_keys(context, CKF_DECRYPT, CKM_RSA_PKCS_OAEP)? {
        let of = format!(", {key}");
        each_setting(context, Family::Decrypt, key.private, &of, |session, hash, mgf, label| {
            let data = b"a secret";
            let cipher = oracle::oaep_encrypt(key.oracle()?, hash, mgf, label, data);
            let cipher = cipher.map_err(broken)?;
            let told = need(session.one_shot(Family::Decrypt, &cipher), "C_Decrypt")?;
            ensure(told == data, || "another plaintext comes back".to_owned())
        })?;
    }
    Ok(())
}

fn oaep_encrypts(context: &mut Context) -> Outcome {
    let (own, public) = imported(context)?;
    let offered = context.offered(CKF_ENCRYPT)?;
    if !offered.iter().any(|(kind, _)| *kind == CKM_RSA_PKCS_OAEP) {
        return skip("CKM_RSA_PKCS_OAEP does not encrypt");
    }
    each_setting(context, Family::Encrypt, public, "", |session, hash, mgf, label| {
        let data = b"a secret";
        let cipher = need(session.one_shot(Family::Encrypt, data), "C_Encrypt")?;
        let told = oracle::oaep_decrypt(own, hash, mgf, label, &cipher).map_err(broken)?;
        ensure(told == data, || "OpenSSL decrypts something else".to_owned())
    })
}
