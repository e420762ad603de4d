//! AES key wrap and HMAC: published vectors, every length, every changed byte.

use cryptoki_sys::{
    CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE,
    CKR_MECHANISM_INVALID, CKR_OK, CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE,
};

use super::*;
use crate::crypto::symmetric::{Hmac, KeyWrap, unwrap, wrap, wrapped_len};

#[test]
fn key_wrap_of_the_standards() {
    let kek = hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    let data = hex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f");
    let kek192 = hex("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8");
    for (method, kek, plaintext, wrapped) in [
        // RFC 3394, 4.1 to 4.6.
        (
            KeyWrap::Rfc3394,
            &kek[..16],
            &data[..16],
            "1fa68b0a8112b447aef34bd8fb5a7b829d3e862371d2cfe5",
        ),
        (
            KeyWrap::Rfc3394,
            &kek[..24],
            &data[..16],
            "96778b25ae6ca435f92b5b97c050aed2468ab8a17ad84e5d",
        ),
        (
            KeyWrap::Rfc3394,
            &kek[..32],
            &data[..16],
            "64e8c3f9ce0f5ba263e9777905818a2a93c8191e7d6e8ae7",
        ),
        (
            KeyWrap::Rfc3394,
            &kek[..24],
            &data[..24],
            "031d33264e15d33268f24ec260743edce1c6c7ddee725a936ba814915c6762d2",
        ),
        (
            KeyWrap::Rfc3394,
            &kek[..32],
            &data[..24],
            "a8f9bc1612c68b3ff6e6f4fbe30e71e4769c8b80a32cb8958cd5d17d6b254da1",
        ),
        (
            KeyWrap::Rfc3394,
            &kek[..32],
            &data[..32],
            "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21",
        ),
        // RFC 5649, 6.
        (
            KeyWrap::Rfc5649,
            &kek192[..],
            &hex("c37b7e6492584340bed12207808941155068f738")[..],
            "138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a",
        ),
        (
            KeyWrap::Rfc5649,
            &kek192[..],
            &hex("466f7250617369")[..],
            "afbeb0f07dfbf5419200f2ccb50bb24f",
        ),
    ] {
        assert_eq!(wrap(method, kek, plaintext).unwrap(), hex(wrapped));
        assert_eq!(*unwrap(method, kek, &hex(wrapped)).unwrap(), plaintext);
    }
}

#[test]
fn key_wrap_of_every_length() {
    for size in [16, 24, 32] {
        let kek = bytes(size);
        for method in [KeyWrap::Rfc3394, KeyWrap::Rfc5649] {
            for len in 0..=80 {
                let what = format!("{method:?} AES-{} of {len}", size * 8);
                let key = bytes(len);
                let Some(expected) = wrapped_len(method, len) else {
                    assert_eq!(rv(wrap(method, &kek, &key)), CKR_DATA_LEN_RANGE, "{what}");
                    continue;
                };
                let wrapped = wrap(method, &kek, &key).unwrap();
                assert_eq!(wrapped.len(), expected, "{what}");
                assert_eq!(*unwrap(method, &kek, &wrapped).unwrap(), key, "{what}");
                for index in 0..wrapped.len() {
                    let mut damaged = wrapped.clone();
                    damaged[index] ^= 1;
                    let got = rv(unwrap(method, &kek, &damaged));
                    assert_eq!(got, CKR_ENCRYPTED_DATA_INVALID, "{what} at {index}");
                }
                let other = rv(unwrap(method, &bytes(size), &wrapped));
                assert_eq!(other, CKR_ENCRYPTED_DATA_INVALID, "{what}");
            }
            // No length makes it panic.
            for len in 0..=40 {
                let got = rv(unwrap(method, &kek, &bytes(len)));
                let least = if method == KeyWrap::Rfc3394 { 24 } else { 16 };
                let expected = if len % 8 == 0 && len >= least {
                    CKR_ENCRYPTED_DATA_INVALID
                } else {
                    CKR_ENCRYPTED_DATA_LEN_RANGE
                };
                assert_eq!(got, expected, "{method:?} of {len}");
            }
        }
        // One method does not open what the other made.
        let wrapped = wrap(KeyWrap::Rfc3394, &kek, &[7; 16]).unwrap();
        assert_eq!(rv(unwrap(KeyWrap::Rfc5649, &kek, &wrapped)), CKR_ENCRYPTED_DATA_INVALID);
        let wrapped = wrap(KeyWrap::Rfc5649, &kek, &[7; 16]).unwrap();
        assert_eq!(rv(unwrap(KeyWrap::Rfc3394, &kek, &wrapped)), CKR_ENCRYPTED_DATA_INVALID);
    }
}

#[test]
fn hmac_of_rfc4231() {
    // Test cases 1 to 3, 6 and 7; RFC 2202 for SHA-1.
    let long = b"Test Using Larger Than Block-Size Key - Hash Key First";
    for (hash, key, data, tag) in [
        (Hash::Sha1, vec![0x0b; 20], &b"Hi There"[..], "b617318655057264e28bc0b6fb378c8ef146be00"),
        (
            Hash::Sha224,
            vec![0x0b; 20],
            b"Hi There",
            "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22",
        ),
        (
            Hash::Sha256,
            vec![0x0b; 20],
            b"Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            Hash::Sha256,
            b"Jefe".to_vec(),
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            Hash::Sha256,
            vec![0xaa; 131],
            long,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            Hash::Sha384,
            vec![0x0b; 20],
            b"Hi There",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c
             faea9ea9076ede7f4af152e8b2fa9cb6",
        ),
        (
            Hash::Sha512,
            vec![0x0b; 20],
            b"Hi There",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde
             daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ),
    ] {
        let mut hmac = Hmac::new(hash, &key).unwrap();
        hmac.update(data);
        assert_eq!(hmac.finish(), hex(tag), "{hash}");
    }
}

#[test]
fn hmac_in_parts_and_verified() {
    for hash in [Hash::Sha1, Hash::Sha224, Hash::Sha256, Hash::Sha384, Hash::Sha512] {
        for key_len in [1, 20, 64, 128, 129, 300] {
            let (key, data) = (bytes(key_len), bytes(300));
            let pkey = openssl::pkey::PKey::hmac(&key).unwrap();
            let mut signer = openssl::sign::Signer::new(openssl_digest(hash), &pkey).unwrap();
            let tag = signer.sign_oneshot_to_vec(&data).unwrap();
            let mut hmac = Hmac::new(hash, &key).unwrap();
            data.chunks(17).for_each(|part| hmac.update(part));
            assert_eq!(hmac.hash(), hash);
            assert_eq!(hmac.clone().finish(), tag, "{hash} {key_len}");
            assert_eq!(rv(hmac.clone().verify(&tag)), CKR_OK);
            let mut forged = tag.clone();
            forged[tag.len() - 1] ^= 1;
            assert_eq!(rv(hmac.clone().verify(&forged)), CKR_SIGNATURE_INVALID);
            assert_eq!(rv(hmac.clone().verify(&tag[1..])), CKR_SIGNATURE_LEN_RANGE);
            hmac.update(b"more");
            assert_eq!(rv(hmac.verify(&tag)), CKR_SIGNATURE_INVALID);
        }
    }
    assert_eq!(rv(Hmac::new(Hash::Sha3_256, b"key")), CKR_MECHANISM_INVALID);
}
