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
