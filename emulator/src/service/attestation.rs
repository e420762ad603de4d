//! Key attestation: what the HSM states of a key of its own.
//!
//! The members are the contract's. The statements of a real HSM are in its vendor's format, which
//! nothing of ours can make; here each is a compact JWS (ES256) under the emulator's own chain,
//! which says so in its header and holds what the vendor's would prove.

use akv_wire::{Base64Url, KeyAttestation, KeyType};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use serde_json::{Value, json};

use super::{Outcome, Request, Service};
use crate::refusal::Refusal;
use crate::state::KeyVersion;
use crate::tls::Attestor;

/// `version` of an attestation: no vendor's.
const FORMAT: &str = "akv-emulator-1";

impl Service {
    pub(super) fn attest_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let (name, key) = self.key(request)?;
        let kid = Self::id(&request.call.authority, "keys", &name, &key.id);
        if !key.kty.is_hsm() {
            return Err(Refusal::NotAttested(kid));
        }
        let mut bundle = self.key_bundle(&request.call.authority, &name, &key, request.api);
        bundle.attributes.attestation = Some(attestation(&self.attestor, &kid, &key)?);
        self.ok(&bundle)
    }
}

fn attestation(
    attestor: &Attestor,
    kid: &str,
    key: &KeyVersion,
) -> Result<KeyAttestation, Refusal> {
    let public = key.material.public_der()?;
    let digest = public.as_deref().map(|der| hash(MessageDigest::sha256(), der)).transpose()?;
    let digest = digest.map(|digest| BASE64_URL_SAFE_NO_PAD.encode(digest));
    let class = if matches!(key.kty, KeyType::OctHsm) { "secret-key" } else { "private-key" };
    let private = json!({
        "kid": kid,
        "kty": key.kty.as_str(),
        "class": class,
        "bits": key.material.bits(),
        "created": key.life.created,
        "sensitive": true,
        "extractable": key.exportable,
        "public_key_sha256": digest,
    });
    let public = public.map(|der| {
        json!({
            "kid": kid,
            "kty": key.kty.as_str(),
            "class": "public-key",
            "public_key": BASE64_URL_SAFE_NO_PAD.encode(der),
        })
    });
    let mut pem = attestor.chain_pem.clone();
    // A whole number of triples has the same length in every kind of base64.
    pem.resize(pem.len().next_multiple_of(3), b'\n');
    Ok(KeyAttestation {
        certificate_pem_file: Some(Base64Url::from(pem)),
        private_key_attestation: Some(statement(attestor, &private)?),
        public_key_attestation: public.map(|public| statement(attestor, &public)).transpose()?,
        version: Some(FORMAT.to_owned()),
    })
}

fn statement(attestor: &Attestor, content: &Value) -> Result<Base64Url, Refusal> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({"alg": "ES256", "typ": FORMAT});
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(content.to_string().as_bytes())
    );
    let digest = hash(MessageDigest::sha256(), text.as_bytes())?;
    let signature = EcdsaSig::sign(&digest, attestor.key.ec_key()?.as_ref())?;
    let mut raw = signature.r().to_vec_padded(32)?;
    raw.extend(signature.s().to_vec_padded(32)?);
    Ok(Base64Url::from(format!("{text}.{}", encode(&raw)).into_bytes()))
}
