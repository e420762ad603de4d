//! C_GenerateKeyPair: token keys at the service, session pairs in this process.

use akv_wire::{KeyCreateParameters, Tags};
use cryptoki_sys::*;

use super::{
    import::check_for_service,
    making::{Making, PRIVATE_EC, PRIVATE_RSA, PUBLIC_EC, PUBLIC_RSA, operations},
};
use crate::{
    config::TokenConfig,
    crypto::{Curve, PrivateKey},
    error::{Error, Result},
    mechanism::{Mechanism, Scheme},
    object::{
        dates, session_key,
        template::{Template, inconsistent},
    },
    slot::Slot,
};

/// A key pair to be made: refused by [`Generating::new`] or it can be made.
#[derive(Debug)]
pub struct Generating {
    kind: Kind,
    public: Template,
    private: Template,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Rsa { bits: u32, exponent: u64 },
    Ec(Curve),
}

/// The handles of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// The public key's.
    pub public: CK_OBJECT_HANDLE,
    /// The private key's.
    pub private: CK_OBJECT_HANDLE,
}

impl Generating {
    /// Checks mechanism and templates; nothing is asked of the service.
    ///
    /// # Errors
    /// CKR_MECHANISM_INVALID; CKR_TEMPLATE_INCOMPLETE, CKR_TEMPLATE_INCONSISTENT,
    /// CKR_ATTRIBUTE_VALUE_INVALID, CKR_CURVE_NOT_SUPPORTED.
    pub fn new(mechanism: &Mechanism, public: Template, private: Template) -> Result<Generating> {
        let kind = match mechanism.scheme {
            Scheme::GenerateRsa => rsa_kind(mechanism, &public)?,
            Scheme::GenerateEc => Kind::Ec(Curve::from_params(public.required(CKA_EC_PARAMS)?)?),
            _ => {
                let sentence = format!("{} does not generate key pairs", mechanism.name);
                return Err(Error::new(CKR_MECHANISM_INVALID, sentence));
            }
        };
        let key_type = match kind {
            Kind::Rsa { .. } => CKK_RSA,
            Kind::Ec(_) => CKK_EC,
        };
        for template in [&public, &private] {
            template.fixed_ulong(CKA_KEY_TYPE, key_type)?;
            template.without(&[
                CKA_MODULUS,
                CKA_EC_POINT,
                CKA_PUBLIC_KEY_INFO,
                CKA_VALUE,
                CKA_PRIVATE_EXPONENT,
                CKA_PRIME_1,
                CKA_PRIME_2,
                CKA_EXPONENT_1,
                CKA_EXPONENT_2,
                CKA_COEFFICIENT,
            ])?;
        }
        let making = Generating { kind, public, private };
        if making.private.on_token() {
            check_for_service(&making.private)?;
            check_for_service(&making.public)?;
        } else if making.public.on_token() {
            return Err(inconsistent("a token public key without its private key"));
        }
        Ok(making)
    }

    /// Whether the private key is to be on the token.
    pub fn is_on_token(&self) -> bool {
        self.private.on_token()
    }

    /// Whether the private key is to be private (CKA_PRIVATE).
    pub fn is_private(&self, slot: &Slot) -> bool {
        session_key::is_private(slot, &self.private, true)
    }

    /// Makes the pair: with one look and one create request on the token, with none in a session.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT for a name that exists; docs/errors.md.
    pub fn run(self, slot: &Slot, session: CK_SESSION_HANDLE) -> Result<Pair> {
        if self.private.on_token() {
            self.on_token(slot, session)
        } else {
            self.here(slot, session)
        }
    }

    /// The label both halves have: the private key's template decides.
    fn label(&self) -> Result<Option<&str>> {
        let private = self.private.text(CKA_LABEL)?.filter(|label| !label.is_empty());
        match private {
            Some(label) => Ok(Some(label)),
            None => Ok(self.public.text(CKA_LABEL)?.filter(|label| !label.is_empty())),
        }
    }

    fn id(&self) -> Option<&[u8]> {
        [&self.private, &self.public]
            .into_iter()
            .filter_map(|template| template.bytes(CKA_ID))
            .find(|id| !id.is_empty())
    }

    fn on_token(self, slot: &Slot, session: CK_SESSION_HANDLE) -> Result<Pair> {
        let making = Making::new(slot, self.label()?, self.id())?;
        let name = making.name().to_owned();
        let parameters = self.parameters(&slot.token, making.tags()?)?;
        let handles = making.send(|vault, name| vault.create_key(name, &parameters))?;
        let [private, public, ..] = handles[..] else {
            return Err(Error::new(
                CKR_DEVICE_ERROR,
                format!("the service made '{name}', but sent no key pair"),
            ));
        };
        if self.public.on_token() || self.public.flag(CKA_TOKEN).is_none() {
            return Ok(Pair { public, private });
        }
        // SunPKCS11 asks for a session public key beside a token private key.
        let token_object = slot.store.object(public)?;
        let object = session_key::public(&token_object, &self.public, session, slot)?;
        Ok(Pair { public: slot.store.add(object), private })
    }

    fn parameters(&self, token: &TokenConfig, tags: Tags) -> Result<KeyCreateParameters> {
        let protection = |plain: &str| match token.hsm_protection {
            true => format!("{plain}-HSM"),
            false => plain.to_owned(),
        };
        let common = KeyCreateParameters {
            key_ops: Some(self.key_ops()),
            attributes: dates::attributes(&[&self.private, &self.public])?,
            tags: Some(tags),
            ..KeyCreateParameters::default()
        };
        Ok(match self.kind {
            Kind::Rsa { bits, exponent } => KeyCreateParameters {
                kty: Some(protection("RSA")),
                key_size: Some(bits),
                public_exponent: (exponent != F4).then_some(exponent),
                ..common
            },
            Kind::Ec(curve) => KeyCreateParameters {
                kty: Some(protection("EC")),
                crv: Some(curve.name().to_owned()),
                ..common
            },
        })
    }

    /// The service's key_ops for the usages of both templates.
    fn key_ops(&self) -> Vec<String> {
        let (private, public) = match self.kind {
            Kind::Rsa { .. } => (PRIVATE_RSA, PUBLIC_RSA),
            Kind::Ec(_) => (PRIVATE_EC, PUBLIC_EC),
        };
        operations(&self.private, private).chain(operations(&self.public, public)).collect()
    }

    fn here(self, slot: &Slot, session: CK_SESSION_HANDLE) -> Result<Pair> {
        let key = match self.kind {
            Kind::Rsa { bits, exponent } => {
                PrivateKey::generate_rsa(bits as usize, &exponent.to_be_bytes())?
            }
            Kind::Ec(curve) => PrivateKey::generate_ec(curve)?,
        };
        let (public, private) =
            session_key::pair(&key, &self.public, &self.private, session, slot)?;
        Ok(Pair { public: slot.store.add(public), private: slot.store.add(private) })
    }
}

/// The public exponent that is used when none is asked for.
const F4: u64 = 65_537;

fn rsa_kind(mechanism: &Mechanism, public: &Template) -> Result<Kind> {
    public.required(CKA_MODULUS_BITS)?;
    let bits = public.ulong(CKA_MODULUS_BITS).unwrap_or_default();
    let (least, most) = mechanism.sizes;
    if !(least..=most).contains(&bits) || !bits.is_multiple_of(1024) {
        return Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!("CKA_MODULUS_BITS {bits}: keys have 2048, 3072 or 4096 bits"),
        ));
    }
    let exponent = public.bytes(CKA_PUBLIC_EXPONENT).unwrap_or(&[1, 0, 1]);
    let significant = exponent.iter().position(|byte| *byte != 0).unwrap_or(exponent.len());
    let exponent = exponent[significant..]
        .iter()
        .try_fold(0u64, |value, byte| value.checked_mul(256).map(|value| value + u64::from(*byte)));
    match exponent {
        Some(exponent) if exponent >= 3 && exponent % 2 == 1 => {
            Ok(Kind::Rsa { bits: bits as u32, exponent })
        }
        _ => Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            "CKA_PUBLIC_EXPONENT is no odd number from 3 to 2^64",
        )),
    }
}
