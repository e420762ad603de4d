//! C_Verify…: always here, never a request.

use std::sync::Arc;

use cryptoki_sys::*;

use super::{
    gather::Gather,
    key::{self, VERIFY},
    sign::Padding,
};
use crate::{
    abi::arg::Parameter,
    crypto::PublicKey,
    error::{Error, Result},
    mechanism::parameter::{self, Pss},
    object::{Material, Object},
    slot::Slot,
};

/// A verification in the making.
#[derive(Clone, Debug)]
pub struct Verifying {
    key: PublicKey,
    padding: Padding,
    data: Gather,
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
        let Material::Public(key) = &object.material else {
            return Err(Error::new(
                CKR_KEY_TYPE_INCONSISTENT,
                format!("{} with '{}', which is no public key", mechanism.name, object.label()),
            ));
        };
        let padding = Padding::new(mechanism, parameter)?;
        Ok(Verifying { data: padding.gather(mechanism, key)?, key: key.clone(), padding })
    }

    /// Takes the next bytes of the data.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE.
    pub fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part)
    }

    /// Verifies.
    ///
    /// # Errors
    /// CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE, CKR_DATA_LEN_RANGE.
    pub fn finish(self, signature: &[u8]) -> Result<()> {
        let input = self.padding.input(self.data)?;
        match self.padding {
            Padding::Pkcs1 => self.key.verify_pkcs1(&input, signature),
            Padding::Pss(Pss { hash, mgf, salt }) => {
                self.key.verify_pss(hash, mgf, salt, &input, signature)
            }
            Padding::Ecdsa => self.key.verify_ecdsa(&input, signature),
        }
    }
}
