//! `key delete`, `key recover`, `key purge` and the list of deleted keys.

use std::{
    thread,
    time::{Duration, Instant},
};

use akv_pkcs11::{
    error,
    slot::Slot,
    vault::{is_conflict, is_not_found},
};
use akv_wire::{DeletedKeyBundle, KeyBundle};
use serde::Serialize;

use super::{make, view};
use crate::{
    failure::Failure,
    output::{Output, pairs, table},
    target::Wanted,
};

/// How often a vault that is still deleting or recovering is asked again.
const POLL: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct DeletedView {
    name: String,
    deleted: Option<String>,
    /// When the service destroys it; None where it does not say.
    purged_on: Option<String>,
}

impl DeletedView {
    fn new(name: &str, deleted: Option<i64>, purge: Option<i64>) -> DeletedView {
        DeletedView {
            name: name.to_owned(),
            deleted: view::time(deleted),
            purged_on: view::time(purge),
        }
    }

    fn cells(&self) -> [String; 3] {
        let dash = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
        [self.name.clone(), dash(&self.deleted), dash(&self.purged_on)]
    }
}

/// Lists the keys that can be recovered.
pub fn list(slot: &Slot, output: &mut Output) -> Result<(), Failure> {
    let items = slot.vault.deleted_keys(slot.vault.find_deadline())?;
    let mut rows: Vec<_> = items
        .iter()
        .filter_map(|deleted| {
            let (name, _) = deleted.item.name_and_version()?;
            Some(DeletedView::new(name, deleted.deleted_date, deleted.scheduled_purge_date))
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    output.show(&rows, |rows| {
        table(["NAME", "DELETED", "PURGED ON"], rows.iter().map(DeletedView::cells))
    })
}

/// Deletes a key, and waits until the service has done so.
pub fn delete(slot: &Slot, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let name = wanted.all_versions("deletion")?;
    let deleted: DeletedKeyBundle = slot.vault.delete_key(name)?;
    // A vault answers before the key shows among the deleted ones: recovery would not find it.
    settled(slot, || slot.vault.deleted_key(name), is_not_found)?;
    let view = DeletedView::new(name, deleted.deleted_date, deleted.scheduled_purge_date);
    output.show(&view, |view| pairs(named(view)))
}

/// Brings a deleted key back, and waits until it can be used.
pub fn recover(slot: &Slot, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let name = wanted.all_versions("recovery")?;
    slot.vault.recover_key(name)?;
    let bundle: KeyBundle = settled(slot, || slot.vault.key(wanted.key()), is_not_found)?;
    make::shown(slot, &bundle, output)
}

/// Destroys a deleted key.
pub fn purge(slot: &Slot, wanted: &Wanted, output: &mut Output) -> Result<(), Failure> {
    let name = wanted.all_versions("destruction")?;
    settled(slot, || slot.vault.purge_key(name), is_conflict)?;
    #[derive(Serialize)]
    struct Purged<'a> {
        purged: &'a str,
    }
    output.show(&Purged { purged: name }, |_| format!("purged  {name}"))
}

/// Asks until the answer is not `yet`, or the time of a search has passed.
fn settled<T>(
    slot: &Slot,
    ask: impl Fn() -> error::Result<T>,
    not_yet: impl Fn(&error::Error) -> bool,
) -> Result<T, Failure> {
    let deadline = slot.vault.find_deadline();
    loop {
        match ask() {
            Err(error) if not_yet(&error) && Instant::now() + POLL < deadline => {
                thread::sleep(POLL);
            }
            done => return done.map_err(Failure::from),
        }
    }
}

fn named(view: &DeletedView) -> Vec<(String, String)> {
    let [name, deleted, purge] = view.cells();
    [("name", name), ("deleted", deleted), ("purged on", purge)]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
}
