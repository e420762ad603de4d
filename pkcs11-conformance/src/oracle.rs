//! The independent implementation: what OpenSSL says of a result.

pub mod aes;

use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey, EcPoint},
    ecdsa::EcdsaSig,
    md::{Md, MdRef},
    nid::Nid,
    pkey::{HasPublic, PKey, PKeyRef, Private, Public},
    pkey_ctx::PkeyCtx,
    rsa::{Padding, Rsa},
};

use crate::mechanism::Hash;

/// A named curve.
#[derive(Debug, PartialEq, Eq)]
pub struct Curve {
    /// Name.
    pub name: &'static str,
    /// CKA_EC_PARAMS: the DER of its object identifier.
    pub oid: &'static [u8],
    /// OpenSSL's number.
    pub nid: Nid,
    /// Bits of its order.
    pub bits: usize,
}

impl Curve {
    /// Bytes of a coordinate, and of each half of a signature.
    pub fn size(&self) -> usize {
        self.bits.div_ceil(8)
    }
}

/// The curves that are tried.
#[rustfmt::skip]
pub const CURVES: &[Curve] = &[
    Curve { name: "P-256", oid: &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], nid: Nid::X9_62_PRIME256V1, bits: 256 },
    Curve { name: "P-384", oid: &[6, 5, 0x2b, 0x81, 4, 0, 0x22], nid: Nid::SECP384R1, bits: 384 },
    Curve { name: "P-521", oid: &[6, 5, 0x2b, 0x81, 4, 0, 0x23], nid: Nid::SECP521R1, bits: 521 },
    Curve { name: "secp256k1", oid: &[6, 5, 0x2b, 0x81, 4, 0, 0x0a], nid: Nid::SECP256K1, bits: 256 },
];

type Answer<T> = Result<T, openssl::error::ErrorStack>;

/// An RSA public key from modulus and exponent.
pub fn rsa_public(modulus: &[u8], exponent: &[u8]) -> Answer<PKey<Public>> {
    let key =
        Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?;
    PKey::from_rsa(key)
}

/// An EC public key from CKA_EC_POINT: an OCTET STRING with the point, or the point itself.
pub fn ec_public(curve: &Curve, point: &[u8]) -> Answer<PKey<Public>> {
    let group = EcGroup::from_curve_name(curve.nid)?;
    let size = 1 + 2 * curve.size();
    let bare = &point[point.len().saturating_sub(size)..];
    let mut context = openssl::bn::BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, bare, &mut context)?;
    PKey::from_ec_key(EcKey::from_public_key(&group, &point)?)
}

/// A new key pair of a curve.
pub fn ec_pair(curve: &Curve) -> Answer<PKey<Private>> {
    let group = EcGroup::from_curve_name(curve.nid)?;
    PKey::from_ec_key(EcKey::generate(&group)?)
}

/// CKA_EC_POINT of a key: an OCTET STRING with the uncompressed point.
pub fn ec_point<T: HasPublic>(key: &PKeyRef<T>) -> Answer<Vec<u8>> {
    let key = key.ec_key()?;
    let mut context = openssl::bn::BigNumContext::new()?;
    let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
    let point = key.public_key().to_bytes(key.group(), form, &mut context)?;
    let mut der = vec![4];
    if point.len() > 127 {
        der.push(0x81);
    }
    der.push(point.len() as u8);
    der.extend(point);
    Ok(der)
}

/// What a PKCS#1 v1.5 signature has under its padding.
pub fn pkcs1_recover(key: &PKeyRef<Public>, signature: &[u8]) -> Answer<Vec<u8>> {
    let rsa = key.rsa()?;
    let mut room = vec![0; rsa.size() as usize];
    let length = rsa.public_decrypt(signature, &mut room, Padding::PKCS1)?;
    room.truncate(length);
    Ok(room)
}

/// Raw RSA with the public key.
pub fn raw_public(key: &PKeyRef<Public>, data: &[u8]) -> Answer<Vec<u8>> {
    let rsa = key.rsa()?;
    let mut room = vec![0; rsa.size() as usize];
    rsa.public_encrypt(data, &mut room, Padding::NONE)?;
    Ok(room)
}

/// Whether a PSS signature of a digest holds, with exactly this salt.
pub fn pss_verify(
    key: &PKeyRef<Public>,
    hash: &Hash,
    mgf: &Hash,
    salt: usize,
    digest: &[u8],
    signature: &[u8],
) -> Answer<bool> {
    let mut context = PkeyCtx::new(key)?;
    context.verify_init()?;
    context.set_rsa_padding(Padding::PKCS1_PSS)?;
    context.set_signature_md(md(hash))?;
    context.set_rsa_mgf1_md(md(mgf))?;
    context.set_rsa_pss_saltlen(openssl::sign::RsaPssSaltlen::custom(
        i32::try_from(salt).unwrap_or(0),
    ))?;
    Ok(context.verify(digest, signature).unwrap_or(false))
}

/// A PSS signature of a digest.
pub fn pss_sign(
    key: &PKeyRef<Private>,
    hash: &Hash,
    mgf: &Hash,
    salt: usize,
    digest: &[u8],
) -> Answer<Vec<u8>> {
    let mut context = PkeyCtx::new(key)?;
    context.sign_init()?;
    context.set_rsa_padding(Padding::PKCS1_PSS)?;
    context.set_signature_md(md(hash))?;
    context.set_rsa_mgf1_md(md(mgf))?;
    context.set_rsa_pss_saltlen(openssl::sign::RsaPssSaltlen::custom(
        i32::try_from(salt).unwrap_or(0),
    ))?;
    let mut signature = Vec::new();
    context.sign_to_vec(digest, &mut signature)?;
    Ok(signature)
}

/// A PKCS#1 v1.5 signature of anything that fits.
pub fn pkcs1_sign(key: &PKeyRef<Private>, data: &[u8]) -> Answer<Vec<u8>> {
    let rsa = key.rsa()?;
    let mut room = vec![0; rsa.size() as usize];
    rsa.private_encrypt(data, &mut room, Padding::PKCS1)?;
    Ok(room)
}

/// Whether r || s is a signature of these bytes, taken as a digest.
pub fn ecdsa_verify(key: &PKeyRef<Public>, digest: &[u8], signature: &[u8]) -> Answer<bool> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let signature =
        EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
    Ok(signature.verify(digest, &*key.ec_key()?).unwrap_or(false))
}

/// r || s over these bytes, taken as a digest.
pub fn ecdsa_sign(curve: &Curve, key: &PKeyRef<Private>, digest: &[u8]) -> Answer<Vec<u8>> {
    let signature = EcdsaSig::sign(digest, &*key.ec_key()?)?;
    let size = i32::try_from(curve.size()).unwrap_or(0);
    let mut bytes = signature.r().to_vec_padded(size)?;
    bytes.extend(signature.s().to_vec_padded(size)?);
    Ok(bytes)
}

/// RSAES-PKCS1-v1_5.
pub fn pkcs1_encrypt(key: &PKeyRef<Public>, data: &[u8]) -> Answer<Vec<u8>> {
    let rsa = key.rsa()?;
    let mut room = vec![0; rsa.size() as usize];
    rsa.public_encrypt(data, &mut room, Padding::PKCS1)?;
    Ok(room)
}

/// The other way.
pub fn pkcs1_decrypt(key: &PKeyRef<Private>, data: &[u8]) -> Answer<Vec<u8>> {
    let rsa = key.rsa()?;
    let mut room = vec![0; rsa.size() as usize];
    let length = rsa.private_decrypt(data, &mut room, Padding::PKCS1)?;
    room.truncate(length);
    Ok(room)
}

/// RSAES-OAEP.
pub fn oaep_encrypt(
    key: &PKeyRef<Public>,
    hash: &Hash,
    mgf: &Hash,
    label: &[u8],
    data: &[u8],
) -> Answer<Vec<u8>> {
    let mut context = PkeyCtx::new(key)?;
    context.encrypt_init()?;
    context.set_rsa_padding(Padding::PKCS1_OAEP)?;
    context.set_rsa_oaep_md(md(hash))?;
    context.set_rsa_mgf1_md(md(mgf))?;
    if !label.is_empty() {
        context.set_rsa_oaep_label(label)?;
    }
    let mut out = Vec::new();
    context.encrypt_to_vec(data, &mut out)?;
    Ok(out)
}

/// The other way.
pub fn oaep_decrypt(
    key: &PKeyRef<Private>,
    hash: &Hash,
    mgf: &Hash,
    label: &[u8],
    data: &[u8],
) -> Answer<Vec<u8>> {
    let mut context = PkeyCtx::new(key)?;
    context.decrypt_init()?;
    context.set_rsa_padding(Padding::PKCS1_OAEP)?;
    context.set_rsa_oaep_md(md(hash))?;
    context.set_rsa_mgf1_md(md(mgf))?;
    if !label.is_empty() {
        context.set_rsa_oaep_label(label)?;
    }
    let mut out = Vec::new();
    context.decrypt_to_vec(data, &mut out)?;
    Ok(out)
}

/// HMAC.
pub fn hmac(hash: &Hash, key: &[u8], data: &[u8]) -> Answer<Vec<u8>> {
    let key = PKey::hmac(key)?;
    let mut signer = openssl::sign::Signer::new(hash.openssl(), &key)?;
    signer.sign_oneshot_to_vec(data)
}

/// The hash as OpenSSL's newer functions take it.
fn md(hash: &Hash) -> &'static MdRef {
    Md::from_nid(hash.openssl().type_()).unwrap_or_else(|| Md::null())
}
