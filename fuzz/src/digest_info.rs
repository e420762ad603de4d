//! DigestInfo: what is canonical is what the encoder writes, and nothing else is.

use akv_pkcs11::crypto::{
    Hash,
    digest_info::{encode, parse},
};

use crate::Seed;

/// The input is the content of a CKM_RSA_PKCS signature.
pub fn run(input: &[u8]) {
    let Some(info) = parse(input) else {
        return;
    };
    let Some(hash) = info.hash else {
        assert!(!info.canonical, "canonical with a hash that is not known");
        return;
    };
    let written = encode(hash, info.digest);
    assert_eq!(
        info.canonical,
        written == input && info.digest.len() == hash.len(),
        "canonical is what a signer would build, byte for byte"
    );
    let again = parse(&written).expect("what was encoded is a DigestInfo");
    assert_eq!((again.hash, again.digest), (Some(hash), info.digest));
}

/// The DigestInfo of each hash, and the deviations that signers are known for.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for hash in Hash::ALL {
        let whole = encode(*hash, &hash.digest(b"message"));
        let name = hash.name().to_ascii_lowercase().replace('/', "-");
        // Parameters absent: both lengths before them are two less.
        let mut absent = whole.clone();
        if let Some(at) = absent.windows(2).rposition(|two| two == [5, 0]) {
            absent.drain(at..at + 2);
            absent[1] -= 2;
            absent[3] -= 2;
        }
        seeds.push(Seed::new(format!("{name}-absent"), absent));
        seeds.push(Seed::new(name, whole));
    }
    // MD5, which has no row.
    let md5 = b"\x30\x20\x30\x0c\x06\x08\x2a\x86\x48\x86\xf7\x0d\x02\x05\x05\x00\x04\x10";
    seeds.push(Seed::new("md5", [md5, &[0; 16][..]].concat()));
    seeds.push(Seed::new("tls-1.1", [0x5a; 36]));
    seeds
}
