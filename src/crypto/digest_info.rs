//! DigestInfo (RFC 8017, A.2.4): what CKM_RSA_PKCS signs when a hash is meant.

use der::{
    Decode, Encode, Sequence,
    asn1::{AnyRef, OctetStringRef},
};
use spki::AlgorithmIdentifierRef;

use super::hash::Hash;

/// A parsed DigestInfo; borrows from the bytes it was parsed from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DigestInfo<'a> {
    /// The hash it names, `None` for one that is not in [`Hash::ALL`].
    pub hash: Option<Hash>,
    /// The digest, of whatever length it has.
    pub digest: &'a [u8],
    /// Whether it is byte for byte what a signer that is given the bare digest would build:
    /// a known hash, parameters NULL (not absent), a digest of that hash's length.
    pub canonical: bool,
}

/// Parses `content` as a DigestInfo in strict DER; `None` for anything else.
///
/// Never by length or prefix: a SHA3-256 DigestInfo shares its first bytes with a SHA-256 one.
pub fn parse(content: &[u8]) -> Option<DigestInfo<'_>> {
    let info = Asn1::from_der(content).ok()?;
    let hash = Hash::from_oid(&info.algorithm.oid);
    let digest = info.digest.as_bytes();
    let canonical = hash.is_some_and(|hash| {
        info.algorithm.parameters == Some(AnyRef::NULL) && digest.len() == hash.len()
    });
    Some(DigestInfo { hash, digest, canonical })
}

/// The canonical DigestInfo of `digest`, which is [`Hash::len`] bytes (any length is encoded).
pub fn encode(hash: Hash, digest: &[u8]) -> Vec<u8> {
    let algorithm = AlgorithmIdentifierRef { oid: hash.oid(), parameters: Some(AnyRef::NULL) };
    // Both can only fail beyond 256 MiB; the empty content then fails its length check.
    OctetStringRef::new(digest)
        .and_then(|digest| Asn1 { algorithm, digest }.to_der())
        .unwrap_or_default()
}

#[derive(Sequence)]
struct Asn1<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    digest: OctetStringRef<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::tests::hex;

    /// SHA-256 with parameters NULL, up to the digest (RFC 8017, 9.2, note 1).
    const SHA256: &str = "3031300d060960864801650304020105000420";

    #[test]
    fn every_hash_has_the_prefix_of_the_standard() {
        for (hash, prefix) in [
            (Hash::Sha1, "3021300906052b0e03021a05000414"),
            (Hash::Sha224, "302d300d06096086480165030402040500041c"),
            (Hash::Sha256, SHA256),
            (Hash::Sha384, "3041300d060960864801650304020205000430"),
            (Hash::Sha512, "3051300d060960864801650304020305000440"),
            (Hash::Sha3_224, "302d300d06096086480165030402070500041c"),
            (Hash::Sha3_256, "3031300d060960864801650304020805000420"),
            (Hash::Sha3_384, "3041300d060960864801650304020905000430"),
            (Hash::Sha3_512, "3051300d060960864801650304020a05000440"),
        ] {
            let digest = hash.digest(b"message");
            let encoded = encode(hash, &digest);
            assert_eq!(encoded, [hex(prefix), digest.clone()].concat(), "{hash}");
            let parsed = parse(&encoded);
            let expected = DigestInfo { hash: Some(hash), digest: &digest, canonical: true };
            assert_eq!(parsed, Some(expected), "{hash}");
        }
    }

    #[test]
    fn what_is_no_canonical_digest_info() {
        let digest = "00".repeat(32);
        for (what, content, expected) in [
            (
                "parameters absent",
                format!("302f300b0609608648016503040201{}{digest}", "0420"),
                Some((Some(Hash::Sha256), 32)),
            ),
            (
                "parameters an empty SEQUENCE",
                format!("3031300d060960864801650304020130000420{digest}"),
                Some((Some(Hash::Sha256), 32)),
            ),
            (
                "a short digest",
                format!("3030300d06096086480165030402010500041f{}", &digest[2..]),
                Some((Some(Hash::Sha256), 31)),
            ),
            (
                "an unknown hash (MD5)",
                format!("3020300c06082a864886f70d020505000410{}", &digest[32..]),
                Some((None, 16)),
            ),
            ("a byte after it", format!("{SHA256}{digest}00"), None),
            ("a byte missing", format!("{SHA256}{}", &digest[2..]), None),
            ("a length in long form", format!("308131{}{digest}", &SHA256[4..]), None),
            (
                "NULL with content",
                format!("3032300e06096086480165030402010501000420{digest}"),
                Some((Some(Hash::Sha256), 32)),
            ),
            ("something after the digest", format!("3033{}{digest}0500", &SHA256[4..]), None),
            ("36 bytes of TLS 1.1", "5a".repeat(36), None),
            ("a bare digest", digest.clone(), None),
            ("nothing", String::new(), None),
            ("an OCTET STRING", format!("0420{digest}"), None),
        ] {
            let content = hex(&content);
            let parsed = parse(&content);
            assert_eq!(parsed.map(|info| (info.hash, info.digest.len())), expected, "{what}");
            assert!(!parsed.is_some_and(|info| info.canonical), "{what}");
        }
    }

    #[test]
    fn canonical_means_that_encoding_gives_the_same_bytes() {
        for &hash in Hash::ALL {
            let content = encode(hash, &hash.digest(b"message"));
            for bit in 0..content.len() * 8 {
                let mut changed = content.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                if let Some(info) = parse(&changed)
                    && info.canonical
                {
                    let hash = info.hash.unwrap();
                    assert_eq!(encode(hash, info.digest), changed, "{hash}, bit {bit}");
                }
            }
            for end in 0..content.len() {
                assert_eq!(parse(&content[..end]), None, "{hash}, the first {end} bytes");
            }
        }
    }
}
