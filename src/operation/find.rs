//! C_FindObjects…: what to ask the service for a template, so that finding costs as little as it
//! can: a label asks for that key only, keys named in the configuration need no list permission,
//! and only an open search lists.

mod certificates;
mod show;
mod versions;

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use akv_wire::KeyItem;
use cryptoki_sys::*;

use self::{
    certificates::learn_certificates,
    show::show,
    versions::{find_older, pinned_version},
};
use super::{
    flight::Known,
    outage::{is_refusal, is_silence},
    secret,
};
use crate::{
    config::{KeyName, Versions, name_is_legal},
    error::{Error, Result},
    object::{
        given,
        naming::{name_of_label, versioned},
        project::{self, Standing},
        store::{Found as Finding, Knowledge, Wanted},
        tag::Tag,
    },
    slot::Slot,
    vault::{KeyRef, is_forbidden, is_not_found},
};

pub use self::show::{is_meant, show_changed, show_updated};

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
/// down. But that something sought by name, label or id is not among what is known does not say
/// that it does not exist.
pub fn find(slot: &Slot, wanted: &Wanted) -> Result<Found> {
    stumble!("operation");
    let plan = Plan::of(slot, wanted);
    let is_open = matches!(plan, Plan::All);
    let mut asked = match plan {
        Plan::Nothing => Ok(()),
        Plan::Label(label) => learn_label(slot, &label, wanted),
        Plan::Name(name) => learn_name(slot, &name),
        Plan::Id(id) => learn_id(slot, id),
        Plan::All => learn_all(slot, true),
    };
    let (certificates_too, certificates_only) = certificates::sought(wanted);
    let certificates = match certificates_too && asked.is_ok() {
        true => learn_certificates(slot, certificates_only),
        false => Ok(()),
    };
    let (secrets_too, secrets_only) = secret::sought(slot, wanted);
    // A deadline that nobody has answered in is not spent once more.
    let is_silent =
        [&asked, &certificates].into_iter().filter_map(|o| o.as_ref().err()).any(is_silence);
    let secrets = match secrets_too && !is_silent {
        true => secret::learn(slot),
        false => Ok(()),
    };
    let mut found = slot.store.find(wanted, |object| slot.shows(object));
    if found.is_empty() && asked.is_ok() {
        match find_older(slot, wanted) {
            Ok(older) => found = older,
            Err(error) => asked = Err(error),
        }
    }
    // What could not be learnt, and whether a search that finds nothing has to be told.
    for (outcome, is_told) in [
        (asked, !is_open || !slot.store.has_keys()),
        (certificates, certificates_only),
        (secrets, secrets_only && !slot.store.has_secrets()),
    ] {
        match slot.note(outcome) {
            Err(error) if found.is_empty() && is_told => return Err(error),
            Err(error) => serve_stale(slot, &error),
            Ok(()) => {}
        }
    }
    Ok(Found(found.into()))
}

/// Tells the operator, once in an outage, that what searches find is what was seen last.
fn serve_stale(slot: &Slot, error: &Error) {
    let level = match slot.outage.is_to_be_told() {
        true => log::Level::Warn,
        false => log::Level::Debug,
    };
    log::log!(level, "token '{}': serving what is known: {error}", slot.token.label);
}

/// Makes sure that what is known of a name is fresh.
///
/// # Errors
/// Why the service could not be asked. A name that does not exist is no error.
pub fn learn_name(slot: &Slot, name: &str) -> Result<()> {
    let known = || {
        let is_fresh = slot.store.knowledge(name, slot.ttl()) != Knowledge::Stale;
        Known::of(is_fresh, slot.store.last_found(name).is_some())
    };
    if known() == Known::Fresh || show_given(slot, name) {
        return Ok(());
    }
    let deadline = slot.vault.find_deadline();
    let what = key_named(name);
    slot.flights.share(&what, deadline, known, || {
        let version = pinned_version(slot, name);
        let asked = match slot.vault.key(KeyRef { name, version: version.as_deref() }) {
            Ok(bundle) => show(slot, name, &bundle, deadline),
            Err(error) if is_not_found(&error) => {
                slot.store.put_missing(name);
                Ok(())
            }
            Err(error) => Err(error),
        };
        slot.learnt(&what, asked)
    })
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
    if known.is_empty() || names(slot).is_empty() { learn_all(slot, false) } else { Ok(()) }
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
        return if is_found() { Ok(()) } else { learn_all(slot, false) };
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
    let is_known = || slot.store.knowledge(&mark, slot.ttl()) == Knowledge::Missing;
    slot.flights.share(&mark, deadline, || Known::of(is_known(), false), || {
        let items = match slot.vault.keys(deadline) {
            // Without list permission a key is found by its name; that is no failure.
            Err(error) if is_forbidden(&error) => {
                log::info!(
                    "token '{}': no key is named '{name}', and whether the tag of another holds \
                     the label '{label}' cannot be told: {error}",
                    slot.token.label
                );
                slot.store.put_missing(&mark);
                return Ok(());
            }
            listed => slot.learnt(ALL_KEYS, listed)?,
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
    })
}

/// What a listing learns.
const ALL_KEYS: &str = "all keys";

/// So many keys are fetched before they become objects: what the service told of a key is larger
/// than the key's objects, and a vault may have thousands.
const BATCH: usize = 256;

/// Makes sure that all keys are known: those the configuration names, or all of the service.
/// `or_stale`: a listing of earlier is better than to wait.
fn learn_all(slot: &Slot, or_stale: bool) -> Result<()> {
    let known = || {
        let was_listed = slot.store.is_listed(Duration::MAX);
        Known::of(slot.store.is_listed(slot.ttl()), or_stale && was_listed)
    };
    let deadline = slot.vault.find_deadline();
    slot.flights
        .share(ALL_KEYS, deadline, known, || slot.learnt(ALL_KEYS, fetch_all(slot, deadline)))
}

fn fetch_all(slot: &Slot, deadline: Instant) -> Result<()> {
    let begun = Instant::now();
    let rows = match &slot.token.keys {
        Some(keys) => keys.iter().map(Row::configured).collect(),
        None => Row::listed(&slot.vault.keys(deadline)?),
    };
    let unknown: Vec<&Row> = rows.iter().filter(|row| !row.is_known(slot)).collect();
    let (mut failed, mut refused) = (None, None);
    for rows in unknown.chunks(BATCH) {
        let pins: Vec<_> = rows.iter().map(|row| pinned_version(slot, &row.name)).collect();
        let references: Vec<KeyRef<'_>> = rows
            .iter()
            .zip(&pins)
            .map(|(row, pin)| KeyRef { name: &row.name, version: pin.as_deref() })
            .collect();
        for (row, answer) in rows.iter().zip(slot.vault.fetch_many(&references, deadline)?) {
            match answer {
                Ok(bundle) => {
                    slot.told(&key_named(&row.name));
                    show(slot, &row.name, &bundle, deadline)?;
                }
                Err(error) if is_not_found(&error) => {
                    slot.told(&key_named(&row.name));
                    slot.store.put_missing(&row.name);
                }
                Err(error) => {
                    let level = match slot.outage.failed(&key_named(&row.name)) {
                        true => log::Level::Warn,
                        false => log::Level::Debug,
                    };
                    log::log!(level, "key '{}' is left out: {error}", row.name);
                    let last = if is_refusal(&error) { &mut refused } else { &mut failed };
                    *last = Some(error);
                }
            }
        }
    }
    match (failed, refused) {
        // What failed for now is asked for again by the next search.
        (Some(error), _) => Err(error),
        // One key that may not be read must not hide the others; if none may, that is the answer.
        (None, Some(error)) if !slot.store.has_keys() => Err(error),
        (None, _) => {
            slot.store.put_listing(rows.iter().map(|row| row.name.as_str()), begun);
            Ok(())
        }
    }
}

/// Shows a key whose public part the configuration gives; false for any other.
fn show_given(slot: &Slot, name: &str) -> bool {
    let Some(given) = slot.token.given_key(name) else { return false };
    let version = given.key.version.clone().unwrap_or_default();
    let finding = Finding { versions: vec![version], ..Finding::default() };
    match project::objects(&given::bundle(given, &slot.token), &slot.token, Standing::Meant) {
        Ok(objects) => drop(slot.store.put_name(&given.key.name, finding, objects)),
        Err(error) => log::warn!("key '{name}' is left out: {error}"),
    }
    true
}

/// What is sought of one key, whatever the case of its name.
fn key_named(name: &str) -> String {
    format!("key {}", name.to_ascii_lowercase())
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
        let mut rows = Vec::with_capacity(items.len());
        rows.extend(items.iter().filter_map(row));
        rows
    }

    /// Whether nothing has changed since the name was seen last: by time, or by the listing.
    fn is_known(&self, slot: &Slot) -> bool {
        if matches!(slot.store.knowledge(&self.name, slot.ttl()), Knowledge::Fresh(_)) {
            return true;
        }
        if show_given(slot, &self.name) {
            return true;
        }
        let unchanged = slot.store.last_found(&self.name).is_some_and(|found| {
            found.updated.is_some()
                && found.updated == self.updated
                && found.pinned.is_none()
                && !found.is_partial
        });
        if unchanged {
            slot.store.touch(&self.name);
            slot.told(&key_named(&self.name));
        }
        unchanged
    }
}
