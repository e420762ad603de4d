//! An RSA private key of this process and the operations of RFC 8017 with it.
//!
//! aws-lc-rs signs and decrypts where it can. The operations that go through `rsa` (raw and
//! unusual PKCS#1 content, PSS with another salt or hash, OAEP with other hashes, the bare block)
//! are blinded, which makes the timing leak of RUSTSEC-2023-0071 hard to use but does not close
//! it: they are offered on session keys only, which are the caller's own and live in its process.

use aws_lc_rs::{
    digest,
    encoding::AsDer,
    rsa::{
        KeyPair, KeySize, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
    },
    signature::{
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaSignatureEncoding,
    },
};
use cryptoki_sys::{CKR_ATTRIBUTE_VALUE_INVALID, CKR_ENCRYPTED_DATA_INVALID, CKR_KEY_SIZE_RANGE};
use rsa::{
    BigUint, Pkcs1v15Sign, Pss, RsaPrivateKey, hazmat,
    pkcs8::{DecodePrivateKey, EncodePrivateKey},
    rand_core::OsRng,
    traits::{PrivateKeyParts, PublicKeyParts},
};
use zeroize::Zeroizing;

use super::{
    digest_info,
    hash::{Hash, with_digest},
    implicit::Rejection,
    private::{RsaComponents, RsaInput},
    public::PublicKey,
    rsa_public::{
        check_block, check_ciphertext, check_content, check_pss, failed, oaep_algorithm,
        oaep_scheme, some_label,
    },
    to_length, without_leading_zeros,
};
use crate::{
    error::{Error, Result},
    refuse,
};

/// Bits of a modulus that aws-lc-rs takes with a private key.
const SIZES: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of a PrivateKeyInfo that is looked at; the largest key has less than 5 KiB.
const MAX_PKCS8: usize = 8 * 1024;
/// Bits that one prime may be longer than the other. Generators make them equal or nearly so.
const MAX_IMBALANCE: usize = 8;
/// 65537.
const F4: [u8; 3] = [1, 0, 1];

pub(super) struct RsaPrivate {
    /// Wiped when dropped, by `rsa`.
    key: RsaPrivateKey,
    /// Wiped when dropped, by aws-lc.
    signing: KeyPair,
    decrypting: PrivateDecryptingKey,
    public: PublicKey,
}

impl RsaPrivate {
    pub(super) fn generate(bits: usize, public_exponent: &[u8]) -> Result<RsaPrivate> {
        if without_leading_zeros(public_exponent) != F4 {
            refuse!(
                CKR_ATTRIBUTE_VALUE_INVALID,
                "CKA_PUBLIC_EXPONENT must be 65537 (01 00 01) for key generation"
            );
        }
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => refuse!(
                CKR_KEY_SIZE_RANGE,
                "an RSA key of {bits} bits; 2048, 3072 and 4096 are generated"
            ),
        };
        let pair = KeyPair::generate(size).map_err(failed)?;
        RsaPrivate::from_pkcs8(pair.as_der().map_err(failed)?.as_ref())
    }

    pub(super) fn from_components(input: RsaInput<'_>) -> Result<RsaPrivate> {
        // Before any arithmetic: the work grows with the cube of the length.
        let integers = [
            [Some(input.n), Some(input.e), Some(input.d), input.p],
            [input.q, input.dp, input.dq, input.qi],
        ];
        let integers = integers.as_flattened().iter().flatten();
        let longest = integers.map(|integer| without_leading_zeros(integer).len()).max();
        if longest.is_some_and(|longest| longest > SIZES.end() / 8) {
            refuse!(
                CKR_KEY_SIZE_RANGE,
                "an integer of the RSA key is longer than {} bits",
                SIZES.end()
            );
        }
        let integer = |bytes: &[u8]| Zeroizing::new(BigUint::from_bytes_be(bytes));
        let (n, e, d) = (integer(input.n), integer(input.e), integer(input.d));
        check_size(n.bits())?;
        let one = BigUint::from(1u8);
        // `rsa` subtracts from d * e without looking.
        if *d <= one || *d >= *n || *e <= one {
            refuse!(CKR_ATTRIBUTE_VALUE_INVALID, "an exponent of the RSA key is out of range");
        }
        let primes = match (input.p, input.q) {
            (Some(p), Some(q)) => vec![BigUint::from_bytes_be(p), BigUint::from_bytes_be(q)],
            (None, None) => Vec::new(),
            _ => refuse!(CKR_ATTRIBUTE_VALUE_INVALID, "one prime of the RSA key without the other"),
        };
        let key = RsaPrivateKey::from_components(take(n), take(e), take(d), primes)
            .map_err(inconsistent)?;
        let given = [input.dp, input.dq, input.qi];
        let computed = [key.dp().cloned(), key.dq().cloned(), key.crt_coefficient()];
        let computed = computed.map(|integer| integer.map(Zeroizing::new));
        for (name, (given, computed)) in ["dp", "dq", "qi"].iter().zip(given.iter().zip(&computed))
        {
            if given.is_some_and(|given| Some(integer(given)) != *computed) {
                return Err(inconsistent(format!("{name} does not belong to the other integers")));
            }
        }
        RsaPrivate::new(key)
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<RsaPrivate> {
        // Before any arithmetic.
        if der.len() > MAX_PKCS8 {
            refuse!(CKR_KEY_SIZE_RANGE, "a PKCS#8 RSA key of {} bytes is too large", der.len());
        }
        RsaPrivate::new(RsaPrivateKey::from_pkcs8_der(der).map_err(inconsistent)?)
    }

    pub(super) fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>> {
        pkcs8(&self.key)
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn components(&self) -> Result<RsaComponents> {
        let secret = |integer: &BigUint| Zeroizing::new(integer.to_bytes_be());
        let [p, q] = self.key.primes() else {
            return Err(failed("not a key of two primes"));
        };
        let (Some(dp), Some(dq), Some(qi)) =
            (self.key.dp(), self.key.dq(), self.key.crt_coefficient())
        else {
            return Err(failed("no CRT integers"));
        };
        Ok(RsaComponents {
            n: self.key.n().to_bytes_be(),
            e: self.key.e().to_bytes_be(),
            d: secret(self.key.d()),
            p: secret(p),
            q: secret(q),
            dp: secret(dp),
            dq: secret(dq),
            qi: secret(&qi),
        })
    }

    pub(super) fn sign_pkcs1(&self, content: &[u8]) -> Result<Vec<u8>> {
        check_content(self.bits(), self.k(), content)?;
        if let Some(parsed) = digest_info::parse(content)
            && parsed.canonical
            && let Some(encodings) = parsed.hash.and_then(encodings)
        {
            return self.sign_with(encodings.pkcs1, encodings.algorithm, parsed.digest);
        }
        // `rsa`, blinded (see the module's comment).
        self.key.sign_with_rng(&mut OsRng, Pkcs1v15Sign::new_unprefixed(), content).map_err(failed)
    }

    pub(super) fn sign_pss(
        &self,
        hash: Hash,
        mgf: Hash,
        salt_len: usize,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        check_pss(self.bits(), hash, mgf, salt_len, digest)?;
        if salt_len == hash.len()
            && let Some(encodings) = encodings(hash)
        {
            return self.sign_with(encodings.pss, encodings.algorithm, digest);
        }
        // `rsa`, blinded (see the module's comment).
        let scheme = with_digest!(hash, D => Pss::new_blinded_with_salt::<D>(salt_len));
        self.key.sign_with_rng(&mut OsRng, scheme, digest).map_err(failed)
    }

    pub(super) fn decrypt_pkcs1(&self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        check_ciphertext(self.bits(), self.k(), ciphertext)?;
        let key = Pkcs1PrivateDecryptingKey::new(self.decrypting.clone()).map_err(failed)?;
        let mut buffer = Zeroizing::new(vec![0; key.min_output_size()]);
        let plaintext = key.decrypt(ciphertext, &mut buffer).map_err(|_| undecipherable())?;
        Ok(Zeroizing::new(plaintext.to_vec()))
    }

    pub(super) fn decrypt_pkcs1_implicit(
        &self,
        ciphertext: &[u8],
        lengths: &[usize],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let longest = lengths.iter().copied().max().unwrap_or_default();
        check_content(self.bits(), self.k(), &vec![0; longest.min(self.k())])?;
        check_ciphertext(self.bits(), self.k(), ciphertext)?;
        let d = Zeroizing::new(self.key.d().to_bytes_be());
        // aws-lc tells good from bad padding by its return value; from here on nothing branches.
        let plaintext = self.decrypt_pkcs1(ciphertext).unwrap_or_default();
        Ok(Rejection::new(&d).choose(ciphertext, &plaintext, lengths))
    }

    pub(super) fn decrypt_oaep(
        &self,
        hash: Hash,
        mgf: Hash,
        label: &[u8],
        ciphertext: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        check_ciphertext(self.bits(), self.k(), ciphertext)?;
        if let Some(algorithm) = oaep_algorithm(hash, mgf) {
            let key = OaepPrivateDecryptingKey::new(self.decrypting.clone()).map_err(failed)?;
            let mut buffer = Zeroizing::new(vec![0; key.min_output_size()]);
            let plaintext = key
                .decrypt(algorithm, ciphertext, &mut buffer, some_label(label))
                .map_err(|_| undecipherable())?;
            return Ok(Zeroizing::new(plaintext.to_vec()));
        }
        // `rsa`, blinded (see the module's comment).
        self.key
            .decrypt_blinded(&mut OsRng, oaep_scheme(hash, mgf, label)?, ciphertext)
            .map(Zeroizing::new)
            .map_err(|_| undecipherable())
    }

    pub(super) fn raw(&self, block: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let integer = check_block(self.key.n(), block)?;
        // `rsa`, blinded and checked against faults (see the module's comment).
        let power =
            hazmat::rsa_decrypt_and_check(&self.key, Some(&mut OsRng), &integer).map_err(failed)?;
        let power = Zeroizing::new(Zeroizing::new(power).to_bytes_be());
        to_length(&power, self.k()).map(Zeroizing::new).ok_or_else(|| failed("too long"))
    }

    fn new(key: RsaPrivateKey) -> Result<RsaPrivate> {
        check_size(key.n().bits())?;
        // `rsa` adds p to a number below q until it is positive: a small p would not end.
        let [p, q] = key.primes() else {
            return Err(inconsistent("not two primes"));
        };
        if p.bits().abs_diff(q.bits()) > MAX_IMBALANCE {
            return Err(inconsistent(format!("primes of {} and {} bits", p.bits(), q.bits())));
        }
        let der = pkcs8(&key)?;
        let signing = KeyPair::from_pkcs8(&der).map_err(inconsistent)?;
        let decrypting = PrivateDecryptingKey::from_pkcs8(&der).map_err(inconsistent)?;
        let public = PublicKey::rsa(&key.n().to_bytes_be(), &key.e().to_bytes_be())?;
        Ok(RsaPrivate { key, signing, decrypting, public })
    }

    fn sign_with(
        &self,
        encoding: &'static RsaSignatureEncoding,
        algorithm: &'static digest::Algorithm,
        digest: &[u8],
    ) -> Result<Vec<u8>> {
        let digest = digest::Digest::import_less_safe(digest, algorithm).map_err(failed)?;
        let mut signature = vec![0; self.k()];
        self.signing.sign_digest(encoding, &digest, &mut signature).map_err(failed)?;
        Ok(signature)
    }

    fn bits(&self) -> usize {
        self.key.n().bits()
    }

    /// Bytes of the modulus.
    fn k(&self) -> usize {
        self.key.size()
    }
}

/// The integer moved out of its wiper, for an owner that wipes it itself.
fn take(mut integer: Zeroizing<BigUint>) -> BigUint {
    std::mem::take(&mut *integer)
}

struct Encodings {
    pkcs1: &'static RsaSignatureEncoding,
    pss: &'static RsaSignatureEncoding,
    algorithm: &'static digest::Algorithm,
}

/// What aws-lc-rs signs with.
fn encodings(hash: Hash) -> Option<Encodings> {
    let (pkcs1, pss, algorithm) = match hash {
        Hash::Sha256 => (&RSA_PKCS1_SHA256, &RSA_PSS_SHA256, &digest::SHA256),
        Hash::Sha384 => (&RSA_PKCS1_SHA384, &RSA_PSS_SHA384, &digest::SHA384),
        Hash::Sha512 => (&RSA_PKCS1_SHA512, &RSA_PSS_SHA512, &digest::SHA512),
        _ => return None,
    };
    Some(Encodings { pkcs1, pss, algorithm })
}

fn pkcs8(key: &RsaPrivateKey) -> Result<Zeroizing<Vec<u8>>> {
    Ok(key.to_pkcs8_der().map_err(failed)?.to_bytes())
}

fn check_size(bits: usize) -> Result<()> {
    if !SIZES.contains(&bits) {
        refuse!(
            CKR_KEY_SIZE_RANGE,
            "an RSA private key of {bits} bits; {} to {} are supported",
            SIZES.start(),
            SIZES.end()
        );
    }
    Ok(())
}

fn inconsistent(why: impl std::fmt::Display) -> Error {
    Error::new(
        CKR_ATTRIBUTE_VALUE_INVALID,
        format!("the integers are no usable RSA private key: {why}"),
    )
}

/// One code and one sentence for every way in which a decryption can fail.
fn undecipherable() -> Error {
    Error::new(CKR_ENCRYPTED_DATA_INVALID, "the ciphertext does not decrypt with this RSA key")
}
