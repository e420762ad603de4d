//! What the three collections have in common: looking up, adding a version, deleting,
//! recovering, purging.

use akv_wire::{ApiVersion, Feature, KeyAttributes, Tags};

use super::Service;
use crate::config::ServiceKind;
use crate::refusal::{Noun, Refusal};
use crate::state::{Collection, Deletion, KeyVersion, Life, Object, Version, folded};

/// The collection an object kind lives in.
pub trait Collected: Version {
    /// Which one.
    const NOUN: Noun;
}

impl Collected for crate::state::KeyVersion {
    const NOUN: Noun = Noun::Key;
}

impl Collected for crate::state::SecretVersion {
    const NOUN: Noun = Noun::Secret;
}

impl Collected for crate::state::CertificateVersion {
    const NOUN: Noun = Noun::Certificate;
}

/// Whether the object is live and visible.
pub fn is_live<V: Version>(object: &Object<V>, now: i64) -> bool {
    object.deleted.is_none() && object.recovering_until <= now
}

/// The live object of that name.
pub fn live<'a, V: Collected>(
    objects: &'a Collection<V>,
    name: &str,
    version: &str,
    now: i64,
) -> Result<&'a Object<V>, Refusal> {
    objects
        .get(&folded(name))
        .filter(|object| is_live(object, now))
        .ok_or_else(|| not_found::<V>(name, version))
}

/// The same, to be changed.
pub fn live_mut<'a, V: Collected>(
    objects: &'a mut Collection<V>,
    name: &str,
    version: &str,
    now: i64,
) -> Result<&'a mut Object<V>, Refusal> {
    objects
        .get_mut(&folded(name))
        .filter(|object| is_live(object, now))
        .ok_or_else(|| not_found::<V>(name, version))
}

/// One version of a live object.
pub fn version<'a, V: Collected>(
    objects: &'a Collection<V>,
    name: &str,
    version: &str,
    now: i64,
) -> Result<(&'a Object<V>, &'a V), Refusal> {
    let object = live(objects, name, version, now)?;
    let found = object.version(version).ok_or_else(|| not_found::<V>(name, version))?;
    Ok((object, found))
}

/// Nothing by that name and version.
pub fn not_found<V: Collected>(name: &str, version: &str) -> Refusal {
    let id = if version.is_empty() { name.to_owned() } else { format!("{name}/{version}") };
    Refusal::NotFound { noun: V::NOUN, id, doubled: false }
}

/// Whether a new object or version may take the name.
pub fn check_free<V: Collected>(
    objects: &Collection<V>,
    name: &str,
    now: i64,
) -> Result<(), Refusal> {
    match objects.get(&folded(name)).and_then(|object| object.deleted) {
        Some(deletion) if deletion.settled_at > now => {
            Err(Refusal::BeingDeleted { noun: V::NOUN, name: name.to_owned(), creating: true })
        }
        Some(_) => Err(Refusal::DeletedButRecoverable { noun: V::NOUN, name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Adds a version, making the object where it is new.
pub fn add_version<'a, V: Collected>(
    objects: &'a mut Collection<V>,
    name: &str,
    version: V,
    sequence: u64,
) -> &'a mut Object<V> {
    let object = objects.entry(folded(name)).or_insert_with(|| Object::new(name, sequence));
    object.versions.push(version);
    object
}

/// The deleted object of that name, once its deletion has settled.
pub fn deleted<'a, V: Collected>(
    objects: &'a Collection<V>,
    name: &str,
    now: i64,
) -> Result<(&'a Object<V>, Deletion), Refusal> {
    objects
        .get(&folded(name))
        .and_then(|object| Some((object, object.deleted?)))
        .filter(|(_, deletion)| deletion.settled_at <= now)
        .ok_or_else(|| Refusal::DeletedNotFound {
            noun: V::NOUN,
            name: name.to_owned(),
            live_wording: false,
        })
}

impl Service {
    /// Forgets what is past its purge date.
    pub(super) fn expire<V: Version>(objects: &mut Collection<V>, now: i64) {
        objects.retain(|_, object| object.deleted.is_none_or(|deletion| deletion.purge_at > now));
    }

    /// Whether a Managed HSM has room for another version of this key; a vault always has.
    pub(super) fn check_room(
        &self,
        keys: &Collection<KeyVersion>,
        name: &str,
    ) -> Result<(), Refusal> {
        if self.kind == ServiceKind::Vault {
            return Ok(());
        }
        let (most_keys, most_versions) = (self.switches.hsm_keys, self.switches.hsm_key_versions);
        match keys.get(&folded(name)) {
            Some(object) if object.versions.len() >= most_versions => {
                Err(Refusal::Full { what: "versions of a key", most: most_versions })
            }
            None if keys.len() >= most_keys => Err(Refusal::Full { what: "keys", most: most_keys }),
            _ => Ok(()),
        }
    }

    /// Marks a live object as deleted.
    pub(super) fn soft_delete<'a, V: Collected>(
        &self,
        objects: &'a mut Collection<V>,
        name: &str,
        now: i64,
    ) -> Result<(&'a Object<V>, Deletion), Refusal> {
        if let Some(Object { deleted: Some(deletion), .. }) = objects.get(&folded(name))
            && deletion.settled_at > now
        {
            return Err(Refusal::BeingDeleted {
                noun: V::NOUN,
                name: name.to_owned(),
                creating: false,
            });
        }
        let object = live_mut(objects, name, "", now)?;
        let delay = match self.kind {
            ServiceKind::Vault => self.switches.deletion_delay,
            // Recorded: a Managed HSM's deletion is there at once.
            ServiceKind::ManagedHsm => 0,
        };
        let days = i64::from(self.switches.recoverable_days);
        let deletion = Deletion { at: now, settled_at: now + delay, purge_at: now + days * 86_400 };
        object.deleted = Some(deletion);
        Ok((object, deletion))
    }

    /// Brings a deleted object back.
    pub(super) fn undelete<'a, V: Collected>(
        &self,
        objects: &'a mut Collection<V>,
        name: &str,
        now: i64,
    ) -> Result<&'a Object<V>, Refusal> {
        let noun = V::NOUN;
        let missing =
            || Refusal::DeletedNotFound { noun, name: name.to_owned(), live_wording: true };
        let object = objects.get_mut(&folded(name)).ok_or_else(missing)?;
        match object.deleted {
            None => Err(Refusal::NotDeleted { noun, name: name.to_owned() }),
            Some(deletion) if deletion.settled_at > now => {
                Err(Refusal::BeingDeleted { noun, name: name.to_owned(), creating: false })
            }
            Some(_) => {
                object.deleted = None;
                if self.kind == ServiceKind::Vault {
                    object.recovering_until = now + self.switches.recovery_delay;
                }
                Ok(object)
            }
        }
    }

    /// Forgets a deleted object.
    pub(super) fn purge<V: Collected>(
        objects: &mut Collection<V>,
        name: &str,
        now: i64,
    ) -> Result<(), Refusal> {
        deleted(objects, name, now)?;
        objects.remove(&folded(name));
        Ok(())
    }

    /// `https://{authority}/{collection}/{name}`.
    pub(super) fn id(authority: &str, collection: &str, name: &str, version: &str) -> String {
        let slash = if version.is_empty() { "" } else { "/" };
        format!("https://{authority}/{collection}/{name}{slash}{version}")
    }

    /// Attributes as this api-version shows them.
    pub(super) fn attributes(&self, life: &Life, api: ApiVersion) -> KeyAttributes {
        let days = self.switches.recoverable_days;
        let level = if days < 90 { "CustomizedRecoverable" } else { "Recoverable" };
        KeyAttributes {
            enabled: Some(life.enabled),
            nbf: life.nbf,
            exp: life.exp,
            created: Some(life.created),
            updated: Some(life.updated),
            recovery_level: Some(format!("{level}+Purgeable")),
            recoverable_days: (api.has(Feature::RecoverableDays)
                || self.kind == ServiceKind::ManagedHsm)
                .then_some(days),
            ..KeyAttributes::default()
        }
    }
}

/// A new version's life from a request's attributes.
pub fn life_of(attributes: Option<&KeyAttributes>, now: i64) -> Result<Life, Refusal> {
    let attributes = attributes.cloned().unwrap_or_default();
    if let (Some(nbf), Some(exp)) = (attributes.nbf, attributes.exp)
        && exp <= nbf
    {
        return Err(Refusal::BadParameter(
            "The 'exp' attribute must be later than the 'nbf' attribute.\r\n".to_owned(),
        ));
    }
    Ok(Life::new(now, attributes.enabled.unwrap_or(true), attributes.nbf, attributes.exp))
}

/// Merges a request's attributes into a version's life.
pub fn merge_life(life: &mut Life, attributes: Option<&KeyAttributes>, now: i64) {
    if let Some(attributes) = attributes {
        life.enabled = attributes.enabled.unwrap_or(life.enabled);
        life.nbf = attributes.nbf.or(life.nbf);
        life.exp = attributes.exp.or(life.exp);
    }
    life.updated = now;
}

/// At most 15 tags, names and values of at most 256 characters. An empty map is kept: a vault
/// shows it (recorded after an update that removed all tags).
pub fn check_tags(tags: Option<&Tags>) -> Result<Option<Tags>, Refusal> {
    let Some(tags) = tags else {
        return Ok(None);
    };
    if tags.len() > 15 {
        return Err(Refusal::BadParameter(format!(
            "The number of tags is {}, which is more than 15.\r\n",
            tags.len()
        )));
    }
    for (name, value) in tags {
        if name.chars().count() > 256 || value.chars().count() > 256 {
            return Err(Refusal::BadParameter(format!(
                "Tag '{name}' is longer than 256 characters.\r\n"
            )));
        }
    }
    Ok(Some(tags.clone()))
}
