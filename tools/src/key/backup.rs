//! `key backup` and `key restore`: all versions of a key as one blob, which is written and read
//! as the bytes it is (so does `az keyvault key backup`).

use std::path::Path;

use akv_pkcs11::{slot::Slot, vault::is_conflict};
use akv_wire::Base64Url;
use serde::Serialize;

use super::make;
use crate::{
    cli::{Common, OutputArgs},
    failure::Failure,
    files,
    output::{Output, pairs},
    target::{self, Wanted},
};

/// Readable by its owner alone: the service encrypted the blob, but whoever has it can restore.
const MODE: u32 = 0o600;

#[derive(Serialize)]
struct Written {
    name: String,
    file: String,
    bytes: usize,
}

/// Writes a backup.
pub fn backup(
    slot: &Slot,
    wanted: &Wanted,
    to: &OutputArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    let name = wanted.all_versions("a backup")?;
    // Before the request: it is for nothing if the file is there.
    if !files::is_standard(&to.output) && !to.force && to.output.exists() {
        return Err(files::exists(&to.output));
    }
    let blob = slot.vault.backup_key(name)?;
    deliver(name, blob.as_bytes(), to, output)
}

/// Restores a backup.
pub fn restore(common: &Common, file: &Path, output: &mut Output) -> Result<(), Failure> {
    let blob = files::read(file)?;
    if blob.is_empty() {
        return Err(Failure::new(format!("{} is empty: it is no backup", file.display())));
    }
    let slot = target::slot(common, |_| {})?;
    match slot.vault.restore_key(Base64Url::new(blob.as_slice())) {
        Ok(bundle) => make::shown(&slot, &bundle, output),
        Err(error) if is_conflict(&error) => {
            Err(Failure::from(error).with_advice("`akv-pkcs11 key delete` and `key purge` do that"))
        }
        Err(error) => Err(error.into()),
    }
}

/// To standard output as they are, or into a new file.
pub fn deliver(
    name: &str,
    bytes: &[u8],
    to: &OutputArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    if files::is_standard(&to.output) {
        output.raw(bytes);
        return Ok(());
    }
    files::write(&to.output, bytes, MODE, to.force)?;
    let file = to.output.display().to_string();
    output.show(&Written { name: name.to_owned(), file, bytes: bytes.len() }, |written| {
        pairs([
            ("name".to_owned(), written.name.clone()),
            ("file".to_owned(), written.file.clone()),
            ("bytes".to_owned(), written.bytes.to_string()),
        ])
    })
}
