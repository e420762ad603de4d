//! The error body: `{"error":{"code","message","innererror":{"code"}}}`.
//!
//! A client must not rely on it: a Managed HSM answers 401 with an empty body, and front ends
//! answer with HTML.

use serde::{Deserialize, Serialize};

/// Body of a response that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// Code and words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// Machine-readable code, for example `KeyNotFound`.
    #[serde(default)]
    pub code: String,
    /// Words for people.
    #[serde(default)]
    pub message: String,
    /// The more specific error, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub innererror: Option<InnerError>,
}

/// A more specific code, for example `ForbiddenByPolicy`; may nest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerError {
    /// Machine-readable code.
    #[serde(default)]
    pub code: String,
    /// An even more specific error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub innererror: Option<Box<InnerError>>,
}

impl ErrorDetail {
    /// The code of the inner error, where there is one.
    pub fn inner_code(&self) -> Option<&str> {
        self.innererror.as_ref().map(|inner| inner.code.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_codes_are_optional_on_both_sides() {
        let text = r#"{"error":{"code":"Forbidden","message":"m","innererror":{"code":"Why"}}}"#;
        let body: ErrorBody = serde_json::from_str(text).expect("json");
        assert_eq!(body.error.inner_code(), Some("Why"));
        assert_eq!(serde_json::to_string(&body).expect("json"), text);
        let body: ErrorBody =
            serde_json::from_str(r#"{"error":{"code":"X","innererror":null}}"#).expect("json");
        assert_eq!((body.error.inner_code(), body.error.message.as_str()), (None, ""));
    }
}
