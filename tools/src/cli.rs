//! The command line. Its help texts are also the man pages and the completions.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Diagnosis, key life and configuration of the PKCS#11 provider for Azure Key Vault and Managed
/// HSM.
///
/// Works with the module's own configuration. Exit code 0: done; 1: refused or failed, with one
/// sentence on standard error; 2: the command line makes no sense.
#[derive(Parser)]
#[command(name = "akv-pkcs11", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Args)]
pub struct Common {
    /// Configuration file, instead of the one the module would find.
    #[arg(long, value_name = "FILE", global = true, help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// The token to work on, by its label; needed where the configuration has several.
    #[arg(long, value_name = "LABEL", global = true, help_heading = "Everywhere")]
    pub token: Option<String>,
    /// JSON for programs instead of tables.
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// Where the client secret of a token with `login = "client-secret"` is: env:NAME or
    /// file:PATH. Asked for at a terminal otherwise.
    #[arg(long, value_name = "SOURCE", global = true, help_heading = "Everywhere")]
    pub pin: Option<String>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Find out what keeps the module from working: configuration, DNS, TLS, access token, list,
    /// and one signature.
    ///
    /// Each check that fails says what to do; a missing permission comes with the data action,
    /// the role and the az command that grants it. Without --token every token is examined.
    Doctor(DoctorArgs),
    /// Keys of a token: without a subcommand, lists them.
    #[command(visible_alias = "keys")]
    Key {
        #[command(subcommand)]
        command: Option<KeyCommand>,
    },
    /// The PKCS#11 URI of a token or key, and the ready line for openssl, nginx and Java.
    Uri(UriArgs),
    /// Write a commented configuration, a module file for p11-kit and a p11.cfg for Java.
    Init(InitArgs),
    /// The mechanisms the token offers.
    Mechanisms(MechanismsArgs),
    /// Completions for a shell, to standard output.
    Completions { shell: Shell },
    /// Man pages: this command's to standard output, or all of them into a folder.
    Man {
        /// Folder for one page per subcommand; made if it is missing.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct DoctorArgs {
    /// The key to sign with; otherwise the first one that may sign.
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Make no signature.
    #[arg(long, conflicts_with = "key")]
    pub no_sign: bool,
}

#[derive(Subcommand)]
pub enum KeyCommand {
    /// List the keys.
    List {
        /// The deleted ones that can still be recovered, instead.
        #[arg(long)]
        deleted: bool,
    },
    /// Everything about a key: its attributes, versions, tags and PKCS#11 identity.
    Show {
        #[command(flatten)]
        key: KeyArg,
        /// Its public key in PEM, and nothing else.
        #[arg(long, conflicts_with = "json")]
        pem: bool,
    },
    /// Make a key at the service.
    Generate {
        /// Its label, as programs will look for it; also its name, where that is legal.
        label: String,
        #[command(flatten)]
        kind: KindArgs,
        #[command(flatten)]
        properties: PropertyArgs,
    },
    /// Bring a key to the service.
    #[command(group = ArgGroup::new("what").required(true))]
    Import {
        /// Its label, as programs will look for it; also its name, where that is legal.
        label: String,
        /// A private key in PEM (PKCS#8, PKCS#1 or SEC 1, not encrypted); `-` is standard input.
        #[arg(long, value_name = "FILE", group = "what")]
        pem: Option<PathBuf>,
        /// With --pem: wrap it here under this key of the token (RSA-HSM, operation `import`), so
        /// that it never travels in clear (bring your own key).
        #[arg(long, value_name = "KEY", conflicts_with_all = ["byok", "aes"])]
        kek: Option<String>,
        /// A transfer blob of an HSM's vendor (bring your own key), with --type and --curve.
        #[arg(long, value_name = "FILE", group = "what")]
        byok: Option<PathBuf>,
        /// A secret key, 16, 24 or 32 bytes as they are (Managed HSM).
        #[arg(long, value_name = "FILE", group = "what")]
        aes: Option<PathBuf>,
        /// The type of the key in a transfer blob.
        #[arg(long, value_name = "TYPE", requires = "byok", default_value = "rsa")]
        r#type: KeyKind,
        /// The curve of an EC key in a transfer blob.
        #[arg(long, value_name = "CURVE", requires = "byok")]
        curve: Option<CurveName>,
        #[command(flatten)]
        properties: PropertyArgs,
    },
    /// Write a backup of a key with all its versions. Only the same subscription and geography
    /// (vault) or the same security domain (Managed HSM) can restore it.
    Backup {
        #[command(flatten)]
        key: KeyArg,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Restore a backup, under the name it was made of.
    Restore {
        /// The backup; `-` is standard input.
        file: PathBuf,
    },
    /// Make a new version, as the key's rotation policy says.
    Rotate {
        #[command(flatten)]
        key: KeyArg,
    },
    /// Show or replace a key's rotation policy.
    RotationPolicy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Get an exportable key, encrypted for an attested environment.
    Release {
        #[command(flatten)]
        key: KeyArg,
        /// The attestation token of that environment; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        target: PathBuf,
        /// A freshness value, which comes back in the answer.
        #[arg(long, value_name = "TEXT")]
        nonce: Option<String>,
        /// How the key is encrypted.
        #[arg(long, value_name = "NAME", value_parser = ["CKM_RSA_AES_KEY_WRAP",
            "RSA_AES_KEY_WRAP_256", "RSA_AES_KEY_WRAP_384"])]
        encryption: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete a key with all its versions; it can be recovered for a while.
    Delete {
        #[command(flatten)]
        key: KeyArg,
        #[command(flatten)]
        sure: Sure,
    },
    /// Bring a deleted key back.
    Recover {
        #[command(flatten)]
        key: KeyArg,
    },
    /// Destroy a deleted key for ever.
    Purge {
        #[command(flatten)]
        key: KeyArg,
        #[command(flatten)]
        sure: Sure,
    },
}

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// Show it.
    Show {
        #[command(flatten)]
        key: KeyArg,
    },
    /// Replace it. Durations are ISO 8601: P90D, P18M, P2Y.
    #[command(group = ArgGroup::new("policy").required(true).multiple(true))]
    Set {
        #[command(flatten)]
        key: KeyArg,
        /// Each new version expires after this.
        #[arg(long, value_name = "DURATION", group = "policy", value_parser = duration)]
        expires_after: Option<String>,
        /// Rotate this long after a version was made.
        #[arg(long, value_name = "DURATION", group = "policy", value_parser = duration,
            conflicts_with = "rotate_before_expiry")]
        rotate_after: Option<String>,
        /// Rotate this long before a version expires.
        #[arg(long, value_name = "DURATION", group = "policy", value_parser = duration)]
        rotate_before_expiry: Option<String>,
        /// Notify (Event Grid) this long before a version expires; not on a Managed HSM.
        #[arg(long, value_name = "DURATION", group = "policy", value_parser = duration)]
        notify_before_expiry: Option<String>,
        /// The policy as JSON, as the service writes it; `-` is standard input.
        #[arg(long, value_name = "FILE", group = "policy", conflicts_with_all = ["expires_after",
            "rotate_after", "rotate_before_expiry", "notify_before_expiry"])]
        file: Option<PathBuf>,
    },
}

#[derive(Args)]
pub struct KeyArg {
    /// Label or name of the key; name/version or label@version for one version.
    pub key: String,
}

#[derive(Args)]
pub struct Sure {
    /// Yes, do it.
    #[arg(long)]
    pub yes: bool,
}

#[derive(Args)]
pub struct OutputArgs {
    /// Where to write it; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Overwrite the file.
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct KindArgs {
    /// The type of key; secret keys are for a Managed HSM.
    #[arg(long, value_name = "TYPE", default_value = "rsa")]
    pub r#type: KeyKind,
    /// Bits: 2048, 3072, 4096 of an RSA key (default 2048), 128, 192, 256 of a secret one
    /// (default 256).
    #[arg(long, value_name = "BITS")]
    pub size: Option<u32>,
    /// The curve of an EC key (default P-256).
    #[arg(long, value_name = "CURVE")]
    pub curve: Option<CurveName>,
}

#[derive(Args)]
pub struct PropertyArgs {
    /// What it may be used for, separated by commas; otherwise the service decides.
    #[arg(long, value_name = "OPERATIONS", value_delimiter = ',', value_parser = OPERATIONS)]
    pub ops: Vec<String>,
    /// Keep it in the HSM (a vault must be Premium); otherwise `hsm_protection` decides.
    #[arg(long, conflicts_with = "software")]
    pub hsm: bool,
    /// Keep it in software, whatever `hsm_protection` says.
    #[arg(long)]
    pub software: bool,
    /// Not usable before this day (YYYY-MM-DD) or time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub not_before: Option<i64>,
    /// Not usable from this day or time on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub expires: Option<i64>,
    /// Make it disabled.
    #[arg(long)]
    pub disabled: bool,
    /// A tag beside those of the configuration; repeatable.
    #[arg(long, value_name = "NAME=VALUE", value_parser = tag)]
    pub tag: Vec<(String, String)>,
    /// CKA_ID, in hex; otherwise the key identifier of its public key.
    #[arg(long, value_name = "HEX", value_parser = id)]
    pub id: Option<Id>,
    /// It can be released under this policy (JSON); with it the key is exportable.
    #[arg(long, value_name = "FILE")]
    pub release_policy: Option<PathBuf>,
    /// Make a new version where a key of that name exists.
    #[arg(long)]
    pub new_version: bool,
}

#[derive(Args)]
pub struct UriArgs {
    /// The key; without it the token's URI.
    pub key: Option<String>,
    /// Where the module is, for the ready lines.
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// The URI alone.
    #[arg(long, short, conflicts_with = "json")]
    pub quiet: bool,
}

#[derive(Args)]
pub struct InitArgs {
    /// URL of the vault or Managed HSM.
    #[arg(long, value_name = "URL")]
    pub endpoint: String,
    /// How to authenticate: a type of docs/configuration.md.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub credential: String,
    /// Folder of the three files; made if it is missing.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Where the module is.
    #[arg(long, value_name = "FILE")]
    pub module: Option<PathBuf>,
    /// Overwrite files that exist.
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct MechanismsArgs {
    /// Every mechanism the module has, whatever a token offers; needs no configuration.
    #[arg(long)]
    pub all: bool,
}

/// A CKA_ID; clap would take a bare `Vec` for an option given several times.
#[derive(Clone, Debug)]
pub struct Id(pub Vec<u8>);

/// Types of key, without their protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// RSA
    Rsa,
    /// Elliptic curve
    Ec,
    /// Secret key
    Aes,
}

/// Curves by the service's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CurveName {
    #[value(name = "P-256")]
    P256,
    #[value(name = "P-256K")]
    P256K,
    #[value(name = "P-384")]
    P384,
    #[value(name = "P-521")]
    P521,
}

impl CurveName {
    /// As the contract writes it.
    pub fn name(self) -> &'static str {
        match self {
            CurveName::P256 => "P-256",
            CurveName::P256K => "P-256K",
            CurveName::P384 => "P-384",
            CurveName::P521 => "P-521",
        }
    }
}

const OPERATIONS: [&str; 8] =
    ["sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "import", "export"];

fn time(text: &str) -> Result<i64, String> {
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    humantime::parse_rfc3339_weak(&full)
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .ok_or_else(|| "neither a day (2027-01-31) nor a time (2027-01-31T12:00:00Z)".to_owned())
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a tag is NAME=VALUE".to_owned()),
    }
}

fn id(text: &str) -> Result<Id, String> {
    akv_pkcs11::hex::decode(text)
        .filter(|id| !id.is_empty())
        .map(Id)
        .ok_or_else(|| "pairs of hex digits are wanted".to_owned())
}

/// ISO 8601 in days, months and years, as the service takes them: `P90D`, `P1Y6M`.
fn duration(text: &str) -> Result<String, String> {
    let mut rest = text.strip_prefix('P').unwrap_or_default();
    let mut units = "YMD";
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let unit = rest[digits..].chars().next().and_then(|unit| units.find(unit));
        let (1.., Some(at)) = (digits, unit) else {
            parts = 0;
            break;
        };
        units = &units[at + 1..];
        rest = &rest[digits + 1..];
        parts += 1;
    }
    match parts {
        0 => Err("an ISO 8601 duration is wanted: P90D, P18M, P2Y".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_days_months_and_years() {
        for good in ["P90D", "P18M", "P2Y", "P1Y6M10D"] {
            assert_eq!(duration(good), Ok(good.to_owned()));
        }
        for bad in ["", "P", "90D", "P90", "PD", "P1D1Y", "P1W", "PT1H", "P1é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_days_or_rfc_3339() {
        assert_eq!(time("1970-01-02"), Ok(86_400));
        assert_eq!(time("1970-01-01T00:00:07Z"), Ok(7));
        for bad in ["tomorrow", "2027-02-30", "0000-01-01"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
