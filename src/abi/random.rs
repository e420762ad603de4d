//! C_SeedRandom, C_GenerateRandom: the Managed HSM's generator, or the operating system's where
//! the service has none.

use std::sync::Arc;

use cryptoki_sys::CKR_RANDOM_SEED_NOT_SUPPORTED;
use zeroize::Zeroizing;

use super::arg::{Bytes, Input};
use crate::{
    config::Service,
    crypto,
    error::{Error, Result},
    module::Module,
    session::Session,
    vault::MAX_RANDOM,
};

pub(super) fn seed(_: &Module, _: Arc<Session>, seed: Input<'_>) -> Result<()> {
    seed.bytes()?;
    Err(Error::new(CKR_RANDOM_SEED_NOT_SUPPORTED, "the generator takes no seed"))
}

pub(super) fn generate(module: &Module, session: Arc<Session>, mut out: Bytes<'_>) -> Result<()> {
    let slot = module.slot(&session);
    let wanted = out.wanted()?;
    let mut done = 0;
    while done < wanted {
        let count = (wanted - done).min(MAX_RANDOM);
        let bytes = match slot.vault.service() {
            Service::ManagedHsm => slot.note(slot.vault.random(count))?,
            Service::Vault => {
                let mut bytes = Zeroizing::new(vec![0; count]);
                crypto::random(&mut bytes)?;
                bytes
            }
        };
        out.write(done, &bytes)?;
        done += count;
    }
    Ok(())
}
