//! Every signature mechanism as a test uses it, and OpenSSL's opinion of what it made.

use cryptoki_sys::*;
use openssl::{
    bn::BigNum,
    ecdsa::EcdsaSig,
    hash::{MessageDigest, hash},
    pkey::{PKey, Public},
    rsa::Padding,
    sign::{RsaPssSaltlen, Verifier},
};

use crate::token::Mechanism;

pub const DATA: &[u8] =
    b"What is signed, in one piece or in several, is the same to the one who verifies.";

/// A mechanism as a test uses it, and what it signs.
#[derive(Clone)]
pub struct Case {
    pub mechanism: Mechanism,
    pub hash: MessageDigest,
    pub scheme: Scheme,
    /// The caller hashes.
    pub prehashed: bool,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Scheme {
    Pkcs1,
    Pss,
    Ecdsa,
}

/// The cases of a signature mechanism.
///
/// # Panics
/// For one that is not known here: what a token lists is tested.
pub fn cases(kind: CK_MECHANISM_TYPE) -> Vec<Case> {
    let (sha1, sha224) = (MessageDigest::sha1(), MessageDigest::sha224());
    let (sha256, sha384) = (MessageDigest::sha256(), MessageDigest::sha384());
    let sha512 = MessageDigest::sha512();
    let sha3 = [
        MessageDigest::sha3_224(),
        MessageDigest::sha3_256(),
        MessageDigest::sha3_384(),
        MessageDigest::sha3_512(),
    ];
    let case = |scheme, hash, prehashed| Case {
        mechanism: Mechanism::plain(kind),
        hash,
        scheme,
        prehashed,
    };
    let pss = |(ckm, mgf, hash): (CK_MECHANISM_TYPE, CK_ULONG, MessageDigest), prehashed| Case {
        mechanism: Mechanism::pss(kind, ckm, mgf, hash.size()),
        hash,
        scheme: Scheme::Pss,
        prehashed,
    };
    let p256 = (CKM_SHA256, CKG_MGF1_SHA256, sha256);
    let p384 = (CKM_SHA384, CKG_MGF1_SHA384, sha384);
    let p512 = (CKM_SHA512, CKG_MGF1_SHA512, sha512);
    use Scheme::{Ecdsa, Pkcs1};
    match kind {
        CKM_RSA_PKCS => [sha256, sha384, sha512].map(|hash| case(Pkcs1, hash, true)).to_vec(),
        CKM_SHA1_RSA_PKCS => vec![case(Pkcs1, sha1, false)],
        CKM_SHA224_RSA_PKCS => vec![case(Pkcs1, sha224, false)],
        CKM_SHA256_RSA_PKCS => vec![case(Pkcs1, sha256, false)],
        CKM_SHA384_RSA_PKCS => vec![case(Pkcs1, sha384, false)],
        CKM_SHA512_RSA_PKCS => vec![case(Pkcs1, sha512, false)],
        CKM_RSA_PKCS_PSS => [p256, p384, p512].map(|one| pss(one, true)).to_vec(),
        CKM_SHA256_RSA_PKCS_PSS => vec![pss(p256, false)],
        CKM_SHA384_RSA_PKCS_PSS => vec![pss(p384, false)],
        CKM_SHA512_RSA_PKCS_PSS => vec![pss(p512, false)],
        CKM_SHA1_RSA_PKCS_PSS => vec![pss((CKM_SHA_1, CKG_MGF1_SHA1, sha1), false)],
        CKM_SHA224_RSA_PKCS_PSS => vec![pss((CKM_SHA224, CKG_MGF1_SHA224, sha224), false)],
        CKM_SHA3_224_RSA_PKCS => vec![case(Pkcs1, sha3[0], false)],
        CKM_SHA3_256_RSA_PKCS => vec![case(Pkcs1, sha3[1], false)],
        CKM_SHA3_384_RSA_PKCS => vec![case(Pkcs1, sha3[2], false)],
        CKM_SHA3_512_RSA_PKCS => vec![case(Pkcs1, sha3[3], false)],
        CKM_SHA3_224_RSA_PKCS_PSS => {
            vec![pss((CKM_SHA3_224, CKG_MGF1_SHA3_224, sha3[0]), false)]
        }
        CKM_SHA3_256_RSA_PKCS_PSS => {
            vec![pss((CKM_SHA3_256, CKG_MGF1_SHA3_256, sha3[1]), false)]
        }
        CKM_SHA3_384_RSA_PKCS_PSS => {
            vec![pss((CKM_SHA3_384, CKG_MGF1_SHA3_384, sha3[2]), false)]
        }
        CKM_SHA3_512_RSA_PKCS_PSS => {
            vec![pss((CKM_SHA3_512, CKG_MGF1_SHA3_512, sha3[3]), false)]
        }
        CKM_ECDSA_SHA3_224 => vec![case(Ecdsa, sha3[0], false)],
        CKM_ECDSA_SHA3_256 => vec![case(Ecdsa, sha3[1], false)],
        CKM_ECDSA_SHA3_384 => vec![case(Ecdsa, sha3[2], false)],
        CKM_ECDSA_SHA3_512 => vec![case(Ecdsa, sha3[3], false)],
        // No hash and no padding: the matrix has it.
        CKM_RSA_X_509 => vec![],
        CKM_ECDSA => {
            [sha1, sha224, sha256, sha384, sha512].map(|hash| case(Ecdsa, hash, true)).to_vec()
        }
        CKM_ECDSA_SHA1 => vec![case(Ecdsa, sha1, false)],
        CKM_ECDSA_SHA224 => vec![case(Ecdsa, sha224, false)],
        CKM_ECDSA_SHA256 => vec![case(Ecdsa, sha256, false)],
        CKM_ECDSA_SHA384 => vec![case(Ecdsa, sha384, false)],
        CKM_ECDSA_SHA512 => vec![case(Ecdsa, sha512, false)],
        other => panic!("mechanism {other:#x} is listed for signatures, and no test knows it"),
    }
}

impl Case {
    /// What the mechanism is fed.
    pub fn input(&self) -> Vec<u8> {
        match (self.prehashed, self.scheme) {
            (false, _) => DATA.to_vec(),
            (true, Scheme::Pkcs1) => digest_info(self.hash, DATA),
            (true, _) => hash(self.hash, DATA).expect("hash").to_vec(),
        }
    }

    /// Whether OpenSSL takes the signature for one of DATA.
    pub fn is_good(&self, key: &PKey<Public>, signature: &[u8]) -> bool {
        if self.scheme == Scheme::Ecdsa {
            let digest = hash(self.hash, DATA).expect("hash");
            return ecdsa_is_good(key, &digest, signature);
        }
        let mut verifier = Verifier::new(self.hash, key).expect("verifier");
        if self.scheme == Scheme::Pss {
            verifier.set_rsa_padding(Padding::PKCS1_PSS).expect("padding");
            verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).expect("salt");
        }
        verifier.verify_oneshot(signature, DATA).expect("verification")
    }
}

/// DER of a DigestInfo, by OpenSSL's own names and a fixed frame.
pub fn digest_info(algorithm: MessageDigest, data: &[u8]) -> Vec<u8> {
    let oid: &[u8] = match algorithm.type_() {
        openssl::nid::Nid::SHA1 => &[0x2b, 0x0e, 0x03, 0x02, 0x1a],
        openssl::nid::Nid::SHA224 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04],
        openssl::nid::Nid::SHA256 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
        openssl::nid::Nid::SHA384 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
        openssl::nid::Nid::SHA512 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
        openssl::nid::Nid::SHA3_256 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x08],
        other => panic!("{other:?}"),
    };
    digest_info_of(oid, &[0x05, 0x00], &hash(algorithm, data).expect("hash"))
}

pub fn digest_info_of(oid: &[u8], parameters: &[u8], digest: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
    let algorithm = tlv(0x30, &[tlv(0x06, oid).as_slice(), parameters].concat());
    tlv(0x30, &[algorithm, tlv(0x04, digest)].concat())
}

/// Whether r‖s is an ECDSA signature of a digest.
pub fn ecdsa_is_good(key: &PKey<Public>, digest: &[u8], signature: &[u8]) -> bool {
    let (r, s) = signature.split_at(signature.len() / 2);
    let number = |half| BigNum::from_slice(half).expect("number");
    let signature = EcdsaSig::from_private_components(number(r), number(s)).expect("signature");
    signature.verify(digest, &key.ec_key().expect("EC key")).expect("verification")
}
