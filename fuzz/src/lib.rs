//! What strangers hand to the module, made up by libFuzzer: one row of [`TARGETS`] and one program
//! in `fuzz_targets/` each. Docs/testing.md says how to run them and what they found.
//!
//! A target is a function of bytes that panics where a promise is broken, so that `cargo test` can
//! run it too: `tests/corpus.rs` runs every file of `corpus/` once.

#![allow(unsafe_code)]
// Fields of C structures keep their names on the way there.
#![allow(non_snake_case)]

pub mod calls;
pub mod challenge;
pub mod config;
pub mod digest_info;
pub mod http1;
pub mod import;
pub mod mechanism;
pub mod memory;
pub mod parameter;
pub mod template;
pub mod wire;

/// One target.
pub struct Target {
    /// The program in `fuzz_targets/` and the folder in `corpus/`.
    pub name: &'static str,
    /// Panics where a promise is broken.
    pub run: fn(&[u8]),
    /// Where libFuzzer begins: the files of `corpus/` that are made from tables and samples.
    pub seeds: fn() -> Vec<Seed>,
}

/// One input to begin with.
pub struct Seed {
    /// The file's name.
    pub name: String,
    /// Its content.
    pub input: Vec<u8>,
}

impl Seed {
    /// An input with a name.
    pub fn new(name: impl Into<String>, input: impl Into<Vec<u8>>) -> Seed {
        Seed { name: name.into(), input: input.into() }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Every target.
        pub static TARGETS: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds },)*];
    };
}

targets! { calls challenge config digest_info http1 import mechanism template wire }
