//! The environment as a parameter, so that tests need none and set-uid processes get none.

use std::collections::BTreeMap;

use cryptoki_sys::CKR_FUNCTION_FAILED;

use crate::{error::Result, refuse};

/// Where environment variables are looked up.
#[derive(Clone, Debug)]
pub enum Env {
    /// The process's own.
    Process,
    /// These and no others.
    Map(BTreeMap<String, String>),
}

impl Env {
    /// The value of `name`; a variable that is set to nothing counts as unset.
    ///
    /// # Errors
    /// CKR_FUNCTION_FAILED when the value is not UTF-8.
    pub fn var(&self, name: &str) -> Result<Option<String>> {
        let value = match self {
            Env::Process => match std::env::var_os(name).map(|value| value.into_string()) {
                Some(Ok(value)) => Some(value),
                Some(Err(_)) => {
                    refuse!(CKR_FUNCTION_FAILED, "{name}: the environment variable is not UTF-8")
                }
                None => None,
            },
            Env::Map(map) => map.get(name).cloned(),
        };
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// An environment with nothing in it.
    pub fn empty() -> Self {
        Env::Map(BTreeMap::new())
    }
}
