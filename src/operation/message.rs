//! C_Message…: one Init for many messages, each with parameters of its own (PKCS#11 3.2, clauses
//! 5.9, 5.11, 5.14, 5.16). AES-GCM with a key of the service encrypts here and nowhere else: the
//! service makes the IV, and only these functions can tell the caller.

mod iv;

use std::sync::Arc;

use akv_wire::{EncryptionAlgorithm, SymmetricMode};
use cryptoki_sys::*;
use zeroize::Zeroizing;

use self::iv::Maker;
use super::{
    Answer, Operation, Room, Size, Stage,
    crypt::{GCM_IV, GCM_TAG, algorithm, check_gcm, length_range, open},
    gather::Gather,
    key::{self, MESSAGE_DECRYPT, MESSAGE_ENCRYPT},
    sign::{Signing, wrong_key},
    verify::Verifying,
};
use crate::{
    abi::arg::GcmMessageParameter,
    crypto::symmetric::{Cipher, Direction, Mode, SecretKey},
    error::{Error, Result},
    mechanism::{
        AesMode, Scheme,
        parameter::{invalid, tag_len},
    },
    object::{Material, Object, VaultKey},
    slot::Slot,
    vault::{self, KeyRef},
};

/// Most bytes of a message with a session key.
const MAX_MESSAGE: usize = 1 << 30;

/// Messages encrypted or decrypted with one key.
#[derive(Debug)]
pub struct MessageCrypting {
    key: Key,
    direction: Direction,
    maker: Maker,
    most: usize,
    /// The message that came by Begin and Next.
    message: Stage<Message>,
}

#[derive(Debug)]
enum Key {
    Here(SecretKey),
    Vault(Arc<VaultKey>, EncryptionAlgorithm),
}

/// One message on its way.
#[derive(Debug)]
struct Message {
    /// None: whoever encrypts makes it.
    iv: Option<Vec<u8>>,
    aad: Vec<u8>,
    data: Gather,
}

impl MessageCrypting {
    /// Checks mechanism and key; parameters come with each message.
    ///
    /// # Errors
    /// As [`key::check`]; CKR_KEY_SIZE_RANGE.
    pub fn new(
        slot: &Slot,
        direction: Direction,
        kind: CK_MECHANISM_TYPE,
        object: &Arc<Object>,
    ) -> Result<MessageCrypting> {
        let need = match direction {
            Direction::Encrypt => MESSAGE_ENCRYPT,
            Direction::Decrypt => MESSAGE_DECRYPT,
        };
        let mechanism = key::check(slot, kind, object, need)?;
        let (key, most) = match (&object.material, mechanism.scheme) {
            (Material::Secret(key), Scheme::Aes(AesMode::Gcm)) => {
                (Key::Here(key.clone()), MAX_MESSAGE)
            }
            (Material::Vault(key), Scheme::Aes(AesMode::Gcm)) => {
                let algorithm = algorithm(key, SymmetricMode::Gcm)?;
                (Key::Vault(Arc::clone(key), algorithm), slot.token.max_aes_payload)
            }
            _ => return Err(wrong_key(mechanism, object)),
        };
        Ok(MessageCrypting { key, direction, maker: Maker::default(), most, message: Stage::Idle })
    }

    /// C_EncryptMessage, C_DecryptMessage: IV and tag are written into the parameter when the
    /// result is.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE between Begin and the last Next; CKR_MECHANISM_PARAM_INVALID,
    /// CKR_DATA_LEN_RANGE; docs/errors.md. None of them ends the operation.
    pub fn whole(
        &mut self,
        slot: &Slot,
        mut parameter: GcmMessageParameter<'_>,
        aad: &[u8],
        data: &[u8],
        room: Room,
    ) -> Result<Answer> {
        self.message.idle()?;
        self.check(&parameter)?;
        let mut stage = Stage::Idle;
        stage.begin(|| {
            let mut gather = Gather::raw(self.most);
            gather.feed(data).map_err(|error| self.too_long(&error))?;
            let iv = match self.direction {
                Direction::Encrypt => None,
                Direction::Decrypt => Some(parameter.iv.bytes()?.to_vec()),
            };
            Ok(Message { iv, aad: aad.to_vec(), data: gather })
        })?;
        stage.one_shot(
            room,
            data,
            |_| Ok(Size::Exact(data.len())),
            |message| self.run(slot, message, &mut parameter),
        )
    }

    /// C_EncryptMessageBegin, C_DecryptMessageBegin. The IV made for a session key is written into
    /// the parameter here, that of a key of the service with the last Next.
    ///
    /// # Errors
    /// As [`MessageCrypting::whole`].
    pub fn begin(&mut self, mut parameter: GcmMessageParameter<'_>, aad: &[u8]) -> Result<()> {
        self.message.idle()?;
        self.check(&parameter)?;
        let iv = match (self.direction, &self.key) {
            (Direction::Decrypt, _) => Some(parameter.iv.bytes()?.to_vec()),
            (Direction::Encrypt, Key::Here(key)) => {
                let iv = self.maker.make(key, &parameter)?;
                parameter.iv_out.write(0, &iv)?;
                Some(iv)
            }
            (Direction::Encrypt, Key::Vault(..)) => None,
        };
        let data = Gather::raw(self.most);
        self.message.begin(|| Ok(Message { iv, aad: aad.to_vec(), data }))
    }

    /// C_EncryptMessageNext, C_DecryptMessageNext: everything is given out with the last part,
    /// plaintext not before its tag was checked.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED without Begin; as [`MessageCrypting::whole`]. They end the
    /// message.
    pub fn next(
        &mut self,
        slot: &Slot,
        mut parameter: GcmMessageParameter<'_>,
        part: &[u8],
        is_last: bool,
        room: Room,
    ) -> Result<Answer> {
        let mut stage = std::mem::take(&mut self.message);
        let answer = match is_last {
            false => stage.step(
                room,
                |_| Ok(0),
                |message| {
                    message.data.feed(part).map_err(|error| self.too_long(&error))?;
                    Ok(Zeroizing::default())
                },
            ),
            true => stage.last(
                room,
                |message| Ok(Size::Exact(message.data.kept().saturating_add(part.len()))),
                |mut message| {
                    message.data.feed(part).map_err(|error| self.too_long(&error))?;
                    self.check(&parameter)?;
                    self.run(slot, message, &mut parameter)
                },
            ),
        };
        self.message = stage;
        answer
    }

    /// Refuses a parameter that key and direction cannot use.
    fn check(&self, parameter: &GcmMessageParameter<'_>) -> Result<()> {
        let iv_len = parameter.iv.bytes()?.len();
        let tag_len = tag_len(parameter.tag_bits)?;
        match (&self.key, self.direction) {
            (Key::Here(_), Direction::Encrypt) => self.maker.check(parameter),
            (Key::Here(_), Direction::Decrypt) => Ok(()),
            (Key::Vault(..), Direction::Decrypt) => check_gcm(iv_len, tag_len),
            (Key::Vault(..), Direction::Encrypt) => {
                check_gcm(iv_len, tag_len)?;
                let makes_all = matches!(parameter.generator, CKG_GENERATE | CKG_GENERATE_RANDOM);
                if makes_all && parameter.fixed_bits == 0 {
                    return Ok(());
                }
                Err(invalid(format!(
                    "generator {} with {} fixed bits: the service makes the whole IV at random \
                     (CKG_GENERATE, CKG_GENERATE_RANDOM)",
                    parameter.generator, parameter.fixed_bits
                )))
            }
        }
    }

    fn run(
        &mut self,
        slot: &Slot,
        message: Message,
        parameter: &mut GcmMessageParameter<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = message.data.finish();
        let tag_len = tag_len(parameter.tag_bits)?;
        let iv = match (message.iv, &self.key) {
            (Some(iv), _) => iv,
            (None, Key::Here(key)) => self.maker.make(key, parameter)?,
            (None, Key::Vault(key, algorithm)) => {
                let sealed = seal(slot, key, *algorithm, &message.aad, &data)?;
                parameter.iv_out.write(0, &sealed.iv)?;
                parameter.tag_out.write(0, &sealed.tag)?;
                return Ok(sealed.ciphertext);
            }
        };
        match (self.direction, &self.key) {
            (Direction::Encrypt, Key::Here(key)) => {
                let mode = Mode::Gcm { iv: iv.clone(), aad: message.aad, tag_len };
                let mut sealed = Cipher::once(Direction::Encrypt, mode, key.bytes(), &data)?;
                let tag = sealed.split_off(data.len());
                parameter.iv_out.write(0, &iv)?;
                parameter.tag_out.write(0, &tag)?;
                Ok(sealed)
            }
            (Direction::Encrypt, Key::Vault(..)) => {
                Err(Error::new(CKR_GENERAL_ERROR, "an IV that the service did not make"))
            }
            (Direction::Decrypt, Key::Here(key)) => {
                let mode = Mode::Gcm { iv, aad: message.aad, tag_len };
                let sealed = [data.as_slice(), parameter.tag.bytes()?].concat();
                Cipher::once(Direction::Decrypt, mode, key.bytes(), &sealed)
            }
            (Direction::Decrypt, Key::Vault(key, algorithm)) => {
                let tag = parameter.tag.bytes()?;
                open(slot, key, *algorithm, &iv, &message.aad, &data, tag)
            }
        }
    }

    fn too_long(&self, error: &Error) -> Error {
        Error::new(length_range(self.direction), error.sentence().to_owned())
    }
}

/// What the service makes of a message.
struct Sealed {
    ciphertext: Zeroizing<Vec<u8>>,
    iv: Vec<u8>,
    tag: Vec<u8>,
}

/// One AES-GCM encryption at the service.
fn seal(
    slot: &Slot,
    key: &VaultKey,
    algorithm: EncryptionAlgorithm,
    aad: &[u8],
    data: &[u8],
) -> Result<Sealed> {
    let input = vault::Cipher {
        value: data,
        aad: (!aad.is_empty()).then_some(aad),
        ..vault::Cipher::default()
    };
    let reference = KeyRef::version(&key.name, &key.version);
    let made = slot.note(slot.vault.encrypt(reference, algorithm, &input))?;
    let (iv, tag) = (made.iv.unwrap_or_default(), made.tag.unwrap_or_default());
    if (made.value.len(), iv.len(), tag.len()) == (data.len(), GCM_IV, GCM_TAG) {
        return Ok(Sealed { ciphertext: Zeroizing::new(made.value), iv, tag });
    }
    Err(Error::new(
        CKR_DEVICE_ERROR,
        format!(
            "the service sent {} bytes of ciphertext for {}, an IV of {} and a tag of {}",
            made.value.len(),
            data.len(),
            iv.len(),
            tag.len()
        ),
    ))
}

/// Messages signed with one key.
#[derive(Debug)]
pub struct MessageSigning {
    fresh: Signing,
    message: Stage<Signing>,
}

impl MessageSigning {
    /// For many messages, each of which begins as `fresh`.
    pub fn new(fresh: Signing) -> MessageSigning {
        MessageSigning { fresh, message: Stage::Idle }
    }

    /// C_SignMessage.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE between Begin and the last Next; as [`Operation::finish`].
    pub fn whole(&mut self, slot: &Slot, data: &[u8], room: Room) -> Result<Answer> {
        self.message.idle()?;
        let mut stage = Stage::Idle;
        stage.begin(|| Ok(self.fresh.clone()))?;
        stage.one_shot(room, data, Operation::size, |mut signing| {
            signing.feed(data)?;
            signing.finish(slot)
        })
    }

    /// C_SignMessageBegin.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE.
    pub fn begin(&mut self) -> Result<()> {
        self.message.begin(|| Ok(self.fresh.clone()))
    }

    /// C_SignMessageNext with a part that is not the last.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED without Begin; CKR_DATA_LEN_RANGE.
    pub fn next(&mut self, part: &[u8]) -> Result<()> {
        self.message.update(|signing| signing.feed(part))
    }

    /// C_SignMessageNext with the last part.
    ///
    /// # Errors
    /// As [`MessageSigning::next`] and [`Operation::finish`].
    pub fn last(&mut self, slot: &Slot, part: &[u8], room: Room) -> Result<Answer> {
        self.message.last(room, Operation::size, |mut signing| {
            signing.feed(part)?;
            signing.finish(slot)
        })
    }
}

/// Messages verified with one key.
#[derive(Debug)]
pub struct MessageVerifying {
    fresh: Verifying,
    message: Stage<Verifying>,
}

impl MessageVerifying {
    /// For many messages, each of which begins as `fresh`.
    pub fn new(fresh: Verifying) -> MessageVerifying {
        MessageVerifying { fresh, message: Stage::Idle }
    }

    /// C_VerifyMessage.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE between Begin and the last Next; as [`Verifying::finish`].
    pub fn whole(&mut self, slot: &Slot, data: &[u8], signature: &[u8]) -> Result<()> {
        self.message.idle()?;
        let mut verifying = self.fresh.clone();
        verifying.feed(data)?;
        verifying.finish(slot, signature)
    }

    /// C_VerifyMessageBegin.
    ///
    /// # Errors
    /// CKR_OPERATION_ACTIVE.
    pub fn begin(&mut self) -> Result<()> {
        self.message.begin(|| Ok(self.fresh.clone()))
    }

    /// C_VerifyMessageNext: the signature comes with the last part.
    ///
    /// # Errors
    /// CKR_OPERATION_NOT_INITIALIZED without Begin; as [`Verifying::finish`].
    pub fn next(&mut self, slot: &Slot, part: &[u8], signature: Option<&[u8]>) -> Result<()> {
        self.message.update(|verifying| verifying.feed(part))?;
        match signature {
            None => Ok(()),
            Some(signature) => self.message.take(false)?.finish(slot, signature),
        }
    }
}
