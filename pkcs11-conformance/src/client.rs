//! A client of the module: its functions with the types and results of Rust.

mod keys;
pub mod messages;

use cryptoki_sys::*;

use crate::{
    ffi::{Module, NULL, Word, attribute, length, place, read, write},
    functions::Function::{self, *},
    mechanism::Mechanism,
};

/// A result whose error is the CK_RV.
pub type Rv<T = ()> = Result<T, CK_RV>;

/// Types and encoded values.
pub type Template = Vec<(CK_ATTRIBUTE_TYPE, Vec<u8>)>;

/// No CK_RV of the standard's: CKR_OK, with a length that no buffer of this call can have.
pub const WRONG_LENGTH: CK_RV = CK_RV::MAX;

/// More than any attribute's value.
const LONGEST: CK_ULONG = 16 * 1024 * 1024;

/// CKR_OK or an error.
pub fn check(rv: CK_RV) -> Rv {
    if rv == CKR_OK { Ok(()) } else { Err(rv) }
}

/// A CK_BBOOL's bytes.
pub fn flag(value: bool) -> Vec<u8> {
    vec![u8::from(value)]
}

/// A CK_ULONG's bytes.
pub fn number(value: CK_ULONG) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// The CK_ULONG in these bytes.
pub fn as_number(bytes: &[u8]) -> Option<CK_ULONG> {
    bytes.try_into().ok().map(CK_ULONG::from_ne_bytes)
}

/// Functions that share a protocol.
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

impl Family {
    /// All of them.
    pub const ALL: [Family; 5] =
        [Family::Digest, Family::Sign, Family::Verify, Family::Encrypt, Family::Decrypt];

    /// Init, one-shot, Update, Final.
    pub fn functions(self) -> [Function; 4] {
        match self {
            Family::Digest => [C_DigestInit, C_Digest, C_DigestUpdate, C_DigestFinal],
            Family::Sign => [C_SignInit, C_Sign, C_SignUpdate, C_SignFinal],
            Family::Verify => [C_VerifyInit, C_Verify, C_VerifyUpdate, C_VerifyFinal],
            Family::Encrypt => [C_EncryptInit, C_Encrypt, C_EncryptUpdate, C_EncryptFinal],
            Family::Decrypt => [C_DecryptInit, C_Decrypt, C_DecryptUpdate, C_DecryptFinal],
        }
    }

    /// The flag of a mechanism that takes part, which is also C_SessionCancel's.
    pub fn flag(self) -> CK_FLAGS {
        match self {
            Family::Digest => CKF_DIGEST,
            Family::Sign => CKF_SIGN,
            Family::Verify => CKF_VERIFY,
            Family::Encrypt => CKF_ENCRYPT,
            Family::Decrypt => CKF_DECRYPT,
        }
    }

    /// Whether C_…Update gives output.
    pub fn streams(self) -> bool {
        matches!(self, Family::Encrypt | Family::Decrypt)
    }
}

/// The output buffer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// NULL_PTR: a query.
    Query,
    /// So many bytes.
    Bytes(usize),
}

/// More than any output of one call here.
pub const PLENTY: Room = Room::Bytes(16 * 1024);

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The CK_RV.
    pub rv: CK_RV,
    /// The length that was stored.
    pub length: usize,
    /// As many bytes of the buffer, where there was one and the call succeeded.
    pub bytes: Vec<u8>,
    /// Whether bytes behind the buffer were written.
    pub overrun: bool,
    /// Whether there was no buffer.
    pub queried: bool,
}

impl Output {
    /// Makes a call with a guarded buffer.
    pub fn of(room: Room, call: impl FnOnce(Word<'_>, Word<'_>) -> CK_RV) -> Output {
        const GUARD: u8 = 0xA5;
        let capacity = match room {
            Room::Query => 0,
            Room::Bytes(n) => n,
        };
        let mut buffer = vec![GUARD; capacity + 1024];
        let mut length = capacity as CK_ULONG;
        let start = if room == Room::Query { NULL } else { write(&mut buffer) };
        let rv = call(start, place(&mut length));
        let overrun = buffer[capacity..].iter().any(|byte| *byte != GUARD);
        let length = length as usize;
        let bytes = match (rv, room) {
            (CKR_OK, Room::Bytes(_)) => buffer[..length.min(capacity)].to_vec(),
            _ => Vec::new(),
        };
        Output { rv, length, bytes, overrun, queried: room == Room::Query }
    }

    /// The bytes, or the error.
    pub fn result(self) -> Rv<Vec<u8>> {
        check(self.rv)?;
        // Where there was a buffer the bytes are as many as the module told, or it told too many.
        let told = self.bytes.len() == self.length || self.bytes.is_empty() && self.queried;
        if told { Ok(self.bytes) } else { Err(WRONG_LENGTH) }
    }
}

/// What C_GetAttributeValue said of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// ulValueLen.
    pub length: CK_ULONG,
    /// The buffer, cut to that length where it is one.
    pub value: Vec<u8>,
}

/// A session.
#[derive(Clone, Copy)]
pub struct Session {
    /// Its module.
    pub module: &'static Module,
    /// Its handle.
    pub handle: CK_SESSION_HANDLE,
}

fn attributes(template: &mut Template) -> Vec<CK_ATTRIBUTE> {
    template.iter_mut().map(|(kind, value)| attribute(*kind, value)).collect()
}

impl Session {
    /// C_OpenSession.
    pub fn open(module: &'static Module, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Rv<Session> {
        let mut handle = CK_INVALID_HANDLE;
        let args = [slot.into(), flags.into(), NULL, NULL, place(&mut handle)];
        check(module.call(C_OpenSession, &args))?;
        Ok(Session { module, handle })
    }

    /// Any function whose first argument is the session.
    pub fn call(&self, function: Function, rest: &[Word<'_>]) -> CK_RV {
        let mut args = vec![self.handle.into()];
        args.extend_from_slice(rest);
        self.module.call(function, &args)
    }

    /// C_CloseSession.
    pub fn close(&self) -> Rv {
        check(self.call(C_CloseSession, &[]))
    }

    /// C_GetSessionInfo.
    pub fn info(&self) -> Rv<CK_SESSION_INFO> {
        let mut info = CK_SESSION_INFO::default();
        check(self.call(C_GetSessionInfo, &[place(&mut info)]))?;
        Ok(info)
    }

    /// C_Login. Without a PIN: NULL_PTR, for a protected authentication path.
    pub fn login(&self, user: CK_USER_TYPE, pin: Option<&str>) -> Rv {
        let bytes = pin.unwrap_or_default().as_bytes();
        let start = if pin.is_some() { read(bytes) } else { NULL };
        check(self.call(C_Login, &[user.into(), start, length(bytes)]))
    }

    /// C_LoginUser.
    pub fn login_user(&self, user: CK_USER_TYPE, pin: &str, name: &str) -> Rv {
        let (pin, name) = (pin.as_bytes(), name.as_bytes());
        let args = [user.into(), read(pin), length(pin), read(name), length(name)];
        check(self.call(C_LoginUser, &args))
    }

    /// C_Logout.
    pub fn logout(&self) -> Rv {
        check(self.call(C_Logout, &[]))
    }

    /// C_FindObjectsInit.
    pub fn find_init(&self, template: &Template) -> Rv {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let count = length(&list);
        check(self.call(C_FindObjectsInit, &[write(&mut list), count]))
    }

    /// C_FindObjects.
    pub fn find_next(&self, max: usize) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        let mut found: Vec<CK_OBJECT_HANDLE> = vec![CK_INVALID_HANDLE; max.max(1)];
        let mut count: CK_ULONG = 0;
        let args = [write(&mut found), (max as CK_ULONG).into(), place(&mut count)];
        check(self.call(C_FindObjects, &args))?;
        if count as usize > max {
            return Err(WRONG_LENGTH);
        }
        found.truncate(count as usize);
        Ok(found)
    }

    /// C_FindObjectsFinal.
    pub fn find_final(&self) -> Rv {
        check(self.call(C_FindObjectsFinal, &[]))
    }

    /// A whole search, so many objects at a time.
    pub fn find_by(&self, template: &Template, page: usize) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        self.find_init(template)?;
        let mut all = Vec::new();
        loop {
            let found = self.find_next(page)?;
            if found.is_empty() {
                break;
            }
            all.extend(found);
        }
        self.find_final()?;
        Ok(all)
    }

    /// A whole search.
    pub fn find(&self, template: &Template) -> Rv<Vec<CK_OBJECT_HANDLE>> {
        self.find_by(template, 64)
    }

    /// C_GetAttributeValue with a buffer of this size (None: NULL_PTR) for each.
    pub fn attributes(
        &self,
        object: CK_OBJECT_HANDLE,
        wanted: &[(CK_ATTRIBUTE_TYPE, Option<usize>)],
    ) -> (CK_RV, Vec<Attribute>) {
        let mut template: Template =
            wanted.iter().map(|(kind, room)| (*kind, vec![0; room.unwrap_or(0)])).collect();
        let mut list = attributes(&mut template);
        let count = length(&list);
        let rv = self.call(C_GetAttributeValue, &[object.into(), write(&mut list), count]);
        let told = list
            .iter()
            .zip(template)
            .map(|(told, (_, mut value))| {
                if told.ulValueLen != CK_UNAVAILABLE_INFORMATION {
                    value.truncate(told.ulValueLen as usize);
                }
                Attribute { length: told.ulValueLen, value }
            })
            .collect();
        (rv, told)
    }

    /// One attribute's value, by a query and a fetch.
    pub fn value(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<Vec<u8>> {
        let (rv, told) = self.attributes(object, &[(kind, None)]);
        check(rv)?;
        let room = told.first().map(|told| told.length).filter(|length| *length <= LONGEST);
        let room = room.ok_or(WRONG_LENGTH)? as usize;
        let (rv, mut told) = self.attributes(object, &[(kind, Some(room))]);
        check(rv)?;
        let told = told.pop().filter(|told| told.length <= room as CK_ULONG);
        Ok(told.ok_or(WRONG_LENGTH)?.value)
    }

    /// One attribute that is a number.
    pub fn ulong(&self, object: CK_OBJECT_HANDLE, kind: CK_ATTRIBUTE_TYPE) -> Rv<CK_ULONG> {
        as_number(&self.value(object, kind)?).ok_or(CKR_ATTRIBUTE_VALUE_INVALID)
    }

    /// C_CreateObject.
    pub fn create(&self, template: &Template) -> Rv<CK_OBJECT_HANDLE> {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let mut object = CK_INVALID_HANDLE;
        let count = length(&list);
        check(self.call(C_CreateObject, &[write(&mut list), count, place(&mut object)]))?;
        Ok(object)
    }

    /// C_SetAttributeValue.
    pub fn set(&self, object: CK_OBJECT_HANDLE, template: &Template) -> Rv {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let count = length(&list);
        check(self.call(C_SetAttributeValue, &[object.into(), write(&mut list), count]))
    }

    /// C_DestroyObject.
    pub fn destroy(&self, object: CK_OBJECT_HANDLE) -> Rv {
        check(self.call(C_DestroyObject, &[object.into()]))
    }

    /// C_GenerateKeyPair: the public key, the private key.
    pub fn generate_pair(
        &self,
        mechanism: &Mechanism,
        public: &Template,
        private: &Template,
    ) -> Rv<(CK_OBJECT_HANDLE, CK_OBJECT_HANDLE)> {
        let (mut public, mut private) = (public.clone(), private.clone());
        let (mut ours, mut theirs) = (attributes(&mut public), attributes(&mut private));
        let (public_count, private_count) = (length(&ours), length(&theirs));
        let (mut first, mut second) = (CK_INVALID_HANDLE, CK_INVALID_HANDLE);
        let rv = mechanism.with(|raw| {
            let args = [
                raw,
                write(&mut ours),
                public_count,
                write(&mut theirs),
                private_count,
                place(&mut first),
                place(&mut second),
            ];
            self.call(C_GenerateKeyPair, &args)
        });
        check(rv)?;
        Ok((first, second))
    }

    /// C_GenerateKey.
    pub fn generate(&self, mechanism: &Mechanism, template: &Template) -> Rv<CK_OBJECT_HANDLE> {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let (count, mut key) = (length(&list), CK_INVALID_HANDLE);
        let rv = mechanism
            .with(|raw| self.call(C_GenerateKey, &[raw, write(&mut list), count, place(&mut key)]));
        check(rv)?;
        Ok(key)
    }

    /// C_…Init. Digests take no key.
    pub fn init(&self, family: Family, mechanism: &Mechanism, key: CK_OBJECT_HANDLE) -> Rv {
        mechanism.with(|raw| self.init_raw(family, raw, key))
    }

    /// C_…Init with NULL_PTR for a mechanism: cancels.
    pub fn init_null(&self, family: Family) -> Rv {
        self.init_raw(family, NULL, CK_INVALID_HANDLE)
    }

    fn init_raw(&self, family: Family, raw: Word<'_>, key: CK_OBJECT_HANDLE) -> Rv {
        let [init, ..] = family.functions();
        check(match family {
            Family::Digest => self.call(init, &[raw]),
            _ => self.call(init, &[raw, key.into()]),
        })
    }

    /// The one-shot call with a buffer.
    pub fn one_shot_in(&self, family: Family, data: &[u8], room: Room) -> Output {
        let [_, one_shot, ..] = family.functions();
        Output::of(room, |out, size| self.call(one_shot, &[read(data), length(data), out, size]))
    }

    /// The one-shot call.
    pub fn one_shot(&self, family: Family, data: &[u8]) -> Rv<Vec<u8>> {
        self.one_shot_in(family, data, PLENTY).result()
    }

    /// The one-shot call whose output goes where its input is: as long as that.
    pub fn one_shot_in_place(&self, family: Family, data: &[u8]) -> Rv<Vec<u8>> {
        let [_, one_shot, ..] = family.functions();
        let mut buffer = data.to_vec();
        let mut size = buffer.len() as CK_ULONG;
        let start = write(&mut buffer);
        let args = [start, length(data), start, place(&mut size)];
        check(self.call(one_shot, &args))?;
        if size as usize > buffer.len() {
            return Err(WRONG_LENGTH);
        }
        buffer.truncate(size as usize);
        Ok(buffer)
    }

    /// C_…Update; its output, where it has one.
    pub fn update(&self, family: Family, part: &[u8]) -> Rv<Vec<u8>> {
        let [_, _, update, _] = family.functions();
        match family.streams() {
            true => self.update_in(family, part, PLENTY).result(),
            false => check(self.call(update, &[read(part), length(part)])).map(|()| Vec::new()),
        }
    }

    /// C_EncryptUpdate, C_DecryptUpdate with a buffer.
    pub fn update_in(&self, family: Family, part: &[u8], room: Room) -> Output {
        let [_, _, update, _] = family.functions();
        Output::of(room, |out, size| self.call(update, &[read(part), length(part), out, size]))
    }

    /// C_…Final with a buffer.
    pub fn last_in(&self, family: Family, room: Room) -> Output {
        let [.., last] = family.functions();
        Output::of(room, |out, size| self.call(last, &[out, size]))
    }

    /// C_…Final.
    pub fn last(&self, family: Family) -> Rv<Vec<u8>> {
        self.last_in(family, PLENTY).result()
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

    /// C_VerifyInit, C_Verify.
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

    /// C_Verify.
    pub fn verify_data(&self, data: &[u8], signature: &[u8]) -> Rv {
        let args = [read(data), length(data), read(signature), length(signature)];
        check(self.call(C_Verify, &args))
    }

    /// C_VerifyFinal.
    pub fn verify_last(&self, signature: &[u8]) -> Rv {
        check(self.call(C_VerifyFinal, &[read(signature), length(signature)]))
    }

    /// C_GenerateRandom.
    pub fn random(&self, count: usize) -> Rv<Vec<u8>> {
        let mut bytes = vec![0; count];
        let size = length(&bytes);
        check(self.call(C_GenerateRandom, &[write(&mut bytes), size]))?;
        Ok(bytes)
    }
}
