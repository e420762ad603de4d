//! Handles by the value of an attribute.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
};

use cryptoki_sys::CK_OBJECT_HANDLE;

/// By a hash of the value: for thousands of objects that takes a quarter of what a map takes that
/// repeats their values. Two values may have one hash, so whoever looks one up compares it with
/// what the object has.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    hasher: RandomState,
    handles: BTreeSet<(u64, CK_OBJECT_HANDLE)>,
}

impl Index {
    pub fn insert(&mut self, value: &[u8], handle: CK_OBJECT_HANDLE) {
        self.handles.insert((self.hasher.hash_one(value), handle));
    }

    pub fn remove(&mut self, value: &[u8], handle: CK_OBJECT_HANDLE) {
        self.handles.remove(&(self.hasher.hash_one(value), handle));
    }

    /// Those that may have this value, in their order.
    pub fn of(&self, value: &[u8]) -> impl Iterator<Item = CK_OBJECT_HANDLE> + '_ {
        let hash = self.hasher.hash_one(value);
        let range = (hash, CK_OBJECT_HANDLE::MIN)..=(hash, CK_OBJECT_HANDLE::MAX);
        self.handles.range(range).map(|(_, handle)| *handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_come_and_go_with_their_values() {
        let mut index = Index::default();
        for (value, handle) in [("a", 7), ("a", 3), ("b", 5), ("", 1)] {
            index.insert(value.as_bytes(), handle);
        }
        let of = |index: &Index, value: &str| index.of(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!((of(&index, "a"), of(&index, "b")), (vec![3, 7], vec![5]));
        index.remove(b"a", 3);
        index.remove(b"b", 7);
        assert_eq!((of(&index, "a"), of(&index, "b")), (vec![7], vec![5]));
        assert_eq!((of(&index, ""), of(&index, "c")), (vec![1], vec![]));
    }
}
