//! `key release`: an exportable key, encrypted for an attested environment.

use std::path::Path;

use akv_pkcs11::slot::Slot;
use akv_wire::KeyReleaseParameters;

use super::backup::deliver;
use crate::{cli::OutputArgs, failure::Failure, files, output::Output, target::Wanted};

/// The request; the attestation token is read from a file, since arguments are seen by everybody.
pub fn parameters(
    target: &Path,
    nonce: Option<String>,
    enc: Option<String>,
) -> Result<KeyReleaseParameters, Failure> {
    let token = files::read_text(target)?;
    let is_jwt = token.split('.').count() == 3
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte));
    if !is_jwt {
        return Err(Failure::new(format!(
            "{} is no attestation token: a JWT, three parts of base64url with dots between",
            target.display()
        )));
    }
    Ok(KeyReleaseParameters { target: token.to_string(), nonce, enc })
}

/// Writes the service's answer, a JWS whose payload holds the encrypted key.
pub fn run(
    slot: &Slot,
    wanted: &Wanted,
    parameters: &KeyReleaseParameters,
    to: &OutputArgs,
    output: &mut Output,
) -> Result<(), Failure> {
    if !files::is_standard(&to.output) && !to.force && to.output.exists() {
        return Err(files::exists(&to.output));
    }
    let released = slot.vault.release_key(wanted.key(), parameters)?;
    deliver(&wanted.name, format!("{}\n", released.value).as_bytes(), to, output)
}
