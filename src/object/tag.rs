//! The one tag this module puts on keys: the label and id a PKCS#11 client chose, where the
//! service has no place for them, and a mark that tells our own create from a stranger's.

use crate::hex;

/// The tag's name.
pub const TAG: &str = "akv-p11";

/// What the tag's value may hold at most (characters).
const MAX_VALUE: usize = 256;

/// The contents of the tag. Written as `l=LABEL;i=HEX;s=BITS;r=HEX`, in that order, absent parts left
/// out; in a label every byte but letters, digits and `-._~ ` is `%XX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// CKA_LABEL, when it is not the key's name.
    pub label: Option<String>,
    /// CKA_ID, when it is not the computed one. Belongs to the name's current version.
    pub id: Option<Vec<u8>>,
    /// Bits of an AES key. It belongs to the version that was made with the tag; another version of
    /// the name has tags of its own.
    pub size: Option<u32>,
    /// Random mark of the request that made this version, 8 bytes.
    pub request: Option<Vec<u8>>,
}

impl Tag {
    /// Reads a tag's value; parts that make no sense are left out.
    pub fn parse(value: &str) -> Tag {
        let mut tag = Tag::default();
        for (key, text) in value.split(';').filter_map(|part| part.split_once('=')) {
            match key {
                "l" => tag.label = decode(text),
                "i" => tag.id = hex::decode(text).filter(|id| !id.is_empty()),
                "s" => tag.size = text.parse().ok().filter(|size| matches!(size, 128 | 192 | 256)),
                "r" => tag.request = hex::decode(text),
                _ => {}
            }
        }
        tag
    }

    /// The tag's value; None when it is longer than the service keeps.
    pub fn to_value(&self) -> Option<String> {
        let parts = [
            self.label.as_deref().map(|label| format!("l={}", encode(label))),
            self.id.as_deref().map(|id| format!("i={}", hex::encode(id))),
            self.size.map(|size| format!("s={size}")),
            self.request.as_deref().map(|request| format!("r={}", hex::encode(request))),
        ];
        let value = parts.into_iter().flatten().collect::<Vec<_>>().join(";");
        (value.len() <= MAX_VALUE).then_some(value)
    }
}

/// A text in which every byte but letters, digits and `-._~ ` is `%XX`.
pub(super) fn encode(label: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~ ".contains(&byte);
    label
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The text that [`encode`] made this of; None where no text is behind it.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first == b'%' {
            let (digits, tail) = rest.split_at_checked(2)?;
            bytes.extend(hex::decode(std::str::from_utf8(digits).ok()?)?);
            rest = tail;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_comes_back_as_it_was_written() {
        for tag in [
            Tag::default(),
            Tag { label: Some("Web server; prod=1 %".into()), id: None, ..Tag::default() },
            Tag { label: Some("Schlüssel ☂".into()), id: Some(vec![0, 255]), ..Tag::default() },
            Tag {
                label: None,
                id: Some(b"rsa1".to_vec()),
                size: Some(192),
                request: Some(vec![7; 8]),
            },
        ] {
            assert_eq!(Tag::parse(&tag.to_value().unwrap()), tag);
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        assert_eq!(Tag::parse("l=a%4;i=0;i=zz;x=1;s=64;s=;nothing"), Tag::default());
        assert_eq!(Tag::parse("i=;l=%C3"), Tag::default());
    }

    #[test]
    fn a_tag_that_the_service_would_not_keep_is_refused() {
        let tag = Tag { label: Some("é".repeat(43)), ..Tag::default() };
        assert_eq!(tag.to_value(), None);
    }
}
