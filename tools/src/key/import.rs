//! `key import`: a private key in PEM, a vendor's transfer blob, a secret key.

use std::path::Path;

use akv_pkcs11::{
    crypto::{Curve, PrivateKey, RsaInput},
    operation::import::jwk,
    slot::Slot,
};
use akv_wire::{Base64Url, JsonWebKey, KeyImportParameters};
use pkcs1::der::Decode;
use zeroize::Zeroizing;

use super::{make, transfer};
use crate::{
    cli::{CurveName, KeyKind, PropertyArgs},
    failure::Failure,
    files,
    output::Output,
    target::Wanted,
};

/// What is brought to the service. Reading it asks nothing of the service.
pub enum Brought {
    /// A private key.
    Private(PrivateKey),
    /// A transfer blob, and what is in it.
    Blob { blob: Base64Url, kind: KeyKind, curve: Option<CurveName> },
    /// A secret key.
    Secret(Base64Url),
}

impl Brought {
    /// Reads the one file that is given.
    pub fn read(
        pem: Option<&Path>,
        byok: Option<(&Path, KeyKind, Option<CurveName>)>,
        aes: Option<&Path>,
    ) -> Result<Brought, Failure> {
        match (pem, byok, aes) {
            (Some(file), None, None) => {
                let bytes = files::read(file)?;
                private_key(&bytes)
                    .map(Brought::Private)
                    .map_err(|why| Failure::new(format!("{}: {why}", file.display())))
            }
            (None, Some((file, kind, curve)), None) => {
                if (kind == KeyKind::Ec) != curve.is_some() {
                    return Err(Failure::usage(
                        "--curve goes with --type ec and with nothing else",
                    ));
                }
                let bytes = files::read(file)?;
                let why = |why: &str| Failure::new(format!("{}: {why}", file.display()));
                transfer::check(&bytes).map_err(|reason| why(&reason))?;
                Ok(Brought::Blob { blob: Base64Url::new(bytes.as_slice()), kind, curve })
            }
            (None, None, Some(file)) => {
                let bytes = files::read(file)?;
                match bytes.len() {
                    16 | 24 | 32 => Ok(Brought::Secret(Base64Url::new(bytes.as_slice()))),
                    other => Err(Failure::new(format!(
                        "{} has {other} bytes: a secret key has 16, 24 or 32",
                        file.display()
                    ))),
                }
            }
            _ => Err(Failure::usage("one of --pem, --byok and --aes says what to import")),
        }
    }
}

/// Imports and shows a key.
pub fn run(
    slot: &Slot,
    label: &str,
    brought: Brought,
    kek: Option<&Wanted>,
    properties: &PropertyArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let key = match (brought, kek) {
        (Brought::Private(key), None) => jwk(slot, &key)?.0,
        (Brought::Private(key), Some(kek)) => {
            let (plain, ..) = jwk(slot, &key)?;
            let blob = transfer::wrap(slot, kek, &key.pkcs8_der()?)?;
            // The type and the curve alone: nothing of the key goes beside the blob.
            of_blob(plain.kty, plain.crv, blob)
        }
        (Brought::Blob { blob, kind, curve }, _) => {
            let kty = format!("{}-HSM", make::plain_type(kind));
            of_blob(Some(kty), curve.map(|curve| curve.name().to_owned()), blob)
        }
        (Brought::Secret(k), _) => JsonWebKey {
            kty: Some(make::protected(make::plain_type(KeyKind::Aes), slot)),
            k: Some(k),
            ..JsonWebKey::default()
        },
    };
    let hsm = slot.token.hsm_protection || key.key_hsm.is_some();
    let parameters = KeyImportParameters {
        hsm: hsm.then_some(true),
        key: JsonWebKey { key_ops: make::operations(properties), ..key },
        attributes: make::attributes(properties),
        tags: None,
        release_policy: make::release_policy(properties)?,
    };
    let bundle = make::make(slot, label, properties, |vault, name, tags| {
        let parameters = KeyImportParameters { tags: Some(tags), ..parameters.clone() };
        vault.import_key(name, &parameters)
    })?;
    make::shown(slot, &bundle, output)
}

fn of_blob(kty: Option<String>, crv: Option<String>, blob: Base64Url) -> JsonWebKey {
    let kty = kty.map(|kty| if kty.ends_with("-HSM") { kty } else { format!("{kty}-HSM") });
    JsonWebKey { kty, crv, key_hsm: Some(blob), ..JsonWebKey::default() }
}

/// The private key in a PEM: PKCS#8, PKCS#1 or SEC 1. What stands before it (`EC PARAMETERS`,
/// certificates) is passed over. The reason names nothing of the contents.
fn private_key(pem: &[u8]) -> Result<PrivateKey, String> {
    let text = std::str::from_utf8(pem).map_err(|_| "this is no PEM".to_owned())?;
    let starts = text.match_indices("-----BEGIN ");
    for (at, _) in starts {
        let block = &text[at..];
        let label = block["-----BEGIN ".len()..].split("-----").next().unwrap_or_default();
        if !label.ends_with("PRIVATE KEY") {
            continue;
        }
        let end = format!("-----END {label}-----");
        let Some(length) = block.find(&end) else {
            return Err(format!("the PEM block {label} has no end"));
        };
        return decoded(label, &block[..length + end.len()]);
    }
    Err("there is no private key in this PEM".to_owned())
}

fn decoded(label: &str, block: &str) -> Result<PrivateKey, String> {
    let encrypted = "the private key is encrypted: decrypt it on the way, without a file, with \
                     `openssl pkey -in FILE | akv-pkcs11 key import LABEL --pem -`";
    if label == "ENCRYPTED PRIVATE KEY" || block.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(encrypted.to_owned());
    }
    let (_, der) = pkcs8::SecretDocument::from_pem(block)
        .map_err(|_| format!("the PEM block {label} is damaged"))?;
    let der = Zeroizing::new(der.as_bytes().to_vec());
    let damaged = || format!("the PEM block {label} holds no such key");
    match label {
        "PRIVATE KEY" => PrivateKey::from_pkcs8(&der),
        "RSA PRIVATE KEY" => {
            let key = pkcs1::RsaPrivateKey::from_der(&der).map_err(|_| damaged())?;
            PrivateKey::from_rsa_components(RsaInput {
                n: key.modulus.as_bytes(),
                e: key.public_exponent.as_bytes(),
                d: key.private_exponent.as_bytes(),
                p: Some(key.prime1.as_bytes()),
                q: Some(key.prime2.as_bytes()),
                ..RsaInput::default()
            })
        }
        "EC PRIVATE KEY" => {
            let key = sec1::EcPrivateKey::from_der(&der).map_err(|_| damaged())?;
            let oid = key.parameters.and_then(|parameters| parameters.named_curve());
            let curve = oid.as_ref().and_then(Curve::from_oid).ok_or(
                "the EC key names no curve that the service has: P-256, P-256K, P-384, P-521",
            )?;
            PrivateKey::from_ec(curve, key.private_key)
        }
        _ => return Err(format!("a {label} is neither RSA nor EC")),
    }
    .map_err(|error| error.sentence().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_private_key_is_read() {
        use openssl::{
            ec::{EcGroup, EcKey},
            nid::Nid,
            pkey::PKey,
            rsa::Rsa,
            symm::Cipher,
        };
        let rsa = Rsa::generate(2048).unwrap();
        let ec = EcKey::generate(&EcGroup::from_curve_name(Nid::SECP384R1).unwrap()).unwrap();
        let pkcs8 = |key: PKey<openssl::pkey::Private>| key.private_key_to_pem_pkcs8().unwrap();
        let before = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n";
        for pem in [
            rsa.private_key_to_pem().unwrap(),
            ec.private_key_to_pem().unwrap(),
            pkcs8(PKey::from_rsa(rsa.clone()).unwrap()),
            pkcs8(PKey::from_ec_key(ec.clone()).unwrap()),
            [before.to_vec(), ec.private_key_to_pem().unwrap()].concat(),
        ] {
            let key = private_key(&pem).unwrap_or_else(|why| panic!("{why}"));
            let wanted = match key.public().is_rsa() {
                true => PKey::from_rsa(rsa.clone()).unwrap().public_key_to_der().unwrap(),
                false => PKey::from_ec_key(ec.clone()).unwrap().public_key_to_der().unwrap(),
            };
            assert_eq!(key.public().spki_der(), wanted);
        }
        let cipher = Cipher::aes_128_cbc();
        for encrypted in [
            rsa.private_key_to_pem_passphrase(cipher, b"pass").unwrap(),
            PKey::from_rsa(rsa)
                .unwrap()
                .private_key_to_pem_pkcs8_passphrase(cipher, b"pass")
                .unwrap(),
        ] {
            let why = private_key(&encrypted).unwrap_err();
            assert!(why.contains("openssl pkey"), "{why}");
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_without_a_word_of_it() {
        for bad in [
            "",
            "hunter2",
            "-----BEGIN PRIVATE KEY-----\nhunter2",
            "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n",
        ] {
            let why = private_key(bad.as_bytes()).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
