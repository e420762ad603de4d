//! Part four: a fresh process, from dlopen to its first signature, and the requests it makes.

use std::{io, time::Instant};

use cryptoki_sys::*;
use serde::{Deserialize, Serialize};

use crate::{
    caller::DIGEST,
    host::{Failed, Module, Target, labelled},
    report::{Goal, Report},
    setup::Setup,
    stats::median,
    twin::Twin,
};

/// What the fresh process saw, microseconds.
#[derive(Serialize, Deserialize)]
struct Start {
    initialize: f64,
    first_signature: f64,
}

/// Measures this many fresh processes.
pub fn run(setup: &Setup, processes: usize, report: &mut Report) -> io::Result<()> {
    report.section("A fresh process");
    let mut twin = setup.twin(0, "")?;
    let mut starts = Vec::with_capacity(processes);
    for _ in 0..processes {
        starts.push(setup.ask::<Start>("first")?);
    }
    let initialize = median(starts.iter().map(|start| start.initialize)) / 1000.0;
    report.goal("start.C_Initialize", initialize, "ms", Goal::AtMost(1.0));
    let first = median(starts.iter().map(|start| start.first_signature)) / 1000.0;
    report.goal("start.first_signature", first, "ms from dlopen", Goal::AtMost(6.0));

    let asked = requests(setup, &mut twin, "first")?;
    report.goal("requests.first_signature", asked, "requests", Goal::Exactly(3.0));
    let warm = requests(setup, &mut twin, "second")? - asked;
    report.goal("requests.warm_signature", warm, "requests", Goal::Exactly(1.0));
    let without = requests(setup, &mut twin, "no-request")?;
    report.goal("requests.open_and_local_calls", without, "requests", Goal::Exactly(0.0));
    let known = requests(setup, &mut twin, "known")? - 2.0;
    report.goal("requests.calls_with_a_known_key", known, "requests", Goal::Exactly(0.0));
    setup.configure(&twin, "")?;
    let challenged = requests(setup, &mut twin, "first")?;
    report.goal("requests.first_signature_no_tenant", challenged, "requests", Goal::Exactly(4.0));
    Ok(())
}

fn requests(setup: &Setup, twin: &mut Twin, role: &str) -> io::Result<f64> {
    twin.reset()?;
    let _: Start = setup.ask(role)?;
    Ok(twin.report()?.counts.values().sum::<u64>() as f64)
}

/// The fresh process: `signatures` of them.
pub fn start(target: &Target, signatures: usize) -> io::Result<()> {
    let began = Instant::now();
    let module = Module::load(&target.module)?;
    let loaded = Instant::now();
    module.initialize()?;
    let initialize = loaded.elapsed().as_secs_f64() * 1e6;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    let key = session.private_key(&target.key)?;
    for _ in 0..signatures {
        session.sign(key, &DIGEST)?;
    }
    let first_signature = began.elapsed().as_secs_f64() * 1e6;
    println!("{}", serde_json::to_string(&Start { initialize, first_signature })?);
    Ok(())
}

/// Everything that must need no request though no key is known.
pub fn no_request(target: &Target) -> io::Result<()> {
    let module = Module::load(&target.module)?;
    module.initialize()?;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    session.info()?;
    session.digest(&DIGEST)?;
    session.random(&mut [0; 32])?;
    let rsa = openssl::rsa::Rsa::generate(2048)?;
    let mut parts = [
        (CKA_MODULUS, rsa.n().to_vec()),
        (CKA_PUBLIC_EXPONENT, rsa.e().to_vec()),
        (CKA_ENCRYPT, vec![CK_TRUE]),
    ];
    let key = session.public_key(CKK_RSA, &mut parts)?;
    session.encrypt(key, &DIGEST)?;
    println!("{}", serde_json::to_string(&Start { initialize: 0.0, first_signature: 0.0 })?);
    Ok(())
}

/// Everything that must need no request once the key is known, which takes two (token, key).
pub fn known(target: &Target) -> io::Result<()> {
    let module = Module::load(&target.module)?;
    module.initialize()?;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    let key = session.private_key(&target.key)?;
    session.attributes(key)?;
    session.sign_init(key)?;
    session.signature_size(&DIGEST)?;
    let public = session.find(Some(CKO_PUBLIC_KEY), Some(labelled(&target.key)))?;
    let public = public.first().copied().ok_or_else(|| io::Error::other("no public key"))?;
    let refused: Option<CK_RV> = match session.verify(CKM_ECDSA, public, &DIGEST, &[1; 64]) {
        Ok(()) => None,
        Err(Failed(_, rv)) => Some(rv),
    };
    if refused != Some(CKR_SIGNATURE_INVALID) {
        return Err(io::Error::other(format!("a wrong signature was answered {refused:?}")));
    }
    println!("{}", serde_json::to_string(&Start { initialize: 0.0, first_signature: 0.0 })?);
    Ok(())
}
