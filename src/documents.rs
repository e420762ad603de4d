//! Documents that are made from the tables of the source, and the test that holds them there.

use std::path::Path;

/// The line under which a document's generated part begins; prose of a person stands above it.
pub const BEGIN: &str =
    "<!-- generated from the source: UPDATE_DOCS=1 cargo test --lib rewrites -->\n";

/// Fails when the generated part of `docs/{name}` is not `generated`; with UPDATE_DOCS set, makes
/// it so.
pub fn hold(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    let (prose, _) = current.split_once(BEGIN).unwrap_or_else(|| {
        panic!("docs/{name} has no line «{}»", BEGIN.trim_end());
    });
    let wanted = format!("{prose}{BEGIN}\n{generated}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("write the document");
    } else {
        assert!(current == wanted, "docs/{name} is stale: UPDATE_DOCS=1 cargo test --lib");
    }
}
