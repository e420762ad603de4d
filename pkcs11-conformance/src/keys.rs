//! Keys to try operations with: session keys made here, and token keys, found or made.

use cryptoki_sys::*;
use openssl::pkey::{PKey, Public};

use crate::{
    case::{Outcome, Stop},
    cli::LABEL,
    client::{Family, Rv, Session, Template, as_number, flag, number},
    context::{Context, need},
    mechanism::Mechanism,
    names,
    oracle::{self, CURVES, Curve},
};

/// What a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// RSA of so many bits.
    Rsa(usize),
    /// On this curve.
    Ec(&'static Curve),
    /// AES of so many bytes.
    Aes(usize),
    /// A generic secret of so many bytes.
    Generic(usize),
}

impl Kind {
    /// Bytes of a signature; of RSA, of any output.
    pub fn signature(self) -> usize {
        match self {
            Kind::Rsa(bits) => bits.div_ceil(8),
            Kind::Ec(curve) => 2 * curve.size(),
            Kind::Aes(_) | Kind::Generic(_) => 0,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Rsa(bits) => write!(f, "RSA {bits}"),
            Kind::Ec(curve) => f.write_str(curve.name),
            Kind::Aes(bytes) => write!(f, "AES {}", 8 * bytes),
            Kind::Generic(bytes) => write!(f, "secret {}", 8 * bytes),
        }
    }
}

/// A key pair, or a secret key, of the token or of a session.
#[derive(Clone, Debug)]
pub struct Key {
    /// `session` or `token`.
    pub origin: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The public key, where there is one; of a secret key, itself.
    pub public: Option<CK_OBJECT_HANDLE>,
    /// The private or secret key.
    pub private: CK_OBJECT_HANDLE,
    /// OpenSSL's view of a public key.
    oracle: Option<PKey<Public>>,
    /// CKA_VALUE of a secret key that was made here.
    pub value: Option<Vec<u8>>,
    /// CKA_ALLOWED_MECHANISMS of the private or secret key. Without the attribute: any; with an
    /// empty one: none.
    allowed: Option<Vec<CK_MECHANISM_TYPE>>,
}

fn allowed(session: Session, key: CK_OBJECT_HANDLE) -> Option<Vec<CK_MECHANISM_TYPE>> {
    let bytes = session.value(key, CKA_ALLOWED_MECHANISMS).ok()?;
    Some(bytes.chunks(size_of::<CK_ULONG>()).filter_map(as_number).collect())
}

/// A module that tells an empty list of a key that was made without one means any mechanism by it.
fn empty_is_any(keys: &mut [Key]) {
    let empty = Some(Vec::new());
    if keys.iter().any(|key| key.origin == "session" && key.allowed == empty) {
        keys.iter_mut().filter(|key| key.allowed == empty).for_each(|key| key.allowed = None);
    }
}

impl Key {
    /// OpenSSL's view of the public key.
    pub fn oracle(&self) -> Outcome<&PKey<Public>> {
        self.oracle.as_ref().ok_or_else(|| Stop::Skip(format!("{self} is no key pair")))
    }

    /// The half that a family uses; where there is no public key, the private one.
    pub fn used_for(&self, family: Family) -> CK_OBJECT_HANDLE {
        match family {
            Family::Sign | Family::Decrypt => self.private,
            _ => self.public.unwrap_or(self.private),
        }
    }

    /// Whether it is a secret key rather than a pair.
    pub fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Aes(_) | Kind::Generic(_))
    }

    /// Whether its CKA_ALLOWED_MECHANISMS, where it has that, let it be used with a mechanism.
    pub fn allows(&self, kind: CK_MECHANISM_TYPE) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&kind))
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.origin, self.kind)
    }
}

/// The keys of a group. The session they live in is open until its process ends.
pub struct Ring {
    /// All of them.
    pub keys: Vec<Key>,
}

/// Destroys what the run made on the token; a sentence for each object that stayed.
pub fn tidy(context: &mut Context) -> Result<Vec<String>, String> {
    let session = context.user().map_err(|(Stop::Skip(why) | Stop::Fail(why))| why)?;
    let search = || {
        let found = session.find(&vec![(CKA_TOKEN, flag(true))]);
        found.map_err(|rv| format!("C_FindObjects: {}", names::rv(rv)))
    };
    let label = |object| session.value(object, CKA_LABEL).unwrap_or_default();
    for object in search()? {
        if context.target.made(&label(object)) {
            // What stays is found again below.
            let _ = session.destroy(object);
        }
    }
    let left = search()?.into_iter().filter_map(|object| {
        let label = String::from_utf8(label(object)).ok()?;
        let class = session.ulong(object, CKA_CLASS).map_or_else(|_| "?".to_owned(), names::class);
        let stays = format!("{class} {label:?} stays on the token");
        let whose = match context.target.made(label.as_bytes()) {
            true => "the module does not destroy it",
            false => "another run made it",
        };
        label.starts_with(LABEL).then(|| format!("{stays}: {whose}"))
    });
    Ok(left.collect())
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
        Kind::Aes(bytes) | Kind::Generic(bytes) => {
            private.push((CKA_VALUE_LEN, number(bytes as CK_ULONG)));
            match kind {
                Kind::Aes(_) => CKM_AES_KEY_GEN,
                _ => CKM_GENERIC_SECRET_KEY_GEN,
            }
        }
    };
    (Mechanism::plain(mechanism), public, private)
}

/// The template of a sensitive secret key that is a session object with this value.
pub fn secret(kind: Kind, value: &[u8]) -> Template {
    let (key_type, uses) = match kind {
        Kind::Aes(_) => (CKK_AES, [CKA_ENCRYPT, CKA_DECRYPT]),
        _ => (CKK_GENERIC_SECRET, [CKA_SIGN, CKA_VERIFY]),
    };
    let mut template = vec![
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(key_type)),
        (CKA_TOKEN, flag(false)),
        (CKA_SENSITIVE, flag(true)),
        (CKA_EXTRACTABLE, flag(false)),
        (CKA_LABEL, LABEL.as_bytes().to_vec()),
        (CKA_VALUE, value.to_vec()),
    ];
    template.extend(uses.map(|kind| (kind, flag(true))));
    template
}

/// A value for a secret key: distinct bytes.
pub fn value(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| 0xa0_u8.wrapping_add(n as u8)).collect()
}

impl Context {
    /// The group's keys: made or found when first asked for.
    pub fn keys(&mut self) -> Outcome<Vec<Key>> {
        self.ring()?;
        Ok(self.ring.as_ref().map(|ring| ring.keys.clone()).unwrap_or_default())
    }

    /// A secret key on the token with this value: made by another group of the run, or now.
    fn known_secret(
        &mut self,
        session: Session,
        kind: Kind,
        value: &[u8],
    ) -> Option<CK_OBJECT_HANDLE> {
        let place = [(CKA_TOKEN, flag(true)), (CKA_LABEL, self.target.secret_label().into_bytes())];
        let made = session.find(&[&place[..], &[(CKA_CLASS, number(CKO_SECRET_KEY))]].concat());
        if let Some(key) = made.ok().and_then(|made| made.first().copied()) {
            return Some(key);
        }
        self.may_write().ok()?;
        let mut template = secret(kind, value);
        template.retain(|(kind, _)| ![CKA_TOKEN, CKA_LABEL].contains(kind));
        template.extend(place);
        session.create(&template).ok()
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
            let (mechanism, public, private) = templates(kind, false, LABEL);
            if offered.contains(&mechanism.kind)
                && let Ok((public, private)) = session.generate_pair(&mechanism, &public, &private)
            {
                keys.push(known("session", session, Some(public), private)?);
            }
        }
        for kind in [Kind::Aes(16), Kind::Aes(24), Kind::Aes(32), Kind::Generic(64)] {
            let (Kind::Aes(bytes) | Kind::Generic(bytes)) = kind else { continue };
            let value = value(bytes);
            // Where none can be imported, those of the token are all there is.
            if let Ok(key) = session.create(&secret(kind, &value)) {
                let (public, value) = (Some(key), Some(value));
                let allowed = allowed(session, key);
                let (origin, private, oracle) = ("session", key, None);
                keys.push(Key { origin, kind, public, private, oracle, value, allowed });
            }
        }
        let mut found = found(session)?;
        if found.is_empty() && self.may_write().is_ok() {
            // Other groups of the run find them; `tidy` destroys them at its end.
            for kind in [Kind::Rsa(2048), Kind::Ec(&CURVES[0])] {
                let label = &self.target.label;
                let (mechanism, mut public, mut private) = templates(kind, true, label);
                let id = format!("{label} {kind}").into_bytes();
                public.push((CKA_ID, id.clone()));
                private.push((CKA_ID, id));
                if offered.contains(&mechanism.kind)
                    && let Ok((public, private)) =
                        session.generate_pair(&mechanism, &public, &private)
                {
                    found.push(known("token", session, Some(public), private)?);
                }
            }
        }
        keys.extend(found);
        // A secret key of the token whose value is known stands for those of its size.
        let (kind, value) = (Kind::Aes(32), value(32));
        if let Some(key) = self.known_secret(session, kind, &value) {
            let (public, value, allowed) = (Some(key), Some(value), allowed(session, key));
            keys.retain(|key| (key.origin, key.kind) != ("token", kind));
            let (origin, private, oracle) = ("token", key, None);
            keys.push(Key { origin, kind, public, private, oracle, value, allowed });
        }
        empty_is_any(&mut keys);
        self.ring = Some(Ring { keys });
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
    let wanted = vec![(CKA_CLASS, number(CKO_SECRET_KEY)), (CKA_TOKEN, flag(true))];
    for secret in need(session.find(&wanted), "C_FindObjects")? {
        let (Ok(key_type), Ok(length)) =
            (session.ulong(secret, CKA_KEY_TYPE), session.ulong(secret, CKA_VALUE_LEN))
        else {
            continue;
        };
        let kind = match key_type {
            CKK_AES => Kind::Aes(length as usize),
            CKK_GENERIC_SECRET => Kind::Generic(length as usize),
            _ => continue,
        };
        if keys.iter().all(|one| one.kind != kind) {
            let (public, private) = (Some(secret), secret);
            let (allowed, oracle, value) = (allowed(session, secret), None, None);
            let key = Key { origin: "token", kind, public, private, oracle, value, allowed };
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
    let allowed = allowed(session, private);
    Ok(Key { origin, kind, public, private, oracle: Some(oracle), value: None, allowed })
}
