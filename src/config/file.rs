//! Reading files with the checks that their role asks for.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use zeroize::Zeroizing;

use super::PemFile;

/// More than any of these files needs; a mistaken path (a log, a device) is not swallowed whole.
const MAX_BYTES: u64 = 1 << 20;

/// A configuration file that may be trusted.
pub struct ConfigFile {
    pub text: Zeroizing<String>,
    /// Everybody on the machine may read it.
    pub exposed: bool,
}

/// Reads a configuration file, refusing one that somebody else could have written.
///
/// # Errors
/// A sentence that begins with the path.
pub fn read_config(path: &Path) -> Result<ConfigFile, String> {
    let (bytes, metadata) = read(path).map_err(|fault| describe(path, &fault))?;
    let mode = metadata.mode();
    if mode & 0o022 != 0 {
        let whom = if mode & 0o002 != 0 { "everybody" } else { "its group" };
        return Err(format!(
            "{0}: {whom} may write to it (mode {1:04o}); run `chmod go-w {0}`",
            path.display(),
            mode & 0o7777,
        ));
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != 0 && metadata.uid() != ours {
        return Err(format!(
            "{}: it belongs to user {}, who is neither root nor the user of this process ({ours})",
            path.display(),
            metadata.uid(),
        ));
    }
    match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Ok(ConfigFile { text: Zeroizing::new(text), exposed: mode & 0o004 != 0 }),
        Err(fault) => {
            let good = fault.utf8_error().valid_up_to();
            let line = 1 + bytes.iter().take(good).filter(|byte| **byte == b'\n').count();
            drop(Zeroizing::new(fault.into_bytes()));
            Err(format!("{}:{line}: not UTF-8", path.display()))
        }
    }
}

/// Reads a secret; one newline at the end, which editors add, is not part of it.
///
/// # Errors
/// A sentence that begins with the path.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let (mut bytes, _) = read(path).map_err(|fault| describe(path, &fault))?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(format!("{}: the file is empty", path.display()));
    }
    Ok(bytes)
}

/// Reads a file with at least one PEM certificate in it.
///
/// # Errors
/// A sentence that begins with the path.
pub fn read_certificates(path: &Path) -> Result<PemFile, String> {
    let (pem, _) = read(path).map_err(|fault| describe(path, &fault))?;
    check_certificates(&pem).map_err(|fault| format!("{}: {fault}", path.display()))?;
    Ok(PemFile { path: path.to_owned(), pem: pem.to_vec() })
}

/// Reads a file that holds nothing secret.
///
/// # Errors
/// A sentence that begins with the path.
pub fn read_public(path: &Path) -> Result<Vec<u8>, String> {
    let (bytes, _) = read(path).map_err(|fault| describe(path, &fault))?;
    Ok(bytes.to_vec())
}

/// The `*.pem` and `*.crt` files of a directory, by name. A file there that is no certificate is a
/// warning: the directory is written to by others at any time.
///
/// # Errors
/// A sentence that begins with the path when the directory cannot be read.
pub fn read_certificate_dir(
    dir: &Path,
    warnings: &mut Vec<String>,
) -> Result<Vec<PemFile>, String> {
    let wanted = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "pem" || extension == "crt")
    };
    let mut paths = Vec::new();
    for entry in dir.read_dir().map_err(|fault| describe(dir, &fault))? {
        paths.push(entry.map_err(|fault| describe(dir, &fault))?.path());
    }
    paths.retain(wanted);
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        match read_certificates(&path) {
            Ok(file) => files.push(file),
            Err(fault) => warnings.push(format!("{fault}; the file is left out")),
        }
    }
    Ok(files)
}

/// Refuses what is not certificate and unencrypted private key in PEM.
///
/// # Errors
/// The end of a sentence that names the file.
pub fn check_key_pair(pem: &[u8]) -> Result<(), String> {
    check_certificates(pem)?;
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(()),
        Err(_) if pem.windows(21).any(|part| part == b"ENCRYPTED PRIVATE KEY") => {
            Err("the private key is encrypted; decrypt it with `openssl pkey`".to_owned())
        }
        Err(_) => Err("no private key in PEM form in it".to_owned()),
    }
}

fn check_certificates(pem: &[u8]) -> Result<(), String> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificate.map_err(|fault| format!("damaged PEM: {fault}"))?;
        found = true;
    }
    match found {
        true => Ok(()),
        false => Err("no certificate in PEM form in it".to_owned()),
    }
}

/// Opens without waiting for the writer of a named pipe, and takes regular files only.
fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, Metadata)> {
    let file: File =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // Sized before it is filled: a vector that grows leaves copies of a secret behind.
    let size = metadata.len().min(MAX_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1));
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "larger than 1 MiB"));
    }
    Ok((bytes, metadata))
}

fn describe(path: &Path, fault: &io::Error) -> String {
    let reason = match fault.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => {
            format!("user {} may not read it", rustix::process::geteuid().as_raw())
        }
        _ => fault.to_string(),
    };
    format!("{}: {reason}", path.display())
}
