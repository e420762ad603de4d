//! `akv-pkcs11 uri`: the PKCS#11 URI (RFC 7512) and the lines that use it.

use std::path::{Path, PathBuf};

use akv_pkcs11::{
    config::{Login, TokenConfig},
    object::{
        Object,
        project::{self, Standing},
    },
};
use cryptoki_sys::CKO_SECRET_KEY;
use serde::Serialize;

use crate::{
    cli::{Common, UriArgs},
    failure::Failure,
    output::{Output, pairs},
    target::{self, Wanted},
};

/// Where packages put the module, the first that exists being the one; the last is the one that
/// is written where none does.
const PLACES: [&str; 5] = [
    "/usr/lib/aarch64-linux-gnu/pkcs11/libakv_pkcs11.so",
    "/usr/lib64/pkcs11/libakv_pkcs11.so",
    "/usr/lib/pkcs11/libakv_pkcs11.so",
    "/usr/local/lib/pkcs11/libakv_pkcs11.so",
    "/usr/lib/x86_64-linux-gnu/pkcs11/libakv_pkcs11.so",
];

/// One line, ready to be copied.
#[derive(Serialize)]
struct Line {
    /// The program.
    program: &'static str,
    /// The command, or the line of its configuration.
    line: String,
}

#[derive(Serialize)]
struct Shown {
    uri: String,
    lines: Vec<Line>,
}

/// Shows the URI of a token, which asks nothing of the service, or of a key, which must exist.
pub fn run(common: &Common, args: &UriArgs, output: &mut Output) -> Result<(), Failure> {
    let module = module(args.module.as_deref())?;
    let shown = match &args.key {
        None => {
            let (token, _) = target::token(common)?;
            Shown { uri: of_token(&token), lines: token_lines(&token, &module) }
        }
        Some(key) => {
            let slot = target::slot(common, |_| {})?;
            let bundle = slot.vault.key(Wanted::parse(key).key())?;
            let objects = project::objects(&bundle, &slot.token, Standing::Meant)?;
            let object = objects.first();
            let label = object.map_or_else(|| key.clone(), Object::label);
            let uri = of_key(&slot.token, &label, object);
            let lines = match object.is_some_and(is_secret) {
                true => Vec::new(),
                false => key_lines(&slot.token, &module, &uri, &label),
            };
            Shown { uri, lines }
        }
    };
    if args.quiet {
        output.raw(format!("{}\n", shown.uri).as_bytes());
        return Ok(());
    }
    output.show(&shown, |shown| {
        let uri = ("uri".to_owned(), shown.uri.clone());
        let lines = shown.lines.iter().map(|each| (each.program.to_owned(), each.line.clone()));
        pairs([uri].into_iter().chain(lines))
    })
}

/// The module's path: what was given, else where a package put it.
pub fn module(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(path) = given else {
        let found = PLACES.iter().find(|place| Path::new(place).exists());
        return Ok(PathBuf::from(found.unwrap_or(&PLACES[PLACES.len() - 1])));
    };
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    match absolute.is_file() {
        true => Ok(absolute),
        false => Err(Failure::new(format!(
            "{} is no file: --module names the libakv_pkcs11.so that programs shall load",
            absolute.display()
        ))),
    }
}

/// `pkcs11:token=LABEL`.
pub fn of_token(token: &TokenConfig) -> String {
    format!("pkcs11:token={}", encoded(&token.label))
}

/// `pkcs11:token=LABEL;object=LABEL;type=private`.
pub fn of_key(token: &TokenConfig, label: &str, object: Option<&Object>) -> String {
    let kind = if object.is_some_and(is_secret) { "secret-key" } else { "private" };
    format!("{};object={};type={kind}", of_token(token), encoded(label))
}

fn is_secret(object: &Object) -> bool {
    object.class() == CKO_SECRET_KEY
}

fn token_lines(token: &TokenConfig, module: &Path) -> Vec<Line> {
    let module = module.display();
    let line = |program, line| Line { program, line };
    vec![
        line(
            "pkcs11-tool",
            format!(
                "pkcs11-tool --module {module} --token-label {} --list-objects",
                quoted(&token.label)
            ),
        ),
        line("java p11.cfg", format!("library = {module}")),
        line("", format!("slot = {}", token.slot)),
    ]
}

fn key_lines(token: &TokenConfig, module: &Path, uri: &str, label: &str) -> Vec<Line> {
    let module = module.display();
    let line = |program, line| Line { program, line };
    // Where nobody logs in any PIN is accepted, but keytool asks for one nevertheless.
    let pin = if token.login == Login::None { " -storepass ''" } else { "" };
    vec![
        line(
            "openssl",
            format!(
                "PKCS11_PROVIDER_MODULE={module} openssl dgst -provider pkcs11 -provider default \
             -sha256 -sign {} FILE",
                quoted(uri)
            ),
        ),
        line(
            "openssl engine",
            format!(
                "PKCS11_MODULE_PATH={module} openssl dgst -engine pkcs11 -keyform engine -sha256 \
             -sign {} FILE",
                quoted(uri)
            ),
        ),
        line("nginx", format!("ssl_certificate_key \"engine:pkcs11:{uri}\";")),
        line(
            "java",
            format!(
                "keytool -list -keystore NONE -storetype PKCS11 -providerClass \
             sun.security.pkcs11.SunPKCS11 -providerArg p11.cfg{pin} -alias {}",
                quoted(label)
            ),
        ),
        line("java p11.cfg", format!("library = {module}")),
        line("", format!("slot = {}", token.slot)),
    ]
}

/// For a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Everything but RFC 3986's unreserved characters as %XX: more than RFC 7512 asks for, so that
/// it survives a semicolon in a configuration file.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(encoded("Web servers;1/2 é"), "Web%20servers%3B1%2F2%20%C3%A9");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
