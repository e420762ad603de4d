//! `key list`: all keys, each with its public part.

use akv_pkcs11::{
    slot::Slot,
    vault::{KeyRef, is_not_found},
};
use serde::Serialize;

use super::view::{KeyView, yes};
use crate::{
    failure::Failure,
    output::{Output, table},
};

/// One row: a key, or why it cannot be shown.
#[derive(Serialize)]
#[serde(untagged)]
enum Row {
    Key(Box<KeyView>),
    Unknown { name: String, error: String },
}

/// Lists the keys: those that the configuration names, else all.
pub fn keys(slot: &Slot, output: &mut Output) -> Result<(), Failure> {
    let deadline = slot.vault.find_deadline();
    let mut wanted: Vec<(String, Option<String>)> = match &slot.token.keys {
        Some(keys) => keys.iter().map(|key| (key.name.clone(), key.version.clone())).collect(),
        None => {
            let items = slot.vault.keys(deadline)?;
            let names = items.iter().filter_map(|item| item.name_and_version());
            names.map(|(name, _)| (name.to_owned(), None)).collect()
        }
    };
    wanted.sort_unstable();
    let references: Vec<_> =
        wanted.iter().map(|(name, version)| KeyRef { name, version: version.as_deref() }).collect();
    let mut rows = Vec::new();
    for ((name, _), bundle) in wanted.iter().zip(slot.vault.fetch_many(&references, deadline)?) {
        match bundle {
            Ok(bundle) => rows.push(Row::Key(Box::new(KeyView::new(&bundle, &slot.token)))),
            // It went between the listing and the look.
            Err(error) if is_not_found(&error) && slot.token.keys.is_none() => {}
            Err(error) => {
                rows.push(Row::Unknown { name: name.clone(), error: error.to_string() });
            }
        }
    }
    output.show(&rows, |rows| {
        let header = ["NAME", "TYPE", "OPERATIONS", "ENABLED", "EXPIRES", "VERSION"];
        let mut text = table(header, rows.iter().map(Row::cells));
        for row in rows {
            if let Row::Unknown { error, .. } = row {
                text += &format!("\n{error}\n");
            }
        }
        text
    })
}

impl Row {
    fn cells(&self) -> [String; 6] {
        match self {
            Row::Key(key) => [
                key.label.clone(),
                key.described(),
                key.operations.join(","),
                yes(key.enabled).to_owned(),
                key.expires.clone().unwrap_or_else(|| "-".to_owned()),
                key.version.clone(),
            ],
            // Why is said below the table.
            Row::Unknown { name, .. } => {
                let unknown = || "?".to_owned();
                [name.clone(), unknown(), unknown(), unknown(), unknown(), unknown()]
            }
        }
    }
}
