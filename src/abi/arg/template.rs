//! Templates, and templates within them.

use std::{borrow::Cow, marker::PhantomData, ptr};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_ULONG, CKR_ARGUMENTS_BAD, CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_BUFFER_TOO_SMALL,
};

use super::{bytes_at, null};
use crate::{
    error::{Error, Result},
    object::nested,
};

/// `CK_UNAVAILABLE_INFORMATION`: the length of an attribute that is not given out.
pub const CK_UNAVAILABLE_INFORMATION: CK_ULONG = !0;

/// More attributes than any template has: a count above it is a mistake of the caller.
const MAX_TEMPLATE: usize = 4096;

/// More bytes than any attribute's value has that an object can be made with: a length above it is
/// a mistake of the caller, and is found before it is followed.
const MAX_VALUE: CK_ULONG = 1 << 24;

/// What a caller wants of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// How long its value is (pValue is NULL).
    Length,
    /// Its value.
    Value,
}

/// A template: attributes given by the caller, or places to put their values.
#[derive(Clone, Copy)]
pub struct Template<'a> {
    start: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
    call: PhantomData<&'a mut [CK_ATTRIBUTE]>,
}

impl<'a> Template<'a> {
    /// # Safety
    /// For the time of the call `start` is NULL or points to `count` attributes, each of whose
    /// `pValue` is NULL or points to `ulValueLen` bytes: readable where the template gives
    /// values, writable where it asks for them.
    pub unsafe fn promised(start: *mut CK_ATTRIBUTE, count: CK_ULONG) -> Self {
        Template { start, count, call: PhantomData }
    }

    fn len(&self) -> Result<usize> {
        match usize::try_from(self.count) {
            Ok(0) => Ok(0),
            Ok(_) if self.start.is_null() => Err(null("a template with a count")),
            Ok(n) if n <= MAX_TEMPLATE => Ok(n),
            _ => Err(Error::new(
                CKR_ARGUMENTS_BAD,
                format!("a template of {} attributes", self.count),
            )),
        }
    }

    fn entry(&self, i: usize) -> *mut CK_ATTRIBUTE {
        // SAFETY: called with `i` below `len`, so within the caller's array.
        unsafe { self.start.add(i) }
    }

    /// Type and value of each attribute, in the caller's order; a template within the template
    /// as [`nested::encode`] has it.
    pub fn values(&self) -> Result<Vec<(CK_ATTRIBUTE_TYPE, Cow<'a, [u8]>)>> {
        (0..self.len()?)
            .map(|i| {
                // SAFETY: an attribute by `promised`'s contract.
                let attribute = unsafe { self.entry(i).read_unaligned() };
                if !nested::is_nested(attribute.type_) {
                    // SAFETY: its value is readable by the same contract.
                    let value = unsafe { value_of(&attribute) }?;
                    return Ok((attribute.type_, Cow::Borrowed(value)));
                }
                let mut inner = Vec::new();
                // SAFETY: its value is a template by the same contract.
                let template = unsafe { inner_of(&attribute) }?;
                for i in 0..template.len()? {
                    // SAFETY: an attribute by the same contract.
                    let attribute = unsafe { template.entry(i).read_unaligned() };
                    // SAFETY: its value is readable by the same contract.
                    inner.push((attribute.type_, unsafe { value_of(&attribute) }?));
                }
                Ok((attribute.type_, Cow::Owned(nested::encode(&inner))))
            })
            .collect()
    }

    /// Whether an attribute is among those asked for, and how; None where it is not.
    ///
    /// # Errors
    /// CKR_ARGUMENTS_BAD for a template that cannot be.
    pub fn asks_for(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<Asked>> {
        let mut asked = None;
        for i in 0..self.len()? {
            // SAFETY: an attribute by `promised`'s contract.
            let attribute = unsafe { self.entry(i).read_unaligned() };
            if attribute.type_ == kind && asked != Some(Asked::Value) {
                let length = attribute.pValue.is_null();
                asked = Some(if length { Asked::Length } else { Asked::Value });
            }
        }
        Ok(asked)
    }

    /// Asks `value` for each attribute and stores it (C_GetAttributeValue, clause 5.7.5): every
    /// entry is treated, and the error of one that fails is returned at the end.
    pub fn fill<'v>(
        &self,
        mut value: impl FnMut(CK_ATTRIBUTE_TYPE) -> Result<&'v [u8]>,
    ) -> Result<()> {
        let mut outcome = Ok(());
        for i in 0..self.len()? {
            // SAFETY: an attribute by `promised`'s contract.
            let mut attribute = unsafe { self.entry(i).read_unaligned() };
            let stored = value(attribute.type_).and_then(|v| store(&mut attribute, v));
            if let Err(error) = stored {
                attribute.ulValueLen = CK_UNAVAILABLE_INFORMATION;
                outcome = worse(outcome, error);
            }
            // SAFETY: the entry read above; only its length has changed.
            unsafe { self.entry(i).write_unaligned(attribute) };
        }
        outcome
    }
}

/// Of several failures the first counts, but CKR_BUFFER_TOO_SMALL only if there is no other:
/// a caller that gets it may trust the other lengths.
fn worse(so_far: Result<()>, next: Error) -> Result<()> {
    match so_far {
        Err(error) if error.rv() != CKR_BUFFER_TOO_SMALL => Err(error),
        _ => Err(next),
    }
}

/// # Safety
/// The attribute's value is readable for `'a`.
unsafe fn value_of<'a>(attribute: &CK_ATTRIBUTE) -> Result<&'a [u8]> {
    if attribute.ulValueLen > MAX_VALUE {
        return Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!("attribute 0x{:x}: {} bytes", attribute.type_, attribute.ulValueLen),
        ));
    }
    // SAFETY: this function's contract.
    unsafe { bytes_at(attribute.pValue as *const u8, attribute.ulValueLen) }
}

/// The template that is an attribute's value.
///
/// # Safety
/// The attribute's value is an array of attributes for `'a`, as [`Template::promised`] wants it.
unsafe fn inner_of<'a>(attribute: &CK_ATTRIBUTE) -> Result<Template<'a>> {
    let unit = size_of::<CK_ATTRIBUTE>() as CK_ULONG;
    if !attribute.ulValueLen.is_multiple_of(unit) {
        return Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!(
                "attribute {:#x}: {} bytes are no template",
                attribute.type_, attribute.ulValueLen
            ),
        ));
    }
    let (start, count) = (attribute.pValue.cast(), attribute.ulValueLen / unit);
    // SAFETY: this function's contract.
    Ok(unsafe { Template::promised(start, count) })
}

/// Stores a template into the array of attributes that the caller made room for.
fn store_inner(attribute: &mut CK_ATTRIBUTE, value: &[u8]) -> Result<()> {
    let values = nested::decode(value)?;
    let length = (values.len() * size_of::<CK_ATTRIBUTE>()) as CK_ULONG;
    if attribute.pValue.is_null() {
        attribute.ulValueLen = length;
        return Ok(());
    }
    if length > attribute.ulValueLen {
        let (kind, room) = (attribute.type_, attribute.ulValueLen);
        return Err(Error::new(
            CKR_BUFFER_TOO_SMALL,
            format!("attribute {kind:#x}: {length} bytes, room for {room}"),
        ));
    }
    attribute.ulValueLen = length;
    // SAFETY: the caller promised that many bytes, which hold attributes.
    let inner = unsafe { inner_of(attribute) }?;
    let mut outcome = Ok(());
    for (i, (kind, value)) in values.into_iter().enumerate() {
        // SAFETY: an attribute by the same promise.
        let mut entry = unsafe { inner.entry(i).read_unaligned() };
        entry.type_ = kind;
        if let Err(error) = store(&mut entry, value) {
            entry.ulValueLen = CK_UNAVAILABLE_INFORMATION;
            outcome = worse(outcome, error);
        }
        // SAFETY: the entry read above; its type and its length have changed.
        unsafe { inner.entry(i).write_unaligned(entry) };
    }
    outcome
}

fn store(attribute: &mut CK_ATTRIBUTE, value: &[u8]) -> Result<()> {
    if nested::is_nested(attribute.type_) {
        return store_inner(attribute, value);
    }
    if attribute.pValue.is_null() {
        attribute.ulValueLen = value.len() as CK_ULONG;
        return Ok(());
    }
    if (value.len() as CK_ULONG) > attribute.ulValueLen {
        let (kind, room) = (attribute.type_, attribute.ulValueLen);
        return Err(Error::new(
            CKR_BUFFER_TOO_SMALL,
            format!("attribute {kind:#x}: {} bytes, room for {room}", value.len()),
        ));
    }
    // SAFETY: the caller promised `ulValueLen` writable bytes at `pValue`.
    unsafe { ptr::copy_nonoverlapping(value.as_ptr(), attribute.pValue as *mut u8, value.len()) };
    attribute.ulValueLen = value.len() as CK_ULONG;
    Ok(())
}
