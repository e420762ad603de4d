//! The configuration: what the TOML file, the environment or `pReserved` said, as plain data.
//!
//! Everything a forked child could no longer read (files, environment) is read here once, at
//! C_Initialize, and carried as bytes: certificates, CA files, secrets given as `file:` or `env:`.
//! No request is made. docs/configuration.md is made of the tables in `keys.rs` and `cloud.rs`.

mod cloud;
mod convert;
mod credential;
mod env;
mod file;
pub mod keys;
mod model;
mod pin;
mod public_key;
mod replica;
mod rules;
mod section;
mod token;
mod value;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use cryptoki_sys::{CK_RV, CKR_ARGUMENTS_BAD, CKR_FUNCTION_FAILED};

use self::{
    convert::Context,
    section::Section,
    value::{Item, Items, Raw},
};
pub use self::{env::Env, model::*, pin::verify_pin, rules::name_is_legal};
use crate::error::{Error, Result};

/// What `pReserved` of C_Initialize points to begins with this, where it is ours to read.
pub const RESERVED_PREFIX: &str = "akv-pkcs11:";

/// Where the machine's configuration is.
const SYSTEM: &str = "/etc/akv-pkcs11/config.toml";

impl Config {
    /// Finds and reads the configuration.
    ///
    /// The first of these counts, alone:
    /// 1. `reserved`: the string `pReserved` of C_Initialize pointed to, `akv-pkcs11:` and a path,
    ///    or `akv-pkcs11:` and TOML (recognised by a `=` or a line break);
    /// 2. the file that `AKV_PKCS11_CONFIG` names; `none` skips files altogether;
    /// 3. `$XDG_CONFIG_HOME/akv-pkcs11/config.toml`, `$HOME/.config/…` where that is not set;
    /// 4. `/etc/akv-pkcs11/config.toml`;
    /// 5. the variables `AKV_PKCS11_ENDPOINT` and so on: one token.
    ///
    /// `AKV_PKCS11_LOG` overrides the log of each. With `secure` (a set-uid host, AT_SECURE)
    /// `reserved`, home and environment do not count.
    ///
    /// # Errors
    /// A sentence that names file, line and value and is meant for the operator: CKR_ARGUMENTS_BAD
    /// where the text of `reserved` or the path in it is at fault, CKR_FUNCTION_FAILED otherwise
    /// (of the codes PKCS#11 3.2, 5.4 allows C_Initialize, the one that claims nothing else).
    pub fn load(reserved: Option<&str>, env: &Env, secure: bool) -> Result<Config> {
        load_from(reserved, env, secure, Path::new(SYSTEM))
    }

    /// Reads a configuration from TOML. `source` names it in messages; relative paths start at the
    /// working directory.
    ///
    /// # Errors
    /// CKR_ARGUMENTS_BAD and a sentence that begins with `source` and the line.
    pub fn parse(text: &str, source: &str, env: &Env) -> Result<Config> {
        let folder = working_directory();
        let context = Context { folder: &folder, env, exposed: None, rv: CKR_ARGUMENTS_BAD };
        from_toml(&context, text, source)
    }
}

fn load_from(reserved: Option<&str>, env: &Env, secure: bool, system: &Path) -> Result<Config> {
    let nothing = Env::empty();
    let (reserved, env) = if secure { (None, &nothing) } else { (reserved, env) };
    if let Some(reserved) = reserved {
        let text = reserved.strip_prefix(RESERVED_PREFIX).unwrap_or(reserved);
        if text.contains(['=', '\n']) {
            return Config::parse(text, "pReserved", env);
        }
        if text.is_empty() {
            let sentence = "pReserved: akv-pkcs11: is followed by neither a path nor TOML";
            return Err(Error::new(CKR_ARGUMENTS_BAD, sentence));
        }
        return from_file(Path::new(text), env, CKR_ARGUMENTS_BAD);
    }
    let explicit = env.var("AKV_PKCS11_CONFIG")?;
    let mut candidates = Vec::new();
    match explicit.as_deref() {
        Some("none") => {}
        Some(path) => return from_file(Path::new(path), env, CKR_FUNCTION_FAILED),
        None => {
            candidates.extend(home_file(env)?);
            candidates.push(system.to_owned());
        }
    }
    for path in &candidates {
        // A folder we may not look into (another user's home in $HOME) is not ours to use.
        if path.metadata().is_ok() {
            let mut config = from_file(path, env, CKR_FUNCTION_FAILED)?;
            if env.var("AKV_PKCS11_ENDPOINT")?.is_some() {
                config.warnings.push(format!(
                    "AKV_PKCS11_ENDPOINT is not used, because {} exists; AKV_PKCS11_CONFIG=none \
                     skips files",
                    path.display()
                ));
            }
            return Ok(config);
        }
    }
    from_environment(env, &candidates)
}

fn home_file(env: &Env) -> Result<Option<PathBuf>> {
    let absolute = |path: String| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let folder = match env.var("XDG_CONFIG_HOME")?.and_then(absolute) {
        Some(folder) => Some(folder),
        None => env.var("HOME")?.and_then(absolute).map(|home| home.join(".config")),
    };
    Ok(folder.map(|folder| folder.join("akv-pkcs11/config.toml")))
}

/// `unreadable` is the CKR of a path that cannot be used; a mistake inside is always
/// CKR_FUNCTION_FAILED.
fn from_file(path: &Path, env: &Env, unreadable: CK_RV) -> Result<Config> {
    let path = working_directory().join(path);
    let file = file::read_config(&path).map_err(|sentence| Error::new(unreadable, sentence))?;
    let context = Context {
        folder: path.parent().unwrap_or(Path::new("/")),
        env,
        exposed: file.exposed.then_some(path.as_path()),
        rv: CKR_FUNCTION_FAILED,
    };
    from_toml(&context, &file.text, &path.display().to_string())
}

fn from_toml(context: &Context<'_>, text: &str, source: &str) -> Result<Config> {
    let items = value::parse_toml(text, source, context.rv)?;
    from_items(context, &items, source)
}

fn from_environment(env: &Env, looked_for: &[PathBuf]) -> Result<Config> {
    let folder = working_directory();
    let context = Context { folder: &folder, env, exposed: None, rv: CKR_FUNCTION_FAILED };
    let token = value::from_environment(keys::TOKEN, env)?;
    if !token.contains_key("endpoint") {
        let places: Vec<_> = looked_for.iter().map(|path| path.display().to_string()).collect();
        let none_of = match places.is_empty() {
            true => String::new(),
            false => format!(" ({} not found)", places.join(", ")),
        };
        return Err(Error::new(
            context.rv,
            format!(
                "no configuration{none_of}: write {SYSTEM} with a [[token]] and its endpoint, or \
                 name a file in AKV_PKCS11_CONFIG, or set AKV_PKCS11_ENDPOINT to the URL of a \
                 vault or Managed HSM"
            ),
        ));
    }
    let place = |raw| Item { raw, at: "environment".to_owned() };
    let items =
        Items::from([("token".to_owned(), place(Raw::List(vec![place(Raw::Table(token))])))]);
    from_items(&context, &items, "environment")
}

fn from_items(context: &Context<'_>, items: &Items, source: &str) -> Result<Config> {
    let root = Section::new(context, keys::ROOT, items, String::new(), source.to_owned())?;
    let mut warnings = Vec::new();
    let mut tokens: Vec<TokenConfig> = Vec::new();
    for (position, (items, at)) in root.tables("token").iter().enumerate() {
        let position = position as u64;
        let token = token::read(context, items.clone(), at, position, &mut warnings)?;
        for other in &tokens {
            let shared = if other.label == token.label {
                format!("label {:?}", token.label)
            } else if other.slot == token.slot {
                format!("slot {}", token.slot)
            } else {
                continue;
            };
            let sentence = format!(
                "{at}: token {:?}: {shared} is that of an earlier token; give this one its own",
                token.label
            );
            return Err(Error::new(context.rv, sentence));
        }
        tokens.push(token);
    }
    if tokens.is_empty() {
        return Err(root.error("token", "there is no [[token]]; one vault or HSM needs one"));
    }
    let log = log_config(context, root.tables("log").first())?;
    let metrics_dir = match context.env.var("AKV_PKCS11_METRICS_DIR")? {
        Some(path) => Some(context.folder.join(path)),
        None => root.path("metrics_dir").map(Path::to_owned),
    };
    Ok(Config { tokens, log, metrics_dir, source: source.to_owned(), warnings })
}

fn log_config(context: &Context<'_>, given: Option<&(Items, String)>) -> Result<LogConfig> {
    let (mut items, mut at) = given.cloned().unwrap_or_default();
    if let Some(text) = context.env.var("AKV_PKCS11_LOG")? {
        at = "AKV_PKCS11_LOG".to_owned();
        let (level, sink) = match text.split_once(',') {
            Some((level, sink)) => (level, Some(sink)),
            None => (text.as_str(), None),
        };
        items.insert("level".to_owned(), Item::text(level, at.clone()));
        if let Some(sink) = sink {
            items.insert("sink".to_owned(), Item::text(sink, at.clone()));
        }
    }
    let section = Section::new(context, keys::LOG, &items, "log: ".to_owned(), at)?;
    let level = section.need("level", section.text("level"))?;
    let sink = section.need("sink", section.text("sink"))?;
    Ok(LogConfig {
        level: level.parse().map_err(|_| section.refuse("level", "is not a level"))?,
        sink: match (sink, sink.strip_prefix("file:")) {
            ("syslog", _) => LogSink::Syslog,
            (_, Some(path)) => LogSink::File(context.folder.join(path)),
            _ => LogSink::Stderr,
        },
    })
}

/// Where relative paths start; `/` for a process whose working directory is gone.
fn working_directory() -> PathBuf {
    std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"))
}
