//! Secure key release: an exportable key leaves for an attested environment, wrapped.

use akv_wire::{Base64Url, Digest, KeyReleaseParameters, KeyReleaseResult};
use openssl::bn::BigNum;
use openssl::pkey::{PKey, Public};
use openssl::rsa::Rsa;
use serde_json::{Value, json};

use super::{Outcome, Request, Service};
use crate::body;
use crate::policy::Policy;
use crate::refusal::{Noun, Refusal};

/// How the key is wrapped: name and hash of OAEP.
const ENCODINGS: &[(&str, Digest)] = &[
    ("CKM_RSA_AES_KEY_WRAP", Digest::Sha1),
    ("RSA_AES_KEY_WRAP_256", Digest::Sha256),
    ("RSA_AES_KEY_WRAP_384", Digest::Sha384),
];

impl Service {
    pub(super) fn release_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyReleaseParameters = body::read(&request.call.body, body::RELEASE)?;
        let (name, key) = self.key(request)?;
        if !key.life.enabled {
            return Err(Refusal::Disabled { noun: Noun::Key, operation: "release" });
        }
        let refused = |words: &str| Refusal::BadParameter(format!("AKV.SKR: {words}"));
        let policy = key.release_policy.as_ref().and_then(|policy| policy.data.as_ref());
        let (true, Some(policy)) = (key.exportable, policy) else {
            return Err(Refusal::OperationForbidden("release"));
        };
        let policy = Policy::parse(policy.as_bytes()).map_err(|why| refused(&why))?;
        let claims = self
            .entra
            .attested(&asked.target)
            .ok_or_else(|| refused("the target is no current token of a trusted authority"))?;
        if !policy.allows(claims["iss"].as_str().unwrap_or_default(), &claims) {
            return Err(Refusal::BadParameter(
                "AKV.SKR: the claims of the target do not satisfy the release policy".to_owned(),
            ));
        }
        let enc = asked.enc.as_deref().unwrap_or(ENCODINGS[0].0);
        let digest = ENCODINGS.iter().find(|(name, _)| *name == enc).map(|(_, digest)| *digest);
        let digest = digest.ok_or_else(|| Refusal::MemberInvalid(format!("enc '{enc}'")))?;
        let (target, target_id) = target_key(&claims)
            .ok_or_else(|| refused("the target has no RSA key to encrypt for in x-ms-runtime"))?;
        let wrapped = key
            .material
            .wrap_transfer(&target, digest)
            .map_err(|fault| Refusal::Internal(format!("release: {fault:?}")))?;

        let blob = json!({
            "schema_version": "1.0",
            "header": {"kid": target_id, "alg": "dir", "enc": enc},
            "ciphertext": Base64Url::from(wrapped).encode(),
        });
        let mut bundle = self.key_bundle(&request.call.authority, &name, &key, request.api);
        let kid = bundle.key.kid.clone();
        bundle.key.key_hsm = Some(Base64Url::from(blob.to_string().into_bytes()));
        let payload = json!({
            "request": {
                "api-version": request.api.as_str(),
                "enc": enc,
                "kid": kid,
                "nonce": asked.nonce,
            },
            "response": {"key": bundle},
        });
        self.ok(&KeyReleaseResult { value: self.entra.sign_statement(&payload)? })
    }
}

/// The first RSA key of the environment that may encrypt.
fn target_key(claims: &Value) -> Option<(PKey<Public>, String)> {
    let keys = claims["x-ms-runtime"]["keys"].as_array()?;
    let key = keys.iter().find(|key| {
        let ops = key["key_ops"].as_array();
        key["kty"] == "RSA" && ops.is_none_or(|ops| ops.iter().any(|op| op == "encrypt"))
    })?;
    let number = |member: &str| {
        let bytes = Base64Url::decode(key[member].as_str()?).ok()?;
        BigNum::from_slice(bytes.as_bytes()).ok()
    };
    let rsa = Rsa::from_public_components(number("n")?, number("e")?).ok()?;
    Some((PKey::from_rsa(rsa).ok()?, key["kid"].as_str().unwrap_or_default().to_owned()))
}
