//! Files the tool reads and writes.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use zeroize::Zeroizing;

use crate::failure::Failure;

/// More than any key, policy, token or backup has: a backup holds at most 500 versions.
const MOST: u64 = 16 << 20;

/// Whether a path means standard input or output.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// A whole file; `-` is standard input. Wiped when dropped: it may be a private key.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error| Failure::new(format!("{} cannot be read: {error}", path.display()));
    // Reserved, so that growing leaves no copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(64 << 10));
    let count = match is_standard(path) {
        true => std::io::stdin().take(MOST + 1).read_to_end(&mut bytes),
        false => {
            let file = fs::File::open(path).map_err(failed)?;
            file.take(MOST + 1).read_to_end(&mut bytes)
        }
    };
    match count {
        Ok(count) if count as u64 <= MOST => Ok(bytes),
        Ok(_) => Err(Failure::new(format!(
            "{} is longer than {MOST} bytes: it is none of what this command reads",
            path.display()
        ))),
        Err(error) => Err(failed(error)),
    }
}

/// A whole file that must be text, without blanks around it.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let bytes = read(path)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(_) => Err(Failure::new(format!("{} is not UTF-8 text", path.display()))),
    }
}

/// Writes a new file with `mode`; one that exists only with `force`.
pub fn write(path: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    match force {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    let written = options.open(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => Failure::new(format!("{} cannot be written: {error}", path.display())),
    })
}

/// The refusal to overwrite.
pub fn exists(path: &Path) -> Failure {
    Failure::new(format!(
        "{} exists: choose another file, or overwrite it with --force",
        path.display()
    ))
}
