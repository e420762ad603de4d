//! Client certificates: the JWT assertion that proves possession of the key, signed here.
//!
//! azure_identity's own class for this links the system's OpenSSL, which must not enter processes
//! whose OpenSSL may be calling us.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    digest,
    rand::{self, SystemRandom},
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PSS_SHA256},
};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use cryptoki_sys::CKR_GENERAL_ERROR;
use der::Decode;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use x509_cert::Certificate;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Seconds an assertion is good for: one token request and the clocks' difference.
const LIFETIME: u64 = 600;

/// A certificate chain with the RSA key of its leaf.
pub(super) struct SigningCertificate {
    key: KeyPair,
    /// DER, leaf first.
    chain: Vec<CertificateDer<'static>>,
}

impl SigningCertificate {
    /// Reads a PEM with one unencrypted RSA key (PKCS#8 or PKCS#1) and its certificate; further
    /// certificates are the chain. The order does not matter.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR, saying what is missing or of the wrong kind.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        if pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
            return Err(refused("its private key is encrypted; store it without a passphrase"));
        }
        let key = PrivateKeyDer::from_pem_slice(pem)
            .map_err(|error| refused(&format!("it holds no private key in PEM form ({error})")))?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            _ => return Err(refused("its key is not RSA; Entra takes RSA assertions only")),
        }
        .map_err(|error| refused(&format!("its key is no usable RSA key ({error})")))?;
        let mut chain = CertificateDer::pem_slice_iter(pem)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| refused(&format!("a certificate in it is broken ({error})")))?;
        let leaf = chain
            .iter()
            .position(|certificate| certifies(certificate, &key))
            .ok_or_else(|| refused("it holds no certificate for its key"))?;
        chain[..=leaf].rotate_right(1);
        Ok(SigningCertificate { key, chain })
    }

    /// The assertion for one token request to `audience`, the token endpoint's URL, as a compact
    /// JWS (PS256). With `send_chain` it carries the certificates, for subject-name and issuer
    /// authentication.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR when signing fails.
    pub fn assertion(
        &self,
        client_id: &str,
        audience: &str,
        send_chain: bool,
    ) -> Result<Zeroizing<String>> {
        let thumbprint = digest::digest(&digest::SHA256, &self.chain[0]);
        let mut header = json!({
            "alg": "PS256",
            "typ": "JWT",
            "x5t#S256": BASE64_URL_SAFE_NO_PAD.encode(thumbprint),
        });
        if send_chain {
            let chain = self.chain.iter().map(|certificate| BASE64_STANDARD.encode(certificate));
            header["x5c"] = chain.collect::<Vec<_>>().into();
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| refused("there are no random bytes for it"))?;
        let claims = json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": BASE64_URL_SAFE_NO_PAD.encode(id),
            "nbf": now,
            "iat": now,
            "exp": now + LIFETIME,
        });
        let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| refused("its key cannot sign"))?;
        Ok(Zeroizing::new(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
    }
}

const ENCRYPTED: &[u8] = b"ENCRYPTED";

fn refused(why: &str) -> Error {
    Error::new(CKR_GENERAL_ERROR, format!("the client certificate cannot be used: {why}"))
}

/// The certificate's public key is `key`'s: for RSA the bits are the RSAPublicKey, as here.
fn certifies(certificate: &CertificateDer<'_>, key: &KeyPair) -> bool {
    Certificate::from_der(certificate).is_ok_and(|certificate| {
        let info = &certificate.tbs_certificate.subject_public_key_info;
        info.subject_public_key.raw_bytes() == key.public_key().as_ref()
    })
}
