//! `akv-pkcs11 init`: a commented configuration, made of the module's own table of keys, and the
//! files by which p11-kit and Java find the module.

use std::{fmt::Write, fs};

use akv_pkcs11::{
    config::{
        Config, Env,
        keys::{Absent, CREDENTIALS, Key, Kind, LOG, TOKEN},
    },
    mechanism::MECHANISMS,
};
use cryptoki_sys::{CKF_SIGN, CKK_EC, CKK_RSA};
use serde::Serialize;

use crate::{
    cli::InitArgs,
    failure::Failure,
    files,
    output::{Output, pairs},
    uri,
};

/// Never writable by others, whatever the umask says: the module refuses such a file.
const MODE: u32 = 0o644;

#[derive(Serialize)]
struct Written {
    config: String,
    p11_kit: String,
    java: String,
}

/// Writes the three files; none of them if one exists.
pub fn run(args: &InitArgs, output: &mut Output) -> Result<(), Failure> {
    let module = uri::module(args.module.as_deref())?;
    let module = module.display().to_string();
    let config = configuration(&args.endpoint, &args.credential);
    checked(&config, args)?;
    let contents = [
        ("config.toml", config),
        ("akv-pkcs11.module", p11_kit(&module)),
        ("p11.cfg", java(&module)),
    ];
    let paths = contents.each_ref().map(|(name, _)| args.dir.join(name));
    if let Some(there) = paths.iter().find(|path| !args.force && path.exists()) {
        return Err(files::exists(there));
    }
    fs::create_dir_all(&args.dir)
        .map_err(|error| Failure::new(format!("{} cannot be made: {error}", args.dir.display())))?;
    for ((_, text), path) in contents.iter().zip(&paths) {
        files::write(path, text.as_bytes(), MODE, args.force)?;
    }
    let [config, p11_kit, java] = paths.map(|path| path.display().to_string());
    output.show(&Written { config, p11_kit, java }, |written| {
        let row = |path: &String, use_: &str| (path.clone(), use_.to_owned());
        pairs([
            row(&written.config, "copy to /etc/akv-pkcs11/, or name it in AKV_PKCS11_CONFIG"),
            row(&written.p11_kit, "copy to /etc/pkcs11/modules/ or ~/.config/pkcs11/modules/"),
            row(&written.java, "keytool … -providerArg, or security.provider.N=SunPKCS11"),
        ])
    })
}

/// What was written must be what the module reads; a mistake can only be one of the arguments'.
fn checked(text: &str, args: &InitArgs) -> Result<(), Failure> {
    // Credentials look for their values in the environment, which is not that of the programs.
    let types: Vec<_> = CREDENTIALS.iter().map(|kind| kind.name).collect();
    if !types.contains(&args.credential.as_str()) {
        return Err(Failure::usage(format!(
            "--credential '{}' is none of {}",
            args.credential,
            types.join(", ")
        )));
    }
    let plain = text.lines().filter(|line| !line.starts_with("credential"));
    let plain: Vec<_> = plain.collect();
    Config::parse(&plain.join("\n"), "--endpoint", &Env::empty()).map_err(|error| {
        Failure::usage(format!("--endpoint '{}': {}", args.endpoint, error.sentence()))
    })?;
    Ok(())
}

/// Every key with its meaning and an example, commented out but for those that are given.
fn configuration(endpoint: &str, credential: &str) -> String {
    let given = [("endpoint", endpoint), ("credential", credential)];
    let mut text = String::from(
        "# Configuration of akv-pkcs11. Every key is here; those that are commented out have the\n\
         # default that their comment names, and the value beside them is an example. The tables\n\
         # that comments speak of are in docs/configuration.md.\n",
    );
    section(&mut text, "[log]", LOG, &[]);
    section(&mut text, "[[token]]", TOKEN, &given);
    text.push_str("\n# A credential with keys of its own is a table instead:\n#\n");
    for kind in CREDENTIALS.iter().filter(|kind| !kind.keys.is_empty()) {
        let _ = writeln!(text, "# [token.credential]        # {}", kind.meaning);
        let _ = writeln!(text, "# type = \"{}\"", kind.name);
        for key in kind.keys {
            let _ = writeln!(text, "# {} = {}", key.name, key.example);
        }
        text.push_str("#\n");
    }
    text.truncate(text.trim_end_matches("#\n").len());
    text
}

fn section(text: &mut String, title: &str, keys: &[Key], given: &[(&str, &str)]) {
    let _ = writeln!(text, "\n{title}");
    for key in keys {
        text.push('\n');
        comment(text, key.meaning);
        let default = match key.absent {
            Absent::Required => "Required.".to_owned(),
            Absent::Is(literal) => format!("Default: {literal}."),
            Absent::Means(words) => format!("Default: {words}."),
            Absent::Env(name) | Absent::EnvIfSet(name) => format!("Default: {name}."),
            Absent::EnvFile(name) => format!("Default: the file {name} names."),
        };
        if let Kind::OneOf(choices) = key.kind {
            comment(text, &format!("One of {}.", choices.join(", ")));
        }
        comment(text, &default);
        let _ = match given.iter().find(|(name, _)| *name == key.name) {
            Some((_, value)) => writeln!(text, "{} = {}", key.name, toml_string(value)),
            None => writeln!(text, "# {} = {}", key.name, key.example),
        };
    }
}

/// Comment lines of at most 100 columns; the documentation's backticks have no meaning here.
fn comment(text: &mut String, words: &str) {
    let options = textwrap::Options::new(100)
        .initial_indent("# ")
        .subsequent_indent("# ")
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let _ = writeln!(text, "{}", textwrap::fill(&words.replace('`', ""), options));
}

/// A TOML basic string; JSON's escapes are a part of TOML's.
fn toml_string(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn p11_kit(module: &str) -> String {
    format!(
        "# p11-kit module file (pkcs11.conf(5)): programs that use p11-kit load the module by it.\n\
         module: {module}\n\
         # A vault that cannot be reached keeps no program from starting.\n\
         critical: no\n"
    )
}

/// Only what keys of the service sign and decrypt with: digests and session keys stay with Java's
/// own providers.
fn java(module: &str) -> String {
    let mut text = format!(
        "# SunPKCS11: sign and decrypt with keys of the first token. The provider is then called\n\
         # SunPKCS11-akv; `slot = ID` chooses another token by its `slot` in the configuration.\n\
         name = akv\n\
         library = {module}\n\
         slotListIndex = 0\n\
         enabledMechanisms = {{\n  KeyStore\n"
    );
    let signing = MECHANISMS.iter().filter(|row| row.service & CKF_SIGN != 0);
    for row in signing.filter(|row| matches!(row.key_type(), Some(CKK_RSA | CKK_EC))) {
        let _ = writeln!(text, "  {}", row.name);
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(endpoint: &str, credential: &str) -> InitArgs {
        InitArgs {
            endpoint: endpoint.to_owned(),
            credential: credential.to_owned(),
            dir: Path::new(".").to_owned(),
            module: None,
            force: false,
        }
    }

    #[test]
    fn the_configuration_is_one_the_module_reads() {
        for kind in CREDENTIALS {
            let text = configuration("https://contoso.vault.azure.net", kind.name);
            checked(&text, &args("https://contoso.vault.azure.net", kind.name))
                .unwrap_or_else(|failure| panic!("{failure}\n{text}"));
            assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
        }
    }

    #[test]
    fn every_commented_key_is_right_when_its_comment_sign_goes() {
        let text = configuration("https://contoso.vault.azure.net", "managed-identity");
        for key in TOKEN.iter().filter(|key| key.name != "endpoint" && key.name != "credential") {
            let commented = format!("# {} = {}", key.name, key.example);
            assert_eq!(text.matches(&commented).count(), 1, "{commented}");
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        for endpoint in ["http://contoso.vault.azure.net", "https://x\"\nlabel=\"y", "nonsense"] {
            let text = configuration(endpoint, "auto");
            assert!(checked(&text, &args(endpoint, "auto")).is_err(), "{endpoint}");
        }
        let text = configuration("https://contoso.vault.azure.net", "magic");
        let failure = checked(&text, &args("https://contoso.vault.azure.net", "magic"));
        assert!(failure.unwrap_err().to_string().contains("managed-identity"));
    }
}
