//! Keys to try operations with: session keys made here, and token keys, found or made.

use cryptoki_sys::*;
use openssl::pkey::{PKey, Public};

use crate::{
    case::{Outcome, Stop},
    client::{Rv, Session, Template, flag, number},
    context::{Context, need},
    mechanism::Mechanism,
    oracle::{self, CURVES, Curve},
};

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RSA of so many bits.
    Rsa(usize),
    /// On this curve.
    Ec(&'static Curve),
}

impl Kind {
    /// Bytes of a signature.
    pub fn signature(self) -> usize {
        match self {
            Kind::Rsa(bits) => bits.div_ceil(8),
            Kind::Ec(curve) => 2 * curve.size(),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Rsa(bits) => write!(f, "RSA {bits}"),
            Kind::Ec(curve) => f.write_str(curve.name),
        }
    }
}

/// A key pair of the token or of a session.
#[derive(Clone, Debug)]
pub struct Key {
    /// `session` or `token`.
    pub origin: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The public key, where there is one.
    pub public: Option<CK_OBJECT_HANDLE>,
    /// The private key.
    pub private: CK_OBJECT_HANDLE,
    /// OpenSSL's view of it.
    pub oracle: PKey<Public>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.origin, self.kind)
    }
}

/// The keys of a group, and the session they live in.
pub struct Ring {
    /// Holds them, and the login.
    pub session: Session,
    /// All of them.
    pub keys: Vec<Key>,
    /// Token objects that were made here.
    made: Vec<CK_OBJECT_HANDLE>,
}

impl Ring {
    /// Ends what was made here.
    pub fn drop_made(self) {
        for object in self.made {
            // Nobody is left to be told; the label says whose it is.
            let _ = self.session.destroy(object);
        }
    }
}

/// The templates of a pair: what both kinds have in common is usage and where it lives.
pub fn templates(kind: Kind, token: bool, label: &str) -> (Mechanism, Template, Template) {
    let name = (CKA_LABEL, label.as_bytes().to_vec());
    let mut public = vec![(CKA_TOKEN, flag(token)), (CKA_VERIFY, flag(true)), name.clone()];
    let mut private = vec![
        (CKA_TOKEN, flag(token)),
        (CKA_PRIVATE, flag(true)),
        (CKA_SENSITIVE, flag(true)),
        (CKA_SIGN, flag(true)),
        name,
    ];
    let mechanism = match kind {
        Kind::Rsa(bits) => {
            public.push((CKA_MODULUS_BITS, number(bits as CK_ULONG)));
            public.push((CKA_PUBLIC_EXPONENT, vec![1, 0, 1]));
            public.push((CKA_ENCRYPT, flag(true)));
            private.push((CKA_DECRYPT, flag(true)));
            CKM_RSA_PKCS_KEY_PAIR_GEN
        }
        Kind::Ec(curve) => {
            public.push((CKA_EC_PARAMS, curve.oid.to_vec()));
            CKM_EC_KEY_PAIR_GEN
        }
    };
    (Mechanism::plain(mechanism), public, private)
}

impl Context {
    /// The group's keys: made or found when first asked for.
    pub fn keys(&mut self) -> Outcome<Vec<Key>> {
        self.ring()?;
        Ok(self.ring.as_ref().map(|ring| ring.keys.clone()).unwrap_or_default())
    }

    /// One key per kind: session keys before token keys.
    pub fn distinct_keys(&mut self) -> Outcome<Vec<Key>> {
        let mut distinct: Vec<Key> = Vec::new();
        for key in self.keys()? {
            if distinct.iter().all(|one| one.kind != key.kind) {
                distinct.push(key);
            }
        }
        Ok(distinct)
    }

    fn ring(&mut self) -> Outcome {
        if self.ring.is_some() {
            return Ok(());
        }
        let session = self.user()?;
        self.forget(session);
        let offered: Vec<_> =
            self.offered(CKF_GENERATE_KEY_PAIR)?.into_iter().map(|(kind, _)| kind).collect();
        let mut keys = Vec::new();
        let curves = CURVES.iter().map(Kind::Ec);
        for kind in [Kind::Rsa(2048)].into_iter().chain(curves) {
            let (mechanism, public, private) = templates(kind, false, "pkcs11-conformance");
            if offered.contains(&mechanism.kind)
                && let Ok((public, private)) = session.generate_pair(&mechanism, &public, &private)
            {
                keys.push(known("session", session, Some(public), private)?);
            }
        }
        let found = found(session)?;
        let mut made = Vec::new();
        if found.is_empty() && self.may_write().is_ok() {
            let label = format!("pkcs11-conformance-{}", std::process::id());
            for kind in [Kind::Rsa(2048), Kind::Ec(&CURVES[0])] {
                let (mechanism, public, private) = templates(kind, true, &label);
                if offered.contains(&mechanism.kind)
                    && let Ok((public, private)) =
                        session.generate_pair(&mechanism, &public, &private)
                {
                    made.extend([private, public]);
                    keys.push(known("token", session, Some(public), private)?);
                }
            }
        }
        keys.extend(found);
        self.ring = Some(Ring { session, keys, made });
        Ok(())
    }
}

/// One private key of the token per kind that may sign.
fn found(session: Session) -> Outcome<Vec<Key>> {
    let wanted =
        vec![(CKA_CLASS, number(CKO_PRIVATE_KEY)), (CKA_TOKEN, flag(true)), (CKA_SIGN, flag(true))];
    let mut keys: Vec<Key> = Vec::new();
    for private in need(session.find(&wanted), "C_FindObjects")? {
        let Ok(id) = session.value(private, CKA_ID) else { continue };
        let wanted = vec![(CKA_CLASS, number(CKO_PUBLIC_KEY)), (CKA_ID, id)];
        let public = session.find(&wanted).ok().and_then(|found| found.first().copied());
        if let Ok(key) = known("token", session, public, private)
            && keys.iter().all(|one| one.kind != key.kind)
        {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// Reads what a key is.
pub fn known(
    origin: &'static str,
    session: Session,
    public: Option<CK_OBJECT_HANDLE>,
    private: CK_OBJECT_HANDLE,
) -> Outcome<Key> {
    let wrong = |what: &str| Stop::Fail(format!("the key pair's {what} cannot be read"));
    let value = |kind| -> Rv<Vec<u8>> {
        match public {
            Some(public) => session.value(public, kind),
            None => session.value(private, kind),
        }
    };
    let (kind, oracle) = match need(session.ulong(private, CKA_KEY_TYPE), "CKA_KEY_TYPE")? {
        CKK_RSA => {
            let modulus = need(value(CKA_MODULUS), "CKA_MODULUS")?;
            let exponent = need(value(CKA_PUBLIC_EXPONENT), "CKA_PUBLIC_EXPONENT")?;
            let oracle =
                oracle::rsa_public(&modulus, &exponent).map_err(|_| wrong("CKA_MODULUS"))?;
            (Kind::Rsa(oracle.bits() as usize), oracle)
        }
        CKK_EC => {
            let oid = need(value(CKA_EC_PARAMS), "CKA_EC_PARAMS")?;
            let curve = CURVES.iter().find(|curve| curve.oid == oid);
            let curve = curve.ok_or_else(|| wrong("CKA_EC_PARAMS"))?;
            let point = need(value(CKA_EC_POINT), "CKA_EC_POINT")?;
            let oracle = oracle::ec_public(curve, &point).map_err(|_| wrong("CKA_EC_POINT"))?;
            (Kind::Ec(curve), oracle)
        }
        other => return Err(Stop::Skip(format!("keys of type {other:#x} are not known here"))),
    };
    Ok(Key { origin, kind, public, private, oracle })
}
