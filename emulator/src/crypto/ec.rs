//! ECDSA with the digest in hand; signatures are r‖s, each half as wide as the field.

use akv_wire::{Base64Url, Curve, JsonWebKey};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, PKey, Private, Public};

use super::{Fault, Material};

/// Makes a pair.
pub fn generate(curve: Curve) -> Result<Material, ErrorStack> {
    let group = group(curve)?;
    from_pair(EcKey::generate(&group)?, curve)
}

/// Wraps a pair, its coordinates as wide as the field.
pub fn from_pair(pair: EcKey<Private>, curve: Curve) -> Result<Material, ErrorStack> {
    let mut ctx = BigNumContext::new()?;
    let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
    pair.public_key().affine_coordinates(pair.group(), &mut x, &mut y, &mut ctx)?;
    let width = curve.field_len() as i32;
    let public = JsonWebKey {
        crv: Some(curve.as_str().to_owned()),
        x: Some(Base64Url::from(x.to_vec_padded(width)?)),
        y: Some(Base64Url::from(y.to_vec_padded(width)?)),
        ..JsonWebKey::default()
    };
    Ok(Material::Ec { key: PKey::from_ec_key(pair)?, public, curve })
}

/// The public key of a point.
pub fn public(curve: Curve, x: &[u8], y: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let (x, y) = (BigNum::from_slice(x)?, BigNum::from_slice(y)?);
    PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(group(curve)?.as_ref(), &x, &y)?)
}

/// The group of a curve.
pub fn group(curve: Curve) -> Result<EcGroup, ErrorStack> {
    EcGroup::from_curve_name(match curve {
        Curve::P256 => Nid::X9_62_PRIME256V1,
        Curve::P256K => Nid::SECP256K1,
        Curve::P384 => Nid::SECP384R1,
        Curve::P521 => Nid::SECP521R1,
    })
}

/// The curve of a group; `None` when the contract does not have it.
pub fn curve(nid: Option<Nid>) -> Option<Curve> {
    match nid? {
        Nid::X9_62_PRIME256V1 => Some(Curve::P256),
        Nid::SECP256K1 => Some(Curve::P256K),
        Nid::SECP384R1 => Some(Curve::P384),
        Nid::SECP521R1 => Some(Curve::P521),
        _ => None,
    }
}

/// Signs.
pub fn sign(key: &PKey<Private>, curve: Curve, digest: &[u8]) -> Result<Vec<u8>, Fault> {
    let width = curve.field_len() as i32;
    let signature = EcdsaSig::sign(digest, key.ec_key()?.as_ref())?;
    let mut bytes = signature.r().to_vec_padded(width)?;
    bytes.extend(signature.s().to_vec_padded(width)?);
    Ok(bytes)
}

/// Verifies; a signature of any other shape is simply not good.
pub fn verify<T: HasPublic>(
    key: &PKey<T>,
    curve: Curve,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, Fault> {
    let width = curve.field_len();
    if signature.len() != 2 * width {
        return Ok(false);
    }
    let (r, s) = signature.split_at(width);
    let signature =
        EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?;
    Ok(signature.verify(digest, key.ec_key()?.as_ref()).unwrap_or(false))
}
