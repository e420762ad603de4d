//! JSON web tokens: RS256 out, RS256 and PS256 in.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{HasPublic, PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};
use serde::Serialize;
use serde_json::{Value, json};

/// A token taken apart; nothing of it is to be believed before [`Jwt::is_signed_by`].
pub struct Jwt {
    /// Header members.
    pub header: Value,
    /// Claims.
    pub claims: Value,
    signed: String,
    signature: Vec<u8>,
}

/// Makes a token.
pub fn sign(
    key: &PKey<Private>,
    key_id: &str,
    claims: &impl Serialize,
) -> Result<String, ErrorStack> {
    let header = json!({"typ": "JWT", "alg": "RS256", "x5t": key_id, "kid": key_id});
    // Claims are structures with string keys and finite numbers: they always render.
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", encode(header.to_string().as_bytes()), encode(&claims));
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = signer.sign_oneshot_to_vec(text.as_bytes())?;
    Ok(format!("{text}.{}", encode(&signature)))
}

impl Jwt {
    /// Takes a compact token apart.
    pub fn parse(token: &str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed: signed.to_owned(),
            signature: decode(signature)?,
        })
    }

    /// The algorithm it claims.
    pub fn alg(&self) -> &str {
        self.header["alg"].as_str().unwrap_or_default()
    }

    /// A claim that is a string.
    pub fn text(&self, claim: &str) -> &str {
        self.claims[claim].as_str().unwrap_or_default()
    }

    /// Whether `now` is between `nbf` (or ever) and `exp`, five minutes of doubt allowed before.
    /// Fractions of a second are allowed (RFC 7519, 2: NumericDate), and MSAL for Python has them.
    pub fn is_current(&self, now: i64) -> bool {
        let now = now as f64;
        let from = self.claims["nbf"].as_f64().unwrap_or(0.0) - 300.0;
        self.claims["exp"].as_f64().is_some_and(|exp| (from..exp).contains(&now))
    }

    /// Whether this key signed it, with RS256 or PS256.
    pub fn is_signed_by<T: HasPublic>(&self, key: &PKey<T>) -> bool {
        self.verify(key).unwrap_or(false)
    }

    fn verify<T: HasPublic>(&self, key: &PKey<T>) -> Result<bool, ErrorStack> {
        let mut verifier = Verifier::new(MessageDigest::sha256(), key)?;
        match self.alg() {
            "RS256" => {}
            "PS256" => {
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
            }
            _ => return Ok(false),
        }
        verifier.verify_oneshot(&self.signature, self.signed.as_bytes())
    }
}
