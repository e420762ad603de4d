//! A private value on a curve, and ECDSA with it.

use aws_lc_rs::{
    encoding::AsBigEndian,
    signature::{EcdsaKeyPair, KeyPair},
};
use cryptoki_sys::{CKR_ATTRIBUTE_VALUE_INVALID, CKR_FUNCTION_FAILED};
use der::{
    Encode, Sequence,
    asn1::{ObjectIdentifier, OctetStringRef},
};
use zeroize::Zeroizing;

use super::{
    curve::{Curve, ecdsa_integer},
    long_digest,
    public::PublicKey,
    to_length,
};
use crate::error::{Error, Result};

pub(super) struct EcPrivate {
    curve: Curve,
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl EcPrivate {
    pub(super) fn generate(curve: Curve) -> Result<EcPrivate> {
        EcPrivate::new(curve, EcdsaKeyPair::generate(curve.signing()).map_err(failed)?)
    }

    pub(super) fn from_secret(curve: Curve, d: &[u8]) -> Result<EcPrivate> {
        let invalid = || {
            Error::new(
                CKR_ATTRIBUTE_VALUE_INVALID,
                format!("the private value is not between 1 and the order of {}", curve.name()),
            )
        };
        let secret = to_length(d, curve.field_bytes()).map(Zeroizing::new).ok_or_else(invalid)?;
        // Without the public key in it aws-lc computes the point.
        let der = OctetStringRef::new(&secret)
            .and_then(|private_key| {
                EcPrivateKey { version: 1, private_key, parameters: Some(curve.oid()) }.to_der()
            })
            .map(Zeroizing::new)
            .map_err(failed)?;
        let pair =
            EcdsaKeyPair::from_private_key_der(curve.signing(), &der).map_err(|_| invalid())?;
        EcPrivate::new(curve, pair)
    }

    pub(super) fn from_pkcs8(curve: Curve, der: &[u8]) -> Result<EcPrivate> {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), der).map_err(|why| {
            Error::new(
                CKR_ATTRIBUTE_VALUE_INVALID,
                format!("the PKCS#8 private key is no key on {}: {why}", curve.name()),
            )
        })?;
        EcPrivate::new(curve, pair)
    }

    pub(super) fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>> {
        let document = self.pair.to_pkcs8v1().map_err(failed)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn secret(&self) -> Result<Zeroizing<Vec<u8>>> {
        let secret = self.pair.private_key().as_be_bytes().map_err(failed)?;
        Ok(Zeroizing::new(secret.as_ref().to_vec()))
    }

    pub(super) fn sign(&self, digest: &[u8]) -> Result<Vec<u8>> {
        let integer = ecdsa_integer(self.curve, digest)?;
        let Some(digest) = to_length(&integer, self.curve.digest_bytes()) else {
            return long_digest::sign(self.curve, &self.secret()?, &integer);
        };
        let digest = self.curve.import_digest(&digest)?;
        Ok(self.pair.sign_digest(&digest).map_err(failed)?.as_ref().to_vec())
    }

    fn new(curve: Curve, pair: EcdsaKeyPair) -> Result<EcPrivate> {
        let public = PublicKey::from_ec_point(curve, pair.public_key().as_ref())?;
        Ok(EcPrivate { curve, pair, public })
    }
}

/// ECPrivateKey of RFC 5915.
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: OctetStringRef<'a>,
    #[asn1(context_specific = "0", optional = "true")]
    parameters: Option<ObjectIdentifier>,
}

/// aws-lc refused what the checks before it had accepted.
fn failed(why: impl std::fmt::Display) -> Error {
    Error::new(CKR_FUNCTION_FAILED, format!("local EC operation failed: {why}"))
}
