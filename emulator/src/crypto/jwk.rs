//! Private JSON web keys in, key material out.

use akv_wire::{Base64Url, JsonWebKey, KeyType};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcKey, EcPoint};
use openssl::error::ErrorStack;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::{Rsa, RsaPrivateKeyBuilder};
use zeroize::Zeroizing;

use super::{Material, ec, rsa};

/// Why a key cannot be imported.
#[derive(Debug)]
pub enum JwkFault {
    /// `kty` is missing or unknown.
    KeyType,
    /// `crv` is missing or unknown.
    Curve,
    /// A member is missing.
    Missing(&'static str),
    /// The members do not make a key.
    Inconsistent,
    /// The key is of a size the service does not take.
    Size(u32),
    /// A transfer blob does not unwrap.
    Transfer,
    /// OpenSSL failed where it should not.
    Internal(ErrorStack),
}

impl From<ErrorStack> for JwkFault {
    fn from(stack: ErrorStack) -> Self {
        Self::Internal(stack)
    }
}

/// RSA sizes the service takes; it once took 1024 on import (recorded) and still keeps such keys.
const RSA_BITS: &[u32] = &[1024, 2048, 3072, 4096];

/// Reads the private members.
pub fn read(key: &JsonWebKey) -> Result<Material, JwkFault> {
    match key.key_type().ok_or(JwkFault::KeyType)? {
        KeyType::Rsa | KeyType::RsaHsm => read_rsa(key),
        KeyType::Ec | KeyType::EcHsm => read_ec(key),
        KeyType::Oct | KeyType::OctHsm => {
            let bytes = member("k", &key.k)?;
            match bytes.len() {
                16 | 24 | 32 => Ok(Material::Oct(Zeroizing::new(bytes.to_vec()))),
                other => Err(JwkFault::Size(other as u32 * 8)),
            }
        }
    }
}

/// Takes a pair over, its public members in their shortest form.
pub fn adopt(key: PKey<Private>) -> Result<Material, JwkFault> {
    match key.id() {
        Id::RSA => {
            let pair = key.rsa()?;
            check_rsa(&pair)?;
            Ok(rsa::from_pair(pair)?)
        }
        Id::EC => {
            let pair = key.ec_key()?;
            let curve = ec::curve(pair.group().curve_name()).ok_or(JwkFault::Curve)?;
            Ok(ec::from_pair(pair, curve)?)
        }
        _ => Err(JwkFault::KeyType),
    }
}

fn read_rsa(key: &JsonWebKey) -> Result<Material, JwkFault> {
    let (n, e, d) = (number("n", &key.n)?, number("e", &key.e)?, number("d", &key.d)?);
    let (p, q) = (number("p", &key.p)?, number("q", &key.q)?);
    let builder = RsaPrivateKeyBuilder::new(n, e, d)?.set_factors(p, q)?;
    let pair = builder
        .set_crt_params(number("dp", &key.dp)?, number("dq", &key.dq)?, number("qi", &key.qi)?)?
        .build();
    if !pair.check_key().unwrap_or(false) {
        return Err(JwkFault::Inconsistent);
    }
    check_rsa(&pair)?;
    let mut material = rsa::from_pair(pair)?;
    if let Material::Rsa { public, .. } = &mut material {
        // Recorded: a vault shows imported integers exactly as they were sent.
        public.n.clone_from(&key.n);
        public.e.clone_from(&key.e);
    }
    Ok(material)
}

fn check_rsa(pair: &Rsa<Private>) -> Result<(), JwkFault> {
    let bits = pair.n().num_bits() as u32;
    if RSA_BITS.contains(&bits) { Ok(()) } else { Err(JwkFault::Size(bits)) }
}

fn read_ec(key: &JsonWebKey) -> Result<Material, JwkFault> {
    let curve = key.curve().ok_or(JwkFault::Curve)?;
    let group = ec::group(curve)?;
    let (x, y, d) = (number("x", &key.x)?, number("y", &key.y)?, number("d", &key.d)?);
    let mut ctx = BigNumContext::new()?;
    let mut point = EcPoint::new(&group)?;
    point
        .set_affine_coordinates_gfp(&group, &x, &y, &mut ctx)
        .map_err(|_| JwkFault::Inconsistent)?;
    let pair =
        EcKey::from_private_components(&group, &d, &point).map_err(|_| JwkFault::Inconsistent)?;
    pair.check_key().map_err(|_| JwkFault::Inconsistent)?;
    let mut material = ec::from_pair(pair, curve)?;
    if let Material::Ec { public, .. } = &mut material {
        // Recorded: the legacy name SECP256K1 comes back, too.
        public.crv.clone_from(&key.crv);
        public.x.clone_from(&key.x);
        public.y.clone_from(&key.y);
    }
    Ok(material)
}

fn number(name: &'static str, value: &Option<Base64Url>) -> Result<BigNum, JwkFault> {
    Ok(BigNum::from_slice(member(name, value)?)?)
}

fn member<'a>(name: &'static str, value: &'a Option<Base64Url>) -> Result<&'a [u8], JwkFault> {
    value
        .as_ref()
        .map(Base64Url::as_bytes)
        .filter(|bytes| !bytes.is_empty())
        .ok_or(JwkFault::Missing(name))
}
