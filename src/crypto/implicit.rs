//! Implicit rejection for RSAES-PKCS1-v1_5 (draft-irtf-cfrg-rsa-guidance, 7): who unwraps a key
//! never learns whether its padding was good, so that nobody can ask him (Bleichenbacher).

use aws_lc_rs::hmac;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

/// What takes the place of keys whose padding was bad.
#[derive(Clone)]
pub struct Rejection(hmac::Key);

impl Rejection {
    /// Depends on `secret`, which nobody else knows.
    pub fn new(secret: &[u8]) -> Rejection {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let root = hmac::sign(&root, b"akv-pkcs11 implicit rejection");
        Rejection(hmac::Key::new(hmac::HMAC_SHA256, root.as_ref()))
    }

    /// `plaintext`, if it has one of `lengths` bytes; else bytes of one of those lengths that look
    /// random and depend on the secret and the ciphertext only: fresh ones each time would show,
    /// by changing, that the padding was bad. A bad padding comes here as no plaintext. Nothing
    /// branches on which of both it is.
    pub fn choose(
        &self,
        ciphertext: &[u8],
        plaintext: &[u8],
        lengths: &[usize],
    ) -> Zeroizing<Vec<u8>> {
        let derived = hmac::sign(&self.0, ciphertext);
        let derived = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        let longest = lengths.iter().copied().max().unwrap_or_default();
        let rejected = stream(&derived, longest);
        let good = lengths.iter().fold(Choice::from(0), |good, length| {
            good | (plaintext.len() as u64).ct_eq(&(*length as u64))
        });
        let mut key = Zeroizing::new(vec![0; longest]);
        for (index, byte) in key.iter_mut().enumerate() {
            let decrypted = plaintext.get(index).copied().unwrap_or(0);
            *byte = u8::conditional_select(&rejected[index], &decrypted, good);
        }
        let length = u64::conditional_select(
            &(pick(&derived, lengths) as u64),
            &(plaintext.len() as u64),
            good,
        );
        key.truncate(length as usize);
        key
    }
}

/// So many bytes that look random.
fn stream(key: &hmac::Key, length: usize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 32));
    for counter in 0u32.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend_from_slice(hmac::sign(key, &counter.to_be_bytes()).as_ref());
    }
    bytes.truncate(length);
    bytes
}

/// One of the lengths.
fn pick(key: &hmac::Key, lengths: &[usize]) -> usize {
    let tag = hmac::sign(key, b"length");
    let number = tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let index = number.checked_rem(lengths.len() as u64).unwrap_or_default();
    lengths.get(index as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_not_wanted_becomes_something_else_that_is_always_the_same() {
        let rejection = Rejection::new(b"secret");
        let other = Rejection::new(b"another");
        for (plaintext, lengths) in
            [(&b""[..], &[16][..]), (&[1; 15], &[16]), (&[1; 17], &[16]), (&[1; 20], &[16, 24, 32])]
        {
            let made = rejection.choose(b"ciphertext", plaintext, lengths);
            assert!(lengths.contains(&made.len()));
            assert!(!made.starts_with(&[1; 8]));
            assert_eq!(made, rejection.choose(b"ciphertext", b"", lengths));
            assert_ne!(made, rejection.choose(b"ciphertexu", b"", lengths));
            assert_ne!(made, other.choose(b"ciphertext", b"", lengths));
        }
        assert_eq!(*rejection.choose(b"c", &[7; 24], &[16, 24, 32]), [7; 24]);
        assert!(rejection.choose(b"c", b"", &[]).is_empty());
    }

    #[test]
    fn every_length_comes_up() {
        let rejection = Rejection::new(b"secret");
        let seen: BTreeSet<usize> =
            (0..64u8).map(|i| rejection.choose(&[i], b"", &[16, 24, 32]).len()).collect();
        assert_eq!(seen, BTreeSet::from([16, 24, 32]));
    }
}
