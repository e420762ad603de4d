//! Keys that are wrapped, unwrapped, derived; objects that are copied.

use cryptoki_sys::*;

use super::{Output, Room, Rv, Session, Template, attributes, check};
use crate::{
    ffi::{length, place, read, write},
    functions::Function::*,
    mechanism::Mechanism,
};

impl Session {
    /// C_CopyObject.
    pub fn copy(&self, object: CK_OBJECT_HANDLE, template: &Template) -> Rv<CK_OBJECT_HANDLE> {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let (count, mut copy) = (length(&list), CK_INVALID_HANDLE);
        let args = [object.into(), write(&mut list), count, place(&mut copy)];
        check(self.call(C_CopyObject, &args))?;
        Ok(copy)
    }

    /// C_WrapKey with a buffer.
    pub fn wrap_in(
        &self,
        mechanism: &Mechanism,
        wrapping: CK_OBJECT_HANDLE,
        key: CK_OBJECT_HANDLE,
        room: Room,
    ) -> Output {
        Output::of(room, |out, size| {
            mechanism
                .with(|raw| self.call(C_WrapKey, &[raw, wrapping.into(), key.into(), out, size]))
        })
    }

    /// C_UnwrapKey.
    pub fn unwrap(
        &self,
        mechanism: &Mechanism,
        unwrapping: CK_OBJECT_HANDLE,
        wrapped: &[u8],
        template: &Template,
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let (count, mut key) = (length(&list), CK_INVALID_HANDLE);
        let start = write(&mut list);
        let rv = mechanism.with(|raw| {
            let (bytes, size) = (read(wrapped), length(wrapped));
            let args = [raw, unwrapping.into(), bytes, size, start, count, place(&mut key)];
            self.call(C_UnwrapKey, &args)
        });
        check(rv)?;
        Ok(key)
    }

    /// C_DeriveKey.
    pub fn derive(
        &self,
        mechanism: &Mechanism,
        base: CK_OBJECT_HANDLE,
        template: &Template,
    ) -> Rv<CK_OBJECT_HANDLE> {
        let mut template = template.clone();
        let mut list = attributes(&mut template);
        let (count, mut key) = (length(&list), CK_INVALID_HANDLE);
        let start = write(&mut list);
        let rv = mechanism
            .with(|raw| self.call(C_DeriveKey, &[raw, base.into(), start, count, place(&mut key)]));
        check(rv)?;
        Ok(key)
    }
}
