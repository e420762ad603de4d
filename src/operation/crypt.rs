//! C_Encrypt… and C_Decrypt…: with public keys and session keys here, with keys of the service
//! there.

mod here;
mod rsa;
mod service;

use std::sync::Arc;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Keyed, Operation, Size, Streaming,
    key::{self, DECRYPT, ENCRYPT},
};
use crate::{
    abi::arg::Parameter,
    crypto::symmetric::{BLOCK, Direction, KeyWrap, Mode, wrapped_len},
    error::{Error, Result},
    mechanism::{Mechanism, Scheme, parameter},
    object::{Material, Object},
    session::{Family, Session},
    slot::Slot,
};

pub use service::{GCM_IV, GCM_TAG, algorithm, check_gcm};

/// Longest input of AES key wrap: far above any key.
const MAX_WRAPPED: usize = 65_536;

/// The operation of one direction.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident $family:ident $direction:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(Crypting);

        impl Keyed for $name {
            fn new(
                slot: &Slot,
                kind: CK_MECHANISM_TYPE,
                parameter: &Parameter<'_>,
                object: &Arc<Object>,
            ) -> Result<Self> {
                Crypting::new(slot, Direction::$direction, kind, parameter, object).map(Self)
            }
        }

        impl Operation for $name {
            fn family(session: &Session) -> &Family<Self> {
                &session.$family
            }

            fn size(&self) -> Result<Size> {
                self.0.size(0)
            }

            fn one_shot_size(&self, data: &[u8]) -> Result<Size> {
                self.0.size(data.len())
            }

            /// Parts come by [`Streaming::part`], which has output for them.
            fn feed(&mut self, _: &[u8]) -> Result<()> {
                Err(Error::new(CKR_GENERAL_ERROR, "a part without a place for its output"))
            }

            fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
                self.0.finish(slot)
            }

            fn one_shot(self, data: &[u8], slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
                self.0.once(slot, data)
            }
        }

        impl Streaming for $name {
            fn part_size(&self, part: &[u8]) -> Result<usize> {
                Ok(self.0.update_size(part.len()))
            }

            fn part(&mut self, part: &[u8], slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
                self.0.feed(slot, part)
            }
        }
    };
}

operation! {
    /// C_Encrypt….
    Encrypting encrypt Encrypt
}
operation! {
    /// C_Decrypt….
    Decrypting decrypt Decrypt
}

/// An encryption or decryption in the making. It was refused by [`Crypting::new`] or it can be
/// carried out, unless the data itself cannot be.
#[derive(Debug)]
pub enum Crypting {
    /// RSA with a public key.
    RsaEncrypting(rsa::Encrypting),
    /// RSA with a private key.
    RsaDecrypting(rsa::Decrypting),
    /// AES with a session key.
    Here(Box<here::Ciphering>),
    /// AES key wrap with a session key.
    Wrapping(here::Wrapping),
    /// AES-CBC with a key of the service.
    Chaining(service::Chaining),
    /// AES-GCM decryption with a key of the service.
    Opening(service::Opening),
}

impl Crypting {
    /// Checks mechanism, parameter and key.
    ///
    /// # Errors
    /// As [`key::check`]; CKR_MECHANISM_PARAM_INVALID, CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        direction: Direction,
        kind: CK_MECHANISM_TYPE,
        parameter: &Parameter<'_>,
        object: &Arc<Object>,
    ) -> Result<Crypting> {
        let need = match direction {
            Direction::Encrypt => ENCRYPT,
            Direction::Decrypt => DECRYPT,
        };
        let mechanism = key::check(slot, kind, object, need)?;
        parameter::none(mechanism, parameter)?;
        match (mechanism.scheme, direction) {
            (Scheme::Aes(mode), _) => {
                let mode = parameter::aes(mode, parameter)?;
                Crypting::aes(slot, direction, mode, mechanism, object)
            }
            (Scheme::AesWrap(method), _) => match &object.material {
                Material::Secret(key) => {
                    let wrapping = here::Wrapping::new(direction, method, key, MAX_WRAPPED);
                    Ok(Crypting::Wrapping(wrapping))
                }
                _ => Err(wrong_key(mechanism, object)),
            },
            (_, Direction::Encrypt) => {
                rsa::Encrypting::new(mechanism, parameter, object).map(Crypting::RsaEncrypting)
            }
            (_, Direction::Decrypt) => {
                rsa::Decrypting::new(mechanism, parameter, object).map(Crypting::RsaDecrypting)
            }
        }
    }

    fn aes(
        slot: &Slot,
        direction: Direction,
        mode: Mode,
        mechanism: &Mechanism,
        object: &Object,
    ) -> Result<Crypting> {
        match (&object.material, &mode) {
            (Material::Secret(key), _) => {
                here::Ciphering::new(direction, mode, key).map(Box::new).map(Crypting::Here)
            }
            (Material::Vault(key), Mode::Cbc { iv } | Mode::CbcPad { iv }) => {
                let padded = matches!(mode, Mode::CbcPad { .. });
                service::Chaining::new(slot, direction, padded, *iv, key).map(Crypting::Chaining)
            }
            (Material::Vault(key), Mode::Gcm { iv, aad, tag_len }) => {
                service::Opening::new(slot, key, iv, aad, *tag_len).map(Crypting::Opening)
            }
            _ => Err(wrong_key(mechanism, object)),
        }
    }

    /// Bytes of everything that is still to come when `more` bytes of input are the last ones.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE for a length that cannot be.
    pub fn size(&self, more: usize) -> Result<Size> {
        match self {
            Crypting::RsaEncrypting(rsa) => Ok(rsa.size()),
            Crypting::RsaDecrypting(rsa) => Ok(rsa.size()),
            Crypting::Here(ciphering) => ciphering.size(more),
            Crypting::Wrapping(wrapping) => wrapping.size(more),
            Crypting::Chaining(chaining) => chaining.size(more),
            Crypting::Opening(opening) => opening.size(more),
        }
    }

    /// Exactly how many bytes [`Crypting::feed`] gives out for `more` bytes.
    pub fn update_size(&self, more: usize) -> usize {
        match self {
            Crypting::Here(ciphering) => ciphering.update_size(more),
            Crypting::Chaining(chaining) => chaining.update_size(more),
            // These give their output at the end, all at once.
            Crypting::RsaEncrypting(_)
            | Crypting::RsaDecrypting(_)
            | Crypting::Wrapping(_)
            | Crypting::Opening(_) => 0,
        }
    }

    /// Takes the next bytes; gives out what is ready.
    ///
    /// # Errors
    /// CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_LEN_RANGE; docs/errors.md.
    pub fn feed(&mut self, slot: &Slot, part: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let nothing = |()| Zeroizing::default();
        match self {
            Crypting::RsaEncrypting(rsa) => rsa.feed(part).map(nothing),
            Crypting::RsaDecrypting(rsa) => rsa.feed(part).map(nothing),
            Crypting::Here(ciphering) => ciphering.feed(part),
            Crypting::Wrapping(wrapping) => wrapping.feed(part).map(nothing),
            Crypting::Chaining(chaining) => chaining.feed(slot, part),
            Crypting::Opening(opening) => opening.feed(part).map(nothing),
        }
    }

    /// The rest, after all parts came by [`Crypting::feed`].
    ///
    /// # Errors
    /// CKR_ENCRYPTED_DATA_INVALID for whatever is wrong with a ciphertext; CKR_DATA_LEN_RANGE,
    /// CKR_ENCRYPTED_DATA_LEN_RANGE; docs/errors.md.
    pub fn finish(self, slot: &Slot) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Crypting::RsaEncrypting(rsa) => rsa.finish(),
            Crypting::RsaDecrypting(rsa) => rsa.finish(slot),
            Crypting::Here(ciphering) => ciphering.finish(),
            Crypting::Wrapping(wrapping) => wrapping.finish(),
            Crypting::Chaining(chaining) => chaining.finish(slot, &[]),
            Crypting::Opening(opening) => opening.finish(slot),
        }
    }

    /// All of `data` at once.
    ///
    /// # Errors
    /// As [`Crypting::feed`] and [`Crypting::finish`].
    pub fn once(mut self, slot: &Slot, data: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        if let Crypting::Chaining(chaining) = self {
            return chaining.finish(slot, data);
        }
        let first = self.feed(slot, data)?;
        let rest = self.finish(slot)?;
        Ok(joined(first, rest))
    }
}

/// Both parts, without leaving a copy behind.
fn joined(first: Zeroizing<Vec<u8>>, rest: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    match (first.is_empty(), rest.is_empty()) {
        (true, _) => rest,
        (_, true) => first,
        _ => Zeroizing::new([first.as_slice(), rest.as_slice()].concat()),
    }
}

/// Bytes that `length` bytes of input make in the end.
fn output(direction: Direction, mode: &Mode, length: usize) -> Result<Size> {
    let whole = length.is_multiple_of(BLOCK);
    match (direction, mode) {
        (_, Mode::Ctr { .. }) => Ok(Size::Exact(length)),
        (_, Mode::Ecb | Mode::Cbc { .. }) if whole => Ok(Size::Exact(length)),
        (Direction::Encrypt, Mode::CbcPad { .. }) => Ok(Size::Exact((length / BLOCK + 1) * BLOCK)),
        (Direction::Decrypt, Mode::CbcPad { .. }) if whole && length > 0 => {
            Ok(Size::AtMost(length))
        }
        (Direction::Encrypt, Mode::Gcm { tag_len, .. }) => Ok(Size::Exact(length + tag_len)),
        (Direction::Decrypt, Mode::Gcm { tag_len, .. }) if length >= *tag_len => {
            Ok(Size::Exact(length - tag_len))
        }
        (_, Mode::Gcm { tag_len, .. }) => Err(Error::new(
            CKR_ENCRYPTED_DATA_LEN_RANGE,
            format!("{length} bytes of ciphertext are shorter than their tag of {tag_len}"),
        )),
        _ => Err(Error::new(
            length_range(direction),
            format!("{length} bytes where whole blocks of {BLOCK} are due"),
        )),
    }
}

/// Bytes that AES key wrap makes of `length` bytes.
fn wrapped(direction: Direction, method: KeyWrap, length: usize) -> Result<Size> {
    let size = match direction {
        Direction::Encrypt => wrapped_len(method, length).map(Size::Exact),
        Direction::Decrypt if length >= BLOCK && length.is_multiple_of(8) => {
            Some(Size::AtMost(length - 8))
        }
        Direction::Decrypt => None,
    };
    size.ok_or_else(|| {
        Error::new(length_range(direction), format!("{length} bytes for AES key wrap"))
    })
}

/// The error for a length that cannot be.
pub(super) fn length_range(direction: Direction) -> CK_RV {
    match direction {
        Direction::Encrypt => CKR_DATA_LEN_RANGE,
        Direction::Decrypt => CKR_ENCRYPTED_DATA_LEN_RANGE,
    }
}

fn wrong_key(mechanism: &Mechanism, object: &Object) -> Error {
    Error::new(
        CKR_KEY_TYPE_INCONSISTENT,
        format!("{} with key '{}'", mechanism.name, object.label()),
    )
}
