//! Secrets: what certificates keep their chain in, and ordinary ones.

use akv_wire::{ApiVersion, SecretBundle, SecretItem, SecretSetParameters, SecretUpdateParameters};
use zeroize::Zeroizing;

use super::objects::{
    add_version, check_free, check_tags, is_live, life_of, live_mut, merge_life, not_found, version,
};
use super::page::Row;
use super::{Outcome, Request, Service};
use crate::body;
use crate::refusal::{Noun, Refusal};
use crate::state::{SecretVersion, folded};

/// Largest value, bytes.
const MAX_VALUE: usize = 25 * 1024;

impl Service {
    pub(super) fn get_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let bundle = {
            let state = self.state.read();
            let (object, found) =
                version(&state.secrets, request.name, request.version, self.clock.now())?;
            if !found.life.enabled {
                return Err(Refusal::Disabled { noun: Noun::Secret, operation: "get" });
            }
            self.secret_bundle(request, &object.name, found, true)
        };
        self.ok(&bundle)
    }

    pub(super) fn set_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: SecretSetParameters = body::read(&request.call.body, body::SECRET_SET)?;
        let (name, new) = self.put_secret(request.name, asked)?;
        self.ok(&self.secret_bundle(request, &name, &new, true))
    }

    /// Adds a version; answers the name as it was first written.
    pub(super) fn put_secret(
        &self,
        name: &str,
        mut asked: SecretSetParameters,
    ) -> Result<(String, SecretVersion), Refusal> {
        let value = asked.value.take().ok_or(Refusal::MemberMissing("value"))?;
        if value.len() > MAX_VALUE {
            return Err(Refusal::BadParameter(format!(
                "The secret's value is larger than {MAX_VALUE} bytes.\r\n"
            )));
        }
        let now = self.clock.now();
        let new = SecretVersion {
            id: self.dialect.version_id(),
            value: Zeroizing::new(value),
            content_type: asked.content_type.clone(),
            life: life_of(asked.attributes.as_ref(), now)?,
            tags: check_tags(asked.tags.as_ref())?,
            managed: false,
        };
        let mut state = self.state.write();
        Self::expire(&mut state.secrets, now);
        check_free(&state.secrets, name, now)?;
        let sequence = state.next_sequence();
        let object = add_version(&mut state.secrets, name, new.clone(), sequence);
        Ok((object.name.clone(), new))
    }

    pub(super) fn update_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let asked: SecretUpdateParameters = body::read(&request.call.body, body::SECRET_UPDATE)?;
        let now = self.clock.now();
        let tags = check_tags(asked.tags.as_ref())?;
        let bundle = {
            let mut state = self.state.write();
            let object = live_mut(&mut state.secrets, request.name, request.version, now)?;
            let name = object.name.clone();
            let found = object
                .version_mut(request.version)
                .ok_or_else(|| not_found::<SecretVersion>(request.name, request.version))?;
            merge_life(&mut found.life, asked.attributes.as_ref(), now);
            if tags.is_some() {
                found.tags = tags;
            }
            if asked.content_type.is_some() {
                found.content_type = asked.content_type;
            }
            self.secret_bundle(request, &name, found, false)
        };
        self.ok(&bundle)
    }

    pub(super) fn list_secrets(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let rows = {
            let state = self.state.read();
            state
                .secrets
                .iter()
                .filter(|(_, object)| is_live(object, now))
                .filter_map(|(marker, object)| {
                    let id = Self::id(&request.call.authority, "secrets", &object.name, "");
                    let item = self.secret_item(id, object.version("")?, request.api);
                    Some(Row { marker: marker.clone(), sequence: object.sequence, item })
                })
                .collect()
        };
        self.page(request, Noun::Secret, rows)
    }

    pub(super) fn list_secret_versions(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        self.settle_certificates();
        let now = self.clock.now();
        let authority = &request.call.authority;
        let rows = {
            let state = self.state.read();
            let object = state.secrets.get(&folded(request.name));
            object
                .filter(|object| is_live(object, now))
                .into_iter()
                .flat_map(|object| object.versions.iter().enumerate().map(move |row| (object, row)))
                .map(|(object, (rank, found))| {
                    let id = Self::id(authority, "secrets", &object.name, &found.id);
                    Row {
                        marker: folded(&format!("{}/{}", object.name, found.id)),
                        sequence: rank as u64,
                        item: self.secret_item(id, found, request.api),
                    }
                })
                .collect()
        };
        self.page(request, Noun::Secret, rows)
    }

    pub(super) fn delete_secret(&self, request: &Request<'_>) -> Result<Outcome, Refusal> {
        let now = self.clock.now();
        let bundle = {
            let mut state = self.state.write();
            Self::expire(&mut state.secrets, now);
            let (object, deletion) = self.soft_delete(&mut state.secrets, request.name, now)?;
            self.deleted_secret(request, object, deletion)
        };
        self.ok(&bundle)
    }

    pub(super) fn secret_bundle(
        &self,
        request: &Request<'_>,
        name: &str,
        found: &SecretVersion,
        with_value: bool,
    ) -> SecretBundle {
        let authority = &request.call.authority;
        let mut bundle = SecretBundle::default();
        bundle.value = with_value.then(|| found.value.to_string());
        bundle.content_type.clone_from(&found.content_type);
        bundle.id = Some(Self::id(authority, "secrets", name, &found.id));
        bundle.managed = found.managed.then_some(true);
        bundle.attributes = self.attributes(&found.life, request.api);
        bundle.tags = found.tags.clone();
        bundle.kid = found.managed.then(|| Self::id(authority, "keys", name, &found.id));
        bundle
    }

    pub(super) fn secret_item(
        &self,
        id: String,
        found: &SecretVersion,
        api: ApiVersion,
    ) -> SecretItem {
        SecretItem {
            content_type: found.content_type.clone(),
            id,
            managed: found.managed.then_some(true),
            attributes: self.attributes(&found.life, api),
            tags: found.tags.clone(),
        }
    }
}
