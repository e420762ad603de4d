//! C_SignRecover… and C_VerifyRecover…: signatures that hold their data. What an RSA signature was
//! made over is told here, never by a request.

use std::sync::Arc;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Keyed, Operation, Size,
    gather::Gather,
    key::{self, SIGN_RECOVER, VERIFY_RECOVER},
    sign::{Padding, Signing, wrong_key},
};
use crate::{
    abi::arg::Parameter,
    crypto::PublicKey,
    error::{Error, Result},
    mechanism::parameter,
    object::{Material, Object},
    session::{Family, Session},
    slot::Slot,
};

/// C_SignRecover…: a signature like any other, that its data can be had back from.
#[derive(Clone, Debug)]
pub struct SigningRecoverably(Signing);

impl Keyed for SigningRecoverably {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Self> {
        Signing::with(slot, kind, parameter, object, SIGN_RECOVER).map(Self)
    }
}

impl Operation for SigningRecoverably {
    fn family(session: &Session) -> &Family<Self> {
        &session.sign_recover
    }

    fn size(&self) -> Result<Size> {
        self.0.size()
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.0.feed(part)
    }

    fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        self.0.finish(slot)
    }
}

/// C_VerifyRecover… in the making: the signature is the data.
#[derive(Clone, Debug)]
pub struct Recovering {
    key: PublicKey,
    padding: Padding,
    signature: Gather,
}

impl Keyed for Recovering {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Recovering> {
        let mechanism = key::check(slot, kind, object, VERIFY_RECOVER)?;
        parameter::none(mechanism, parameter)?;
        let padding = Padding::new(mechanism, parameter)?;
        let Material::Public(key) = &object.material else {
            return Err(wrong_key(mechanism, object));
        };
        Ok(Recovering { signature: Gather::raw(key.signature_len()), key: key.clone(), padding })
    }
}

impl Operation for Recovering {
    fn family(session: &Session) -> &Family<Self> {
        &session.verify_recover
    }

    /// A bound, though CKM_RSA_X_509 gives the modulus's length: what is wrong with the signature
    /// is told before a buffer that is too small (5.15).
    fn size(&self) -> Result<Size> {
        Ok(Size::AtMost(self.key.signature_len()))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.signature
            .feed(part)
            .map_err(|error| Error::new(CKR_SIGNATURE_LEN_RANGE, error.sentence().to_owned()))
    }

    fn finish(self, _: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        let (_, signature) = self.signature.finish();
        if signature.len() != self.key.signature_len() {
            return Err(Error::new(
                CKR_SIGNATURE_LEN_RANGE,
                format!(
                    "a signature of {} bytes, not {}",
                    signature.len(),
                    self.key.signature_len()
                ),
            ));
        }
        let recovered = match self.padding {
            Padding::Raw => self.key.raw(&signature),
            _ => self.key.recover_pkcs1(&signature),
        };
        recovered
            .map(Zeroizing::new)
            .map_err(|error| Error::new(CKR_SIGNATURE_INVALID, error.sentence().to_owned()))
    }
}
