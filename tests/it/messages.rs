//! The message functions of PKCS#11 3.0, as a C program calls them.

#![allow(unsafe_code)]

use cryptoki_sys::*;

use crate::{
    arguments::with_template,
    token::{Mechanism, Output, Room, Rv, Session, call, check, input},
};

/// CK_GCM_MESSAGE_PARAMS with its buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gcm {
    /// pIv.
    pub iv: Vec<u8>,
    /// ulIvFixedBits.
    pub fixed: CK_ULONG,
    /// ivGenerator.
    pub generator: CK_GENERATOR_FUNCTION,
    /// pTag.
    pub tag: Vec<u8>,
}

impl Gcm {
    /// An IV of 12 bytes and a tag of 16, made by `generator`.
    pub fn new(generator: CK_GENERATOR_FUNCTION) -> Gcm {
        Gcm { iv: vec![0; 12], fixed: 0, generator, tag: vec![0; 16] }
    }

    fn with<T>(&mut self, call: impl FnOnce(*mut std::ffi::c_void, CK_ULONG) -> T) -> T {
        let mut raw = CK_GCM_MESSAGE_PARAMS {
            pIv: self.iv.as_mut_ptr(),
            ulIvLen: self.iv.len() as CK_ULONG,
            ulIvFixedBits: self.fixed,
            ivGenerator: self.generator,
            pTag: self.tag.as_mut_ptr(),
            ulTagBits: 8 * self.tag.len() as CK_ULONG,
        };
        call((&raw mut raw).cast(), size_of::<CK_GCM_MESSAGE_PARAMS>() as CK_ULONG)
    }
}

impl Gcm {
    /// Calls with CKM_AES_GCM and this for its parameter.
    fn mechanism<T>(&mut self, call: impl FnOnce(*mut CK_MECHANISM) -> T) -> T {
        self.with(|parameter, length| {
            let mut raw = CK_MECHANISM {
                mechanism: CKM_AES_GCM,
                pParameter: parameter,
                ulParameterLen: length,
            };
            call(&raw mut raw)
        })
    }
}

impl Session<'_> {
    /// C_MessageEncryptInit, C_MessageDecryptInit.
    pub fn message_init(&self, encrypt: bool, key: CK_OBJECT_HANDLE) -> Rv {
        let (m, h) = (self.module, self.handle);
        Mechanism::plain(CKM_AES_GCM).with(|raw| {
            check(match encrypt {
                true => call!(m, C_MessageEncryptInit(h, raw, key)),
                false => call!(m, C_MessageDecryptInit(h, raw, key)),
            })
        })
    }

    /// C_EncryptMessage, C_DecryptMessage.
    pub fn message(
        &self,
        encrypt: bool,
        gcm: &mut Gcm,
        aad: &[u8],
        data: &[u8],
        room: Room,
    ) -> Output {
        let (m, h) = (self.module, self.handle);
        let ((aad, aad_len), (start, length)) = (input(aad), input(data));
        let output = gcm.with(|p, p_len| {
            Output::of(room, |out, len| match encrypt {
                true => {
                    call!(m, C_EncryptMessage(h, p, p_len, aad, aad_len, start, length, out, len))
                }
                false => {
                    call!(m, C_DecryptMessage(h, p, p_len, aad, aad_len, start, length, out, len))
                }
            })
        });
        m.confidence.keep(if encrypt { data } else { &output.bytes });
        output
    }

    /// C_EncryptMessageBegin, C_DecryptMessageBegin.
    pub fn message_begin(&self, encrypt: bool, gcm: &mut Gcm, aad: &[u8]) -> Rv {
        let (m, h, (aad, aad_len)) = (self.module, self.handle, input(aad));
        gcm.with(|p, p_len| {
            check(match encrypt {
                true => call!(m, C_EncryptMessageBegin(h, p, p_len, aad, aad_len)),
                false => call!(m, C_DecryptMessageBegin(h, p, p_len, aad, aad_len)),
            })
        })
    }

    /// C_EncryptMessageNext, C_DecryptMessageNext.
    pub fn message_next(
        &self,
        encrypt: bool,
        gcm: &mut Gcm,
        part: &[u8],
        is_last: bool,
        room: Room,
    ) -> Output {
        let (m, h, (start, length)) = (self.module, self.handle, input(part));
        let flags = if is_last { CKF_END_OF_MESSAGE } else { 0 };
        let output = gcm.with(|p, p_len| {
            Output::of(room, |out, len| match encrypt {
                true => {
                    call!(m, C_EncryptMessageNext(h, p, p_len, start, length, out, len, flags))
                }
                false => {
                    call!(m, C_DecryptMessageNext(h, p, p_len, start, length, out, len, flags))
                }
            })
        });
        m.confidence.keep(if encrypt { part } else { &output.bytes });
        output
    }

    /// C_MessageEncryptFinal, C_MessageDecryptFinal.
    pub fn message_final(&self, encrypt: bool) -> Rv {
        check(match encrypt {
            true => call!(self.module, C_MessageEncryptFinal(self.handle)),
            false => call!(self.module, C_MessageDecryptFinal(self.handle)),
        })
    }

    /// C_WrapKeyAuthenticated with AES-GCM, its length asked for first.
    pub fn wrap_authenticated(
        &self,
        gcm: &mut Gcm,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
        aad: &[u8],
    ) -> Rv<Vec<u8>> {
        let (m, h, (aad, aad_len)) = (self.module, self.handle, input(aad));
        let before = gcm.clone();
        let call = |gcm: &mut Gcm, room| {
            gcm.mechanism(|raw| {
                Output::of(room, |out, len| {
                    call!(m, C_WrapKeyAuthenticated(h, raw, wrapping, key, aad, aad_len, out, len))
                })
            })
        };
        let query = call(gcm, Room::Query);
        check(query.rv)?;
        let short = call(gcm, Room::Bytes(query.length - 1));
        assert_eq!((short.rv, short.length), (CKR_BUFFER_TOO_SMALL, query.length));
        assert_eq!(*gcm, before, "nothing was made for a query or a short buffer");
        call(gcm, Room::Bytes(query.length)).result()
    }

    /// C_UnwrapKeyAuthenticated with AES-GCM.
    pub fn unwrap_authenticated(
        &self,
        gcm: &mut Gcm,
        unwrapping: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
        aad: &[u8],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (m, h, (aad, aad_len)) = (self.module, self.handle, input(aad));
        let (wrapped, wrapped_len) = input(wrapped);
        let mut key = 0;
        gcm.mechanism(|raw| {
            with_template(template, |start, count| {
                check(call!(
                    m,
                    C_UnwrapKeyAuthenticated(
                        h,
                        raw,
                        unwrapping,
                        wrapped,
                        wrapped_len,
                        start,
                        count,
                        aad,
                        aad_len,
                        &raw mut key
                    )
                ))
            })
        })?;
        Ok(key)
    }

    /// C_MessageSignInit, C_SignMessage for each of `messages`, then in two parts for the last,
    /// C_MessageSignFinal. Gives back the signatures.
    pub fn sign_messages(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        messages: &[&[u8]],
    ) -> Rv<Vec<Vec<u8>>> {
        let (m, h, none) = (self.module, self.handle, std::ptr::null_mut());
        mechanism.with(|raw| check(call!(m, C_MessageSignInit(h, raw, key))))?;
        let mut signatures = Vec::new();
        for message in messages {
            let (data, len) = input(message);
            let whole = |room| {
                Output::of(room, |out, out_len| {
                    call!(m, C_SignMessage(h, none, 0, data, len, out, out_len))
                })
            };
            let query = whole(Room::Query);
            assert_eq!(query.rv, CKR_OK);
            assert_eq!(whole(Room::Bytes(1)).rv, CKR_BUFFER_TOO_SMALL);
            signatures.push(whole(Room::Bytes(query.length)).result()?);
        }
        if let Some(message) = messages.last() {
            let (first, rest) = message.split_at(message.len() / 2);
            check(call!(m, C_SignMessageBegin(h, none, 0)))?;
            let (data, len) = input(first);
            check(call!(m, C_SignMessageNext(h, none, 0, data, len, none.cast(), none.cast())))?;
            let (data, len) = input(rest);
            let last = |room| {
                Output::of(room, |out, out_len| {
                    call!(m, C_SignMessageNext(h, none, 0, data, len, out, out_len))
                })
            };
            let query = last(Room::Query);
            signatures.push(last(Room::Bytes(query.length)).result()?);
        }
        check(call!(m, C_MessageSignFinal(h)))?;
        Ok(signatures)
    }

    /// C_MessageVerifyInit, C_VerifyMessage of each message and signature, the last one in two
    /// parts, too, C_MessageVerifyFinal.
    pub fn verify_messages(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        messages: &[(&[u8], &[u8])],
    ) -> Rv {
        let (m, h, none) = (self.module, self.handle, std::ptr::null_mut());
        mechanism.with(|raw| check(call!(m, C_MessageVerifyInit(h, raw, key))))?;
        for (message, signature) in messages {
            let ((data, len), (sig, sig_len)) = (input(message), input(signature));
            check(call!(m, C_VerifyMessage(h, none, 0, data, len, sig, sig_len)))?;
        }
        if let Some((message, signature)) = messages.last() {
            let (first, rest) = message.split_at(message.len() / 2);
            check(call!(m, C_VerifyMessageBegin(h, none, 0)))?;
            let (data, len) = input(first);
            check(call!(m, C_VerifyMessageNext(h, none, 0, data, len, none.cast(), 0)))?;
            let ((data, len), (sig, sig_len)) = (input(rest), input(signature));
            check(call!(m, C_VerifyMessageNext(h, none, 0, data, len, sig, sig_len)))?;
        }
        check(call!(m, C_MessageVerifyFinal(h)))
    }

    /// C_SignRecoverInit and C_SignRecover.
    pub fn sign_recover(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Rv<Vec<u8>> {
        let (m, h) = (self.module, self.handle);
        mechanism.with(|raw| check(call!(m, C_SignRecoverInit(h, raw, key))))?;
        let (start, length) = input(data);
        let call =
            |room| Output::of(room, |out, len| call!(m, C_SignRecover(h, start, length, out, len)));
        let query = call(Room::Query);
        check(query.rv)?;
        call(Room::Bytes(query.length)).result()
    }

    /// C_VerifyRecoverInit and C_VerifyRecover.
    pub fn verify_recover(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        signature: &[u8],
    ) -> Rv<Vec<u8>> {
        let (m, h) = (self.module, self.handle);
        mechanism.with(|raw| check(call!(m, C_VerifyRecoverInit(h, raw, key))))?;
        let (start, length) = input(signature);
        let call = |room| {
            Output::of(room, |out, len| call!(m, C_VerifyRecover(h, start, length, out, len)))
        };
        let query = call(Room::Query);
        check(query.rv)?;
        assert_eq!(call(Room::Bytes(0)).rv, CKR_BUFFER_TOO_SMALL);
        call(Room::Bytes(query.length)).result()
    }

    /// C_DigestKey.
    pub fn digest_key(&self, key: CK_OBJECT_HANDLE) -> Rv {
        check(call!(self.module, C_DigestKey(self.handle, key)))
    }
}
