//! C_FindObjects…: what to ask the service for a template, so that finding costs as little as it
//! can: a label asks for that key only, keys named in the configuration need no list permission,
//! and only an open search lists.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use akv_wire::{KeyBundle, KeyItem};
use cryptoki_sys::*;

use crate::{
    config::{KeyName, Service, Versions, name_is_legal},
    error::{Error, Result},
    object::{
        Object,
        certificate::Certificate,
        naming::{name_of_label, versioned},
        project::{self, Standing},
        store::{Found as Finding, Knowledge, Origin, Wanted},
        tag::Tag,
    },
    slot::Slot,
    vault::{KeyRef, is_forbidden, is_not_found},
};

/// Handles that a search found and has not given out yet.
#[derive(Debug)]
pub struct Found(VecDeque<CK_OBJECT_HANDLE>);

impl Found {
    /// The next handles, at most `most`.
    pub fn next(&mut self, most: usize) -> Vec<CK_OBJECT_HANDLE> {
        let count = most.min(self.0.len());
        self.0.drain(..count).collect()
    }
}

/// Carries out a search: asks the service for what is not known freshly, then looks in the store.
///
/// # Errors
/// Why the service could not be asked, unless something was known before: stale is better than
/// down.
pub fn find(slot: &Slot, wanted: &Wanted) -> Result<Found> {
    let asked = match Plan::of(slot, wanted) {
        Plan::Nothing => Ok(()),
        Plan::Label(label) => learn_label(slot, &label, wanted),
        Plan::Name(name) => learn_name(slot, &name),
        Plan::Id(id) => learn_id(slot, id),
        Plan::All => learn_all(slot),
    }
    .and_then(|()| if wants_certificates(wanted) { learn_certificates(slot) } else { Ok(()) });
    let mut found = slot.store.find(wanted, |object| slot.shows(object));
    if found.is_empty() && asked.is_ok() {
        found = find_older(slot, wanted);
    }
    match slot.note(asked) {
        Err(error) if found.is_empty() && !slot.store.has_keys() => return Err(error),
        Err(error) => {
            log::warn!("token '{}': serving what is known: {error}", slot.token.label);
        }
        Ok(()) => {}
    }
    Ok(Found(found.into()))
}

/// An older version of a key, asked for by label and CKA_ID together: that is how a program which
/// remembers a key looks it up again in a forked worker, perhaps after the key was rotated. Such a
/// version is in no other search, so that a label alone still means one key.
fn find_older(slot: &Slot, wanted: &Wanted) -> Vec<CK_OBJECT_HANDLE> {
    let value = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
    let (Some(id), Some(label)) = (value(CKA_ID), value(CKA_LABEL)) else { return Vec::new() };
    let name = name_of_label(&String::from_utf8_lossy(label));
    let mark = format!("version:{name}:{}", crate::hex::encode(id));
    let Some(current) = slot.store.last_found(&name) else { return Vec::new() };
    let is_pinned = pinned_version(slot, &name).is_some() && current.pinned.is_none();
    if is_pinned || slot.store.knowledge(&mark, slot.ttl()) == Knowledge::Missing {
        return Vec::new();
    }
    let older = other_versions(slot, &name, &current.versions, slot.vault.find_deadline());
    let objects = older.and_then(|older| {
        let is_it = |bundle: &&KeyBundle| project::key_id(&bundle.key).is_some_and(|k| k == id);
        match older.iter().find(is_it) {
            Some(bundle) => project::objects(bundle, &slot.token, Standing::Meant),
            None => Ok(Vec::new()),
        }
    });
    let matching = |object: &Object| slot.shows(object) && object.attributes.match_all(wanted);
    match objects {
        Ok(mut objects) => {
            objects.retain(matching);
            if objects.is_empty() {
                slot.store.put_missing(&mark);
            }
            slot.store.put_aside(objects)
        }
        Err(error) => {
            log::info!("whether an older version of key '{name}' is meant cannot be told: {error}");
            Vec::new()
        }
    }
}

/// Makes sure that what is known of a name is fresh.
///
/// # Errors
/// Why the service could not be asked. A name that does not exist is no error.
pub fn learn_name(slot: &Slot, name: &str) -> Result<()> {
    let is_known = || slot.store.knowledge(name, slot.ttl()) != Knowledge::Stale;
    if is_known() {
        return Ok(());
    }
    let deadline = slot.vault.find_deadline();
    let what = format!("key {}", name.to_ascii_lowercase());
    let Some(_flight) = slot.flights.take(&what, deadline, is_known) else { return Ok(()) };
    match slot.vault.key(KeyRef { name, version: pinned_version(slot, name).as_deref() }) {
        Ok(bundle) => show(slot, name, &bundle, deadline).map(drop),
        Err(error) if is_not_found(&error) => {
            slot.store.put_missing(name);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a template needs to know.
enum Plan {
    /// Nothing of the service.
    Nothing,
    /// The key with this CKA_LABEL.
    Label(String),
    /// The key with this name.
    Name(String),
    /// The keys with this CKA_ID.
    Id(Vec<u8>),
    /// All keys.
    All,
}

impl Plan {
    fn of(slot: &Slot, wanted: &Wanted) -> Plan {
        let value = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
        let class = value(CKA_CLASS).and_then(|v| v.try_into().ok()).map(CK_ULONG::from_ne_bytes);
        let shown = [CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY, CKO_CERTIFICATE];
        if class.is_some_and(|class| !shown.contains(&class))
            || value(CKA_TOKEN) == Some(&[CK_FALSE])
            || !slot.vault_can_be_asked()
        {
            return Plan::Nothing;
        }
        let text = |kind| value(kind).map(|v| std::str::from_utf8(v).map(str::to_owned));
        match (text(CKA_LABEL), text(CKA_UNIQUE_ID)) {
            (Some(Ok(label)), _) => return Plan::Label(label),
            // No object has a label or unique id that is not UTF-8.
            (Some(Err(_)), _) | (None, Some(Err(_))) => return Plan::Nothing,
            (None, Some(Ok(unique))) => {
                return match unique.split_once('/') {
                    Some((name, _)) if name_is_legal(name) => Plan::Name(name.to_owned()),
                    _ => Plan::Nothing,
                };
            }
            (None, None) => {}
        }
        match value(CKA_ID) {
            Some(id) if !id.is_empty() => Plan::Id(id.to_vec()),
            _ => Plan::All,
        }
    }
}

fn wants_certificates(wanted: &Wanted) -> bool {
    let class = wanted.iter().find(|(kind, _)| *kind == CKA_CLASS);
    let on_token = wanted.iter().all(|(kind, value)| *kind != CKA_TOKEN || value != &[CK_FALSE]);
    on_token && class.is_none_or(|(_, value)| value == &CKO_CERTIFICATE.to_ne_bytes())
}

/// Makes sure that the keys with an id are known: an id that was seen before tells which names to
/// ask for, of a new one only all keys tell.
fn learn_id(slot: &Slot, id: Vec<u8>) -> Result<()> {
    let wanted = vec![(CKA_ID, id)];
    let names = |slot: &Slot| -> BTreeSet<String> {
        let handles = slot.store.find(&wanted, |_| true);
        let objects = handles.iter().filter_map(|handle| slot.store.object(*handle).ok());
        objects.filter_map(|object| Some(object.vault_key()?.name.clone())).collect()
    };
    let known = names(slot);
    for name in &known {
        learn_name(slot, name)?;
    }
    if known.is_empty() || names(slot).is_empty() { learn_all(slot) } else { Ok(()) }
}

/// Makes sure that the key with a label is known: the key of that name, else one whose tag holds
/// the label, which only a listing tells.
fn learn_label(slot: &Slot, label: &str, wanted: &Wanted) -> Result<()> {
    let is_found = || !slot.store.find(wanted, |_| true).is_empty();
    let plain = match (slot.token.versions, versioned(label)) {
        (Versions::Enabled, Some((plain, _))) => plain,
        _ => label,
    };
    let name = name_of_label(plain);
    if let Some(keys) = &slot.token.keys {
        if keys.iter().any(|key| key.name.eq_ignore_ascii_case(&name)) {
            learn_name(slot, &name)?;
        }
        return if is_found() { Ok(()) } else { learn_all(slot) };
    }
    learn_name(slot, &name)?;
    let labelled = vec![(CKA_LABEL, label.into())];
    if is_found() || !slot.store.find(&labelled, |_| true).is_empty() {
        return Ok(());
    }
    // ':' is in no name: a mark for "no tag holds this label", kept as long as a missing name.
    let mark = format!("label:{plain}");
    if slot.store.is_listed(slot.ttl())
        || slot.store.knowledge(&mark, slot.ttl()) == Knowledge::Missing
    {
        return Ok(());
    }
    let deadline = slot.vault.find_deadline();
    let known = || slot.store.knowledge(&mark, slot.ttl()) == Knowledge::Missing;
    let Some(_flight) = slot.flights.take(&mark, deadline, known) else { return Ok(()) };
    let items = match slot.vault.keys(deadline) {
        Ok(items) => items,
        Err(error) => {
            // Without list permission a key is found by its name; that is no failure.
            log::info!(
                "token '{}': no key is named '{name}', and whether the tag of another holds the \
                 label '{label}' cannot be told: {error}",
                slot.token.label
            );
            slot.store.put_missing(&mark);
            return Ok(());
        }
    };
    for item in &items {
        let Some((name, _)) = item.name_and_version() else { continue };
        if Tag::of(item.tags.as_ref()).label.as_deref() == Some(plain) {
            learn_name(slot, name)?;
        }
    }
    if !is_found() {
        slot.store.put_missing(&mark);
    }
    Ok(())
}

/// Makes sure that all keys are known: those the configuration names, or all of the service.
fn learn_all(slot: &Slot) -> Result<()> {
    let is_known = || slot.store.is_listed(slot.ttl());
    if is_known() {
        return Ok(());
    }
    let deadline = slot.vault.find_deadline();
    let Some(_flight) = slot.flights.take("all keys", deadline, is_known) else { return Ok(()) };
    let rows = match &slot.token.keys {
        Some(keys) => keys.iter().map(Row::configured).collect(),
        None => Row::listed(&slot.vault.keys(deadline)?),
    };
    let unknown: Vec<&Row> = rows.iter().filter(|row| !row.is_known(slot)).collect();
    let pins: Vec<_> = unknown.iter().map(|row| pinned_version(slot, &row.name)).collect();
    let references: Vec<KeyRef<'_>> = unknown
        .iter()
        .zip(&pins)
        .map(|(row, pin)| KeyRef { name: &row.name, version: pin.as_deref() })
        .collect();
    let (mut failed, mut refused) = (None, None);
    for (row, answer) in unknown.iter().zip(slot.vault.fetch_many(&references, deadline)?) {
        match answer {
            Ok(bundle) => drop(show(slot, &row.name, &bundle, deadline)?),
            Err(error) if is_not_found(&error) => slot.store.put_missing(&row.name),
            Err(error) => {
                log::warn!("key '{}' is left out: {error}", row.name);
                let last = if is_forbidden(&error) { &mut refused } else { &mut failed };
                *last = Some(error);
            }
        }
    }
    match (failed, refused) {
        // One key that cannot be read must not hide the others; if none can, that is the answer.
        (Some(error), _) | (None, Some(error)) if !slot.store.has_keys() => return Err(error),
        // What failed for now is asked for again by the next search.
        (Some(_), _) => {}
        (None, _) => slot.store.put_listing(rows.iter().map(|row| row.name.as_str())),
    }
    Ok(())
}

/// One name to be shown.
struct Row {
    name: String,
    /// `attributes.updated` in the listing.
    updated: Option<i64>,
}

impl Row {
    fn configured(key: &KeyName) -> Row {
        Row { name: key.name.clone(), updated: None }
    }

    fn listed(items: &[KeyItem]) -> Vec<Row> {
        let row = |item: &KeyItem| {
            let (name, _) = item.name_and_version()?;
            Some(Row { name: name.to_owned(), updated: item.attributes.updated })
        };
        items.iter().filter_map(row).collect()
    }

    /// Whether nothing has changed since the name was seen last: by time, or by the listing.
    fn is_known(&self, slot: &Slot) -> bool {
        if matches!(slot.store.knowledge(&self.name, slot.ttl()), Knowledge::Fresh(_)) {
            return true;
        }
        let unchanged = slot.store.last_found(&self.name).is_some_and(|found| {
            found.updated.is_some() && found.updated == self.updated && found.pinned.is_none()
        });
        if unchanged {
            slot.store.touch(&self.name);
        }
        unchanged
    }
}

/// The version that a name means when it is not the current one: pinned in the configuration, or
/// found earlier to be the one of a configured certificate.
fn pinned_version(slot: &Slot, name: &str) -> Option<String> {
    let configured = slot.token.keys.as_ref().and_then(|keys| {
        keys.iter().find(|key| key.name.eq_ignore_ascii_case(name))?.version.clone()
    });
    configured.or_else(|| slot.store.last_found(name)?.pinned)
}

/// Puts a name's objects in the store: the version that is meant, and with `versions = "enabled"`
/// the others. Gives back their handles, the meant version's first.
///
/// # Errors
/// Why the service could not be asked for other versions.
pub fn show(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Vec<CK_OBJECT_HANDLE>> {
    let stands_in = version_before_lost(slot, name, bundle, deadline)?;
    let bundle = stands_in.as_ref().unwrap_or(bundle);
    let by_certificate = version_of_certificate(slot, name, bundle, deadline)?;
    let earlier = slot.store.last_found(name);
    let pinned = by_certificate
        .as_ref()
        .and_then(|bundle| bundle.key.name_and_version())
        .map(|(_, version)| version.to_owned())
        .or_else(|| earlier.as_ref().and_then(|found| found.pinned.clone()));
    let meant = sized(slot, by_certificate.as_ref().unwrap_or(bundle));
    let meant = meant.as_ref();
    let mut objects = match project::objects(meant, &slot.token, Standing::Meant) {
        Ok(objects) => objects,
        Err(error) => {
            log::info!("key '{name}' is left out: {error}");
            Vec::new()
        }
    };
    let version = |bundle: &KeyBundle| {
        bundle.key.name_and_version().map(|(_, version)| version.to_owned()).unwrap_or_default()
    };
    let mut versions = vec![version(meant)];
    if slot.token.versions == Versions::Enabled {
        for other in other_versions(slot, name, &versions, deadline)? {
            let other = sized(slot, &other);
            match project::objects(&other, &slot.token, Standing::Other) {
                // The same material in several versions is shown once, as the meant one.
                Ok(more) if more.iter().all(|new| !objects.iter().any(|o| new.is_twin(o))) => {
                    objects.extend(more);
                    versions.push(version(&other));
                }
                Ok(_) => {}
                Err(error) => log::info!("a version of '{name}' is left out: {error}"),
            }
        }
    }
    let finding = Finding {
        updated: bundle.attributes.updated,
        managed: meant.managed.unwrap_or(false),
        versions,
        pinned,
        ..Finding::default()
    };
    Ok(slot.store.put_name(name, finding, objects))
}

/// The bundle with the size of its AES key, which the service tells from api-version 2025-07-01 on
/// only: asked for once per version. Without it the key is shown, but not used.
fn sized<'b>(slot: &Slot, bundle: &'b KeyBundle) -> Cow<'b, KeyBundle> {
    let Some((name, version)) = bundle.key.name_and_version() else { return Cow::Borrowed(bundle) };
    if !project::lacks_size(bundle) {
        return Cow::Borrowed(bundle);
    }
    let unique = vec![(CKA_UNIQUE_ID, format!("{name}/{version}#sec").into_bytes())];
    let earlier = slot.store.find(&unique, |_| true).first().map(|h| slot.store.object(*h));
    let size = match earlier {
        Some(Ok(object)) => object.attributes.ulong(CKA_VALUE_LEN).map(|bytes| 8 * bytes as u32),
        _ => match slot.vault.key_with_size(KeyRef::version(name, version)) {
            Ok(asked) => asked.and_then(|asked| asked.attributes.key_size),
            Err(error) => {
                log::info!("the size of key '{name}' cannot be asked for: {error}");
                None
            }
        },
    };
    if size.is_none() {
        log::info!(
            "key '{name}' is shown without its AES mechanisms: the service does not tell its size"
        );
    }
    let mut bundle = bundle.clone();
    bundle.attributes.key_size = size;
    Cow::Owned(bundle)
}

/// The version that stands for a name whose current one lost a race (`Making::settle_race`).
fn version_before_lost(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Option<KeyBundle>> {
    let is_lost = |bundle: &KeyBundle| Tag::of(bundle.tags.as_ref()).lost;
    let (_, version) = bundle.key.name_and_version().unwrap_or_default();
    if !is_lost(bundle) {
        return Ok(None);
    }
    let others = other_versions(slot, name, &[version.to_owned()], deadline)?;
    Ok(others.into_iter().find(|other| !is_lost(other)))
}

/// The version of a name whose public key is in a configured certificate, if that is not the one
/// at hand: after a rotation the certificate, and what it is used with, stay with the old version.
fn version_of_certificate(
    slot: &Slot,
    name: &str,
    bundle: &KeyBundle,
    deadline: Instant,
) -> Result<Option<KeyBundle>> {
    let key_id = |bundle: &KeyBundle| project::key_id(&bundle.key);
    let Some(current) = key_id(bundle) else { return Ok(None) };
    let leaves = slot.store.leaves_open_to(name);
    if leaves.is_empty() || slot.store.has_configured_certificate(&current) {
        return Ok(None);
    }
    let is_it = |other: &KeyBundle| key_id(other).is_some_and(|id| leaves.contains(&id));
    // Most likely the one shown until now, which needs no permission to list versions.
    let earlier = slot.store.last_found(name).and_then(|found| found.versions.first().cloned());
    if let Some(earlier) = earlier
        && let Ok(shown) = slot.vault.key(KeyRef::version(name, &earlier))
        && is_it(&shown)
    {
        return Ok(Some(shown));
    }
    let (_, version) = bundle.key.name_and_version().unwrap_or_default();
    let others = match other_versions(slot, name, &[version.to_owned()], deadline) {
        Ok(others) => others,
        Err(error) => {
            log::info!(
                "whether a configured certificate belongs to an older version of '{name}' cannot \
                 be told: {error}"
            );
            return Ok(None);
        }
    };
    Ok(others.into_iter().find(is_it))
}

/// All enabled versions of a name but those in `known`, newest first.
fn other_versions(
    slot: &Slot,
    name: &str,
    known: &[String],
    deadline: Instant,
) -> Result<Vec<KeyBundle>> {
    let mut items = slot.vault.key_versions(name, deadline)?;
    items.retain(|item| item.attributes.enabled.unwrap_or(true));
    items.sort_by_key(|item| std::cmp::Reverse(item.attributes.created));
    let versions: Vec<String> = items
        .iter()
        .filter_map(|item| item.name_and_version().map(|(_, version)| version.to_owned()))
        .filter(|version| !known.contains(version))
        .collect();
    let references: Vec<_> =
        versions.iter().map(|version| KeyRef::version(name, version)).collect();
    slot.vault.fetch_many(&references, deadline)?.into_iter().collect()
}

/// Fetches the vault's certificates of the keys known so far. A certificate that cannot be had
/// never hides a key.
fn learn_certificates(slot: &Slot) -> Result<()> {
    if slot.vault.service() == Service::ManagedHsm || !slot.vault_can_be_asked() {
        return Ok(());
    }
    for (name, version) in slot.store.names_without_certificate() {
        let deadline = slot.vault.find_deadline();
        let known = || slot.store.last_found(&name).is_none_or(|found| found.certificate_seen);
        let Some(_flight) = slot.flights.take(&format!("certificate {name}"), deadline, known)
        else {
            continue;
        };
        match certificate_of(slot, &name, &version) {
            Ok(certificate) => {
                slot.store.add_certificate(certificate, Origin::Vault(name.to_ascii_lowercase()));
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => {
                log::info!("the certificate of key '{name}' is left out: {error}");
                if !is_forbidden(&error) {
                    return Ok(()); // asked for again by the next search
                }
            }
        }
        slot.store.certificate_seen(&name);
    }
    Ok(())
}

fn certificate_of(slot: &Slot, name: &str, version: &str) -> Result<Certificate> {
    let bundle = slot.vault.certificate(KeyRef::version(name, version))?;
    let der = bundle.der().and_then(std::result::Result::ok).ok_or_else(|| {
        Error::new(CKR_DEVICE_ERROR, format!("the vault sent no certificate for '{name}'"))
    })?;
    Certificate::parse(&der)
}
