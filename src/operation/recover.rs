//! C_VerifyRecover: what a CKM_RSA_PKCS signature was made over. Here, never a request.

use std::sync::Arc;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Keyed, Operation, Size,
    key::{self, VERIFY_RECOVER},
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

/// A recovery in the making: the public key of a signature, and the signature.
#[derive(Clone, Debug)]
pub struct Recovering {
    key: PublicKey,
    most: usize,
    signature: Vec<u8>,
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
        let wrong = || {
            let what = format!("{} with '{}'", mechanism.name, object.label());
            Error::new(CKR_KEY_TYPE_INCONSISTENT, format!("{what}, which is no public RSA key"))
        };
        let Material::Public(key) = &object.material else { return Err(wrong()) };
        let most = key.modulus_len().ok_or_else(wrong)?;
        Ok(Recovering { key: key.clone(), most, signature: Vec::new() })
    }
}

impl Operation for Recovering {
    fn family(session: &Session) -> &Family<Self> {
        &session.verify_recover
    }

    fn size(&self) -> Result<Size> {
        Ok(Size::AtMost(self.most))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.signature.extend_from_slice(part);
        Ok(())
    }

    fn finish(self, _: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        Ok(self.key.recover_pkcs1(&self.signature)?.into())
    }
}
