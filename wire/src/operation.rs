//! Bodies of sign, verify, encrypt, decrypt, wrapkey, unwrapkey, backup and rng.

use serde::{Deserialize, Serialize};

use crate::base64url::Base64Url;

/// Request of sign, encrypt, decrypt, wrapkey and unwrapkey.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOperationParameters {
    /// Algorithm name: see `SignatureAlgorithm` and `EncryptionAlgorithm`.
    pub alg: String,
    /// Sign: the digest. Encrypt, wrapkey: the plaintext. Decrypt, unwrapkey: the ciphertext.
    pub value: Base64Url,
    /// Initialisation vector: 16 bytes for CBC; for GCM 12 bytes, on decrypt only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iv: Option<Base64Url>,
    /// Additional authenticated data of GCM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<Base64Url>,
    /// Authentication tag of GCM: 16 bytes, on decrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Base64Url>,
}

/// Response of sign, encrypt, decrypt, wrapkey and unwrapkey.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyOperationResult {
    /// The key version that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The algorithm; a Managed HSM tells it, a vault does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// Signature, ciphertext or plaintext.
    pub value: Base64Url,
    /// IV of an AES encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iv: Option<Base64Url>,
    /// Tag of a GCM encryption, 16 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<Base64Url>,
    /// The additional data of a GCM encryption, repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aad: Option<Base64Url>,
}

/// Request of verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVerifyParameters {
    /// Algorithm name: see `SignatureAlgorithm`.
    pub alg: String,
    /// The digest (for HMAC the message).
    pub digest: Base64Url,
    /// The signature.
    pub value: Base64Url,
}

/// Response of verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVerifyResult {
    /// The algorithm; Managed HSM only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// The key version; Managed HSM only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// Whether the signature is good.
    pub value: bool,
}

/// Request of `/rng`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RandomParameters {
    /// Bytes wanted, 1 to 128.
    pub count: u32,
}

/// Response of `/rng`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RandomBytes {
    /// The random bytes.
    pub value: Base64Url,
}

/// Response of backup, for keys, secrets and certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupResult {
    /// An opaque blob that holds all versions.
    pub value: Base64Url,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_compact() {
        let sign = KeyOperationParameters {
            alg: "RS256".into(),
            value: Base64Url::new([0; 3]),
            ..KeyOperationParameters::default()
        };
        assert_eq!(
            serde_json::to_string(&sign).expect("json"),
            r#"{"alg":"RS256","value":"AAAA"}"#
        );
    }

    #[test]
    fn both_dialects_of_a_verification_are_read() {
        let vault: KeyVerifyResult = serde_json::from_str(r#"{"value":true}"#).expect("vault");
        let hsm: KeyVerifyResult =
            serde_json::from_str(r#"{"alg":"ES256","kid":"k","value":true}"#).expect("hsm");
        assert!(vault.value && hsm.value);
        assert_eq!(hsm.kid.as_deref(), Some("k"));
    }
}
