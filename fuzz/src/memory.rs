//! Memory as a C caller hands it over: of exactly the length that the call is told, with bytes
//! around it that nobody may write to.

use std::{ffi::c_void, slice};

/// Bytes before and behind each block. None under AddressSanitizer, which has its own and sees what
/// is read beyond a block, too.
const GUARD: usize = if cfg!(feature = "asan") { 0 } else { 32 };
const FILL: u8 = 0xa5;

/// The blocks of one call; they are gone after it, so that a pointer that was kept is found.
#[derive(Default)]
pub struct Memory {
    blocks: Vec<Block>,
}

/// A block, by the order of its making.
#[derive(Clone, Copy, Debug)]
pub struct At(usize);

struct Block {
    /// From `Box::into_raw`.
    raw: *mut [u8],
    /// The content of one that the module may only read.
    constant: Option<Box<[u8]>>,
}

impl Memory {
    /// Bytes to be read; the module must leave them as they are.
    pub fn input(&mut self, bytes: &[u8]) -> *mut u8 {
        let at = self.block(bytes);
        self.blocks[at.0].constant = Some(bytes.into());
        self.pointer(at)
    }

    /// Bytes to be read and written.
    pub fn block(&mut self, bytes: &[u8]) -> At {
        let guard = [FILL; GUARD];
        let content = [&guard, bytes, &guard].concat().into_boxed_slice();
        self.blocks.push(Block { raw: Box::into_raw(content), constant: None });
        At(self.blocks.len() - 1)
    }

    /// So many bytes to be written, of which [`Memory::is_untouched`] can tell.
    pub fn room(&mut self, length: usize) -> At {
        self.block(&vec![FILL; length])
    }

    /// The block of a structure, to be read and written.
    pub fn place<T: Copy>(&mut self, value: &T) -> *mut T {
        // SAFETY: `value` is readable for its size; the structures of PKCS#11 have no padding that
        // is looked at.
        #[allow(clippy::disallowed_methods, reason = "a structure as its bytes")]
        let bytes =
            unsafe { slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) };
        let at = self.block(bytes);
        self.pointer(at).cast()
    }

    /// Where the block is.
    pub fn pointer(&self, at: At) -> *mut u8 {
        self.blocks[at.0].raw.cast::<u8>().wrapping_add(GUARD)
    }

    /// What is in it now.
    pub fn bytes(&self, at: At) -> &[u8] {
        let all = self.blocks[at.0].all();
        &all[GUARD..all.len() - GUARD]
    }

    /// The number in a block of eight bytes.
    pub fn number(&self, at: At) -> u64 {
        self.bytes(at).try_into().map_or(0, u64::from_ne_bytes)
    }

    /// The number in the block that was made last.
    pub fn last_number(&self) -> u64 {
        self.number(At(self.blocks.len().saturating_sub(1)))
    }

    /// Whether nothing was written to a block made by [`Memory::room`].
    pub fn is_untouched(&self, at: At) -> bool {
        self.bytes(at).iter().all(|byte| *byte == FILL)
    }

    /// Panics where something was written beside a block, or into one that is constant.
    pub fn check(&self, call: &str) {
        for block in &self.blocks {
            let all = block.all();
            let (content, end) = (&all[GUARD..all.len() - GUARD], &all[all.len() - GUARD..]);
            assert!(
                all[..GUARD].iter().all(|byte| *byte == FILL),
                "{call}: written before a block"
            );
            assert!(end.iter().all(|byte| *byte == FILL), "{call}: written behind a block");
            if let Some(constant) = &block.constant {
                assert_eq!(content, &**constant, "{call}: written to what was to be read");
            }
        }
    }
}

impl Block {
    fn all(&self) -> &[u8] {
        // SAFETY: of `Box::into_raw`, and alive as long as the block; no call is under way.
        unsafe { &*self.raw }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: of `Box::into_raw`, and nobody else frees it.
        drop(unsafe { Box::from_raw(self.raw) });
    }
}

/// A pointer as C has most of them.
pub fn void<T>(pointer: *mut T) -> *mut c_void {
    pointer.cast()
}
