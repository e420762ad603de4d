//! The one tag this module puts on keys: the label and id a PKCS#11 client chose, where the
//! service has no place for them, and a mark that tells our own create from a stranger's.

use akv_wire::Tags;

use crate::hex;

/// The tag's name.
pub const TAG: &str = "akv-p11";

/// What the tag's value may hold at most (characters).
const MAX_VALUE: usize = 256;

/// The contents of the tag. Written as `l=LABEL;i=HEX;s=BITS;r=HEX;x=1`, in that order, absent parts
/// left out; in a label every byte but letters, digits and `-._~ ` is `%XX`.
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
    /// Another process made the name's key at the same time and came first: this version is
    /// disabled and stands for nothing.
    pub lost: bool,
}

/// What Microsoft's TLS Offload library puts before the name of an attribute that it keeps in a tag
/// (learn.microsoft.com, "Azure Managed HSM TLS Offload library").
const OFFLOAD_PREFIXES: [&str; 2] = ["p11_pri_", "p11_pub_"];

impl Tag {
    /// What the tags of a key say: our own, or those of Microsoft's TLS Offload library on a key
    /// that it made.
    pub fn of(tags: Option<&Tags>) -> Tag {
        let Some(tags) = tags else { return Tag::default() };
        if let Some(value) = tags.get(TAG) {
            return Tag::parse(value);
        }
        Tag {
            label: offload(tags, "label").map(str::to_owned),
            id: offload(tags, "id").map(bytes_of_text),
            ..Tag::default()
        }
    }

    /// Reads a tag's value; parts that make no sense are left out.
    pub fn parse(value: &str) -> Tag {
        let mut tag = Tag::default();
        for (key, text) in value.split(';').filter_map(|part| part.split_once('=')) {
            match key {
                "l" => tag.label = decode(text),
                "i" => tag.id = hex::decode(text).filter(|id| !id.is_empty()),
                "s" => tag.size = text.parse().ok().filter(|size| matches!(size, 128 | 192 | 256)),
                "r" => tag.request = hex::decode(text),
                "x" => tag.lost = text == "1",
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
            self.lost.then(|| "x=1".to_owned()),
        ];
        let value = parts.into_iter().flatten().collect::<Vec<_>>().join(";");
        (value.len() <= MAX_VALUE).then_some(value)
    }
}

/// An attribute kept by the TLS Offload library. Its page gives the prefixes and leaves the
/// spelling of names and values open: `label` and `CKA_LABEL` are both read, in any case.
fn offload<'t>(tags: &'t Tags, attribute: &str) -> Option<&'t str> {
    let is_it = |name: &str| {
        let name = name.to_ascii_lowercase();
        OFFLOAD_PREFIXES
            .iter()
            .filter_map(|prefix| name.strip_prefix(prefix))
            .any(|name| name.strip_prefix("cka_").unwrap_or(name) == attribute)
    };
    let value = tags.iter().find(|(name, _)| is_it(name)).map(|(_, value)| value.as_str());
    value.filter(|value| !value.is_empty())
}

/// Bytes written as hexadecimal digits, with or without `0x`, or else as text.
fn bytes_of_text(text: &str) -> Vec<u8> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    hex::decode(digits).unwrap_or_else(|| text.as_bytes().to_vec())
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
            Tag { label: Some("Web server; prod=1 %".into()), ..Tag::default() },
            Tag { label: Some("Schlüssel ☂".into()), id: Some(vec![0, 255]), ..Tag::default() },
            Tag { id: Some(b"rsa1".to_vec()), request: Some(vec![7; 8]), ..Tag::default() },
            Tag { size: Some(192), request: Some(vec![7; 8]), ..Tag::default() },
            Tag { request: Some(vec![1; 8]), lost: true, ..Tag::default() },
        ] {
            assert_eq!(Tag::parse(&tag.to_value().unwrap()), tag);
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        assert_eq!(Tag::parse("l=a%4;i=0;i=zz;x=2;y=1;s=64;s=;nothing"), Tag::default());
        assert_eq!(Tag::parse("i=;l=%C3"), Tag::default());
    }

    #[test]
    fn keys_of_the_tls_offload_library_keep_their_label_and_id() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let theirs = tags(&[("p11_pri_CKA_LABEL", "web"), ("p11_pub_id", "0a0B"), ("other", "x")]);
        let read = Tag::of(Some(&theirs));
        assert_eq!((read.label.as_deref(), read.id), (Some("web"), Some(vec![10, 11])));
        let text = Tag::of(Some(&tags(&[("P11_PRI_ID", "my key")])));
        assert_eq!((text.label, text.id), (None, Some(b"my key".to_vec())));
        let both = tags(&[("p11_pri_label", "theirs"), (TAG, "l=ours")]);
        assert_eq!(Tag::of(Some(&both)).label.as_deref(), Some("ours"));
        assert_eq!(Tag::of(None), Tag::default());
    }

    #[test]
    fn a_tag_that_the_service_would_not_keep_is_refused() {
        let tag = Tag { label: Some("é".repeat(43)), ..Tag::default() };
        assert_eq!(tag.to_value(), None);
    }
}
