//! Link arguments of the shared object, nothing else.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Our own symbols bind to ourselves, whatever the host or another module exports.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    // Thread-local destructors and fork handlers outlive dlclose: never unmap.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
