//! Key transfer blobs ("bring your own key"): made here under a key of the token, or checked
//! before a vendor's is sent.

use akv_pkcs11::{
    crypto::{
        self, Hash,
        symmetric::{self, KeyWrap},
    },
    slot::Slot,
};
use akv_wire::Base64Url;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::show::public_key;
use crate::{failure::Failure, target::Wanted};

/// The only encryption the BYOK specification has.
const ENCRYPTION: &str = "CKM_RSA_AES_KEY_WRAP";

#[derive(Deserialize, Serialize)]
struct Blob {
    schema_version: String,
    header: Header,
    ciphertext: Base64Url,
    #[serde(default)]
    generator: String,
}

#[derive(Deserialize, Serialize)]
struct Header {
    kid: String,
    alg: String,
    enc: String,
}

/// Refuses what cannot be a transfer blob; the key in it is seen by the service's HSM alone.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let blob: Blob = serde_json::from_slice(bytes)
        .map_err(|error| format!("this is no key transfer blob (JSON): {error}"))?;
    match (blob.header.enc.as_str(), blob.ciphertext.as_bytes()) {
        (_, []) => Err("the key transfer blob has no ciphertext".to_owned()),
        (ENCRYPTION, _) => Ok(()),
        (other, _) => Err(format!(
            "the key transfer blob is encrypted by {other:?}, which is not {ENCRYPTION}"
        )),
    }
}

/// Wraps a PKCS#8 under a key of the token whose only operation is `import`.
pub fn wrap(slot: &Slot, kek: &Wanted, pkcs8: &[u8]) -> Result<Base64Url, Failure> {
    let bundle = slot.vault.key(kek.key())?;
    let imports = bundle.key.key_ops.as_deref() == Some(&["import".to_owned()]);
    let unsuitable = || {
        Failure::new(format!(
            "'{}' cannot be a key encryption key: make one with `akv-pkcs11 key generate LABEL \
             --type rsa --size 4096 --hsm --ops import`",
            kek.name
        ))
    };
    let public = public_key(&bundle, slot)?.filter(|key| key.is_rsa()).ok_or_else(unsuitable)?;
    let kid = bundle.key.kid.filter(|_| imports).ok_or_else(unsuitable)?;
    let mut aes = Zeroizing::new([0; 32]);
    crypto::random(&mut *aes)?;
    let mut ciphertext = public.encrypt_oaep(Hash::Sha1, Hash::Sha1, &[], &*aes)?;
    ciphertext.extend(symmetric::wrap(KeyWrap::Rfc5649, &*aes, pkcs8)?);
    let blob = Blob {
        schema_version: "1.0.0".to_owned(),
        header: Header { kid, alg: "dir".to_owned(), enc: ENCRYPTION.to_owned() },
        ciphertext: ciphertext.into(),
        generator: concat!("akv-pkcs11/", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let json = serde_json::to_vec(&blob);
    json.map(Base64Url::new)
        .map_err(|error| Failure::new(format!("the key transfer blob cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transfer_blobs_are_sent() {
        let blob = |enc: &str, ciphertext: &str| {
            format!(
                r#"{{"schema_version":"1.0.0","header":{{"kid":"https://h/keys/n/v","alg":"dir",
                "enc":"{enc}"}},"ciphertext":"{ciphertext}"}}"#
            )
        };
        assert_eq!(check(blob(ENCRYPTION, "AAAA").as_bytes()), Ok(()));
        for bad in [blob("other", "AAAA"), blob(ENCRYPTION, ""), "{}".into(), String::new()] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
