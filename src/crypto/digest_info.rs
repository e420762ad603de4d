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
    /// The hash it names, `None` for one that [`Hash`] does not know.
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
