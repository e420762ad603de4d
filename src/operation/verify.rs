//! C_Verify…: here, without a request, but for an HMAC with a key of the service.

use std::sync::Arc;

use cryptoki_sys::*;
use subtle::ConstantTimeEq;

use super::{
    gather::Gather,
    key::{self, VERIFY},
    sign::{Padding, for_service, wrong_key},
};
use crate::{
    abi::arg::Parameter,
    crypto::PublicKey,
    error::{Error, Result},
    mechanism::parameter::{self, Pss},
    object::{Material, Object, VaultKey},
    slot::Slot,
};

/// A verification in the making.
#[derive(Clone, Debug)]
pub struct Verifying {
    key: Verifier,
    padding: Padding,
    data: Gather,
}

#[derive(Clone, Debug)]
enum Verifier {
    /// A public key: verified here.
    Public(PublicKey),
    /// A session secret key: it is in the HMAC that takes the data.
    Mac,
    /// A secret key of the service, which verifies its own HMAC.
    Vault(Arc<VaultKey>),
}

impl Verifying {
    /// Checks mechanism, parameter and key.
    ///
    /// # Errors
    /// As [`key::check`]; CKR_MECHANISM_PARAM_INVALID.
    pub fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Verifying> {
        let mechanism = key::check(slot, kind, object, VERIFY)?;
        parameter::none(mechanism, parameter)?;
        let padding = Padding::new(mechanism, parameter)?;
        let (key, data) = match (&object.material, padding) {
            (Material::Public(key), _) => {
                (Verifier::Public(key.clone()), padding.gather(mechanism, key)?)
            }
            (Material::Secret(key), Padding::Mac(hash, _)) => {
                (Verifier::Mac, Gather::mac(hash, key)?)
            }
            (Material::Vault(key), Padding::Mac(..)) => {
                (Verifier::Vault(Arc::clone(key)), Gather::raw(slot.token.max_aes_payload))
            }
            _ => return Err(wrong_key(mechanism, object)),
        };
        Ok(Verifying { key, padding, data })
    }

    /// Takes the next bytes of the data.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE.
    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part)
    }

    /// Verifies: without a request, but for an HMAC with a key of the service.
    ///
    /// # Errors
    /// CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE, CKR_DATA_LEN_RANGE; docs/errors.md.
    pub fn finish(self, slot: &Slot, signature: &[u8]) -> Result<()> {
        let input = self.padding.input(self.data)?;
        if let Padding::Mac(_, size) = self.padding
            && signature.len() != size
        {
            return Err(Error::new(
                CKR_SIGNATURE_LEN_RANGE,
                format!("an HMAC of {} bytes, not {size}", signature.len()),
            ));
        }
        let is_good = match (&self.key, self.padding) {
            (Verifier::Public(key), Padding::Pkcs1) => return key.verify_pkcs1(&input, signature),
            (Verifier::Public(key), Padding::Pss(Pss { hash, mgf, salt })) => {
                return key.verify_pss(hash, mgf, salt, &input, signature);
            }
            (Verifier::Public(key), Padding::Ecdsa) => {
                return key.verify_ecdsa(&input, signature);
            }
            (Verifier::Public(key), Padding::Raw | Padding::Mac(..)) => {
                verify_raw(key, &input, signature)?
            }
            (Verifier::Mac, _) => {
                input.get(..signature.len()).is_some_and(|mac| mac.ct_eq(signature).into())
            }
            (Verifier::Vault(key), padding) => {
                let (algorithm, message) = for_service(slot, key, padding, &input)?;
                let key = key.reference();
                slot.note(slot.vault.verify(key, algorithm, &message, signature))?
            }
        };
        match is_good {
            true => Ok(()),
            false => Err(Error::new(CKR_SIGNATURE_INVALID, "the signature is of other data")),
        }
    }
}

/// CKM_RSA_X_509: whether the block under the signature is the data, padded with zeros.
fn verify_raw(key: &PublicKey, data: &[u8], signature: &[u8]) -> Result<bool> {
    let length = key.signature_len();
    if signature.len() != length {
        return Err(Error::new(
            CKR_SIGNATURE_LEN_RANGE,
            format!("a signature of {} bytes, not {length}", signature.len()),
        ));
    }
    let block = key
        .raw(signature)
        .map_err(|error| Error::new(CKR_SIGNATURE_INVALID, error.sentence().to_owned()))?;
    let (zeros, rest) = block.split_at(length.saturating_sub(data.len()));
    Ok(zeros.iter().all(|byte| *byte == 0) && rest == data)
}
