//! Instructions and allocations of one warm C_SignInit + C_Sign, counted by callgrind: figures that
//! a busy machine does not change, so that a change of the program can be held to them.
//!
//! What is counted is the Rust code of the module: ours, rustls, serde. libc and AWS-LC choose
//! their code by the processor they find, and the host's own share is not the module's; with those
//! left out, machines with the same compiler count the same. Allocations are the module's calls
//! of libc's allocator. Two runs of different length are subtracted, so that neither start nor
//! handshake counts.

mod profile;

use std::{fmt, fs, io, path::Path, process::Command, str::FromStr};

use self::profile::Profile;
use crate::{
    caller::DIGEST,
    host::{Module, Target},
    setup::{Setup, arguments},
};

const FEW: usize = 20;
const MANY: usize = 120;
/// Per cent; another compiler makes other code of the same program.
const TOLERANCE: f64 = 5.0;
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 15.0;

/// What one call costs, and who compiled it.
struct Figures {
    compiler: String,
    instructions: u64,
    allocations: u64,
}

/// Counts, and compares with what `recorded` holds; with `update`, writes it there.
pub fn run(setup: &Setup, recorded: &Path, update: bool) -> io::Result<()> {
    let _twin = setup.twin(0, "")?;
    let (few, many) = (count(setup, FEW)?, count(setup, MANY)?);
    let each = |of: fn(&Profile) -> u64| (of(&many) - of(&few)) / (MANY - FEW) as u64;
    let now = Figures {
        compiler: compiler(&setup.module)?,
        instructions: each(|profile| profile.instructions),
        allocations: each(|profile| profile.allocations),
    };
    println!("with libc, AWS-LC and the host: {} instructions here", each(|profile| profile.total));
    if update {
        return fs::write(recorded, now.to_string());
    }
    let before: Figures = fs::read_to_string(recorded)?.parse()?;
    let tolerance = match now.compiler == before.compiler {
        true => TOLERANCE,
        false => {
            println!(
                "compiled with {}, recorded with {}: {TOLERANCE_OF_ANOTHER_COMPILER} % more is let \
                 pass",
                now.compiler, before.compiler
            );
            TOLERANCE_OF_ANOTHER_COMPILER
        }
    };
    let mut worse = Vec::new();
    for (what, now, before) in [
        ("instructions", now.instructions, before.instructions),
        ("allocations", now.allocations, before.allocations),
    ] {
        let change = (now as f64 / before as f64 - 1.0) * 100.0;
        println!(
            "{what} of one warm C_SignInit + C_Sign: {now}, recorded {before} ({change:+.1} %)"
        );
        if change > tolerance {
            worse.push(format!("{change:.1} % more {what}"));
        }
    }
    match worse.is_empty() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} than {} records: find out why, or record the new figures with the reason in the \
             commit (make bench-instructions UPDATE=--update)",
            worse.join(" and "),
            recorded.display()
        ))),
    }
}

fn count(setup: &Setup, calls: usize) -> io::Result<Profile> {
    let out = setup.folder.path().join(format!("callgrind.{calls}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--demangle=no", "--compress-strings=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["calls", &calls.to_string()])
        .args(arguments(&setup.target()))
        .env("AKV_PKCS11_CONFIG", setup.config())
        .env("BENCH_SECRET", "secret")
        .output()
        .map_err(|error| io::Error::other(format!("valgrind (package valgrind): {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("valgrind: {said}")));
    }
    let profile = Profile::of(&fs::read_to_string(&out)?, &setup.module);
    match profile.instructions {
        0 => Err(io::Error::other(format!(
            "{} has no names of functions: build it with --profile instructions",
            setup.module.display()
        ))),
        _ => Ok(profile),
    }
}

/// What a module says in its section `.comment` about who compiled it.
fn compiler(module: &Path) -> io::Result<String> {
    const MARK: &[u8] = b"rustc version ";
    let bytes = fs::read(module)?;
    let at = bytes.windows(MARK.len()).position(|window| window == MARK);
    let text = at.and_then(|at| bytes[at..].split(|byte| *byte == 0).next());
    let text = text.map(|text| String::from_utf8_lossy(text).into_owned());
    text.ok_or_else(|| io::Error::other(format!("{} names no compiler", module.display())))
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { compiler, instructions, allocations } = self;
        writeln!(f, "compiler: {compiler}")?;
        writeln!(f, "instructions: {instructions}")?;
        writeln!(f, "allocations: {allocations}")
    }
}

impl FromStr for Figures {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Figures> {
        let of = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(": "));
            let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value);
            value.ok_or_else(|| io::Error::other(format!("no {name} is recorded")))
        };
        let number = |name: &str| of(name)?.parse().map_err(io::Error::other);
        Ok(Figures {
            compiler: of("compiler")?.to_owned(),
            instructions: number("instructions")?,
            allocations: number("allocations")?,
        })
    }
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
