//! Part two: calls that need no request, with 5,000 keys known.

use std::{
    hint::black_box,
    io,
    time::{Duration, Instant},
};

use cryptoki_sys::*;
use openssl::{
    bn::BigNum,
    ec::{EcGroup, EcKey},
    ecdsa::EcdsaSig,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::{Signer, Verifier},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    caller::DIGEST,
    host::{Module, Session, Target, labelled},
    report::{Goal, Report},
    setup::Setup,
    stats::median,
};

/// Keys of the twin.
pub const KEYS: usize = 5_000;
/// Rounds, the calls taking turns.
const ROUNDS: usize = 15;

/// Microseconds a call takes.
#[derive(Serialize, Deserialize)]
struct Figure {
    name: String,
    microseconds: f64,
}

/// Measures in a process of its own and tells.
pub fn run(setup: &Setup, report: &mut Report) -> io::Result<()> {
    let _twin = setup.twin(KEYS, "find_rate = 0\ncache_ttl = '1h'")?;
    let figures: Vec<Figure> = setup.ask("local")?;
    let of = |name: &str| {
        figures.iter().find(|one| one.name == name).map_or(f64::NAN, |one| one.microseconds)
    };
    report.section("Calls that need no request, among 5,000 known keys");
    for (name, most) in [
        ("C_GetSessionInfo", 1.0),
        ("C_GetAttributeValue", 2.0),
        ("C_SignInit", 2.0),
        ("find_by_label", 20.0),
        ("find_by_id", 20.0),
        ("C_GenerateRandom_32", 2.0),
    ] {
        report.goal(format!("local.{name}"), of(name), "us", Goal::AtMost(most));
    }
    for (name, other, most) in [
        ("C_Digest_1MiB", "sha2_1MiB", 1.05),
        ("C_Verify_RSA-2048", "openssl_RSA-2048", 1.1),
        ("C_Verify_P-256", "openssl_P-256", 1.1),
        ("C_Verify_P-384", "openssl_P-384", 1.1),
    ] {
        report.figure(format!("local.{name}"), of(name), "us");
        report.figure(format!("local.{other}"), of(other), "us");
        let ratio = of(name) / of(other);
        report.goal(format!("local.{name}_over_{other}"), ratio, "ratio", Goal::AtMost(most));
    }
    Ok(())
}

/// The measuring process: prints the figures.
pub fn measure(target: &Target) -> io::Result<()> {
    let module = Module::load(&target.module)?;
    module.initialize()?;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    let found = session.find(Some(CKO_PRIVATE_KEY), None)?.len();
    if found != KEYS + 1 {
        return Err(io::Error::other(format!("{found} keys instead of {KEYS} and one")));
    }
    let key = session.private_key(&target.key)?;
    // An operation that began ends with the next C_Sign alone: the query of its size leaves it,
    // and a second C_SignInit answers CKR_OPERATION_ACTIVE at the price of a refusal. So each
    // measured call begins in a session without one.
    let mut fresh = Vec::new();
    for _ in 0..(ROUNDS + 1) * (SIGN_INITS + 1) {
        fresh.push(module.open(module.slot(target.token.as_deref())?, None)?);
    }
    let label = labelled("key-04321");
    let mebibyte = vec![0xa5; 1 << 20];
    let rsa = PKey::from_rsa(Rsa::generate(2048)?)?;
    let curve = |nid| {
        Ok::<_, io::Error>(PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(nid)?)?)?)
    };
    let p256 = curve(Nid::X9_62_PRIME256V1)?;
    let p384 = curve(Nid::SECP384R1)?;
    let mut bench = Bench::default();
    bench.add("C_GetSessionInfo", 2000, || Ok(black_box(session.info()?.state) as usize));
    bench.add("C_GetAttributeValue", 2000, || Ok(session.attributes(key)? as usize));
    let mut fresh = fresh.iter();
    bench.add("C_SignInit", SIGN_INITS, move || {
        let session = fresh.next().ok_or_else(|| io::Error::other("no session left"))?;
        session.sign_init(key)?;
        Ok(0)
    });
    bench.add("find_by_label", 500, || Ok(session.find(Some(CKO_PRIVATE_KEY), Some(label))?.len()));
    let id = session.find(Some(CKO_PRIVATE_KEY), Some(label))?.first().map(|key| session.id(*key));
    let id = id.transpose()?.ok_or_else(|| io::Error::other("the key has no label"))?;
    bench.add("find_by_id", 500, move || {
        match session.find(Some(CKO_PRIVATE_KEY), Some((CKA_ID, &id)))?.len() {
            1 => Ok(1),
            found => Err(io::Error::other(format!("{found} keys with one key's id"))),
        }
    });
    bench.add("C_GenerateRandom_32", 2000, || {
        session.random(&mut [0; 32])?;
        Ok(0)
    });
    bench.add("C_Digest_1MiB", 4, || Ok(session.digest(black_box(&mebibyte))?.len()));
    bench.add("sha2_1MiB", 4, || Ok(Sha256::digest(black_box(&mebibyte)).len()));
    for (name, key, digest, mechanism) in [
        ("RSA-2048", &rsa, MessageDigest::sha256(), CKM_SHA256_RSA_PKCS),
        ("P-256", &p256, MessageDigest::sha256(), CKM_ECDSA_SHA256),
        ("P-384", &p384, MessageDigest::sha384(), CKM_ECDSA_SHA384),
    ] {
        let signature = Signer::new(digest, key)?.sign_oneshot_to_vec(&DIGEST)?;
        let (handle, ours) = public(&session, key, &signature)?;
        bench.add(&format!("C_Verify_{name}"), 50, move || {
            session.verify(mechanism, handle, &DIGEST, &ours)?;
            Ok(0)
        });
        bench.add(&format!("openssl_{name}"), 50, move || {
            match Verifier::new(digest, key)?.verify_oneshot(&signature, &DIGEST)? {
                true => Ok(0),
                false => Err(io::Error::other("OpenSSL refuses its own signature")),
            }
        });
    }
    println!("{}", serde_json::to_string(&bench.run()?)?);
    Ok(())
}

const SIGN_INITS: usize = 500;

/// The public half as a session object, and the signature in the form of PKCS#11.
fn public(session: &Session, key: &PKey<Private>, signature: &[u8]) -> io::Result<(u64, Vec<u8>)> {
    if let Ok(rsa) = key.rsa() {
        let mut parts = [(CKA_MODULUS, rsa.n().to_vec()), (CKA_PUBLIC_EXPONENT, rsa.e().to_vec())];
        return Ok((session.public_key(CKK_RSA, &mut parts)?, signature.to_vec()));
    }
    // The point stands at the end of a SubjectPublicKeyInfo, the curve's OID inside its first
    // SEQUENCE; both are what PKCS#11 wants, the point in an OCTET STRING.
    let ec = key.ec_key()?;
    let bits = ec.group().degree();
    let bytes = bits.div_ceil(8) as usize;
    let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
    let mut context = openssl::bn::BigNumContext::new()?;
    ec.public_key().affine_coordinates(ec.group(), &mut x, &mut y, &mut context)?;
    let width = i32::try_from(bytes).map_err(io::Error::other)?;
    let point = [&[4][..], &x.to_vec_padded(width)?, &y.to_vec_padded(width)?].concat();
    let octets = [&[4, point.len() as u8][..], &point].concat();
    let curve: &[u8] = match bits {
        256 => &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
        _ => &[6, 5, 0x2b, 0x81, 4, 0, 0x22],
    };
    let mut parts = [(CKA_EC_PARAMS, curve.to_vec()), (CKA_EC_POINT, octets)];
    let handle = session.public_key(CKK_EC, &mut parts)?;
    let pair = EcdsaSig::from_der(signature)?;
    Ok((handle, [pair.r().to_vec_padded(width)?, pair.s().to_vec_padded(width)?].concat()))
}

type Call<'a> = Box<dyn FnMut() -> io::Result<usize> + 'a>;

/// Calls that take turns.
#[derive(Default)]
struct Bench<'a> {
    calls: Vec<(String, usize, Call<'a>)>,
}

impl<'a> Bench<'a> {
    fn add(&mut self, name: &str, times: usize, call: impl FnMut() -> io::Result<usize> + 'a) {
        self.calls.push((name.to_owned(), times, Box::new(call)));
    }

    fn run(mut self) -> io::Result<Vec<Figure>> {
        let mut rounds = vec![Vec::with_capacity(ROUNDS); self.calls.len()];
        // The first round fills caches and is not counted.
        for round in 0..=ROUNDS {
            for ((_, times, call), taken) in self.calls.iter_mut().zip(&mut rounds) {
                // Whoever is first to read a mebibyte would pay for bringing it into the caches.
                black_box(call()?);
                let began = Instant::now();
                for _ in 0..*times {
                    black_box(call()?);
                }
                if round > 0 {
                    taken.push(microseconds(began.elapsed()) / *times as f64);
                }
            }
        }
        let named = self.calls.into_iter().zip(rounds);
        Ok(named.map(|((name, ..), taken)| Figure { name, microseconds: median(taken) }).collect())
    }
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
