//! The values of one object, encoded as C callers read them.

use std::{fmt, sync::Arc};

use cryptoki_sys::*;
use zeroize::{Zeroize as _, Zeroizing};

use super::attribute::{Classes, name_of, row_of};

/// The values of one object. Each is encoded once, as C_GetAttributeValue hands it out, and wiped
/// when dropped. A value that is not given out is not here.
///
/// A vault has thousands of objects with thirty values each, so that they are one allocation and
/// an index: a third of what a map of vectors takes. Most of the thirty are the same for all keys
/// of a type, and stored once for them ([`Attributes::share`]).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// In the order of their numbers.
    index: Vec<Entry>,
    /// One value after the other, in any order.
    values: Zeroizing<Vec<u8>>,
    /// Values of other numbers, which other objects have as well.
    common: Option<Arc<Attributes>>,
}

/// What is a key's own; the rest depends on its type, its usage and the token.
const OWN: [CK_ATTRIBUTE_TYPE; 8] = [
    CKA_LABEL,
    CKA_ID,
    CKA_UNIQUE_ID,
    CKA_START_DATE,
    CKA_END_DATE,
    CKA_PUBLIC_KEY_INFO,
    CKA_MODULUS,
    CKA_EC_POINT,
];
/// Beyond so many combinations of the rest an object keeps its own.
const MOST_COMMON: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: CK_ATTRIBUTE_TYPE,
    start: u32,
    length: u32,
}

impl Attributes {
    /// The encoded value, if the object has it.
    pub fn bytes(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        match self.place(kind) {
            Ok(at) => Some(self.value(&self.index[at])),
            Err(_) => self.common.as_ref()?.bytes(kind),
        }
    }

    /// A CK_BBOOL; false where the object does not have it.
    pub fn is(&self, kind: CK_ATTRIBUTE_TYPE) -> bool {
        self.bytes(kind).is_some_and(|value| value.first().is_some_and(|byte| *byte != CK_FALSE))
    }

    /// A CK_ULONG.
    pub fn ulong(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<CK_ULONG> {
        self.bytes(kind)?.try_into().ok().map(CK_ULONG::from_ne_bytes)
    }

    /// An array of CK_MECHANISM_TYPE.
    pub fn mechanisms(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<Vec<CK_MECHANISM_TYPE>> {
        let (values, _) = self.bytes(kind)?.as_chunks();
        Some(values.iter().map(|value| CK_ULONG::from_ne_bytes(*value)).collect())
    }

    /// Stores an encoded value, at most 4 GiB with all others.
    pub fn set(&mut self, kind: CK_ATTRIBUTE_TYPE, value: impl Into<Vec<u8>>) -> &mut Self {
        let value = Zeroizing::new(value.into());
        self.unshare();
        let place = match self.place(kind) {
            Ok(old) if self.index[old].length as usize == value.len() => {
                let start = self.index[old].start as usize;
                self.values[start..start + value.len()].copy_from_slice(&value);
                return self;
            }
            Ok(old) => {
                self.remove(old);
                old
            }
            Err(place) => place,
        };
        self.make_room(value.len());
        let start = u32::try_from(self.values.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.values.extend_from_slice(&value);
        self.index.insert(place, Entry { kind, start, length });
        self
    }

    /// Stores a CK_BBOOL.
    pub fn set_bool(&mut self, kind: CK_ATTRIBUTE_TYPE, value: bool) -> &mut Self {
        self.set(kind, [if value { CK_TRUE } else { CK_FALSE }])
    }

    /// Stores a CK_ULONG.
    pub fn set_ulong(&mut self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> &mut Self {
        self.set(kind, value.to_ne_bytes())
    }

    /// Stores an array of CK_MECHANISM_TYPE.
    pub fn set_mechanisms(
        &mut self,
        kind: CK_ATTRIBUTE_TYPE,
        values: impl IntoIterator<Item = CK_MECHANISM_TYPE>,
    ) -> &mut Self {
        self.set(kind, values.into_iter().flat_map(CK_ULONG::to_ne_bytes).collect::<Vec<u8>>())
    }

    /// Drops key material, of an object that must no longer give it out.
    pub fn withdraw_secrets(&mut self) {
        self.unshare();
        let class = Classes::of(self.ulong(CKA_CLASS).unwrap_or(CK_ULONG::MAX));
        let secret = |entry: &Entry| row_of(entry.kind).is_some_and(|row| row.secret.has(class));
        while let Some(at) = self.index.iter().position(secret) {
            self.remove(at);
        }
    }

    /// Whether every attribute of `template` is there with exactly that value (C_FindObjects).
    pub fn match_all(&self, template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)]) -> bool {
        template.iter().all(|(kind, value)| self.bytes(*kind) == Some(value))
    }

    /// All values, by the number of the attribute.
    pub fn iter(&self) -> impl Iterator<Item = (CK_ATTRIBUTE_TYPE, &[u8])> {
        let parts = std::iter::once(self).chain(self.common.as_deref());
        let mut all: Vec<_> = parts
            .flat_map(|part| part.index.iter().map(move |entry| (entry.kind, part.value(entry))))
            .collect();
        all.sort_unstable_by_key(|(kind, _)| *kind);
        all.into_iter()
    }

    /// Stores what other keys have alike with them, as one of `alike`, which learns it where it is
    /// new. For objects of which there are thousands and which change seldom.
    pub fn share(&mut self, alike: &mut Vec<Arc<Attributes>>) {
        let (mut own, mut common) = (Attributes::default(), Attributes::default());
        for (kind, value) in self.iter() {
            let is_own = OWN.contains(&kind) && !value.is_empty();
            let part = if is_own { &mut own } else { &mut common };
            part.set(kind, value);
        }
        let known = alike.iter().find(|known| ***known == common).map(Arc::clone);
        own.common = known.or_else(|| {
            if alike.len() == MOST_COMMON {
                alike.retain(|known| Arc::strong_count(known) > 1);
            }
            (alike.len() < MOST_COMMON).then(|| {
                common.settle();
                let common = Arc::new(common.clone());
                alike.push(Arc::clone(&common));
                common
            })
        });
        if own.common.is_some() {
            *self = own;
        }
        self.settle();
    }

    /// Makes all values the object's own, so that they can be changed.
    fn unshare(&mut self) {
        if let Some(common) = self.common.take() {
            for (kind, value) in common.iter() {
                self.set(kind, value);
            }
        }
    }

    /// Gives back the room that more values would have had.
    fn settle(&mut self) {
        self.index.shrink_to_fit();
        if self.values.capacity() > self.values.len() {
            let mut exact = Zeroizing::new(Vec::with_capacity(self.values.len()));
            exact.extend_from_slice(&self.values);
            self.values = exact;
        }
    }

    fn place(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<usize, usize> {
        self.index.binary_search_by_key(&kind, |entry| entry.kind)
    }

    fn value(&self, entry: &Entry) -> &[u8] {
        let start = entry.start as usize;
        self.values.get(start..start + entry.length as usize).unwrap_or_default()
    }

    /// Wipes a value and closes the gap.
    fn remove(&mut self, at: usize) {
        let Entry { start, length, .. } = self.index.remove(at);
        let (from, to) = (start as usize, start as usize + length as usize);
        self.values.copy_within(to.., from);
        let left = self.values.len() - length as usize;
        self.values[left..].zeroize();
        self.values.truncate(left);
        for entry in &mut self.index {
            if entry.start > start {
                entry.start -= length;
            }
        }
    }

    /// Room for so many more bytes, without leaving a copy behind.
    fn make_room(&mut self, more: usize) {
        let needed = self.values.len() + more;
        if needed > self.values.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed + needed / 2));
            larger.extend_from_slice(&self.values);
            self.values = larger;
        }
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(kind, _)| name_of(kind))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_c_callers_read_them() {
        let mut attributes = Attributes::default();
        attributes
            .set_bool(CKA_TOKEN, true)
            .set_ulong(CKA_CLASS, CKO_PRIVATE_KEY)
            .set_mechanisms(CKA_ALLOWED_MECHANISMS, [CKM_RSA_PKCS, CKM_ECDSA]);
        assert_eq!(attributes.bytes(CKA_TOKEN), Some(&[1][..]));
        assert_eq!(attributes.ulong(CKA_CLASS), Some(CKO_PRIVATE_KEY));
        assert_eq!(
            attributes.mechanisms(CKA_ALLOWED_MECHANISMS),
            Some(vec![CKM_RSA_PKCS, CKM_ECDSA])
        );
        assert!(!attributes.is(CKA_SENSITIVE));
    }

    #[test]
    fn values_of_other_lengths_take_the_place_of_old_ones() {
        let mut attributes = Attributes::default();
        attributes.set(CKA_LABEL, "first").set(CKA_ID, [1, 2, 3]).set(CKA_SUBJECT, "");
        attributes.set(CKA_LABEL, "a longer one").set(CKA_ID, [4]).set(CKA_LABEL, "short");
        attributes.settle();
        let all: Vec<_> = attributes.iter().collect();
        assert_eq!(all, [(CKA_LABEL, &b"short"[..]), (CKA_SUBJECT, &b""[..]), (CKA_ID, &[4][..])]);
        assert_eq!(attributes.values.len(), 6);
    }

    #[test]
    fn what_is_alike_is_stored_once_and_changes_alone() {
        let key = |label: &str, sign| {
            let mut key = Attributes::default();
            key.set(CKA_LABEL, label).set_bool(CKA_SIGN, sign).set_ulong(CKA_CLASS, 3).settle();
            key
        };
        let mut alike = Vec::new();
        let [mut one, mut two, mut other] = [key("one", true), key("two", true), key("3", false)];
        for shared in [&mut one, &mut two, &mut other] {
            let before: Vec<_> = shared.iter().map(|(k, v)| (k, v.to_vec())).collect();
            shared.share(&mut alike);
            let after: Vec<_> = shared.iter().map(|(k, v)| (k, v.to_vec())).collect();
            assert_eq!((after, shared.index.len()), (before, 1));
        }
        assert_eq!(alike.len(), 2);
        one.set_bool(CKA_SIGN, false).set(CKA_LABEL, "uno");
        assert!(!one.is(CKA_SIGN) && two.is(CKA_SIGN));
        assert_eq!(one.iter().count(), 3);
        for _ in 0..2 {
            for number in 0..2 * MOST_COMMON {
                key("many", true).set_ulong(CKA_KEY_TYPE, number as CK_ULONG).share(&mut alike);
            }
        }
        assert!(alike.len() <= MOST_COMMON);
        assert!(alike.iter().any(|known| two.common.as_ref() == Some(known)), "in use");
    }

    #[test]
    fn withdrawn_secrets_are_gone_and_the_rest_stays() {
        let mut attributes = Attributes::default();
        attributes
            .set(CKA_PRIVATE_EXPONENT, [9; 64])
            .set_ulong(CKA_CLASS, CKO_PRIVATE_KEY)
            .set(CKA_PRIME_1, [8; 32])
            .set(CKA_LABEL, "left");
        attributes.withdraw_secrets();
        assert_eq!(attributes.bytes(CKA_PRIVATE_EXPONENT), None);
        assert_eq!(attributes.bytes(CKA_PRIME_1), None);
        assert_eq!(attributes.bytes(CKA_LABEL), Some(&b"left"[..]));
        assert_eq!(attributes.ulong(CKA_CLASS), Some(CKO_PRIVATE_KEY));
        assert!(!attributes.values.iter().any(|byte| matches!(byte, 8 | 9)));
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let mut attributes = Attributes::default();
        attributes.set(CKA_VALUE, *b"secret");
        assert_eq!(format!("{attributes:?}"), "{\"CKA_VALUE\"}");
    }
}
