//! The digests of the module, one table.

use std::fmt;

use der::asn1::ObjectIdentifier;
use sha2::Digest as _;

/// One row per hash: variant, implementation, output bytes, name, object identifier.
macro_rules! hashes {
    ($($variant:ident: $digest:ty, $len:literal, $name:literal, $oid:literal;)+) => {
        /// A hash function.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[allow(missing_docs, reason = "the variants are the names of the standards")]
        pub enum Hash {
            $($variant,)+
        }

        impl Hash {
            /// Every hash, in the order of the table.
            pub const ALL: &'static [Hash] = &[$(Hash::$variant,)+];

            /// Bytes of a digest.
            #[allow(clippy::len_without_is_empty, reason = "no digest is empty")]
            pub const fn len(self) -> usize {
                match self {
                    $(Hash::$variant => $len,)+
                }
            }

            /// The name of the standard, as in `SHA-256`, for sentences and tables.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Hash::$variant => $name,)+
                }
            }

            /// The object identifier in a DigestInfo and in an AlgorithmIdentifier.
            pub const fn oid(self) -> ObjectIdentifier {
                match self {
                    $(Hash::$variant => ObjectIdentifier::new_unwrap($oid),)+
                }
            }

            /// A running digest of no bytes yet.
            pub fn hasher(self) -> Hasher {
                Hasher(match self {
                    $(Hash::$variant => State::$variant(<$digest>::new()),)+
                })
            }
        }

        #[derive(Clone)]
        enum State {
            $($variant($digest),)+
        }

        impl Hasher {
            /// Which hash runs.
            pub fn hash(&self) -> Hash {
                match &self.0 {
                    $(State::$variant(_) => Hash::$variant,)+
                }
            }

            /// Takes the next bytes of the message.
            pub fn update(&mut self, data: &[u8]) {
                match &mut self.0 {
                    $(State::$variant(state) => state.update(data),)+
                }
            }

            /// The digest, [`Hash::len`] bytes.
            pub fn finish(self) -> Vec<u8> {
                match self.0 {
                    $(State::$variant(state) => state.finalize().to_vec(),)+
                }
            }
        }

        /// Runs `$body` with the type `$type` bound to the implementation of a [`Hash`].
        macro_rules! with_digest {
            ($hash:expr, $type:ident => $body:expr) => {
                match $hash {
                    $($crate::crypto::hash::Hash::$variant => {
                        type $type = $digest;
                        $body
                    })+
                }
            };
        }
    };
}

hashes! {
    Sha1: sha1::Sha1, 20, "SHA-1", "1.3.14.3.2.26";
    Sha224: sha2::Sha224, 28, "SHA-224", "2.16.840.1.101.3.4.2.4";
    Sha256: sha2::Sha256, 32, "SHA-256", "2.16.840.1.101.3.4.2.1";
    Sha384: sha2::Sha384, 48, "SHA-384", "2.16.840.1.101.3.4.2.2";
    Sha512: sha2::Sha512, 64, "SHA-512", "2.16.840.1.101.3.4.2.3";
    Sha3_224: sha3::Sha3_224, 28, "SHA3-224", "2.16.840.1.101.3.4.2.7";
    Sha3_256: sha3::Sha3_256, 32, "SHA3-256", "2.16.840.1.101.3.4.2.8";
    Sha3_384: sha3::Sha3_384, 48, "SHA3-384", "2.16.840.1.101.3.4.2.9";
    Sha3_512: sha3::Sha3_512, 64, "SHA3-512", "2.16.840.1.101.3.4.2.10";
}

pub(super) use with_digest;

impl Hash {
    /// The digest of `data`.
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        let mut hasher = self.hasher();
        hasher.update(data);
        hasher.finish()
    }

    /// The hash with this object identifier.
    pub fn from_oid(oid: &ObjectIdentifier) -> Option<Hash> {
        Hash::ALL.iter().copied().find(|hash| hash.oid() == *oid)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest in the making; a clone continues on its own.
#[derive(Clone)]
pub struct Hasher(State);

impl fmt::Debug for Hasher {
    // The state holds what was hashed: the last block, and it may be a PIN or a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hasher").field(&self.hash()).finish()
    }
}

#[cfg(test)]
mod tests {
    use openssl::hash::{MessageDigest, hash};

    use super::*;
    use crate::crypto::tests::{hex, openssl_digest};

    /// FIPS 180-4 and FIPS 202 example values for the message `abc`.
    const ABC: [(Hash, &str); 9] = [
        (Hash::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        (Hash::Sha224, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        (Hash::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Hash::Sha384,
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
             8086072ba1e7cc2358baeca134c825a7",
        ),
        (
            Hash::Sha512,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (Hash::Sha3_224, "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf"),
        (Hash::Sha3_256, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        (
            Hash::Sha3_384,
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b2\
             98d88cea927ac7f539f1edf228376d25",
        ),
        (
            Hash::Sha3_512,
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e\
             10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
        ),
    ];

    #[test]
    fn published_values() {
        assert_eq!(ABC.map(|(hash, _)| hash).as_slice(), Hash::ALL, "one value per hash");
        for (hash, expected) in ABC {
            assert_eq!(hash.digest(b"abc"), hex(expected), "{hash}");
            assert_eq!(hash.len(), hex(expected).len(), "{hash}");
            assert_eq!(Hash::from_oid(&hash.oid()), Some(hash));
        }
        assert_eq!(Hash::from_oid(&ObjectIdentifier::new_unwrap("1.2.840.113549.2.5")), None);
    }

    #[test]
    fn parts_and_clones_equal_the_whole() {
        let message: Vec<u8> = (0..=255).cycle().take(700).collect();
        for &hash in Hash::ALL {
            for split in [0, 1, 63, 64, 65, 127, 128, 136, 300, 700] {
                let mut hasher = hash.hasher();
                hasher.update(&message[..split]);
                let mut fork = hasher.clone();
                hasher.update(&message[split..]);
                assert_eq!(hasher.finish(), openssl(hash, &message), "{hash} at {split}");
                fork.update(b"another end");
                let other = [&message[..split], b"another end"].concat();
                assert_eq!(fork.finish(), openssl(hash, &other), "{hash} clone at {split}");
            }
        }
    }

    #[test]
    fn debug_shows_no_state() {
        let mut hasher = Hash::Sha256.hasher();
        hasher.update(b"secret");
        assert_eq!(format!("{hasher:?}"), "Hasher(Sha256)");
    }

    fn openssl(with: Hash, data: &[u8]) -> Vec<u8> {
        let digest: MessageDigest = openssl_digest(with);
        hash(digest, data).unwrap().to_vec()
    }
}
