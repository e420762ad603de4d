//! Making, showing, changing and deleting keys.

use std::sync::Arc;

use akv_wire::{
    ApiVersion, Curve, DeletedKeyBundle, DeletedKeyItem, Feature, KeyAttributes, KeyBundle,
    KeyCreateParameters, KeyImportParameters, KeyItem, KeyType, KeyUpdateParameters, ReleasePolicy,
};

use super::objects::{
    add_version, check_free, check_tags, deleted, is_live, life_of, live_mut, merge_life,
    not_found, version,
};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::crypto::{JwkFault, Material};
use crate::policy::Policy;
use crate::refusal::{Noun, Refusal};
use crate::state::{Deletion, KeyVersion, Life, Object, folded};

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
        let recipe = recipe(kty, asked)?;
        let draft = self.draft(
            kty,
            asked.key_ops.as_ref(),
            asked.attributes.as_ref(),
            asked.release_policy.as_ref(),
            asked.tags.as_ref(),
        )?;
        check_free(&self.state.read().keys, name, self.clock.now())?;
        self.admit(kty, asked.key_size, true)?;
        let material = tokio::task::spawn_blocking(move || match recipe {
            Recipe::Rsa(bits, exponent) => Material::generate_rsa(bits, exponent),
            Recipe::Ec(curve) => Material::generate_ec(curve),
            Recipe::Oct(bits) => Material::generate_oct(bits),
        })
        .await
        .map_err(|error| Refusal::Internal(format!("key generation: {error}")))??;
        self.add_key(name, draft, material)
    }

    pub(super) fn import_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyImportParameters = body::read(&request.call.body, body::KEY_IMPORT)?;
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
        check_free(&self.state.read().keys, name, self.clock.now())?;
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
        if exportable && release_policy.is_none() && self.kind == ServiceKind::Vault {
            return Err(Refusal::BadParameter(
                "AKV.SKR.1001: An exportable key must have a release policy.".to_owned(),
            ));
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
        let sequence = state.next_sequence();
        add_version(&mut state.keys, name, version.clone(), sequence);
        Ok(version)
    }

    pub(super) fn get_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let (name, found) = self.key(request)?;
        self.show_key(request, &name, &found)
    }

    pub(super) fn update_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyUpdateParameters = body::read(&request.call.body, body::KEY_UPDATE)?;
        let now = self.clock.now();
        let tags = check_tags(asked.tags.as_ref())?;
        let updated = {
            let mut state = self.state.write();
            let object = live_mut(&mut state.keys, request.name, request.version, now)?;
            let found = object
                .version_mut(request.version)
                .ok_or_else(|| not_found::<KeyVersion>(request.name, request.version))?;
            let mut changed = found.clone();
            if let Some(policy) = &asked.release_policy {
                let current = changed.release_policy.as_ref();
                if current.is_some_and(|current| current.immutable == Some(true)) {
                    return Err(Refusal::ReleasePolicyImmutable);
                }
                changed.release_policy = Some(whole_policy(policy)?);
            }
            if let Some(ops) = &asked.key_ops {
                changed.key_ops.clone_from(ops);
            }
            if tags.is_some() {
                changed.tags = tags;
            }
            merge_life(&mut changed.life, asked.attributes.as_ref(), now);
            *found = changed.clone();
            changed
        };
        self.show_key(request, request.name, &updated)
    }

    pub(super) fn list_keys(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let rows = {
            let state = self.state.read();
            state
                .keys
                .iter()
                .filter(|(_, object)| is_live(object, now))
                .filter_map(|(marker, object)| {
                    let current = object.version("")?;
                    let id = Self::id(&request.call.authority, "keys", &object.name, "");
                    let item = self.key_item(id, current, request.api);
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Key, rows)
    }

    pub(super) fn list_key_versions(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let rows = {
            let state = self.state.read();
            // Recorded: the versions of an unknown name are an empty list.
            let object = state.keys.get(&folded(request.name)).filter(|key| is_live(key, now));
            object
                .into_iter()
                .flat_map(|object| object.versions.iter().enumerate().map(move |row| (object, row)))
                .map(|(object, (rank, found))| {
                    let id = Self::id(&request.call.authority, "keys", &object.name, &found.id);
                    Row {
                        marker: folded(&format!("{}/{}", object.name, found.id)),
                        sequence: rank as u64,
                        item: self.key_item(id, found, request.api),
                    }
                })
                .collect()
        };
        self.page(request, Noun::Key, rows)
    }

    pub(super) fn delete_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.keys, now);
            let managed = |object: &Object<KeyVersion>| {
                object.deleted.is_none() && object.version("").is_some_and(|key| key.managed)
            };
            if state.keys.get(&folded(request.name)).is_some_and(managed) {
                return Err(Refusal::BadParameter(
                    "The key is managed by a certificate; delete the certificate instead.\r\n"
                        .to_owned(),
                ));
            }
            let (object, deletion) = self.soft_delete(&mut state.keys, request.name, now)?;
            self.deleted_key(request, object, deletion)
        };
        self.ok(&bundle)
    }

    pub(super) fn list_deleted_keys(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let authority = &request.call.authority;
        let rows = {
            let mut state = self.state.write();
            Self::expire(&mut state.keys, now);
            state
                .keys
                .iter()
                .filter_map(|(marker, object)| {
                    let deletion = object.deleted.filter(|gone| gone.settled_at <= now)?;
                    let id = Self::id(authority, "keys", &object.name, "");
                    let item = DeletedKeyItem {
                        recovery_id: Some(Self::id(authority, "deletedkeys", &object.name, "")),
                        deleted_date: Some(deletion.at),
                        scheduled_purge_date: Some(deletion.purge_at),
                        item: self.key_item(id, object.version("")?, request.api),
                    };
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Key, rows)
    }

    pub(super) fn get_deleted_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.keys, now);
            let (object, deletion) = deleted(&state.keys, request.name, now)?;
            self.deleted_key(request, object, deletion)
        };
        self.ok(&bundle)
    }

    pub(super) fn recover_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let (name, current) = {
            let mut state = self.state.write();
            Self::expire(&mut state.keys, now);
            let object = self.undelete(&mut state.keys, request.name, now)?;
            let current = object.version("").cloned();
            (object.name.clone(), current)
        };
        let current = current.ok_or_else(|| not_found::<KeyVersion>(&name, ""))?;
        self.show_key(request, &name, &current)
    }

    pub(super) fn purge_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let mut state = self.state.write();
        Self::purge(&mut state.keys, request.name, self.clock.now())?;
        Ok(Outcome { status: 204, body: Vec::new(), location: None })
    }

    /// The name as first written, and the version asked for.
    pub(super) fn key(&self, request: &Request<'_>) -> Result<(String, KeyVersion), Refusal> {
        let state = self.state.read();
        let (object, found) =
            version(&state.keys, request.name, request.version, self.clock.now())?;
        Ok((object.name.clone(), found.clone()))
    }

    pub(super) fn show_key(
        &self,
        request: &Request<'_>,
        name: &str,
        version: &KeyVersion,
    ) -> Result<Outcome, Refusal> {
        self.ok(&self.key_bundle(&request.call.authority, name, version, request.api))
    }

    pub(super) fn key_bundle(
        &self,
        authority: &str,
        name: &str,
        version: &KeyVersion,
        api: ApiVersion,
    ) -> KeyBundle {
        let mut key = version.jwk();
        if self.kind == ServiceKind::Vault && version.kty == KeyType::RsaHsm && !version.managed {
            // Recorded for most HSM-protected RSA keys of vaults: the exponent has a leading zero.
            if let Some(e) = key.e.take() {
                let mut padded = vec![0; 4usize.saturating_sub(e.as_bytes().len())];
                padded.extend(e.as_bytes());
                key.e = Some(padded.into());
            }
        }
        key.kid = Some(Self::id(authority, "keys", name, &version.id));
        let release_policy = version.release_policy.clone();
        KeyBundle {
            key,
            attributes: self.key_attributes(version, api),
            tags: version.tags.clone(),
            managed: version.managed.then_some(true),
            release_policy,
        }
    }

    pub(super) fn key_item(&self, kid: String, version: &KeyVersion, api: ApiVersion) -> KeyItem {
        KeyItem {
            kid,
            attributes: self.key_attributes(version, api),
            tags: version.tags.clone(),
            managed: version.managed.then_some(true),
        }
    }

    fn deleted_key(
        &self,
        request: &Request<'_>,
        object: &Object<KeyVersion>,
        deletion: Deletion,
    ) -> Option<DeletedKeyBundle> {
        let authority = &request.call.authority;
        Some(DeletedKeyBundle {
            recovery_id: Some(Self::id(authority, "deletedkeys", &object.name, "")),
            deleted_date: Some(deletion.at),
            scheduled_purge_date: Some(deletion.purge_at),
            bundle: self.key_bundle(authority, &object.name, object.version("")?, request.api),
        })
    }

    fn key_attributes(&self, version: &KeyVersion, api: ApiVersion) -> KeyAttributes {
        let vault = self.kind == ServiceKind::Vault;
        let platform = if version.kty.is_hsm() { "2" } else { "0" };
        KeyAttributes {
            key_size: version.material.bits().filter(|_| api.has(Feature::KeySizeAttribute)),
            exportable: (!vault || api.has(Feature::Release)).then_some(version.exportable),
            hsm_platform: (vault && api.has(Feature::HsmPlatform)).then(|| platform.to_owned()),
            ..self.attributes(&version.life, api)
        }
    }
}

/// A legal release policy, with the members the service fills in.
fn whole_policy(given: &ReleasePolicy) -> Result<ReleasePolicy, Refusal> {
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
