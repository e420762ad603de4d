//! A session: one safe method per C function that takes its handle.

#![allow(unsafe_code)]

use std::ptr;

use cryptoki_sys::*;

use crate::{
    arguments::{Asked, Mechanism, Output, Room, bytes, input, number, with_template},
    token::{Module, Rv, call, check},
};

/// What a search without match finds.
pub const NOTHING: [CK_OBJECT_HANDLE; 0] = [];

/// A family of functions that share their protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// C_Digest….
    Digest,
    /// C_Sign….
    Sign,
    /// C_Verify….
    Verify,
    /// C_Encrypt….
    Encrypt,
    /// C_Decrypt….
    Decrypt,
}

/// A session. It is closed with its module, or by [`Session::close`].
#[derive(Clone, Copy)]
pub struct Session<'m> {
    /// Its module.
    pub module: &'m Module,
    /// Its handle.
    pub handle: CK_SESSION_HANDLE,
}

/// Whether an attribute is the value of a key that is not public, or of data.
fn is_secret(kind: CK_ATTRIBUTE_TYPE) -> bool {
    matches!(kind, CKA_VALUE | CKA_PRIVATE_EXPONENT | CKA_PRIME_1 | CKA_PRIME_2)
        || matches!(kind, CKA_EXPONENT_1 | CKA_EXPONENT_2 | CKA_COEFFICIENT)
}

impl Session<'_> {
    /// C_CloseSession.
    pub fn close(self) -> Rv {
        check(call!(self.module, C_CloseSession(self.handle)))
    }

    /// C_GetSessionInfo.
    pub fn info(&self) -> Rv<CK_SESSION_INFO> {
        let mut info = CK_SESSION_INFO::default();
        check(call!(self.module, C_GetSessionInfo(self.handle, &raw mut info)))?;
        Ok(info)
    }

    /// C_Login.
    pub fn login(&self, user: CK_USER_TYPE, pin: &str) -> Rv {
        self.keep_pin(pin);
        let (start, length) = input(pin.as_bytes());
        check(call!(self.module, C_Login(self.handle, user, start, length)))
    }

    /// C_LoginUser.
    pub fn login_user(&self, user: CK_USER_TYPE, pin: &str, name: &str) -> Rv {
        self.keep_pin(pin);
        let ((pin, pin_len), (name, name_len)) = (input(pin.as_bytes()), input(name.as_bytes()));
        check(call!(self.module, C_LoginUser(self.handle, user, pin, pin_len, name, name_len)))
    }

    /// Of `client:secret`, the client is told to anybody.
    fn keep_pin(&self, pin: &str) {
        let secret = pin.rsplit_once(':').map_or(pin, |(_, secret)| secret);
        self.module.confidence.keep(secret.as_bytes());
    }

    /// C_Logout.
    pub fn logout(&self) -> Rv {
        check(call!(self.module, C_Logout(self.handle)))
    }

    /// C_SessionCancel.
    pub fn cancel(&self, flags: CK_FLAGS) -> Rv {
        check(call!(self.module, C_SessionCancel(self.handle, flags)))
    }

    /// C_…Init. Digests take no key.
    pub fn init(&self, family: Family, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        mechanism.with(|raw| self.init_raw(family, raw, key))
    }

    /// C_…Init with NULL for a mechanism: cancels.
    pub fn init_null(&self, family: Family) -> Rv {
        self.init_raw(family, ptr::null_mut(), 0)
    }

    fn init_raw(&self, family: Family, raw: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> Rv {
        let (m, h) = (self.module, self.handle);
        check(match family {
            Family::Digest => call!(m, C_DigestInit(h, raw)),
            Family::Sign => call!(m, C_SignInit(h, raw, key)),
            Family::Verify => call!(m, C_VerifyInit(h, raw, key)),
            Family::Encrypt => call!(m, C_EncryptInit(h, raw, key)),
            Family::Decrypt => call!(m, C_DecryptInit(h, raw, key)),
        })
    }

    /// C_Digest, C_Sign, C_Encrypt, C_Decrypt with a buffer.
    pub fn one_shot_in(&self, family: Family, data: &[u8], room: Room) -> Output {
        let (m, h, (start, length)) = (self.module, self.handle, input(data));
        let output = Output::of(room, |out, len| match family {
            Family::Digest => call!(m, C_Digest(h, start, length, out, len)),
            Family::Sign => call!(m, C_Sign(h, start, length, out, len)),
            Family::Encrypt => call!(m, C_Encrypt(h, start, length, out, len)),
            Family::Decrypt => call!(m, C_Decrypt(h, start, length, out, len)),
            Family::Verify => panic!("C_Verify has no output"),
        });
        self.keep_data(family, data, &output.bytes);
        output
    }

    /// What goes into an operation is the client's, and so is what comes out of a decryption.
    fn keep_data(&self, family: Family, input: &[u8], output: &[u8]) {
        self.module.confidence.keep(if family == Family::Decrypt { output } else { input });
    }

    /// The same with a buffer that is large enough for anything.
    pub fn one_shot(&self, family: Family, data: &[u8]) -> Rv<Vec<u8>> {
        self.one_shot_in(family, data, Room::Bytes(1024)).result()
    }

    /// C_DigestUpdate, C_SignUpdate, C_VerifyUpdate; C_EncryptUpdate and C_DecryptUpdate, whose
    /// output is given back.
    pub fn update(&self, family: Family, part: &[u8]) -> Rv<Vec<u8>> {
        let (m, h, (start, length)) = (self.module, self.handle, input(part));
        let silent = match family {
            Family::Digest => call!(m, C_DigestUpdate(h, start, length)),
            Family::Sign => call!(m, C_SignUpdate(h, start, length)),
            Family::Verify => call!(m, C_VerifyUpdate(h, start, length)),
            Family::Encrypt | Family::Decrypt => {
                return self.update_in(family, part, Room::Bytes(1024)).result();
            }
        };
        self.keep_data(family, part, &[]);
        check(silent).map(|()| Vec::new())
    }

    /// C_EncryptUpdate, C_DecryptUpdate with a buffer.
    pub fn update_in(&self, family: Family, part: &[u8], room: Room) -> Output {
        let (m, h, (start, length)) = (self.module, self.handle, input(part));
        let output = Output::of(room, |out, len| match family {
            Family::Encrypt => call!(m, C_EncryptUpdate(h, start, length, out, len)),
            Family::Decrypt => call!(m, C_DecryptUpdate(h, start, length, out, len)),
            _ => panic!("{family:?} has no output on update"),
        });
        self.keep_data(family, part, &output.bytes);
        output
    }

    /// C_DigestFinal, C_SignFinal, C_EncryptFinal, C_DecryptFinal with a buffer.
    pub fn last_in(&self, family: Family, room: Room) -> Output {
        let (m, h) = (self.module, self.handle);
        let output = Output::of(room, |out, len| match family {
            Family::Digest => call!(m, C_DigestFinal(h, out, len)),
            Family::Sign => call!(m, C_SignFinal(h, out, len)),
            Family::Encrypt => call!(m, C_EncryptFinal(h, out, len)),
            Family::Decrypt => call!(m, C_DecryptFinal(h, out, len)),
            Family::Verify => panic!("C_VerifyFinal has no output"),
        });
        self.keep_data(family, &[], &output.bytes);
        output
    }

    /// The same with a buffer that is large enough for anything.
    pub fn last(&self, family: Family) -> Rv<Vec<u8>> {
        self.last_in(family, Room::Bytes(1024)).result()
    }

    /// C_Verify.
    pub fn verify_data(&self, data: &[u8], signature: &[u8]) -> Rv {
        let ((data, data_len), (sig, sig_len)) = (input(data), input(signature));
        check(call!(self.module, C_Verify(self.handle, data, data_len, sig, sig_len)))
    }

    /// C_VerifyFinal.
    pub fn verify_last(&self, signature: &[u8]) -> Rv {
        let (start, length) = input(signature);
        check(call!(self.module, C_VerifyFinal(self.handle, start, length)))
    }

    /// C_VerifyRecoverInit.
    pub fn recover_init(&self, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        mechanism.with(|raw| check(call!(self.module, C_VerifyRecoverInit(self.handle, raw, key))))
    }

    /// C_VerifyRecover with a buffer.
    pub fn recover(&self, signature: &[u8], room: Room) -> Output {
        let (start, length) = input(signature);
        Output::of(room, |out, len| {
            call!(self.module, C_VerifyRecover(self.handle, start, length, out, len))
        })
    }

    /// Init and the one-shot call.
    pub fn run(
        &self,
        family: Family,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
    ) -> Rv<Vec<u8>> {
        self.init(family, mechanism, key)?;
        self.one_shot(family, data)
    }

    /// C_SignInit and C_Sign.
    pub fn sign(&self, mechanism: &Mechanism, key: CK_OBJECT_HANDLE, data: &[u8]) -> Rv<Vec<u8>> {
        self.run(Family::Sign, mechanism, key, data)
    }

    /// C_VerifyInit and C_Verify.
    pub fn verify(
        &self,
        mechanism: &Mechanism,
        key: CK_OBJECT_HANDLE,
        data: &[u8],
        signature: &[u8],
    ) -> Rv {
        self.init(Family::Verify, mechanism, key)?;
        self.verify_data(data, signature)
    }

    /// C_FindObjectsInit.
    pub fn find_init(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv {
        with_template(template, |start, count| {
            check(call!(self.module, C_FindObjectsInit(self.handle, start, count)))
        })
    }

    /// C_FindObjects for at most `most` handles.
    pub fn find_next(&self, most: usize) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        let mut handles = vec![0; most];
        let mut count = 0;
        let (start, max) = (handles.as_mut_ptr(), most as CK_ULONG);
        check(call!(self.module, C_FindObjects(self.handle, start, max, &raw mut count)))?;
        handles.truncate(count as usize);
        Ok(handles)
    }

    /// C_FindObjectsFinal.
    pub fn find_final(&self) -> Rv {
        check(call!(self.module, C_FindObjectsFinal(self.handle)))
    }

    /// A whole search.
    pub fn find(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        self.find_init(template)?;
        let mut all = Vec::new();
        loop {
            let some = self.find_next(7)?;
            if some.is_empty() {
                self.find_final()?;
                return Ok(all);
            }
            all.extend(some);
        }
    }

    /// The only object of a class with a label.
    pub fn object(&self, class: CK_OBJECT_CLASS, label: &str) -> CK_OBJECT_HANDLE {
        let template = [number(CKA_CLASS, class), bytes(CKA_LABEL, label)];
        let found = self.find(&template).expect("a search");
        assert_eq!(found.len(), 1, "objects of class {class:#x} named {label}");
        found[0]
    }

    /// The private and the public key of a label.
    pub fn pair(&self, label: &str) -> (CK_OBJECT_HANDLE, CK_OBJECT_HANDLE) {
        (self.object(CKO_PRIVATE_KEY, label), self.object(CKO_PUBLIC_KEY, label))
    }

    /// C_GetAttributeValue for one attribute: length, then value.
    pub fn value(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        let mut asked = [Asked::length(kind)];
        check(self.values(object, &mut asked))?;
        let mut asked = [Asked::room(kind, asked[0].length as usize)];
        check(self.values(object, &mut asked))?;
        let [Asked { length, value, .. }] = asked;
        let mut value = value.expect("room");
        value.truncate(length as usize);
        if is_secret(kind) && self.number(object, CKA_CLASS) != Ok(CKO_CERTIFICATE) {
            self.module.confidence.keep(&value);
        }
        Ok(value)
    }

    /// A CK_BBOOL.
    pub fn flag(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<bool> {
        let value = self.value(object, kind)?;
        match value[..] {
            [CK_FALSE] => Ok(false),
            [CK_TRUE] => Ok(true),
            _ => panic!("attribute {kind:#x} is no CK_BBOOL: {value:?}"),
        }
    }

    /// A CK_ULONG.
    pub fn number(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<CK_ULONG> {
        let value = self.value(object, kind)?;
        Ok(CK_ULONG::from_ne_bytes(value.try_into().expect("a CK_ULONG")))
    }

    /// A text.
    pub fn text(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<String> {
        Ok(String::from_utf8(self.value(object, kind)?).expect("UTF-8"))
    }

    /// C_GetAttributeValue for several attributes; lengths and values are stored in `asked`.
    pub fn values(&self, object: CK_OBJECT_HANDLE, asked: &mut [Asked]) -> CK_RV {
        let mut raw: Vec<CK_ATTRIBUTE> = asked
            .iter_mut()
            .map(|one| CK_ATTRIBUTE {
                type_: one.kind,
                pValue: one.value.as_mut().map_or(ptr::null_mut(), |v| v.as_mut_ptr().cast()),
                ulValueLen: one.length,
            })
            .collect();
        let (start, count) = (raw.as_mut_ptr(), raw.len() as CK_ULONG);
        let rv = call!(self.module, C_GetAttributeValue(self.handle, object, start, count));
        for (one, raw) in asked.iter_mut().zip(&raw) {
            one.length = raw.ulValueLen;
        }
        rv
    }

    /// C_SetAttributeValue.
    pub fn set(&self, object: CK_OBJECT_HANDLE, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv {
        with_template(template, |start, count| {
            check(call!(self.module, C_SetAttributeValue(self.handle, object, start, count)))
        })
    }

    /// C_CreateObject.
    pub fn create(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> Rv<CK_OBJECT_HANDLE> {
        let mut object = 0;
        if !template.contains(&number(CKA_CLASS, CKO_CERTIFICATE)) {
            let secrets = template.iter().filter(|(kind, _)| is_secret(*kind));
            secrets.for_each(|(_, value)| self.module.confidence.keep(value));
        }
        with_template(template, |start, count| {
            check(call!(self.module, C_CreateObject(self.handle, start, count, &raw mut object)))
        })?;
        Ok(object)
    }

    /// C_GetObjectSize.
    pub fn size(&self, object: CK_OBJECT_HANDLE) -> Rv<CK_ULONG> {
        let mut size = 0;
        check(call!(self.module, C_GetObjectSize(self.handle, object, &raw mut size)))?;
        Ok(size)
    }

    /// C_CopyObject.
    pub fn copy(
        &self,
        object: CK_OBJECT_HANDLE,
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut copy = 0;
        with_template(template, |start, count| {
            check(call!(
                self.module,
                C_CopyObject(self.handle, object, start, count, &raw mut copy)
            ))
        })?;
        Ok(copy)
    }

    /// C_WrapKey, its length asked for first.
    pub fn wrap(
        &self,
        mechanism: &Mechanism,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
    ) -> Rv<Vec<u8>> {
        mechanism.with(|mechanism| {
            let call = |start: *mut u8, length: &mut CK_ULONG| {
                check(call!(
                    self.module,
                    C_WrapKey(self.handle, mechanism, wrapping, key, start, length)
                ))
            };
            let mut length = 0;
            call(ptr::null_mut(), &mut length)?;
            let mut wrapped = vec![0; length as usize];
            let mut short = length - 1;
            assert_eq!(call(wrapped.as_mut_ptr(), &mut short), Err(CKR_BUFFER_TOO_SMALL));
            assert_eq!(short, length, "the length is told");
            call(wrapped.as_mut_ptr(), &mut length)?;
            wrapped.truncate(length as usize);
            Ok(wrapped)
        })
    }

    /// C_UnwrapKey.
    pub fn unwrap(
        &self,
        mechanism: &Mechanism,
        unwrapping: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut key = 0;
        mechanism.with(|mechanism| {
            with_template(template, |start, count| {
                let bytes = (wrapped.as_ptr().cast_mut(), wrapped.len() as CK_ULONG);
                check(call!(
                    self.module,
                    C_UnwrapKey(
                        self.handle,
                        mechanism,
                        unwrapping,
                        bytes.0,
                        bytes.1,
                        start,
                        count,
                        &raw mut key
                    )
                ))
            })
        })?;
        Ok(key)
    }

    /// C_DestroyObject.
    pub fn destroy(&self, object: CK_OBJECT_HANDLE) -> Rv {
        check(call!(self.module, C_DestroyObject(self.handle, object)))
    }

    /// C_GenerateKeyPair: the public key's handle, the private key's.
    pub fn generate(
        &self,
        mechanism: &Mechanism,
        public: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
        private: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (m, h) = (self.module, self.handle);
        let (mut public_key, mut private_key) = (0, 0);
        mechanism.with(|raw| {
            with_template(public, |pub_start, pub_count| {
                with_template(private, |start, count| {
                    let (a, b) = (&raw mut public_key, &raw mut private_key);
                    check(call!(
                        m,
                        C_GenerateKeyPair(h, raw, pub_start, pub_count, start, count, a, b)
                    ))
                })
            })
        })?;
        Ok((public_key, private_key))
    }

    /// C_GenerateKey.
    pub fn generate_key(
        &self,
        mechanism: &Mechanism,
        template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)],
    ) -> Rv<CK_OBJECT_HANDLE> {
        let (m, h, mut key) = (self.module, self.handle, 0);
        mechanism.with(|raw| {
            with_template(template, |start, count| {
                check(call!(m, C_GenerateKey(h, raw, start, count, &raw mut key)))
            })
        })?;
        Ok(key)
    }

    /// C_GenerateRandom.
    pub fn random(&self, count: usize) -> Rv<Vec<u8>> {
        let mut bytes = vec![0; count];
        let (start, length) = (bytes.as_mut_ptr(), count as CK_ULONG);
        check(call!(self.module, C_GenerateRandom(self.handle, start, length)))?;
        Ok(bytes)
    }
}
