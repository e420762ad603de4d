//! Using keys.

use akv_wire::{
    Base64Url, Curve, EncryptionAlgorithm, Feature, KeyOperationParameters, KeyOperationResult,
    KeyVerifyParameters, KeyVerifyResult, LEGACY_CURVE, RandomBytes, SignatureAlgorithm,
    SymmetricMode,
};
use serde::Deserialize;

use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::crypto::{self, CipherInput, Fault};
use crate::refusal::{Noun, Refusal};
use crate::state::KeyVersion;

impl Service {
    pub(super) fn sign(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyOperationParameters =
            required(&request.call.body, body::KEY_SIGN, &["alg", "value"])?;
        let (kid, key) = self.usable(request, "sign")?;
        let alg = self.signature_algorithm(&asked.alg, request)?;
        self.check_legacy(&kid, &key, alg)?;
        self.check_hmac("value", alg, asked.value.as_bytes())?;
        self.check_rsnull("value", alg, &key, asked.value.as_bytes())?;
        let value = key
            .material
            .sign(alg, asked.value.as_bytes())
            .map_err(|fault| signature_refusal(fault, &kid, alg))?;
        self.ok(&KeyOperationResult {
            alg: self.shown_alg(&asked.alg),
            kid: Some(kid),
            value: value.into(),
            ..KeyOperationResult::default()
        })
    }

    pub(super) fn verify(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyVerifyParameters =
            required(&request.call.body, body::KEY_VERIFY, &["alg", "digest", "value"])?;
        let (kid, key) = self.usable(request, "verify")?;
        let alg = self.signature_algorithm(&asked.alg, request)?;
        self.check_legacy(&kid, &key, alg)?;
        self.check_hmac("digest", alg, asked.digest.as_bytes())?;
        self.check_rsnull("digest", alg, &key, asked.digest.as_bytes())?;
        let value = key
            .material
            .verify(alg, asked.digest.as_bytes(), asked.value.as_bytes())
            .map_err(|fault| signature_refusal(fault, &kid, alg))?;
        let alg = self.shown_alg(&asked.alg);
        let kid = alg.is_some().then_some(kid);
        self.ok(&KeyVerifyResult { alg, kid, value })
    }

    /// encrypt and wrapkey.
    pub(super) fn encrypt(
        &self,
        request: &Request<'_>,
        operation: &'static str,
    ) -> Result<Outcome, Refusal> {
        let asked: KeyOperationParameters =
            required(&request.call.body, body::KEY_OPERATION, &["alg", "value"])?;
        let (kid, key) = self.usable(request, operation)?;
        let alg = self.encryption_algorithm(&asked, operation, request)?;
        if alg.mode() == Some(SymmetricMode::Gcm)
            && asked.iv.is_some()
            && self.switches.gcm_caller_iv_refused
        {
            return Err(Refusal::BadParameter(format!(
                "Property 'iv' is not allowed: {alg} makes its own.\r\n"
            )));
        }
        let made = key
            .material
            .encrypt(alg, input(&asked))
            .map_err(|fault| encryption_refusal(fault, &kid, alg))?;
        let aad = asked.aad.filter(|_| made.tag.is_some());
        self.ok(&KeyOperationResult {
            alg: self.shown_alg(&asked.alg),
            kid: Some(kid),
            value: made.value.into(),
            iv: made.iv.map(Base64Url::from),
            tag: made.tag.map(Base64Url::from),
            aad,
        })
    }

    /// decrypt and unwrapkey.
    pub(super) fn decrypt(
        &self,
        request: &Request<'_>,
        operation: &'static str,
    ) -> Result<Outcome, Refusal> {
        let asked: KeyOperationParameters =
            required(&request.call.body, body::KEY_OPERATION, &["alg", "value"])?;
        let (kid, key) = self.usable(request, operation)?;
        let alg = self.encryption_algorithm(&asked, operation, request)?;
        let value = key
            .material
            .decrypt(alg, input(&asked))
            .map_err(|fault| encryption_refusal(fault, &kid, alg))?;
        self.ok(&KeyOperationResult {
            alg: self.shown_alg(&asked.alg),
            kid: Some(kid),
            value: value.into(),
            ..KeyOperationResult::default()
        })
    }

    pub(super) fn random(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        #[derive(Deserialize)]
        struct Count {
            count: Option<i64>,
        }
        let asked: Count = body::read(&request.call.body, body::RANDOM)?;
        let count = asked.count.and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count @ 1..=128) => self.ok(&RandomBytes { value: crypto::random(count)?.into() }),
            _ => Err(Refusal::RandomCount),
        }
    }

    /// The key version, provided it may do this now.
    fn usable(
        &self,
        request: &Request<'_>,
        operation: &'static str,
    ) -> Result<(String, KeyVersion), Refusal> {
        let (name, key) = self.key(request)?;
        let kid = Self::id(&request.call.authority, "keys", &name, &key.id);
        let noun = Noun::Key;
        let public = matches!(operation, "encrypt" | "verify" | "wrapKey");
        let usable = key.life.enabled || (public && self.switches.disabled_key_public_operations);
        if !usable {
            return Err(Refusal::Disabled { noun, operation });
        }
        // Documented: outside nbf and exp a key still undoes what was done inside.
        if !matches!(operation, "decrypt" | "unwrapKey" | "verify") {
            let now = self.clock.now();
            if key.life.nbf.is_some_and(|nbf| now < nbf) {
                return Err(Refusal::NotYetValid { noun, operation });
            }
            if key.life.exp.is_some_and(|exp| now >= exp) {
                return Err(Refusal::Expired { noun, operation });
            }
        }
        if !key.key_ops.iter().any(|allowed| allowed == operation) {
            return Err(Refusal::OperationForbidden(operation));
        }
        Ok((kid, key))
    }

    fn signature_algorithm(
        &self,
        name: &str,
        request: &Request<'_>,
    ) -> Result<SignatureAlgorithm, Refusal> {
        let alg: SignatureAlgorithm = name.parse().map_err(|_| invalid_alg(name))?;
        let offered = match alg {
            SignatureAlgorithm::RsNull => match self.kind {
                ServiceKind::Vault => self.switches.vault_rsnull,
                ServiceKind::ManagedHsm => self.switches.hsm_rsnull,
            },
            _ if alg.is_hmac() => request.api.has(Feature::Hmac),
            _ => true,
        };
        if offered { Ok(alg) } else { Err(invalid_alg(name)) }
    }

    fn encryption_algorithm(
        &self,
        asked: &KeyOperationParameters,
        operation: &'static str,
        request: &Request<'_>,
    ) -> Result<EncryptionAlgorithm, Refusal> {
        let alg: EncryptionAlgorithm = asked.alg.parse().map_err(|_| invalid_alg(&asked.alg))?;
        let wrapping = matches!(operation, "wrapKey" | "unwrapKey");
        let wraps = matches!(alg.mode(), Some(SymmetricMode::KeyWrap | SymmetricMode::KeyWrapPad));
        let since = match alg {
            EncryptionAlgorithm::CkmAesKeyWrap | EncryptionAlgorithm::CkmAesKeyWrapPad => {
                request.api.has(Feature::CkmKeyWrap)
            }
            _ => alg.is_rsa() || request.api.has(Feature::SecretKeys),
        };
        // Key wrap belongs to wrapkey and unwrapkey, everything else to both pairs.
        if !since || (wraps && !wrapping) {
            return Err(invalid_alg(&asked.alg));
        }
        let limit = self.switches.max_aes_payload;
        if limit > 0 && !alg.is_rsa() && asked.value.as_bytes().len() > limit {
            return Err(Refusal::BadParameter(format!(
                "Invalid length of 'value': {} bytes, at most {limit} are taken.\r\n",
                asked.value.as_bytes().len()
            )));
        }
        Ok(alg)
    }

    fn check_hmac(
        &self,
        member: &'static str,
        alg: SignatureAlgorithm,
        message: &[u8],
    ) -> Result<(), Refusal> {
        let want = alg.digest().map_or(0, akv_wire::Digest::output_len);
        if alg.is_hmac() && !self.switches.hmac_any_length && message.len() != want {
            let given = message.len();
            return Err(Refusal::DigestLength { member, given, alg, want: Some(want) });
        }
        Ok(())
    }

    /// Keys from before 7.0 show secp256k1 by its old name, and take the old algorithm only.
    fn check_legacy(
        &self,
        kid: &str,
        key: &KeyVersion,
        alg: SignatureAlgorithm,
    ) -> Result<(), Refusal> {
        let public = key.material.public();
        let of = match (public.is_legacy(), alg) {
            (true, SignatureAlgorithm::Es256k) => Curve::P256K.as_str(),
            (false, SignatureAlgorithm::Ecdsa256) => LEGACY_CURVE,
            _ => return Ok(()),
        };
        let Some(curve) = public.crv else { return Ok(()) };
        let (kid, alg) = (kid.to_owned(), alg.to_string());
        Err(Refusal::CurveMismatch { kid, curve, alg, of })
    }

    /// PKCS#1 leaves no room for more; the service may leave less.
    fn check_rsnull(
        &self,
        member: &'static str,
        alg: SignatureAlgorithm,
        key: &KeyVersion,
        content: &[u8],
    ) -> Result<(), Refusal> {
        let modulus = key.material.bits().map_or(0, |bits| bits as usize / 8);
        let given = content.len();
        let room = modulus.saturating_sub(self.switches.rsnull_margin);
        if alg == SignatureAlgorithm::RsNull && key.kty.is_rsa() && given > room {
            return Err(Refusal::DigestLength { member, given, alg, want: None });
        }
        Ok(())
    }

    /// Recorded: a Managed HSM repeats the algorithm, a vault does not.
    fn shown_alg(&self, alg: &str) -> Option<String> {
        (self.kind == ServiceKind::ManagedHsm).then(|| alg.to_owned())
    }
}

/// Reads a body whose named members must be there.
fn required<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    shape: body::Shape,
    members: &[&'static str],
) -> Result<T, Refusal> {
    let all: serde_json::Map<String, serde_json::Value> = body::read(bytes, shape)?;
    if let Some(missing) = members.iter().find(|member| !all.contains_key(**member)) {
        return Err(Refusal::MemberMissing(missing));
    }
    serde_json::from_value(serde_json::Value::Object(all)).map_err(|_| Refusal::BodyInvalid)
}

fn input(asked: &KeyOperationParameters) -> CipherInput<'_> {
    CipherInput {
        value: asked.value.as_bytes(),
        iv: asked.iv.as_ref().map(Base64Url::as_bytes),
        aad: asked.aad.as_ref().map(Base64Url::as_bytes),
        tag: asked.tag.as_ref().map(Base64Url::as_bytes),
    }
}

fn invalid_alg(name: &str) -> Refusal {
    Refusal::BadParameter(format!("Property 'alg' has invalid value: '{name}'\r\n"))
}

fn signature_refusal(fault: Fault, kid: &str, alg: SignatureAlgorithm) -> Refusal {
    match fault {
        Fault::WrongKey => Refusal::SignatureMismatch { kid: kid.to_owned(), alg },
        Fault::WrongCurve { key } => {
            let of = alg.curve().map_or("none", Curve::as_str);
            let (kid, curve, alg) = (kid.to_owned(), key.as_str().to_owned(), alg.to_string());
            Refusal::CurveMismatch { kid, curve, alg, of }
        }
        Fault::Length { member, given, want } => Refusal::DigestLength { member, given, alg, want },
        other => common_refusal(other),
    }
}

fn encryption_refusal(fault: Fault, kid: &str, alg: EncryptionAlgorithm) -> Refusal {
    match fault {
        Fault::WrongKey | Fault::WrongCurve { .. } => {
            Refusal::EncryptionMismatch { kid: kid.to_owned(), alg }
        }
        Fault::Length { member, given, want } => Refusal::BadParameter(match want {
            Some(want) => format!(
                "Invalid length of '{member}': {given} bytes. {alg} requires {want} bytes, \
                 encoded with base64url."
            ),
            None => format!("Invalid length of '{member}': {given} bytes for {alg}.\r\n"),
        }),
        other => common_refusal(other),
    }
}

fn common_refusal(fault: Fault) -> Refusal {
    match fault {
        Fault::Missing(member) => Refusal::MemberMissing(member),
        Fault::Undecryptable => Refusal::Undecryptable,
        Fault::Internal(stack) => Refusal::from(stack),
        Fault::WrongKey | Fault::WrongCurve { .. } | Fault::Length { .. } => {
            Refusal::Internal("unmapped fault".to_owned())
        }
    }
}
