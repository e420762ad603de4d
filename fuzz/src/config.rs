//! The configuration: whatever the text, it is accepted whole or refused with a sentence.

use std::collections::BTreeMap;

use akv_pkcs11::config::{Config, Env, LogSink};

use crate::Seed;

/// The input is the TOML of a configuration. An environment variable is there for `env:SECRET`.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // A path may name any file of this machine; devices would give bytes for ever.
    if ["/dev", "/proc", "/sys"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let env = Env::Map(BTreeMap::from([("SECRET".to_owned(), "secret of the test".to_owned())]));
    match Config::parse(text, "fuzz", &env) {
        Ok(config) => accepted(&config),
        Err(error) => {
            let sentence = error.sentence();
            assert!(!sentence.is_empty() && !sentence.contains("secret of the test"), "{sentence}");
        }
    }
}

fn accepted(config: &Config) {
    assert!(!config.tokens.is_empty());
    let shown = format!("{config:?}");
    assert!(!shown.contains("secret of the test"), "a secret is shown");
    for (i, token) in config.tokens.iter().enumerate() {
        assert!((1..=32).contains(&token.label.len()), "{:?}", token.label);
        assert!((1..=16).contains(&token.serial.len()), "{:?}", token.serial);
        assert!(!token.endpoint.host.is_empty());
        assert!(token.scope.ends_with("/.default"));
        for other in &config.tokens[..i] {
            assert!(other.slot != token.slot && other.label != token.label, "twins");
        }
    }
    if let LogSink::File(path) = &config.log.sink {
        assert!(path.is_absolute(), "{}", path.display());
    }
}

/// Every key of the tables with its own example, and the mistakes that people make.
pub fn seeds() -> Vec<Seed> {
    use akv_pkcs11::config::keys::{CREDENTIALS, Key, Kind, TOKEN};

    // Files of the examples are not there, and nothing else would be looked at.
    fn names_a_file(key: &Key) -> bool {
        matches!(key.kind, Kind::Path | Kind::Paths) || key.example.contains("file:")
    }
    let token = "[[token]]\nendpoint = \"https://contoso.vault.azure.net\"\n";
    let mut all = token.to_owned();
    for key in TOKEN.iter().filter(|key| key.name != "endpoint" && !names_a_file(key)) {
        all += &format!("{} = {}\n", key.name, key.example);
    }
    let mut seeds = vec![
        Seed::new("least.toml", token),
        Seed::new("most.toml", all),
        Seed::new("two.toml", format!("{token}{}", token.replace("contoso", "fabrikam"))),
        Seed::new("twice.toml", format!("{token}{token}")),
        Seed::new("log.toml", format!("[log]\nlevel = \"trace\"\nsink = \"syslog\"\n{token}")),
        Seed::new(
            "inline.toml",
            "token = [{ endpoint = 'https://[::1]:8443', service = 'vault' }]",
        ),
        Seed::new("unknown.toml", format!("{token}lable = 1\n")),
        Seed::new("kind.toml", format!("{token}timeout = 10\n")),
        Seed::new("broken.toml", "[[token]\n"),
        Seed::new(
            "secret.toml",
            format!(
                "{token}credential = {{ type = \"client-secret\", secret = \"env:SECRET\", \
                 client_id = \"a\", tenant = \"b\" }}\n"
            ),
        ),
        Seed::new(
            "replica.toml",
            format!(
                "{token}[[token.replica]]\nendpoint = \"https://west.vault.azure.net\"\n\
                 versions = {{ \"kek/0123456789abcdef0123456789abcdef\" = \
                 \"fedcba9876543210fedcba9876543210\" }}\n"
            ),
        ),
    ];
    for credential in CREDENTIALS {
        let mut text = format!("{token}credential = {{ type = \"{}\"", credential.name);
        for key in credential.keys.iter().filter(|key| !names_a_file(key)) {
            text += &format!(", {} = {}", key.name, key.example);
        }
        seeds.push(Seed::new(format!("{}.toml", credential.name), text + " }\n"));
    }
    seeds
}
