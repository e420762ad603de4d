//! The command line of the emulator.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use akv_emulator::config::{Config, ServiceConfig};
use akv_emulator::{Emulator, Options, Seed};
use clap::{Args, Parser, Subcommand};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// Azure Key Vault and Managed HSM on this machine, for tests.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM, SIGINT or POST /shutdown; one line of JSON on standard output tells
    /// when everything is ready, and where.
    Run(Common),
    /// Serve while a command runs, its environment set so that it finds the emulator; ends with
    /// the command's exit code.
    Exec {
        #[command(flatten)]
        common: Common,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Args)]
struct Common {
    /// Configuration file (TOML): services, ports, identities, switches.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A vault of this name; repeatable. Without any --vault and --hsm: one vault, "emulator".
    #[arg(long, value_name = "NAME[:PORT]")]
    vault: Vec<String>,
    /// A Managed HSM of this name; repeatable.
    #[arg(long, value_name = "NAME[:PORT]")]
    hsm: Vec<String>,
    /// Keys and certificates to start with: a TOML or JSON file, or `demo` for one key of every
    /// kind (rsa2048, rsa3072, rsa4096, p256, p256k, p384, p521; aes128, aes256 on an HSM).
    #[arg(long, value_name = "FILE|demo")]
    seed: Vec<String>,
    /// Go by the names of the public cloud: every service and the authority get a loopback address
    /// of their own, and port 443 where none is given; AKV_EMULATOR_HOSTS names a hosts file.
    #[arg(long)]
    public_names: bool,
    /// Where to write the CA certificate (default: the emulator's temporary folder).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run(common) => run(common).await,
            Command::Exec { common, command } => exec(common, command).await,
        }
    });
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &str) -> ExitCode {
    eprintln!("akv-emulator: {error}");
    ExitCode::from(2)
}

async fn run(common: Common) -> Result<ExitCode, String> {
    // Installed before the ready line, so that nobody can be too early.
    let mut term = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let emulator = Emulator::start(options(common)?).await?;
    announce(&emulator)?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
        () = emulator.asked_to_stop() => {}
    }
    Ok(ExitCode::SUCCESS)
}

async fn exec(common: Common, command: Vec<OsString>) -> Result<ExitCode, String> {
    let handled = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::quit(), Signal::QUIT),
    ];
    let (pass_on, mut passed) = tokio::sync::mpsc::unbounded_channel();
    for (kind, number) in handled {
        let mut arrivals = signal(kind).map_err(|error| error.to_string())?;
        let pass_on = pass_on.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() && pass_on.send(number).is_ok() {}
        });
    }
    let emulator = Emulator::start(options(common)?).await?;
    let Some((program, arguments)) = command.split_first() else {
        return Err("a command is needed after --".to_owned());
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(emulator.ready().environment())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                return status.map(exit_code).map_err(|error| error.to_string());
            }
            Some(number) = passed.recv() => {
                let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
                if let Some(pid) = pid {
                    // It may have ended this very moment.
                    let _ = kill_process(pid, number);
                }
            }
        }
    }
}

/// As a shell tells it: 128 + signal for a child that a signal ended.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|number| 128 + number));
    ExitCode::from(u8::try_from(code.unwrap_or(255)).unwrap_or(255))
}

#[allow(clippy::print_stdout, reason = "the ready line is what standard output is for")]
fn announce(emulator: &Emulator) -> Result<(), String> {
    let line = serde_json::to_string(emulator.ready()).map_err(|error| error.to_string())?;
    println!("{line}");
    Ok(())
}

fn options(common: Common) -> Result<Options, String> {
    let mut config = match &common.config {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
        }
    };
    config.public_names |= common.public_names;
    for (names, services) in [(&common.vault, &mut config.vault), (&common.hsm, &mut config.hsm)] {
        for name in names {
            services.push(service(name)?);
        }
    }
    if config.vault.is_empty() && config.hsm.is_empty() {
        config.vault.push(ServiceConfig { name: "emulator".to_owned(), port: 0 });
    }
    let seeds = common.seed.iter().map(|name| match name.as_str() {
        "demo" => Ok(Seed::demo()),
        file => Seed::read(file.as_ref()),
    });
    Ok(Options { config, seeds: seeds.collect::<Result<_, _>>()?, ca_file: common.ca_file })
}

fn service(text: &str) -> Result<ServiceConfig, String> {
    let (name, port) = match text.split_once(':') {
        None => (text, Ok(0)),
        Some((name, port)) => (name, port.parse()),
    };
    let port = port.map_err(|_| format!("'{text}': the port is no number below 65536"))?;
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if name.is_empty() || !legal {
        return Err(format!("'{text}': a service's name has letters, digits and hyphens only"));
    }
    Ok(ServiceConfig { name: name.to_owned(), port })
}
