//! Which configuration and which token a command works on.

use std::{collections::BTreeMap, io::IsTerminal, path::Path, sync::Arc};

use akv_pkcs11::{
    config::{Config, Env, Login, TokenConfig},
    logging,
    net::Surroundings,
    object::naming,
    slot::Slot,
    vault::{Carried, KeyRef},
};
use zeroize::Zeroizing;

use crate::{cli::Common, failure::Failure, files};

/// The environment: the process's own, with `--config` in the place of `AKV_PKCS11_CONFIG`.
pub fn environment(common: &Common) -> Result<Env, Failure> {
    let Some(path) = &common.config else { return Ok(Env::Process) };
    let path = std::path::absolute(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let path = path.into_os_string().into_string().map_err(|path| {
        Failure::new(format!("{}: the path is not UTF-8", Path::new(&path).display()))
    })?;
    let mut map: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    map.insert("AKV_PKCS11_CONFIG".to_owned(), path);
    Ok(Env::Map(map))
}

/// The configuration, as C_Initialize would find it.
pub fn configuration(env: &Env) -> Result<Config, Failure> {
    let config = Config::load(None, env, false)?;
    // Lines for whoever asked for them now; what the file says is the host program's log.
    if env.var("AKV_PKCS11_LOG")?.is_some() {
        logging::configure(&config.log);
    }
    Ok(config)
}

/// The tokens `--token` leaves: one, or all of them where nobody chose.
pub fn chosen(config: &Config, label: Option<&str>) -> Result<Vec<TokenConfig>, Failure> {
    let Some(label) = label else { return Ok(config.tokens.clone()) };
    let one = config.tokens.iter().find(|token| token.label == label);
    one.map(|token| vec![token.clone()]).ok_or_else(|| {
        Failure::usage(format!(
            "{} has no token '{label}'; its tokens are {}",
            config.source,
            labels(config)
        ))
    })
}

/// The one token a command works on.
pub fn token(common: &Common) -> Result<(TokenConfig, Env), Failure> {
    let env = environment(common)?;
    let config = configuration(&env)?;
    for warning in &config.warnings {
        logging::last_resort(&format!("warning: {warning}"));
    }
    let mut tokens = chosen(&config, common.token.as_deref())?;
    match (tokens.pop(), tokens.is_empty()) {
        (Some(token), true) => Ok((token, env)),
        _ => Err(Failure::usage(format!(
            "{} has several tokens: choose one of {} with --token",
            config.source,
            labels(&config)
        ))),
    }
}

/// The slot of the token a command works on, ready for requests.
pub fn slot(common: &Common, change: impl FnOnce(&mut TokenConfig)) -> Result<Slot, Failure> {
    let (mut token, env) = token(common)?;
    change(&mut token);
    open(token, &env, common)
}

/// A slot of this token. Makes no request, unless a login has to bring the credential.
pub fn open(token: TokenConfig, env: &Env, common: &Common) -> Result<Slot, Failure> {
    let surroundings = Arc::new(Surroundings::read(env, None));
    let slot = Slot::new(Arc::new(token), Carried::from(surroundings), 1)?;
    // The PIN of `login = "pin"` keeps programs apart; here it would keep nobody from anything.
    if slot.token.login == Login::ClientSecret {
        let pin = pin(common, &slot.token.label)?;
        slot.login(pin.as_bytes())?;
    }
    Ok(slot)
}

/// A key as the command line names it: a label, a name, `name/version` or `label@version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key's name at the service.
    pub name: String,
    /// 32 hex digits; None for the current version.
    pub version: Option<String>,
}

impl Wanted {
    /// Reads what was given as KEY.
    pub fn parse(text: &str) -> Wanted {
        let slashed = text.rsplit_once('/').and_then(|(name, version)| {
            // Checked in the way labels are.
            naming::versioned(&format!("{name}@{version}")).map(|_| (name, version))
        });
        match slashed.or_else(|| naming::versioned(text)) {
            Some((label, version)) => Wanted {
                name: naming::name_of_label(label),
                version: Some(version.to_ascii_lowercase()),
            },
            None => Wanted { name: naming::name_of_label(text), version: None },
        }
    }

    /// For a request.
    pub fn key(&self) -> KeyRef<'_> {
        KeyRef { name: &self.name, version: self.version.as_deref() }
    }

    /// The name, where a command works on all versions at once.
    pub fn all_versions(&self, doing: &str) -> Result<&str, Failure> {
        match &self.version {
            None => Ok(&self.name),
            Some(version) => Err(Failure::usage(format!(
                "{doing} works on all versions of '{}' at once: leave out {version}",
                self.name
            ))),
        }
    }
}

/// The client secret a token with `login = "client-secret"` needs. Never an argument: those are
/// seen by everybody on the machine.
pub fn pin(common: &Common, label: &str) -> Result<Zeroizing<String>, Failure> {
    let Some(source) = &common.pin else {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage(format!(
                "token '{label}' gets its client secret by login: say where it is with --pin \
                 env:NAME or --pin file:PATH"
            )));
        }
        let asked = rpassword::prompt_password(format!("Client secret for token '{label}': "));
        return asked
            .map(Zeroizing::new)
            .map_err(|error| Failure::new(format!("the terminal cannot be read: {error}")));
    };
    match source.split_once(':') {
        Some(("env", name)) => std::env::var(name).map(Zeroizing::new).map_err(|_| {
            Failure::usage(format!("--pin env:{name}: no such environment variable, or not UTF-8"))
        }),
        Some(("file", path)) => files::read_text(Path::new(path)),
        // The value may be the secret itself: it is not repeated.
        _ => Err(Failure::usage(
            "--pin takes env:NAME or file:PATH, never the secret itself: arguments are seen by \
             everybody on this machine",
        )),
    }
}

fn labels(config: &Config) -> String {
    let labels: Vec<_> = config.tokens.iter().map(|token| format!("'{}'", token.label)).collect();
    labels.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_by_label_name_and_version() {
        let version = "0123456789abcdef0123456789abcdef";
        let wanted = |name: &str, version: Option<&str>| Wanted {
            name: name.to_owned(),
            version: version.map(str::to_owned),
        };
        assert_eq!(Wanted::parse("web"), wanted("web", None));
        for text in [format!("web/{version}"), format!("web@{}", version.to_uppercase())] {
            assert_eq!(Wanted::parse(&text), wanted("web", Some(version)), "{text}");
        }
        let label = Wanted::parse("Web server/1");
        assert!(label.name.starts_with("Web-server-1-") && label.version.is_none(), "{label:?}");
        assert!(Wanted::parse(&format!("web@{version}")).all_versions("rotation").is_err());
    }
}
