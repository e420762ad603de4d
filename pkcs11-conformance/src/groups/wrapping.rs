//! Keys that are wrapped, unwrapped and derived, against OpenSSL.

mod authenticated;
mod ecdh;
mod private;

use cryptoki_sys::*;
use openssl::pkey::PKey;

use super::{
    imports,
    protocol::{Protocol, nothing},
};
use crate::{
    case::{Case, Group, Outcome, ensure, fail, skip},
    client::{PLENTY, Session, Template, flag, number},
    context::{Context, is, need, one_of},
    functions::Function::*,
    keys::{Kind, secret, value},
    mechanism::{HASHES, Mechanism, Mode, Scheme, scheme},
    names,
    oracle::{self, aes},
    samples::{broken, usual},
};

/// The group.
pub const GROUP: Group = Group {
    name: "wrapping",
    title: "wrapping and deriving keys, checked by OpenSSL",
    patience: 90,
    cases: &[
        Case {
            id: "wraps",
            clause: "5.18 C_WrapKey",
            title: "A wrapped key is what OpenSSL unwraps to the same value.",
            run: |context| each(context, CKF_WRAP, wraps),
        },
        Case {
            id: "wrap-buffers",
            clause: "5.2, 5.18 C_WrapKey",
            title: "C_WrapKey keeps the protocol of output buffers.",
            run: |context| each(context, CKF_WRAP, wrap_buffers),
        },
        Case {
            id: "unextractable",
            clause: "5.18 C_WrapKey",
            title: "A key whose CKA_EXTRACTABLE is false is CKR_KEY_UNEXTRACTABLE.",
            run: |context| each(context, CKF_WRAP, unextractable),
        },
        Case {
            id: "wrap-refused",
            clause: "5.18 C_WrapKey",
            title: "Handles that are none, and a key without CKA_WRAP, are refused.",
            run: |context| each(context, CKF_WRAP, wrap_refused),
        },
        Case {
            id: "unwraps",
            clause: "5.18 C_UnwrapKey",
            title: "What OpenSSL wraps is unwrapped to a key of the same value, not local, nor \
                    ever sensitive.",
            run: |context| each(context, CKF_UNWRAP, unwraps),
        },
        Case {
            id: "unwrap-refused",
            clause: "5.18 C_UnwrapKey",
            title: "What was not wrapped so, and a template that does not fit, make no key.",
            run: |context| each(context, CKF_UNWRAP, unwrap_refused),
        },
        Case {
            id: "wraps-private",
            clause: "6.7",
            title: "A wrapped private key is the PKCS #8 of it.",
            run: |context| each(context, CKF_WRAP, private::wraps),
        },
        Case {
            id: "unwraps-private",
            clause: "6.7",
            title: "A PKCS #8 that OpenSSL wraps is unwrapped to a key that signs.",
            run: |context| each(context, CKF_UNWRAP, private::unwraps),
        },
        Case {
            id: "wraps-authenticated",
            clause: "5.2, 5.18 C_WrapKeyAuthenticated",
            title: "C_WrapKeyAuthenticated keeps the protocol, and OpenSSL unwraps the same value.",
            run: authenticated::wraps,
        },
        Case {
            id: "unwraps-authenticated",
            clause: "5.18 C_UnwrapKeyAuthenticated",
            title: "What OpenSSL wraps is unwrapped; with another tag or additional data nothing is.",
            run: authenticated::unwraps,
        },
        Case {
            id: "encapsulate",
            clause: "5.2, 5.18 C_EncapsulateKey",
            title: "C_EncapsulateKey keeps the protocol.",
            run: encapsulate,
        },
        Case {
            id: "ecdh",
            clause: "6.3.17",
            title: "CKM_ECDH1_DERIVE gives the secret that OpenSSL derives, of a point bare and in \
                    DER, and with each key derivation function.",
            run: ecdh::derives,
        },
    ],
};

/// How a mechanism wraps.
#[derive(Clone, Copy)]
enum Wrap {
    Aes(Mode),
    Pkcs1,
    Oaep,
}

impl Wrap {
    fn of(kind: CK_MECHANISM_TYPE) -> Option<Wrap> {
        Some(match scheme(kind)? {
            Scheme::Pkcs1(None) => Wrap::Pkcs1,
            Scheme::Oaep => Wrap::Oaep,
            // CKM_AES_GCM wraps with a parameter of its own (6.13.3).
            Scheme::Aes(mode) if !matches!(mode, Mode::Gcm | Mode::Ctr) => Wrap::Aes(mode),
            _ => return None,
        })
    }
}

/// A wrapping key of ours, in the module and here.
struct Wrapper {
    mechanism: Mechanism,
    wrap: Wrap,
    handle: CK_OBJECT_HANDLE,
    value: Vec<u8>,
    rsa: Option<PKey<openssl::pkey::Private>>,
}

impl Wrapper {
    /// By OpenSSL.
    fn seal(&self, data: &[u8]) -> Outcome<Vec<u8>> {
        let sha1 = &HASHES[0];
        let sealed = match (self.wrap, &self.rsa) {
            (Wrap::Aes(mode), _) => aes::seal(mode, &self.value, usual(mode), data),
            (_, None) => return fail("no RSA key"),
            (wrap, Some(own)) => {
                let public = own
                    .rsa()
                    .and_then(|rsa| oracle::rsa_public(&rsa.n().to_vec(), &rsa.e().to_vec()));
                let public = public.map_err(broken)?;
                match wrap {
                    Wrap::Oaep => oracle::oaep_encrypt(&public, sha1, sha1, &[], data),
                    _ => oracle::pkcs1_encrypt(&public, data),
                }
            }
        };
        sealed.map_err(broken)
    }

    /// The other way.
    fn open(&self, wrapped: &[u8]) -> Outcome<Vec<u8>> {
        let sha1 = &HASHES[0];
        let opened = match (self.wrap, &self.rsa) {
            (Wrap::Aes(mode), _) => aes::open(mode, &self.value, usual(mode), wrapped),
            (_, None) => return fail("no RSA key"),
            (Wrap::Oaep, Some(own)) => oracle::oaep_decrypt(own, sha1, sha1, &[], wrapped),
            (_, Some(own)) => oracle::pkcs1_decrypt(own, wrapped),
        };
        opened.map_err(broken)
    }
}

/// A wrapping key; for unwrapping with RSA, a private one.
fn wrapper(
    session: Session,
    kind: CK_MECHANISM_TYPE,
    wrap: Wrap,
    use_: CK_FLAGS,
    allowed: bool,
) -> Outcome<Wrapper> {
    let mechanism = Mechanism::usual(kind);
    let usages = [(CKA_WRAP, flag(allowed)), (CKA_UNWRAP, flag(allowed))];
    let value = value(32);
    let (template, rsa) = match wrap {
        Wrap::Aes(_) => {
            let mut template = secret(Kind::Aes(32), &value);
            template.extend(usages);
            (template, None)
        }
        _ => {
            let pair = imports::own_rsa()?;
            let own = pair.rsa().map_err(broken)?;
            let template = if use_ == CKF_WRAP {
                let mut public = imports::rsa_public(&own.n().to_vec(), &own.e().to_vec());
                public.push((CKA_WRAP, flag(allowed)));
                public
            } else {
                imports::rsa_private(&own, &[(CKA_UNWRAP, allowed)])
            };
            (template, Some(pair.clone()))
        }
    };
    match session.create(&template) {
        Ok(handle) => Ok(Wrapper { mechanism, wrap, handle, value, rsa }),
        Err(rv) => skip(format!("no wrapping key can be imported: {}", names::rv(rv))),
    }
}

/// Tries each mechanism that is offered for the use.
fn each(
    context: &mut Context,
    use_: CK_FLAGS,
    attempt: fn(Session, &Wrapper) -> Outcome,
) -> Outcome {
    let offered = context.offered(use_)?;
    if offered.is_empty() {
        return skip("no mechanism is offered for it");
    }
    for (kind, _) in offered {
        context.each(names::mechanism(kind), |context| {
            let Some(wrap) = Wrap::of(kind) else {
                return skip("not known to this program");
            };
            let session = context.user()?;
            attempt(session, &wrapper(session, kind, wrap, use_, true)?)
        });
    }
    Ok(())
}

/// The key to be wrapped: 24 bytes, so that blocks do not hide its length.
fn wrapped_key(session: Session, extractable: bool) -> Outcome<CK_OBJECT_HANDLE> {
    let mut template = secret(Kind::Generic(24), &value(24));
    template.retain(|(kind, _)| *kind != CKA_EXTRACTABLE);
    template.push((CKA_EXTRACTABLE, flag(extractable)));
    need(session.create(&template), "C_CreateObject")
}

fn wraps(session: Session, wrapper: &Wrapper) -> Outcome {
    let key = wrapped_key(session, true)?;
    let out = session.wrap_in(&wrapper.mechanism, wrapper.handle, key, PLENTY);
    let wrapped = need(out.result(), "C_WrapKey")?;
    let mut told = wrapper.open(&wrapped)?;
    if matches!(wrapper.wrap, Wrap::Aes(Mode::Ecb | Mode::Cbc)) {
        // Padded with zeros to whole blocks (6.10.4).
        ensure(told.len() == 32 && told[24..] == [0; 8], || "the padding is another".to_owned())?;
        told.truncate(24);
    }
    ensure(told == value(24), || "OpenSSL unwraps another value".to_owned())
}

fn wrap_buffers(session: Session, wrapper: &Wrapper) -> Outcome {
    let key = wrapped_key(session, true)?;
    let call = |room| session.wrap_in(&wrapper.mechanism, wrapper.handle, key, room);
    Protocol { begin: &nothing, call: &call, then: &|_| Ok(()), exact: true }.holds()
}

fn unextractable(session: Session, wrapper: &Wrapper) -> Outcome {
    let key = wrapped_key(session, false)?;
    let out = session.wrap_in(&wrapper.mechanism, wrapper.handle, key, PLENTY);
    is(out.result(), CKR_KEY_UNEXTRACTABLE, "C_WrapKey")
}

/// No object has this handle.
const NOBODY: CK_OBJECT_HANDLE = 0x7fff_fff1;

fn wrap_refused(session: Session, of: &Wrapper) -> Outcome {
    let key = wrapped_key(session, true)?;
    let out = session.wrap_in(&of.mechanism, NOBODY, key, PLENTY);
    is(out.result(), CKR_WRAPPING_KEY_HANDLE_INVALID, "a wrapping key that is none")?;
    let out = session.wrap_in(&of.mechanism, of.handle, NOBODY, PLENTY);
    is(out.result(), CKR_KEY_HANDLE_INVALID, "a key that is none")?;
    let without = wrapper(session, of.mechanism.kind, of.wrap, CKF_WRAP, false)?;
    let out = session.wrap_in(&of.mechanism, without.handle, key, PLENTY);
    let refused = [CKR_KEY_FUNCTION_NOT_PERMITTED, CKR_WRAPPING_KEY_HANDLE_INVALID];
    one_of(out.result(), &refused, "a key without CKA_WRAP")
}

/// How an attribute is refused that only the module can give.
const MADE: [CK_RV; 4] = [
    CKR_ATTRIBUTE_READ_ONLY,
    CKR_TEMPLATE_INCONSISTENT,
    CKR_ATTRIBUTE_VALUE_INVALID,
    CKR_ATTRIBUTE_TYPE_INVALID,
];

/// The template of the key that comes out, whose value can be read.
fn unwrapped(wrap: Wrap) -> Template {
    let mut template = vec![
        (CKA_CLASS, number(CKO_SECRET_KEY)),
        (CKA_KEY_TYPE, number(CKK_GENERIC_SECRET)),
        (CKA_TOKEN, flag(false)),
        (CKA_SENSITIVE, flag(false)),
        (CKA_EXTRACTABLE, flag(true)),
        (CKA_LABEL, b"pkcs11-conformance, unwrapped".to_vec()),
    ];
    if matches!(wrap, Wrap::Aes(Mode::Ecb | Mode::Cbc)) {
        template.push((CKA_VALUE_LEN, number(24)));
    }
    template
}

/// The value as it is given to OpenSSL: whole blocks where the mechanism takes no other.
fn padded(wrap: Wrap) -> Vec<u8> {
    let mut bytes = value(24);
    if matches!(wrap, Wrap::Aes(Mode::Ecb | Mode::Cbc)) {
        bytes.resize(32, 0);
    }
    bytes
}

fn unwraps(session: Session, wrapper: &Wrapper) -> Outcome {
    let wrapped = wrapper.seal(&padded(wrapper.wrap))?;
    let template = unwrapped(wrapper.wrap);
    let key = session.unwrap(&wrapper.mechanism, wrapper.handle, &wrapped, &template);
    let key = need(key, "C_UnwrapKey")?;
    let told = session.value(key, CKA_VALUE);
    ensure(told == Ok(value(24)), || "the value is another".to_owned())?;
    for (kind, on) in [
        (CKA_LOCAL, false),
        (CKA_ALWAYS_SENSITIVE, false),
        (CKA_NEVER_EXTRACTABLE, false),
        (CKA_EXTRACTABLE, true),
    ] {
        let told = session.value(key, kind);
        ensure(told == Ok(flag(on)), || format!("{} is {told:?}", names::attribute(kind)))?;
    }
    Ok(())
}

fn unwrap_refused(session: Session, wrapper: &Wrapper) -> Outcome {
    let template = unwrapped(wrapper.wrap);
    let wrapped = wrapper.seal(&padded(wrapper.wrap))?;
    let label = vec![(CKA_LABEL, b"pkcs11-conformance, unwrapped".to_vec())];
    let before = need(session.find(&label), "C_FindObjects")?.len();
    let call = |bytes: &[u8], template: &Template| {
        session.unwrap(&wrapper.mechanism, wrapper.handle, bytes, template)
    };
    // What can be seen by the length alone is told of the length (5.1.6).
    let length = CKR_WRAPPED_KEY_LEN_RANGE;
    is(call(&wrapped[..wrapped.len() - 1], &template), length, "a shorter one")?;
    is(call(&[&wrapped[..], &[1]].concat(), &template), length, "a longer one")?;
    // ECB and CBC have nothing that shows a change; PKCS #1 v1.5 may give a random key instead.
    if matches!(wrapper.wrap, Wrap::Oaep | Wrap::Aes(Mode::Kw | Mode::Kwp)) {
        let mut changed = wrapped.clone();
        changed[10] ^= 1;
        is(call(&changed, &template), CKR_WRAPPED_KEY_INVALID, "a changed one")?;
    }
    let mut public = template.clone();
    public[0].1 = number(CKO_PUBLIC_KEY);
    // CKA_SENSITIVE is no attribute of a public key.
    let inconsistent =
        [CKR_TEMPLATE_INCONSISTENT, CKR_ATTRIBUTE_VALUE_INVALID, CKR_ATTRIBUTE_TYPE_INVALID];
    one_of(call(&wrapped, &public), &inconsistent, "a template of a public key")?;
    for (what, kind, value, wanted) in [
        (
            "an unknown attribute",
            CKA_VENDOR_DEFINED | 0x0bad_cafe,
            vec![1],
            &[CKR_ATTRIBUTE_TYPE_INVALID][..],
        ),
        ("CKA_VALUE", CKA_VALUE, vec![1; 24], &MADE[..]),
        ("CKA_LOCAL", CKA_LOCAL, flag(true), &MADE[..]),
        ("another CKA_LABEL", CKA_LABEL, b"another".to_vec(), &[CKR_TEMPLATE_INCONSISTENT][..]),
    ] {
        let more = [template.clone(), vec![(kind, value)]].concat();
        one_of(call(&wrapped, &more), wanted, &format!("a template with {what}"))?;
    }
    let rv = session.unwrap(&wrapper.mechanism, NOBODY, &wrapped, &template);
    is(rv, CKR_UNWRAPPING_KEY_HANDLE_INVALID, "an unwrapping key that is none")?;
    let after = need(session.find(&label), "C_FindObjects")?.len();
    ensure(before == after, || "a key was made all the same".to_owned())
}

fn encapsulate(context: &mut Context) -> Outcome {
    context.needs(C_EncapsulateKey)?;
    match context.offered(CKF_ENCAPSULATE)?.is_empty() {
        true => skip("no mechanism is offered for it"),
        false => skip("no mechanism of this program's is offered for it"),
    }
}
