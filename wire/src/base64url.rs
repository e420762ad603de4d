//! Bytes as the contract writes them: base64url without padding.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Writes no padding; reads with or without, and does not mind non-zero trailing bits.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Bytes that are base64url without padding in JSON.
///
/// The same type carries digests and private exponents, so it always behaves as a secret: it is
/// wiped when dropped and its `Debug` shows only the length.
#[derive(Clone, Default, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Base64Url(Vec<u8>);

/// The text is not base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBase64Url;

impl Base64Url {
    /// Wraps decoded bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Decodes unpadded (or padded) base64url text.
    pub fn decode(text: &str) -> Result<Self, InvalidBase64Url> {
        // Reserved up front so that decoding never reallocates and leaves a copy behind.
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
        match ENGINE.decode_vec(text, &mut bytes) {
            Ok(()) => Ok(Self(bytes)),
            Err(_) => {
                bytes.zeroize();
                Err(InvalidBase64Url)
            }
        }
    }

    /// The text form, without padding.
    pub fn encode(&self) -> String {
        ENGINE.encode(&self.0)
    }

    /// The decoded bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes the decoded bytes out; wiping them is the caller's duty from here on.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl AsRef<[u8]> for Base64Url {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Base64Url {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Base64Url {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Base64Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Base64Url({} bytes)", self.0.len())
    }
}

impl Serialize for Base64Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(self.encode()))
    }
}

impl<'de> Deserialize<'de> for Base64Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64Url;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64url text")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Base64Url, E> {
                Base64Url::decode(text).map_err(E::custom)
            }

            fn visit_string<E: serde::de::Error>(self, mut text: String) -> Result<Base64Url, E> {
                let decoded = self.visit_str(&text);
                text.zeroize();
                decoded
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl fmt::Display for InvalidBase64Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not base64url")
    }
}

impl std::error::Error for InvalidBase64Url {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_without_padding_and_reads_both() {
        let one = Base64Url::new([0xfb]);
        assert_eq!(one.encode(), "-w");
        assert_eq!(serde_json::to_string(&one).expect("json"), "\"-w\"");
        for text in ["-w", "-w=="] {
            assert_eq!(Base64Url::decode(text).expect(text), one);
        }
        assert_eq!(serde_json::from_str::<Base64Url>("\"-w\"").expect("json"), one);
        assert_eq!(Base64Url::decode("").expect("empty"), Base64Url::default());
    }

    #[test]
    fn refuses_the_standard_alphabet_and_foreign_characters() {
        for text in ["+w", "/w", "a b", "-w=a", "a"] {
            assert_eq!(Base64Url::decode(text), Err(InvalidBase64Url), "{text}");
        }
        assert!(serde_json::from_str::<Base64Url>("5").is_err());
    }

    #[test]
    fn debug_shows_no_bytes() {
        assert_eq!(format!("{:?}", Base64Url::new(*b"secret")), "Base64Url(6 bytes)");
    }
}
