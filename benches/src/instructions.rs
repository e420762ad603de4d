//! Instructions of one warm C_SignInit + C_Sign, counted by callgrind: a figure that a busy
//! machine does not change, so that a change of the program can be held to it.

use std::{fs, io, path::Path, process::Command};

use crate::{
    caller::DIGEST,
    host::{Module, Target},
    setup::{Setup, arguments},
};

const FEW: usize = 20;
const MANY: usize = 120;
/// Per cent.
const TOLERANCE: f64 = 5.0;

/// Counts, and compares with what `recorded` holds; with `update`, writes it there.
pub fn run(setup: &Setup, recorded: &Path, update: bool) -> io::Result<()> {
    let _twin = setup.twin(0, "")?;
    let few = count(setup, FEW)?;
    let many = count(setup, MANY)?;
    let each = (many - few) / (MANY - FEW) as u64;
    if update {
        return fs::write(recorded, format!("{each}\n"));
    }
    let before: u64 = fs::read_to_string(recorded)?.trim().parse().map_err(io::Error::other)?;
    let change = (each as f64 / before as f64 - 1.0) * 100.0;
    println!(
        "instructions of one warm C_SignInit + C_Sign: {each}, recorded {before} ({change:+.1} %)"
    );
    match change <= TOLERANCE {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{change:.1} % more instructions than {} records: find out why, or record the new \
             figure with the reason in the commit (make bench-instructions UPDATE=--update)",
            recorded.display()
        ))),
    }
}

fn count(setup: &Setup, calls: usize) -> io::Result<u64> {
    let out = setup.folder.path().join(format!("callgrind.{calls}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["calls", &calls.to_string()])
        .args(arguments(&setup.target()))
        .env("AKV_PKCS11_CONFIG", setup.config())
        .env("BENCH_SECRET", "secret")
        .output()
        .map_err(|error| io::Error::other(format!("valgrind (package valgrind): {error}")))?;
    let text = fs::read_to_string(&out).unwrap_or_default();
    let totals = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let totals = totals.and_then(|text| text.trim().parse().ok());
    totals.filter(|_| output.status.success()).ok_or_else(|| {
        io::Error::other(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// The counted process.
pub fn calls(target: &Target, calls: usize) -> io::Result<()> {
    let module = Module::load(&target.module)?;
    module.initialize()?;
    let session = module.open(module.slot(target.token.as_deref())?, target.pin.as_deref())?;
    let key = session.private_key(&target.key)?;
    for _ in 0..calls {
        session.sign(key, &DIGEST)?;
    }
    Ok(())
}
