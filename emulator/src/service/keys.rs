//! Showing, changing and deleting keys.

use akv_wire::{
    ApiVersion, DeletedKeyBundle, DeletedKeyItem, Feature, KeyAttributes, KeyBundle, KeyItem,
    KeyType, KeyUpdateParameters,
};

use super::new_key::whole_policy;
use super::objects::{check_tags, deleted, is_live, live_mut, merge_life, not_found, version};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::body;
use crate::config::ServiceKind;
use crate::refusal::{Noun, Refusal};
use crate::state::{Deletion, KeyVersion, Object, folded};

impl Service {
    pub(super) fn get_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let (name, found) = self.key(request)?;
        self.show_key(request, &name, &found)
    }

    pub(super) fn update_key(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: KeyUpdateParameters = body::read(&request.call.body, body::KEY_UPDATE)?;
        let (attributes, policy) = (asked.attributes.as_ref(), asked.release_policy.as_ref());
        self.check_version(request.api, None, attributes, policy)?;
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
