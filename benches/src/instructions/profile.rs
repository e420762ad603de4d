//! What callgrind wrote (its manual, "Callgrind Format Specification"), as far as it is needed.

use std::path::Path;

/// Calls of these allocate.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// What one process did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// All instructions.
    pub total: u64,
    /// Those of the module's Rust functions.
    pub instructions: u64,
    /// Calls of libc's allocator by the module's Rust functions.
    pub allocations: u64,
}

impl Profile {
    /// Reads a file that was written with names neither compressed nor demangled.
    pub fn of(text: &str, module: &Path) -> Profile {
        let module = module.to_string_lossy();
        let mut profile = Profile::default();
        // Whether the lines at hand are about the module, and about a Rust function.
        let (mut inside, mut rust) = (false, false);
        let mut callee = "";
        // The line after `calls=` is what the call took, which its functions say themselves.
        let mut inclusive = false;
        for line in text.lines() {
            match line.split_once('=') {
                Some(("ob", object)) => inside = object == module,
                Some(("fn", function)) => rust = is_rust(function),
                Some(("cfn", function)) => callee = function,
                Some(("calls", count)) => {
                    let count = count.split(' ').next().and_then(|count| count.parse().ok());
                    if inside && rust && ALLOCATORS.contains(&callee) {
                        profile.allocations += count.unwrap_or(0);
                    }
                    inclusive = true;
                }
                Some(_) => {}
                None if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) => {
                    let cost = line.rsplit(' ').next().and_then(|cost| cost.parse().ok());
                    let cost: u64 = cost.filter(|_| !inclusive).unwrap_or(0);
                    inclusive = false;
                    profile.total += cost;
                    profile.instructions += if inside && rust { cost } else { 0 };
                }
                None => {}
            }
        }
        profile
    }
}

/// Names of Rust functions are mangled, in the older or the newer way; C's are not.
fn is_rust(function: &str) -> bool {
    function.starts_with("_ZN") || function.starts_with("_R")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rust_functions_of_the_module_count() {
        let text = "version: 1\npositions: line\nevents: Ir\n\n\
            ob=/bin/host\nfl=???\nfn=_ZN4main\n0 7\ncob=/m.so\ncfn=_ZN4sign\ncalls=2 0\n0 900\n\
            ob=/m.so\nfl=???\nfn=_ZN4sign\n0 100\n+3 20\ncob=/libc.so.6\ncfn=malloc\ncalls=4 0\n* 80\n\
            cfn=aws_lc_seal\ncalls=1 0\n0 50\n\n\
            fn=aws_lc_seal\n0 50\ncfn=malloc\ncalls=9 0\n0 10\n\n\
            ob=/libc.so.6\nfn=malloc\n0 90\n\ntotals: 267\n";
        let counted = Profile { total: 267, instructions: 120, allocations: 4 };
        assert_eq!(Profile::of(text, Path::new("/m.so")), counted);
    }
}
