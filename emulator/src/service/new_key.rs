//! Making keys: created here, imported in clear, or brought along wrapped.

use std::sync::Arc;

use akv_wire::{
    ApiVersion, Curve, Feature, KeyAttributes, KeyCreateParameters, KeyImportParameters, KeyItem,
    KeyType, LEGACY_CURVE, ReleasePolicy,
};

use super::objects::{add_version, check_free, check_tags, life_of, version};
use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::crypto::{JwkFault, Material};
use crate::policy::Policy;
use crate::refusal::{Noun, Refusal};
use crate::state::{KeyVersion, Life};
use crate::throttle::Share;

/// Operations that `key_ops` may name; `import` is the key encryption key's, `export` the
/// releasable key's, `deriveKey` the default of a Managed HSM.
const KEY_OPS: &[&str] = &[
    "encrypt",
    "decrypt",
    "sign",
    "verify",
    "wrapKey",
    "unwrapKey",
    "import",
    "export",
    "deriveKey",
];

/// What a new version is made of, apart from the material.
struct Draft {
    kty: KeyType,
    key_ops: Vec<String>,
    life: Life,
    exportable: bool,
    release_policy: Option<ReleasePolicy>,
    tags: Option<akv_wire::Tags>,
}

/// A "bring your own key" blob, as the specification describes it.
#[derive(serde::Deserialize)]
struct TransferBlob {
    header: TransferHeader,
    ciphertext: akv_wire::Base64Url,
}

#[derive(serde::Deserialize)]
struct TransferHeader {
    kid: String,
    alg: String,
    enc: String,
}

/// How the material of a new key is made.
enum Recipe {
    Rsa(u32, u64),
    Ec(Curve),
    Oct(u32),
}
impl Service {
    pub(super) async fn create_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyCreateParameters = body::read(&request.call.body, body::KEY_CREATE)?;
        let (attributes, policy) = (asked.attributes.as_ref(), asked.release_policy.as_ref());
        self.check_version(request.api, asked.kty.as_deref(), attributes, policy)?;
        let version = self.make_key(request.name, &asked).await?;
        self.show_key(request, request.name, &version)
    }

    /// Makes a key, or a new version of one. The state is not locked meanwhile.
    pub(super) async fn make_key(
        &self,
        name: &str,
        asked: &KeyCreateParameters,
    ) -> Result<KeyVersion, Refusal> {
        let asked_type = asked.kty.as_deref().unwrap_or_default();
        let kty = asked_type
            .parse::<KeyType>()
            .ok()
            .and_then(|kty| self.dialect.created_type(kty, &self.switches))
            .ok_or_else(|| self.type_refusal(asked_type))?;
        // A vault has keys from before 7.0; a Managed HSM came later.
        let legacy = self.kind == ServiceKind::Vault && asked.crv.as_deref() == Some(LEGACY_CURVE);
        let recipe = recipe(kty, asked)?;
        let draft = self.draft(
            kty,
            asked.key_ops.as_ref(),
            asked.attributes.as_ref(),
            asked.release_policy.as_ref(),
            asked.tags.as_ref(),
        )?;
        self.check_new(name)?;
        self.admit(Some(Share::of_key(kty, asked.key_size.unwrap_or_default(), true)))?;
        let material = tokio::task::spawn_blocking(move || match recipe {
            Recipe::Rsa(bits, exponent) => Material::generate_rsa(bits, exponent),
            Recipe::Ec(curve) => Material::generate_ec(curve),
            Recipe::Oct(bits) => Material::generate_oct(bits),
        })
        .await
        .map_err(|error| Refusal::Internal(format!("key generation: {error}")))??;
        let material = if legacy { material.with_legacy_curve() } else { material };
        self.add_key(name, draft, material)
    }

    pub(super) fn import_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyImportParameters = body::read(&request.call.body, body::KEY_IMPORT)?;
        let (attributes, policy) = (asked.attributes.as_ref(), asked.release_policy.as_ref());
        self.check_version(request.api, asked.key.kty.as_deref(), attributes, policy)?;
        let version = self.take_key(request.name, &asked)?;
        self.show_key(request, request.name, &version)
    }

    /// Imports a key, or a new version of one.
    pub(super) fn take_key(
        &self,
        name: &str,
        asked: &KeyImportParameters,
    ) -> Result<KeyVersion, Refusal> {
        let asked_type = asked.key.kty.as_deref().unwrap_or_default();
        if asked_type.is_empty() {
            return Err(Refusal::JwkInvalid("kty is missing".to_owned()));
        }
        let asked_type = asked_type
            .parse::<KeyType>()
            .map_err(|_| Refusal::JwkInvalid(format!("kty '{asked_type}' is not supported")))?;
        let wanted = if asked.hsm == Some(true) { asked_type.hsm() } else { asked_type };
        let kty = self
            .dialect
            .created_type(wanted, &self.switches)
            .ok_or_else(|| self.type_refusal(wanted.as_str()))?;
        let draft = self.draft(
            kty,
            asked.key.key_ops.as_ref(),
            asked.attributes.as_ref(),
            asked.release_policy.as_ref(),
            asked.tags.as_ref(),
        )?;
        let material = match &asked.key.key_hsm {
            Some(blob) => self.unwrap_transfer(asked_type, blob.as_bytes())?,
            None => Material::from_jwk(&asked.key)?,
        };
        self.check_new(name)?;
        self.add_key(name, draft, material)
    }

    /// Takes the key out of a "bring your own key" blob, with the key encryption key it names.
    fn unwrap_transfer(&self, kind: KeyType, blob: &[u8]) -> Result<Material, Refusal> {
        let refused = |why: &str| Refusal::JwkInvalid(format!("key_hsm: {why}"));
        let blob: TransferBlob =
            serde_json::from_slice(blob).map_err(|_| refused("it is no transfer blob"))?;
        if blob.header.alg != "dir" || blob.header.enc != "CKM_RSA_AES_KEY_WRAP" {
            return Err(refused("only alg 'dir' with enc 'CKM_RSA_AES_KEY_WRAP' is supported"));
        }
        let kek = akv_wire::KeyItem { kid: blob.header.kid, ..KeyItem::default() };
        let (name, id) = kek.name_and_version().ok_or_else(|| refused("kid is no key"))?;
        let (life, ops, material) = {
            let state = self.state.read();
            let (_, key) = version(&state.keys, name, id, self.clock.now())?;
            (key.life.clone(), key.key_ops.clone(), Arc::clone(&key.material))
        };
        if ops != ["import"] {
            return Err(Refusal::OperationForbidden("import"));
        }
        let (noun, operation) = (Noun::Key, "import");
        if !life.enabled {
            return Err(Refusal::Disabled { noun, operation });
        }
        if life.exp.is_some_and(|exp| self.clock.now() >= exp) {
            return Err(Refusal::Expired { noun, operation });
        }
        Ok(material.unwrap_transfer(kind, blob.ciphertext.as_bytes())?)
    }

    /// Refuses what came with a later version than the request's.
    pub(super) fn check_version(
        &self,
        api: ApiVersion,
        kty: Option<&str>,
        attributes: Option<&KeyAttributes>,
        release_policy: Option<&ReleasePolicy>,
    ) -> Result<(), Refusal> {
        let kty = kty.unwrap_or_default();
        let secret = kty.parse().is_ok_and(KeyType::is_oct);
        if secret && !api.has(Feature::SecretKeys) {
            return Err(self.type_refusal(kty));
        }
        let exportable = attributes.is_some_and(|given| given.exportable.is_some());
        let unknown = [("release_policy", release_policy.is_some()), ("exportable", exportable)];
        let unknown = unknown.iter().find(|(_, given)| *given && !api.has(Feature::Release));
        unknown.map_or(Ok(()), |(name, _)| Err(Refusal::MemberUnknown((*name).to_owned())))
    }

    fn type_refusal(&self, asked: &str) -> Refusal {
        match self.kind {
            // Recorded: the name of the property is left out.
            ServiceKind::Vault => Refusal::MemberInvalid(String::new()),
            ServiceKind::ManagedHsm if asked.is_empty() => Refusal::MemberMissing("kty"),
            ServiceKind::ManagedHsm => Refusal::MemberInvalid("kty".to_owned()),
        }
    }

    fn draft(
        &self,
        kty: KeyType,
        key_ops: Option<&Vec<String>>,
        attributes: Option<&KeyAttributes>,
        release_policy: Option<&ReleasePolicy>,
        tags: Option<&akv_wire::Tags>,
    ) -> Result<Draft, Refusal> {
        let exportable = attributes.and_then(|given| given.exportable).unwrap_or(false);
        // Recorded: a Managed HSM has exportable keys without a policy.
        if self.kind == ServiceKind::Vault {
            let refused = match (exportable, release_policy) {
                (true, None) => "AKV.SKR.1004: Exportable keys must have release policy.",
                (false, Some(_)) => {
                    "AKV.SKR.1005: Non-exportable keys must not have release policy."
                }
                _ => "",
            };
            if !refused.is_empty() {
                return Err(Refusal::BadParameter(refused.to_owned()));
            }
        }
        if let Some(unknown) =
            key_ops.into_iter().flatten().find(|op| !KEY_OPS.contains(&op.as_str()))
        {
            return Err(Refusal::MemberInvalid(format!("key_ops '{unknown}'")));
        }
        let key_ops = match key_ops {
            Some(ops) if !ops.is_empty() => ops.clone(),
            _ => self.dialect.default_ops(kty),
        };
        let release_policy = release_policy.map(whole_policy).transpose()?;
        let mut life = life_of(attributes, self.clock.now())?;
        if self.kind == ServiceKind::Vault && key_ops == ["import"] && life.exp.is_none() {
            // Recorded: a key encryption key for transfers lives two days unless told.
            life.exp = Some(life.created + 2 * 86_400);
        }
        Ok(Draft { kty, key_ops, life, exportable, release_policy, tags: check_tags(tags)? })
    }

    /// Whether the name may take a new version, before one is made.
    fn check_new(&self, name: &str) -> Result<(), Refusal> {
        let state = self.state.read();
        check_free(&state.keys, name, self.clock.now())?;
        self.check_room(&state.keys, name)
    }

    fn add_key(&self, name: &str, draft: Draft, material: Material) -> Result<KeyVersion, Refusal> {
        let version = KeyVersion {
            id: self.dialect.version_id(),
            kty: draft.kty,
            key_ops: draft.key_ops,
            material: Arc::new(material),
            life: draft.life,
            exportable: draft.exportable,
            release_policy: draft.release_policy,
            tags: draft.tags,
            managed: false,
        };
        let mut state = self.state.write();
        // Somebody may have deleted the name while the key was made.
        check_free(&state.keys, name, self.clock.now())?;
        self.check_room(&state.keys, name)?;
        let sequence = state.next_sequence();
        add_version(&mut state.keys, name, version.clone(), sequence);
        Ok(version)
    }
}

/// A legal release policy, with the members the service fills in.
pub(super) fn whole_policy(given: &ReleasePolicy) -> Result<ReleasePolicy, Refusal> {
    let data = given.data.as_ref().ok_or(Refusal::MemberMissing("data"))?;
    Policy::parse(data.as_bytes())
        .map_err(|why| Refusal::BadParameter(format!("AKV.SKR: release policy: {why}")))?;
    let content_type = given.content_type.clone();
    Ok(ReleasePolicy {
        content_type: content_type.or_else(|| Some("application/json; charset=utf-8".to_owned())),
        data: given.data.clone(),
        immutable: Some(given.immutable.unwrap_or(false)),
    })
}

/// Sizes and curves of a creation.
fn recipe(kty: KeyType, asked: &KeyCreateParameters) -> Result<Recipe, Refusal> {
    let size_refusal = |size: u32| {
        Refusal::BadParameter(format!("Property 'key_size' has invalid value: {size}\r\n"))
    };
    match kty {
        KeyType::Rsa | KeyType::RsaHsm => {
            let size = asked.key_size.unwrap_or(2048);
            let exponent = asked.public_exponent.unwrap_or(65537);
            if !matches!(size, 2048 | 3072 | 4096) {
                return Err(size_refusal(size));
            }
            if !matches!(exponent, 3 | 17 | 65537) {
                return Err(Refusal::BadParameter(format!(
                    "Property 'public_exponent' has invalid value: {exponent}\r\n"
                )));
            }
            Ok(Recipe::Rsa(size, exponent))
        }
        KeyType::Ec | KeyType::EcHsm => {
            let name = asked.crv.as_deref().unwrap_or("P-256");
            name.parse()
                .map(Recipe::Ec)
                .map_err(|_| Refusal::MemberInvalid(format!("crv '{name}'")))
        }
        KeyType::Oct | KeyType::OctHsm => match asked.key_size.unwrap_or(256) {
            size @ (128 | 192 | 256) => Ok(Recipe::Oct(size)),
            other => Err(size_refusal(other)),
        },
    }
}

impl From<JwkFault> for Refusal {
    fn from(fault: JwkFault) -> Self {
        Self::JwkInvalid(match fault {
            JwkFault::KeyType => "kty is not supported".to_owned(),
            JwkFault::Curve => "crv is not supported".to_owned(),
            JwkFault::Missing(member) => format!("{member} is missing"),
            JwkFault::Inconsistent => "members do not belong together".to_owned(),
            JwkFault::Size(bits) => format!("key size {bits} is not supported"),
            JwkFault::Transfer => "key_hsm does not unwrap".to_owned(),
            JwkFault::Internal(stack) => return Self::from(stack),
        })
    }
}
