//! An error is born with its `CK_RV` and a sentence that names the offending value.
//!
//! It is logged once, at the boundary of the C ABI (`abi::boundary`), never on its way there.

use std::{borrow::Cow, fmt};

use cryptoki_sys::{
    CK_RV, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_TYPE_INVALID, CKR_BUFFER_TOO_SMALL,
    CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_FUNCTION_FAILED,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR, CKR_HOST_MEMORY, CKR_NO_EVENT,
    CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE,
};

/// What every fallible function of the module returns.
pub type Result<T> = std::result::Result<T, Error>;

/// A refusal or a fault: the `CK_RV` the caller of the C function gets, and the sentence the
/// operator finds in the log.
#[derive(Clone)]
pub struct Error {
    rv: CK_RV,
    sentence: Cow<'static, str>,
    remote: Option<Box<Remote>>,
    expected: bool,
}

/// What the service said, where it was the service that refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// HTTP status; 0 when no answer came.
    pub status: u16,
    /// `error.innererror.code` where present, else `error.code`; empty for a body without one.
    pub code: String,
    /// `x-ms-request-id` of the answer, empty if it had none.
    pub request_id: String,
}

impl Error {
    /// A refusal with `rv`; `sentence` names the value that was wrong.
    pub fn new(rv: CK_RV, sentence: impl Into<Cow<'static, str>>) -> Self {
        Error { rv, sentence: sentence.into(), remote: None, expected: false }
    }

    /// Attaches what the service answered.
    pub fn with_remote(mut self, remote: Remote) -> Self {
        self.remote = Some(Box::new(remote));
        self
    }

    /// Marks what nobody has to do anything about: it is logged at debug.
    pub fn expected(mut self) -> Self {
        self.expected = true;
        self
    }

    /// Adds where it happened to the sentence.
    pub fn at(mut self, place: &str) -> Self {
        self.sentence = format!("{} (endpoint {place})", self.sentence).into();
        self
    }

    /// Puts the token before the sentence.
    pub fn of_token(mut self, label: &str) -> Self {
        let token = format!("token '{label}'");
        if !self.sentence.starts_with(&token) {
            self.sentence = format!("{token}: {}", self.sentence).into();
        }
        self
    }

    /// The return value of the C function.
    pub fn rv(&self) -> CK_RV {
        self.rv
    }

    /// The sentence for the log.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What the service answered, if it was asked.
    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_deref()
    }

    /// The level it is logged at: expected outcomes at debug, refusals at info, faults at error.
    pub fn level(&self) -> log::Level {
        match self.rv {
            _ if self.expected => log::Level::Debug,
            CKR_ATTRIBUTE_SENSITIVE
            | CKR_ATTRIBUTE_TYPE_INVALID
            | CKR_BUFFER_TOO_SMALL
            | CKR_CRYPTOKI_ALREADY_INITIALIZED
            | CKR_FUNCTION_NOT_SUPPORTED
            | CKR_NO_EVENT
            | CKR_SIGNATURE_INVALID
            | CKR_SIGNATURE_LEN_RANGE => log::Level::Debug,
            CKR_DEVICE_ERROR | CKR_DEVICE_MEMORY | CKR_FUNCTION_FAILED | CKR_GENERAL_ERROR
            | CKR_HOST_MEMORY => log::Level::Error,
            _ if self.remote.is_some() => log::Level::Error,
            _ => log::Level::Info,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)?;
        if let Some(remote) = &self.remote {
            write!(f, " (HTTP {}", remote.status)?;
            if !remote.code.is_empty() {
                write!(f, ", {}", remote.code)?;
            }
            if !remote.request_id.is_empty() {
                write!(f, ", x-ms-request-id {}", remote.request_id)?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CKR {:#x}: {self}", self.rv)
    }
}

impl std::error::Error for Error {}

/// Shorthand for `Err(Error::new(rv, format!(…)))`.
#[macro_export]
#[doc(hidden)]
macro_rules! refuse {
    ($rv:expr, $($sentence:tt)+) => {
        return Err($crate::error::Error::new($rv, format!($($sentence)+)))
    };
}
