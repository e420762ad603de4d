//! C_Sign…: hash here, sign where the key is.

use std::sync::Arc;

use akv_wire::SignatureAlgorithm;
use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Keyed, Operation, Size,
    gather::Gather,
    key::{self, Need, SIGN},
};
use crate::{
    abi::arg::Parameter,
    crypto::{Curve, Hash, PrivateKey, PublicKey, digest_info, ecdsa_input},
    error::{Error, Result},
    mechanism::{
        Mechanism, Scheme,
        parameter::{self, Pss},
    },
    object::{Material, Object, VaultKey},
    session::{Family, Session},
    slot::Slot,
};

/// Longest input of CKM_ECDSA: far above any digest; only its leftmost bits count.
const MAX_ECDSA_INPUT: usize = 1024;

/// How a signature is made of a digest or of the caller's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
    /// RSASSA-PSS.
    Pss(Pss),
    /// ECDSA.
    Ecdsa,
    /// None: CKM_RSA_X_509.
    Raw,
    /// None: an HMAC with this hash, cut to so many bytes.
    Mac(Hash, usize),
}

/// A signature in the making. It was refused by [`Keyed::new`] or it can be carried out, unless the
/// data itself cannot be signed.
#[derive(Clone, Debug)]
pub struct Signing {
    key: Signer,
    padding: Padding,
    data: Gather,
    size: usize,
}

#[derive(Clone, Debug)]
enum Signer {
    Vault(Arc<VaultKey>),
    Here(PrivateKey),
    /// A session secret key: it is in the HMAC that takes the data.
    Mac,
}

impl Keyed for Signing {
    fn new(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Signing> {
        Signing::with(slot, kind, parameter, object, SIGN)
    }
}

impl Signing {
    /// The same with what another function than C_SignInit needs of the key.
    ///
    /// # Errors
    /// As [`Keyed::new`].
    pub(super) fn with(
        slot: &Slot,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
        need: Need,
    ) -> Result<Signing> {
        let mechanism = key::check(slot, kind, object, need)?;
        parameter::none(mechanism, parameter)?;
        let padding = Padding::new(mechanism, parameter)?;
        let (key, public) = match &object.material {
            Material::Vault(key) => (Signer::Vault(Arc::clone(key)), key.public().cloned()),
            Material::Private(key) => (Signer::Here(key.clone()), Some(key.public())),
            Material::Secret(_) => (Signer::Mac, None),
            Material::Public(_) | Material::None => return Err(wrong_key(mechanism, object)),
        };
        if let (Padding::Pss(pss), Signer::Vault(_)) = (padding, &key) {
            pss.for_service()?;
        }
        if let Padding::Mac(hash, size) = padding {
            let data = match &object.material {
                Material::Secret(secret) => Gather::mac(hash, secret)?,
                _ => Gather::raw(slot.token.max_aes_payload),
            };
            return Ok(Signing { key, padding, data, size });
        }
        let public = public.ok_or_else(|| wrong_key(mechanism, object))?;
        let data = padding.gather(mechanism, &public)?;
        Ok(Signing { data, size: public.signature_len(), key, padding })
    }
}

impl Operation for Signing {
    fn family(session: &Session) -> &Family<Self> {
        &session.sign
    }

    fn size(&self) -> Result<Size> {
        Ok(Size::Exact(self.size))
    }

    fn feed(&mut self, part: &[u8]) -> Result<()> {
        self.data.feed(part)
    }

    /// One request for a key of the service, none for a session key.
    fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        let input = self.padding.input(self.data)?;
        let mut signature = match &self.key {
            Signer::Mac => input.to_vec(),
            Signer::Here(key) => match self.padding {
                Padding::Pkcs1 => key.sign_pkcs1(&input)?,
                Padding::Pss(Pss { hash, mgf, salt }) => key.sign_pss(hash, mgf, salt, &input)?,
                Padding::Ecdsa => key.sign_ecdsa(&input)?,
                Padding::Raw | Padding::Mac(..) => key.raw(&input)?.to_vec(),
            },
            Signer::Vault(key) => {
                let (algorithm, sent) = for_service(slot, key, self.padding, &input)?;
                let signature = slot.note(slot.vault.sign(key.reference(), algorithm, &sent))?;
                self.padding.check_given(slot, key, &input, &signature)?;
                signature
            }
        };
        if let Padding::Mac(hash, size) = self.padding
            && signature.len() == hash.len()
        {
            signature.truncate(size);
        }
        if signature.len() == self.size {
            return Ok(Zeroizing::new(signature));
        }
        Err(Error::new(
            CKR_DEVICE_ERROR,
            format!("the service sent a signature of {} bytes, not {}", signature.len(), self.size),
        ))
    }
}

impl Padding {
    /// The padding of a signature mechanism.
    ///
    /// # Errors
    /// CKR_MECHANISM_PARAM_INVALID; CKR_MECHANISM_INVALID for one that does not sign.
    pub fn new(mechanism: &Mechanism, parameter: &Parameter<'_>) -> Result<Padding> {
        Ok(match mechanism.scheme {
            Scheme::Pkcs1(_) => Padding::Pkcs1,
            Scheme::Pss(hash) => Padding::Pss(Pss::parse(parameter, hash)?),
            Scheme::Ecdsa(_) => Padding::Ecdsa,
            Scheme::RawRsa => Padding::Raw,
            Scheme::Hmac(hash, general) => {
                Padding::Mac(hash, parameter::mac_len(hash, general, parameter)?)
            }
            _ => {
                let sentence = format!("{} does not sign", mechanism.name);
                return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
            }
        })
    }

    /// How the data is taken: hashed, or collected up to what fits the key.
    ///
    /// # Errors
    /// CKR_KEY_SIZE_RANGE for a key too small for the hash, CKR_MECHANISM_PARAM_INVALID for one too
    /// small for the salt (clause 6.1.9: sLen is at most what the modulus leaves).
    pub fn gather(&self, mechanism: &Mechanism, public: &PublicKey) -> Result<Gather> {
        let bytes = public.signature_len();
        if let Padding::Pss(pss) = self
            && bytes < pss.hash.len() + pss.salt + 2
        {
            let sentence = format!("a key of {bytes} bytes for {pss:?}");
            // With no salt at all the hash would fit: it is the parameter that is too large.
            let rv = match bytes < pss.hash.len() + 2 {
                true => CKR_KEY_SIZE_RANGE,
                false => CKR_MECHANISM_PARAM_INVALID,
            };
            return Err(Error::new(rv, sentence));
        }
        Ok(match (mechanism.scheme, self) {
            (
                Scheme::Pkcs1(Some(hash)) | Scheme::Pss(Some(hash)) | Scheme::Ecdsa(Some(hash)),
                _,
            ) => Gather::hashing(hash),
            (_, Padding::Pkcs1) => Gather::raw(bytes.saturating_sub(11)),
            (_, Padding::Pss(pss)) => Gather::raw(pss.hash.len()),
            (_, Padding::Ecdsa) => Gather::raw(MAX_ECDSA_INPUT),
            (_, Padding::Raw | Padding::Mac(..)) => Gather::raw(bytes),
        })
    }

    /// What is signed: for PKCS#1 the DigestInfo or the caller's bytes, else the digest.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE for a digest of the wrong length.
    pub fn input(&self, data: Gather) -> Result<Zeroizing<Vec<u8>>> {
        let (hash, data) = data.finish();
        match (self, hash) {
            (Padding::Pkcs1, Some(hash)) => Ok(digest_info::encode(hash, &data).into()),
            (Padding::Pss(pss), _) if data.len() != pss.hash.len() => Err(Error::new(
                CKR_DATA_LEN_RANGE,
                format!("{} bytes where a {} digest is due", data.len(), pss.hash.name()),
            )),
            _ => Ok(data),
        }
    }
}

impl Padding {
    /// Checks the signature of a key whose public part the configuration gives without a version:
    /// whether the current version is that key nobody but the signature tells.
    fn check_given(
        self,
        slot: &Slot,
        key: &VaultKey,
        input: &[u8],
        signature: &[u8],
    ) -> Result<()> {
        let (true, Some(public)) = (key.version.is_empty(), key.public()) else { return Ok(()) };
        let checked = match self {
            Padding::Pkcs1 => public.verify_pkcs1(input, signature),
            Padding::Pss(Pss { hash, mgf, salt }) => {
                public.verify_pss(hash, mgf, salt, input, signature)
            }
            Padding::Ecdsa => public.verify_ecdsa(input, signature),
            // Keys of the service do not sign so: Init refuses, and bare bytes in PKCS#1 are above.
            Padding::Raw | Padding::Mac(..) => Ok(()),
        };
        checked.map_err(|_| {
            let file = slot.token.given_key(&key.name).map(|given| given.path.as_path());
            let sentence = format!(
                "key '{}' signs with another key than that of {}: it has a new version. Give that \
                 one's public key in `public_keys`, or name the version there",
                key.name,
                file.unwrap_or(std::path::Path::new("its file")).display()
            );
            Error::new(CKR_DEVICE_ERROR, sentence)
        })
    }
}

/// The service's algorithm and what it is given.
pub(super) fn for_service(
    slot: &Slot,
    key: &VaultKey,
    padding: Padding,
    input: &[u8],
) -> Result<(SignatureAlgorithm, Zeroizing<Vec<u8>>)> {
    let given = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    let none = |what| Error::new(CKR_MECHANISM_INVALID, format!("the service has no {what}"));
    match padding {
        Padding::Pkcs1 => {
            let info = digest_info::parse(input).filter(|info| info.canonical);
            let algorithm = match info.as_ref().and_then(|info| info.hash) {
                Some(Hash::Sha256) => Some(SignatureAlgorithm::Rs256),
                Some(Hash::Sha384) => Some(SignatureAlgorithm::Rs384),
                Some(Hash::Sha512) => Some(SignatureAlgorithm::Rs512),
                _ => None,
            };
            match (algorithm, info) {
                (Some(algorithm), Some(info)) => Ok((algorithm, given(info.digest))),
                _ if slot.token.rsnull => Ok((SignatureAlgorithm::RsNull, given(input))),
                _ => Err(Error::new(
                    CKR_DATA_INVALID,
                    format!(
                        "{} bytes that are no DigestInfo of SHA-256, SHA-384 or SHA-512: the \
                         service of token '{}' signs others with RSNULL only, which `rsnull` of \
                         the configuration says it lacks",
                        input.len(),
                        slot.token.label
                    ),
                )),
            }
        }
        Padding::Pss(pss) => match pss.for_service()?.hash {
            Hash::Sha384 => Ok((SignatureAlgorithm::Ps384, given(input))),
            Hash::Sha512 => Ok((SignatureAlgorithm::Ps512, given(input))),
            _ => Ok((SignatureAlgorithm::Ps256, given(input))),
        },
        Padding::Mac(hash, _) => match hash {
            Hash::Sha256 => Ok((SignatureAlgorithm::Hs256, given(input))),
            Hash::Sha384 => Ok((SignatureAlgorithm::Hs384, given(input))),
            Hash::Sha512 => Ok((SignatureAlgorithm::Hs512, given(input))),
            _ => Err(none("HMAC with another hash than SHA-256, SHA-384 and SHA-512")),
        },
        // Init has said so.
        Padding::Raw => Err(none("bare RSA operation")),
        Padding::Ecdsa => {
            let curve = key.public().and_then(PublicKey::curve).ok_or_else(|| {
                Error::new(CKR_KEY_TYPE_INCONSISTENT, format!("'{}' is no EC key", key.name))
            })?;
            let algorithm = match curve {
                Curve::P256 => SignatureAlgorithm::Es256,
                Curve::P256K if key.legacy => SignatureAlgorithm::Ecdsa256,
                Curve::P256K => SignatureAlgorithm::Es256k,
                Curve::P384 => SignatureAlgorithm::Es384,
                Curve::P521 => SignatureAlgorithm::Es512,
            };
            Ok((algorithm, ecdsa_input(curve, input)?.into()))
        }
    }
}

pub(super) fn wrong_key(mechanism: &Mechanism, object: &Object) -> Error {
    Error::new(
        CKR_KEY_TYPE_INCONSISTENT,
        format!("{} with key '{}'", mechanism.name, object.label()),
    )
}
