//! The message functions of PKCS#11 3.0.

use cryptoki_sys::*;

use super::{Output, Room, Rv, Session, check};
use crate::{
    ffi::{NULL, Word, address_mut, length, read, write},
    functions::Function::{self, *},
    mechanism::Mechanism,
};

/// CK_GCM_MESSAGE_PARAMS with what it points at.
#[derive(Clone, Debug)]
pub struct GcmMessage {
    /// The IV, given or made.
    pub iv: Vec<u8>,
    /// How many of its first bits are given.
    pub fixed_bits: CK_ULONG,
    /// CKG_….
    pub generator: CK_ULONG,
    /// The tag, given or made.
    pub tag: Vec<u8>,
}

impl GcmMessage {
    fn with<T>(&mut self, call: impl FnOnce(Word<'_>, Word<'_>) -> T) -> T {
        let mut words = [
            address_mut(&mut self.iv),
            self.iv.len(),
            self.fixed_bits as usize,
            self.generator as usize,
            address_mut(&mut self.tag),
            8 * self.tag.len(),
        ];
        let size = CK_ULONG::try_from(size_of_val(&words)).unwrap_or(0);
        call(write(&mut words), size.into())
    }
}

/// Message functions that share a protocol: their Init, whole, begin, next and final.
pub type Five = [Function; 5];

/// C_MessageEncryptInit and its like.
pub const ENCRYPT: Five = [
    C_MessageEncryptInit,
    C_EncryptMessage,
    C_EncryptMessageBegin,
    C_EncryptMessageNext,
    C_MessageEncryptFinal,
];
/// C_MessageDecryptInit and its like.
pub const DECRYPT: Five = [
    C_MessageDecryptInit,
    C_DecryptMessage,
    C_DecryptMessageBegin,
    C_DecryptMessageNext,
    C_MessageDecryptFinal,
];
/// C_MessageSignInit and its like.
pub const SIGN: Five =
    [C_MessageSignInit, C_SignMessage, C_SignMessageBegin, C_SignMessageNext, C_MessageSignFinal];
/// C_MessageVerifyInit and its like.
pub const VERIFY: Five = [
    C_MessageVerifyInit,
    C_VerifyMessage,
    C_VerifyMessageBegin,
    C_VerifyMessageNext,
    C_MessageVerifyFinal,
];

impl Session {
    /// C_Message…Init.
    pub fn message_init(&self, five: Five, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        check(mechanism.with(|raw| self.call(five[0], &[raw, key.into()])))
    }

    /// C_Message…Final.
    pub fn message_final(&self, five: Five) -> Rv {
        check(self.call(five[4], &[]))
    }

    /// C_EncryptMessage, C_DecryptMessage.
    pub fn message(
        &self,
        five: Five,
        parameter: &mut GcmMessage,
        aad: &[u8],
        data: &[u8],
        room: Room,
    ) -> Output {
        Output::of(room, |out, size| {
            parameter.with(|raw, raw_size| {
                let (aad, aad_size) = (read(aad), length(aad));
                let args = [raw, raw_size, aad, aad_size, read(data), length(data), out, size];
                self.call(five[1], &args)
            })
        })
    }

    /// C_EncryptMessageBegin, C_DecryptMessageBegin.
    pub fn message_begin(&self, five: Five, parameter: &mut GcmMessage, aad: &[u8]) -> Rv {
        check(
            parameter
                .with(|raw, raw_size| self.call(five[2], &[raw, raw_size, read(aad), length(aad)])),
        )
    }

    /// C_EncryptMessageNext, C_DecryptMessageNext.
    pub fn message_next(
        &self,
        five: Five,
        parameter: &mut GcmMessage,
        part: &[u8],
        room: Room,
        last: bool,
    ) -> Output {
        let flags: CK_FLAGS = if last { CKF_END_OF_MESSAGE } else { 0 };
        Output::of(room, |out, size| {
            parameter.with(|raw, raw_size| {
                let args = [raw, raw_size, read(part), length(part), out, size, flags.into()];
                self.call(five[3], &args)
            })
        })
    }

    /// C_SignMessage.
    pub fn sign_message(&self, data: &[u8], room: Room) -> Output {
        Output::of(room, |out, size| {
            self.call(C_SignMessage, &[NULL, 0.into(), read(data), length(data), out, size])
        })
    }

    /// C_SignMessageBegin, a C_SignMessageNext for each part, the last of which gives the
    /// signature.
    pub fn sign_message_parts(&self, parts: &[&[u8]], room: Room) -> Rv<Vec<u8>> {
        check(self.call(C_SignMessageBegin, &[NULL, 0.into()]))?;
        let Some((last, first)) = parts.split_last() else { return Err(CKR_ARGUMENTS_BAD) };
        for part in first {
            let args = [NULL, 0.into(), read(part), length(part), NULL, NULL];
            check(self.call(C_SignMessageNext, &args))?;
        }
        Output::of(room, |out, size| {
            self.call(C_SignMessageNext, &[NULL, 0.into(), read(last), length(last), out, size])
        })
        .result()
    }

    /// C_VerifyMessage.
    pub fn verify_message(&self, data: &[u8], signature: &[u8]) -> Rv {
        let (sig, size) = (read(signature), length(signature));
        let args = [NULL, 0.into(), read(data), length(data), sig, size];
        check(self.call(C_VerifyMessage, &args))
    }

    /// C_VerifyMessageBegin, a C_VerifyMessageNext for each part, the last with the signature.
    pub fn verify_message_parts(&self, parts: &[&[u8]], signature: &[u8]) -> Rv {
        check(self.call(C_VerifyMessageBegin, &[NULL, 0.into()]))?;
        let Some((last, first)) = parts.split_last() else { return Err(CKR_ARGUMENTS_BAD) };
        for part in first {
            let args = [NULL, 0.into(), read(part), length(part), NULL, 0.into()];
            check(self.call(C_VerifyMessageNext, &args))?;
        }
        let (sig, size) = (read(signature), length(signature));
        let args = [NULL, 0.into(), read(last), length(last), sig, size];
        check(self.call(C_VerifyMessageNext, &args))
    }
}
