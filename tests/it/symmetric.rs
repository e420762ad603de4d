//! Symmetric keys.
