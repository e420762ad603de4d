//! Unit tests only: a panic, forced in a layer by the test that ordered it in the same thread.

use std::cell::Cell;

thread_local! {
    /// The layer, and how many of its places are passed first.
    static ORDERED: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Orders one panic: in `layer`, at the place that is passed after `skip` others of it.
pub fn order(layer: &'static str, skip: u32) {
    ORDERED.set(Some((layer, skip)));
}

/// Takes an order back. Whether it was still open: no place was left to panic in.
pub fn withdraw() -> bool {
    ORDERED.take().is_some()
}

/// A place of `layer`; see the macro `stumble`.
pub fn here(layer: &str) {
    let Some((ordered, skip)) = ORDERED.get().filter(|(ordered, _)| *ordered == layer) else {
        return;
    };
    ORDERED.set(skip.checked_sub(1).map(|left| (ordered, left)));
    assert!(skip > 0, "forced in {layer}");
}
