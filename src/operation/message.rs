//! C_Message…: one Init for many messages, each with parameters of its own (PKCS#11 3.2, clauses
//! 5.9, 5.11, 5.14, 5.16). AES-GCM with a key of the service encrypts here and nowhere else: the
//! service makes the IV, and only these functions can tell the caller.

use std::sync::Arc;

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::{
    Answer, Operation, Room, Size, Stage,
    crypt::length_range,
    gather::Gather,
    gcm::{Cargo, GcmKey},
    key::{self, MESSAGE_DECRYPT, MESSAGE_ENCRYPT},
    sign::Signing,
    verify::Verifying,
};
use crate::{
    abi::arg::GcmMessageParameter,
    crypto::symmetric::Direction,
    error::{Error, Result},
    mechanism::parameter::tag_len,
    object::Object,
    slot::Slot,
};

/// Messages encrypted or decrypted with one key.
#[derive(Debug)]
pub struct MessageCrypting {
    key: GcmKey,
    direction: Direction,
    /// The message that came by Begin and Next.
    message: Stage<Message>,
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
        let key = GcmKey::new(slot, mechanism, object, Cargo::Data)?;
        Ok(MessageCrypting { key, direction, message: Stage::Idle })
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
            let mut gather = Gather::raw(self.key.most());
            gather.feed(data).map_err(|error| self.too_long(&error))?;
            let iv = match self.direction {
                Direction::Encrypt => None,
                Direction::Decrypt => Some(parameter.iv.given.bytes()?.to_vec()),
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
        let iv = match self.direction {
            Direction::Decrypt => Some(parameter.iv.given.bytes()?.to_vec()),
            Direction::Encrypt => self.key.next_iv(&parameter.iv)?,
        };
        if let (Direction::Encrypt, Some(iv)) = (self.direction, &iv) {
            parameter.iv.made.write(0, iv)?;
        }
        let data = Gather::raw(self.key.most());
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
        self.key.check(self.direction, &parameter.iv, tag_len(parameter.tag_bits)?)
    }

    fn run(
        &mut self,
        slot: &Slot,
        message: Message,
        parameter: &mut GcmMessageParameter<'_>,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let (_, data) = message.data.finish();
        match self.direction {
            Direction::Encrypt => {
                let iv = match message.iv {
                    Some(iv) => Some(iv),
                    None => self.key.next_iv(&parameter.iv)?,
                };
                let tag_len = tag_len(parameter.tag_bits)?;
                let sealed = self.key.seal(slot, iv, &message.aad, &data, tag_len)?;
                parameter.iv.made.write(0, &sealed.iv)?;
                parameter.tag_out.write(0, &sealed.tag)?;
                Ok(sealed.ciphertext)
            }
            Direction::Decrypt => {
                let iv = message.iv.unwrap_or_default();
                self.key.open(slot, &iv, &message.aad, &data, parameter.tag.bytes()?)
            }
        }
    }

    fn too_long(&self, error: &Error) -> Error {
        Error::new(length_range(self.direction), error.sentence().to_owned())
    }
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
