//! AES: published vectors, and OpenSSL for every length, split and key size.

use cryptoki_sys::{
    CKR_DATA_LEN_RANGE, CKR_ENCRYPTED_DATA_INVALID, CKR_ENCRYPTED_DATA_LEN_RANGE,
    CKR_KEY_SIZE_RANGE, CKR_MECHANISM_PARAM_INVALID, CKR_OK,
};
use openssl::symm::{self, Crypter};

use super::*;
use crate::crypto::symmetric::{Cipher, Direction, KeyWrap, Mode, unwrap, wrap};

const KEY_SIZES: [usize; 3] = [16, 24, 32];

/// NIST SP 800-38A, appendix F: the plaintext of all examples.
const SP800_38A: &str = "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
                         30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710";

#[test]
fn nist_sp800_38a() {
    let key = |size| match size {
        16 => hex("2b7e151628aed2a6abf7158809cf4f3c"),
        24 => hex("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
        _ => hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
    };
    let iv = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
    let block = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").try_into().unwrap();
    let ctr = Mode::Ctr { counter_bits: 128, block };
    for (mode, size, first_block) in [
        (Mode::Ecb, 16, "3ad77bb40d7a3660a89ecaf32466ef97"),
        (Mode::Ecb, 24, "bd334f1d6e45f25ff712a214571fa5cc"),
        (Mode::Ecb, 32, "f3eed1bdb5d2a03c064b5a7e3db181f8"),
        (Mode::Cbc { iv }, 16, "7649abac8119b246cee98e9b12e9197d"),
        (Mode::Cbc { iv }, 24, "4f021db243bc633d7178183a9fa071e8"),
        (Mode::Cbc { iv }, 32, "f58c4c04d6e5f1ba779eabfb5f7bfbd6"),
        (ctr.clone(), 16, "874d6191b620e3261bef6864990db6ce"),
        (ctr.clone(), 24, "1abc932417521ca24f2b0459fe7e6e0b"),
        (ctr, 32, "601ec313775789a5b7a7f504bbf3d228"),
    ] {
        let plaintext = hex(SP800_38A);
        let ciphertext =
            Cipher::once(Direction::Encrypt, mode.clone(), &key(size), &plaintext).unwrap();
        assert_eq!(ciphertext[..16], hex(first_block), "{mode:?} {size}");
        let back = Cipher::once(Direction::Decrypt, mode.clone(), &key(size), &ciphertext).unwrap();
        assert_eq!(*back, plaintext, "{mode:?} {size}");
    }
}

#[test]
fn gcm_of_the_specification() {
    // McGrew and Viega, test cases 2, 4, 5, 6 (AES-128), 10 (AES-192), 16 (AES-256).
    let plaintext = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
                     1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39";
    let key = "feffe9928665731c6d6a8f9467308308";
    let aad = "feedfacedeadbeeffeedfacedeadbeefabaddad2";
    for (key, iv, aad, plaintext, start, tag) in [
        (
            "00000000000000000000000000000000".to_owned(),
            "000000000000000000000000",
            "",
            "00000000000000000000000000000000",
            "0388dace60b6a392f328c2b971b2fe78",
            "ab6e47d42cec13bdf53a67b21257bddf",
        ),
        (
            key.to_owned(),
            "cafebabefacedbaddecaf888",
            aad,
            plaintext,
            "42831ec2217774244b7221b784d0d49c",
            "5bc94fbc3221a5db94fae95ae7121a47",
        ),
        (
            key.to_owned(),
            "cafebabefacedbad",
            aad,
            plaintext,
            "61353b4c2806934a777ff51fa22a4755",
            "3612d2e79e3b0785561be14aaca2fccb",
        ),
        (
            key.to_owned(),
            "9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728
             c3c0c95156809539fcf0e2429a6b525416aedbf5a0de6a57a637b39b",
            aad,
            plaintext,
            "8ce24998625615b603a033aca13fb894",
            "619cc5aefffe0bfa462af43c1699d050",
        ),
        (
            format!("{key}{}", &key[..16]),
            "cafebabefacedbaddecaf888",
            aad,
            plaintext,
            "3980ca0b3c00e841eb06fac4872a2757",
            "2519498e80f1478f37ba55bd6d27618c",
        ),
        (
            format!("{key}{key}"),
            "cafebabefacedbaddecaf888",
            aad,
            plaintext,
            "522dc1f099567d07f47f37a32a84427d",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        ),
    ] {
        let mode = |tag_len| Mode::Gcm { iv: hex(iv), aad: hex(aad), tag_len };
        for tag_len in [4, 8, 12, 13, 14, 15, 16] {
            let sealed =
                Cipher::once(Direction::Encrypt, mode(tag_len), &hex(&key), &hex(plaintext))
                    .unwrap();
            let (ciphertext, got) = sealed.split_at(sealed.len() - tag_len);
            assert_eq!(ciphertext[..16], hex(start), "{tag_len}");
            assert_eq!(*got, hex(tag)[..tag_len]);
            let open =
                |sealed: &[u8]| Cipher::once(Direction::Decrypt, mode(tag_len), &hex(&key), sealed);
            assert_eq!(*open(&sealed).unwrap(), hex(plaintext), "{tag_len}");
            for index in 0..sealed.len() {
                let mut forged = sealed.to_vec();
                forged[index] ^= 0x10;
                assert_eq!(rv(open(&forged)), CKR_ENCRYPTED_DATA_INVALID, "{tag_len} at {index}");
            }
            let cut = &sealed[1..];
            assert_eq!(rv(open(cut)), CKR_ENCRYPTED_DATA_INVALID, "{tag_len}, cut");
            let tiny = open(&sealed[..tag_len - 1]);
            assert_eq!(rv(tiny), CKR_ENCRYPTED_DATA_LEN_RANGE, "{tag_len}, shorter than a tag");
        }
    }
}

#[test]
fn every_length_and_split_is_what_openssl_makes() {
    for size in KEY_SIZES {
        let (key, iv) = (bytes(size), bytes(16));
        let iv: [u8; 16] = iv.try_into().unwrap();
        for (mode, theirs) in modes(size, iv) {
            for len in (0..=67).chain([255, 256, 1000, 4096]) {
                let data = bytes(len);
                let whole = len % 16 == 0;
                if matches!(mode, Mode::Ecb | Mode::Cbc { .. }) && !whole {
                    let got = Cipher::once(Direction::Encrypt, mode.clone(), &key, &data);
                    assert_eq!(rv(got), CKR_DATA_LEN_RANGE, "{mode:?} {len}");
                    let got = Cipher::once(Direction::Decrypt, mode.clone(), &key, &data);
                    assert_eq!(rv(got), CKR_ENCRYPTED_DATA_LEN_RANGE, "{mode:?} {len}");
                    continue;
                }
                let expected = openssl(theirs, &mode, &key, &iv, &data);
                for step in [1, 5, 15, 16, 17, 33, 5000] {
                    let what = format!("{mode:?} {size} {len} by {step}");
                    let got = in_parts(Direction::Encrypt, &mode, &key, &data, step).unwrap();
                    assert_eq!(got, expected, "{what}");
                    let back = in_parts(Direction::Decrypt, &mode, &key, &got, step).unwrap();
                    assert_eq!(back, data, "{what}");
                }
            }
        }
    }
}

#[test]
fn gcm_like_openssl_and_nothing_before_the_tag() {
    for size in KEY_SIZES {
        let theirs = match size {
            16 => symm::Cipher::aes_128_gcm(),
            24 => symm::Cipher::aes_192_gcm(),
            _ => symm::Cipher::aes_256_gcm(),
        };
        let ivs = [12, 1, 8, 11, 13, 16, 17, 60, 128];
        let lengths = [(0, 0), (0, 20), (1, 0), (16, 16), (100, 1), (1000, 100)];
        for (iv, (len, aad)) in ivs.iter().flat_map(|iv| lengths.map(|lengths| (*iv, lengths))) {
            let what = format!("AES-{}, IV {iv}, {len} bytes, AAD {aad}", size * 8);
            let (key, iv, aad, data) = (bytes(size), bytes(iv), bytes(aad), bytes(len));
            let mut tag = [0; 16];
            let expected =
                symm::encrypt_aead(theirs, &key, Some(&iv), &aad, &data, &mut tag).unwrap();
            let expected = [&expected[..], &tag].concat();
            let mode = Mode::Gcm { iv, aad, tag_len: 16 };
            let got = in_parts(Direction::Encrypt, &mode, &key, &data, 7).unwrap();
            assert_eq!(got, expected, "{what}");
            let mut cipher = Cipher::new(Direction::Decrypt, mode, &key).unwrap();
            for part in got.chunks(9) {
                assert!(cipher.update(part).unwrap().is_empty(), "plaintext before the tag");
            }
            assert_eq!(*cipher.finish().unwrap(), data, "{what}");
        }
    }
    for (iv, tag_len) in [(0, 16), (257, 16), (12, 0), (12, 3), (12, 11), (12, 17)] {
        let mode = Mode::Gcm { iv: bytes(iv), aad: vec![], tag_len };
        let got = rv(Cipher::new(Direction::Encrypt, mode, &[0; 16]));
        assert_eq!(got, CKR_MECHANISM_PARAM_INVALID, "IV {iv}, tag {tag_len}");
    }
}

#[test]
fn padding_of_every_value() {
    let key = bytes(16);
    for last in 0..=255u8 {
        for spoiled in [None, Some(0), Some(14)] {
            // Sixteen bytes of the padding's value, one of them perhaps not.
            let mut block = [last; 16];
            if let Some(index) = spoiled {
                block[index] ^= 0x80;
            }
            let in_padding = spoiled.is_some_and(|index| index >= 16 - usize::from(last.min(16)));
            let good = (1..=16).contains(&last) && !in_padding;
            let first = [0x11; 16];
            let iv = [0; 16];
            let ciphertext =
                Cipher::once(Direction::Encrypt, Mode::Cbc { iv }, &key, &[first, block].concat())
                    .unwrap();
            let got = Cipher::once(Direction::Decrypt, Mode::CbcPad { iv }, &key, &ciphertext);
            let expected = if good { CKR_OK } else { CKR_ENCRYPTED_DATA_INVALID };
            if good {
                let plaintext = got.as_ref().unwrap();
                assert_eq!(plaintext.len(), 32 - usize::from(last));
                assert!(plaintext.starts_with(&first));
            }
            assert_eq!(rv(got), expected, "{last}, spoiled {spoiled:?}");
        }
    }
    let mode = Mode::CbcPad { iv: [0; 16] };
    for len in [0, 1, 15, 17, 31] {
        let got = Cipher::once(Direction::Decrypt, mode.clone(), &key, &vec![0; len]);
        assert_eq!(rv(got), CKR_ENCRYPTED_DATA_LEN_RANGE, "{len} bytes");
    }
}

#[test]
fn counters_never_overflow() {
    let key = bytes(32);
    for (bits, last) in [(1, 1u128), (8, 0xff), (32, 0xffff_ffff), (127, u128::MAX >> 1)] {
        let fixed = 0xa5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5 & !last;
        let counters = [fixed | (last - 1), fixed | last];
        let block = counters[0].to_be_bytes();
        let mode = Mode::Ctr { counter_bits: bits, block };
        let expected = counters.map(|counter| ecb(&key, counter.to_be_bytes())).concat();
        for step in [1, 7, 16, 32] {
            let stream = in_parts(Direction::Encrypt, &mode, &key, &[0; 32], step).unwrap();
            assert_eq!(stream, expected, "{bits} bits by {step}");
        }
        let more = rv(Cipher::once(Direction::Encrypt, mode, &key, &[0; 33]));
        assert_eq!(more, CKR_DATA_LEN_RANGE, "{bits} bits");
    }
    let block = [0xff; 16];
    let mode = Mode::Ctr { counter_bits: 128, block };
    let stream = Cipher::once(Direction::Encrypt, mode.clone(), &key, &[0; 16]);
    assert_eq!(*stream.unwrap(), ecb(&key, block));
    assert_eq!(rv(Cipher::once(Direction::Encrypt, mode, &key, &[0; 17])), CKR_DATA_LEN_RANGE);

    // The example of 6.11.3: two bits that start as 1 count three blocks.
    for direction in [Direction::Encrypt, Direction::Decrypt] {
        let mode = Mode::Ctr { counter_bits: 2, block: 1u128.to_be_bytes() };
        let mut cipher = Cipher::new(direction, mode, &key).unwrap();
        let expected = match direction {
            Direction::Encrypt => CKR_DATA_LEN_RANGE,
            Direction::Decrypt => CKR_ENCRYPTED_DATA_LEN_RANGE,
        };
        assert_eq!(rv(cipher.update(&[0; 49])), expected);
        assert_eq!(rv(cipher.update(&[0; 40])), CKR_OK);
        assert_eq!(rv(cipher.update(&[0; 8])), CKR_OK);
        assert_eq!(rv(cipher.update(&[])), CKR_OK);
        assert_eq!(rv(cipher.update(&[0])), expected);
    }
    for bits in [0, 129, u32::MAX] {
        let mode = Mode::Ctr { counter_bits: bits, block };
        let got = rv(Cipher::new(Direction::Encrypt, mode, &key));
        assert_eq!(got, CKR_MECHANISM_PARAM_INVALID, "{bits} bits");
    }
}

#[test]
fn keys_of_other_sizes() {
    for size in [0, 1, 15, 17, 20, 31, 33, 64] {
        let key = bytes(size);
        let iv = [0; 16];
        for mode in [
            Mode::Ecb,
            Mode::Cbc { iv },
            Mode::CbcPad { iv },
            Mode::Ctr { counter_bits: 128, block: iv },
            Mode::Gcm { iv: vec![0; 12], aad: vec![], tag_len: 16 },
        ] {
            for direction in [Direction::Encrypt, Direction::Decrypt] {
                let got = rv(Cipher::new(direction, mode.clone(), &key));
                assert_eq!(got, CKR_KEY_SIZE_RANGE, "{mode:?} {size}");
            }
        }
        assert_eq!(rv(wrap(KeyWrap::Rfc3394, &key, &[0; 16])), CKR_KEY_SIZE_RANGE);
        assert_eq!(rv(unwrap(KeyWrap::Rfc5649, &key, &[0; 24])), CKR_KEY_SIZE_RANGE);
    }
}

/// The data in parts of `step` bytes, with the promised lengths checked on the way.
fn in_parts(
    direction: Direction,
    mode: &Mode,
    key: &[u8],
    data: &[u8],
    step: usize,
) -> Result<Vec<u8>> {
    let mut cipher = Cipher::new(direction, mode.clone(), key)?;
    let mut output = Vec::new();
    for part in data.chunks(step) {
        let promised = cipher.update_len(part.len());
        let got = cipher.update(part)?;
        assert_eq!(got.len(), promised, "{mode:?} {direction:?}");
        output.extend_from_slice(&got);
    }
    let at_most = cipher.finish_len();
    let rest = cipher.finish()?;
    assert!(rest.len() <= at_most, "{mode:?} {direction:?}: {} > {at_most}", rest.len());
    output.extend_from_slice(&rest);
    Ok(output)
}

fn modes(size: usize, iv: [u8; 16]) -> [(Mode, symm::Cipher); 4] {
    let (ecb, cbc, ctr) = match size {
        16 => {
            (symm::Cipher::aes_128_ecb(), symm::Cipher::aes_128_cbc(), symm::Cipher::aes_128_ctr())
        }
        24 => {
            (symm::Cipher::aes_192_ecb(), symm::Cipher::aes_192_cbc(), symm::Cipher::aes_192_ctr())
        }
        _ => {
            (symm::Cipher::aes_256_ecb(), symm::Cipher::aes_256_cbc(), symm::Cipher::aes_256_ctr())
        }
    };
    [
        (Mode::Ecb, ecb),
        (Mode::Cbc { iv }, cbc),
        (Mode::CbcPad { iv }, cbc),
        (Mode::Ctr { counter_bits: 128, block: iv }, ctr),
    ]
}

fn openssl(cipher: symm::Cipher, mode: &Mode, key: &[u8], iv: &[u8], data: &[u8]) -> Vec<u8> {
    let iv = cipher.iv_len().map(|_| iv);
    let mut crypter = Crypter::new(cipher, symm::Mode::Encrypt, key, iv).unwrap();
    crypter.pad(matches!(mode, Mode::CbcPad { .. }));
    let mut output = vec![0; data.len() + 32];
    let mut len = crypter.update(data, &mut output).unwrap();
    len += crypter.finalize(&mut output[len..]).unwrap();
    output.truncate(len);
    output
}

/// One block under the bare cipher: a block of the key stream of CTR.
fn ecb(key: &[u8], block: [u8; 16]) -> Vec<u8> {
    openssl(symm::Cipher::aes_256_ecb(), &Mode::Ecb, key, &[], &block)
}
