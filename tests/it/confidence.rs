//! What a module is told in confidence, and that no line it logs and no file it writes has any of
//! it: every [`Module`] of this suite logs at level trace, and is searched
//! when it ends.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use aho_corasick::AhoCorasick;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine};

use crate::token::Module;

/// Bytes in a row that nobody may find. A multiple of 3, so that their base64 has no padding.
const PIECE: usize = 12;
/// Of a longer secret, the beginning is looked for.
const ENOUGH: usize = 512;
/// Pieces of fewer different bytes are anybody's: zeros, fillings of tests.
const VARIETY: usize = 6;
/// What any access token, and any assertion, begins with: a JWT's `{"`.
const TOKEN: &str = "eyJ";
/// The same where certificates are among what is searched, whose base64 has those three letters
/// now and then: a JWT's `{"alg":` and `{"typ":`.
const TOKENS: [&str; 2] = ["eyJhbGciO", "eyJ0eXAiO"];

/// The confidences of one module, and where its lines go.
pub struct Confidence {
    folder: tempfile::TempDir,
    secrets: Mutex<BTreeSet<Vec<u8>>>,
    /// Files and folders that configurations named.
    written: Mutex<Vec<PathBuf>>,
}

impl Confidence {
    pub fn new() -> Confidence {
        let folder = tempfile::tempdir().expect("folder");
        Confidence { folder, secrets: Mutex::default(), written: Mutex::default() }
    }

    /// The `log` of a configuration that has none: everything, into a file that is searched.
    pub fn log(&self) -> String {
        format!("log = {{ level = 'trace', sink = 'file:{}' }}\n", self.file().display())
    }

    /// The same for AKV_PKCS11_LOG, and for processes that have dropped their privileges.
    pub fn sink_for_anybody(&self) -> String {
        let mode = |path: &Path, bits| fs::set_permissions(path, Permissions::from_mode(bits));
        fs::write(self.file(), "").and_then(|()| mode(&self.file(), 0o666)).expect("a file");
        mode(self.folder.path(), 0o755).expect("a folder");
        format!("trace,file:{}", self.file().display())
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Nobody may find this.
    pub fn keep(&self, secret: &[u8]) {
        // A test that repeats itself a million times keeps what it kept.
        let secret = &secret[..secret.len().min(ENOUGH)];
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secret.len() >= PIECE && !secrets.contains(secret) {
            secrets.insert(secret.to_vec());
        }
    }

    /// Keeps the secrets of a configuration, and the names of the files it has written.
    pub fn keep_configuration(&self, toml: &str) {
        let Ok(table) = toml.parse::<toml::Table>() else { return };
        self.keep_table(&table);
    }

    fn keep_table(&self, table: &toml::Table) {
        for (key, value) in table {
            let tables = value.as_array().into_iter().flatten().chain([value]);
            tables.filter_map(toml::Value::as_table).for_each(|table| self.keep_table(table));
            let Some(text) = value.as_str() else { continue };
            let path = match key.as_str() {
                // As they stand there, or what is in the file that they name.
                "secret" | "pin_hash" | "certificate" => {
                    let elsewhere = text.starts_with("file:") || text.starts_with("env:");
                    match fs::read_to_string(text.strip_prefix("file:").unwrap_or(text)) {
                        Ok(secret) => self.keep_lines(&secret),
                        Err(_) if elsewhere => {}
                        Err(_) => self.keep_lines(text),
                    }
                    continue;
                }
                "sink" => text.strip_prefix("file:"),
                "metrics_dir" | "certificate_dir" => Some(text),
                _ => None,
            };
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.extend(path.map(PathBuf::from));
        }
    }

    /// Nobody may find a line of this: of a secret, or of a PEM file with a private key, whose
    /// certificates are no secret.
    fn keep_lines(&self, text: &str) {
        let mut public = false;
        for line in text.lines() {
            public = match line {
                "-----BEGIN CERTIFICATE-----" => true,
                "-----END CERTIFICATE-----" => false,
                _ => public,
            };
            if !public && !line.starts_with("-----") {
                self.keep(line.as_bytes());
            }
        }
    }

    /// Searches what a program printed, or another one wrote.
    ///
    /// # Panics
    /// As [`Confidence::check`].
    pub fn check_output(&self, name: &Path, text: &str) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        Forms::beside_certificates(secrets.iter().map(Vec::as_slice)).check(name, text);
    }

    /// Searches all log files below a folder: what clients had the module write, and wrote
    /// themselves.
    ///
    /// # Panics
    /// As [`Confidence::check`].
    pub fn check_logs_below(&self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            // A link may lead back.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.check_logs_below(&path);
            } else if path.extension().is_some_and(|extension| extension == "log")
                && let Ok(text) = fs::read(&path)
            {
                self.check_output(&path, &String::from_utf8_lossy(&text));
            }
        }
    }

    /// Searches what was written.
    ///
    /// # Panics
    /// With the line that has a piece of a secret, or a token.
    pub fn check(&self) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut files = vec![self.file()];
        for path in self.written.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let inside = fs::read_dir(path).into_iter().flatten();
            files.extend(inside.map(|entry| entry.expect("a file").path()));
            files.push(path.clone());
        }
        let texts = files.iter().filter_map(|file| Some((file, fs::read_to_string(file).ok()?)));
        let texts: Vec<_> = texts.filter(|(_, text)| !text.is_empty()).collect();
        if texts.is_empty() {
            return;
        }
        let forms = Forms::of(secrets.iter().map(Vec::as_slice));
        for (file, text) in texts {
            match file.extension().is_some_and(|extension| extension == "pem") {
                true => self.check_output(file, &text),
                false => forms.check(file, &text),
            }
        }
    }
}

/// All the ways in which pieces of secrets show.
pub struct Forms(AhoCorasick);

impl Forms {
    pub fn of<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Forms {
        Forms::and(&[TOKEN], secrets)
    }

    /// The same for where certificates are shown.
    fn beside_certificates<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Forms {
        Forms::and(&TOKENS, secrets)
    }

    fn and<'s>(tokens: &[&str], secrets: impl IntoIterator<Item = &'s [u8]>) -> Forms {
        let mut patterns: BTreeSet<String> = tokens.iter().map(ToString::to_string).collect();
        for secret in secrets {
            let pieces = secret.windows(PIECE);
            let telling = pieces.filter(|piece| BTreeSet::from_iter(*piece).len() >= VARIETY);
            patterns.extend(telling.flat_map(forms));
        }
        Forms(AhoCorasick::new(patterns).expect("an automaton"))
    }

    /// # Panics
    /// With the line that has one of them.
    pub fn check(&self, file: &Path, text: &str) {
        if let Some(found) = self.0.find(text) {
            let start = text[..found.start()].rfind('\n').map_or(0, |end| end + 1);
            let line = text[start..].lines().next().unwrap_or_default();
            let form = &text[found.range()];
            panic!("{}: a secret shows as {form} in:\n{line}", file.display());
        }
    }
}

/// A piece as it is, in hex, as a list of numbers, percent-encoded in full and as far as a form
/// does, and in both base64s. (That of a piece which begins elsewhere in a group of three is that
/// of another piece.)
fn forms(piece: &[u8]) -> impl Iterator<Item = String> {
    let each = |form: fn(&u8) -> String, between: &str| {
        piece.iter().map(form).collect::<Vec<_>>().join(between)
    };
    let as_form = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    let forms = [
        each(|byte| format!("{byte:02x}"), ""),
        each(|byte| format!("{byte:02X}"), ""),
        each(|byte| format!("{byte:02x}"), ":"),
        each(|byte| format!("{byte:02X}"), ":"),
        each(|byte| format!("0x{byte:02x}"), ", "),
        each(|byte| format!("\\x{byte:02x}"), ""),
        each(u8::to_string, ", "),
        each(|byte| format!("%{byte:02X}"), ""),
        each(|byte| format!("%{byte:02x}"), ""),
        each(as_form, ""),
        BASE64_STANDARD_NO_PAD.encode(piece),
        BASE64_URL_SAFE_NO_PAD.encode(piece),
    ];
    forms.into_iter().chain(String::from_utf8(piece.to_vec()))
}

#[test]
fn what_a_module_has_written_is_searched() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let module = Module::start(
        "[[token]]
        label = 'nowhere'
        endpoint = 'https://127.0.0.1:1'
        service = 'vault'
        scope = 'https://vault.azure.net/.default'
        authority = 'https://127.0.0.1:1'
        tenant = 'nobody'
        credential = { type = 'client-secret', client_id = 'nobody', secret = 'none' }",
    );
    module.open(0).find(&[]).unwrap_err();
    module.confidence.check();
    module.confidence.check();
    // Its lines have this, so that is taken for the secret.
    module.confidence.keep(b"token request to 127.0.0.1");
    let check = catch_unwind(AssertUnwindSafe(|| drop(module)));
    let said = *check.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("a secret shows as token reques"), "{said}");
}

#[test]
fn every_form_of_a_piece_is_found() {
    use std::panic::catch_unwind;

    let secret = b"twenty/four+bytes?long\xff\x00";
    let forms = Forms::of([&secret[..]]);
    let found = |text: String| catch_unwind(|| forms.check(Path::new("log"), &text)).is_err();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for from in 0..=secret.len() - 14 {
        let part = &secret[from..from + 14];
        assert!(found(format!("value={};", hex(part))), "{from}");
        assert!(found(format!("value {part:?}")), "{from}");
        for before in ["", "x", "xy"] {
            // With 14 bytes, 12 are a piece wherever a group of three begins.
            let inside = [before.as_bytes(), part].concat();
            assert!(found(BASE64_STANDARD_NO_PAD.encode(&inside)), "{from} {before}");
            assert!(found(BASE64_URL_SAFE_NO_PAD.encode(&inside)), "{from} {before}");
        }
    }
    assert!(found("code=twenty%2Ffour%2Bbyte&x".to_owned()));
    assert!(found("Authorization: Bearer eyJ0".to_owned()));
    assert!(!found("twenty/four 747765 and nothing else".to_owned()));
}

#[test]
fn what_a_configuration_keeps_is_kept_wherever_it_stands() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    let folder = tempfile::tempdir().expect("folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("write");
        path.display().to_string()
    };
    let certificate =
        "-----BEGIN CERTIFICATE-----\nshown-to-all-of-them\n-----END CERTIFICATE-----";
    let pem = file("client.pem", &format!("a-line-of-a-private-key\n{certificate}\n"));
    let secret = file("secret", "what-is-in-the-file");
    let confidence = Confidence::new();
    confidence.keep_configuration(&format!(
        "[[token]]\npin_hash = 'the-hash-of-a-pin'\ncertificate_dir = '{}'\n\
         [[token.replica]]\ncredential = {{ secret = 'file:{secret}', certificate = '{pem}' }}\n",
        folder.path().display(),
    ));
    let found = |text: &str| {
        let search = AssertUnwindSafe(|| confidence.check_output(Path::new("output"), text));
        catch_unwind(search).is_err()
    };
    for text in ["the-hash-of-a-pin", "what-is-in-the-file", "a-line-of-a-private-key"] {
        assert!(found(text), "{text}");
    }
    assert!(found("eyJhbGciOiJSUzI1NiJ9") && found("eyJ0eXAiOiJKV1QifQ"), "a token");
    assert!(!found("shown-to-all-of-them, and MIIeyJab of some certificate"));
    // The folder of certificates is searched, and those below it for logs.
    assert!(catch_unwind(AssertUnwindSafe(|| confidence.check())).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| confidence.check_logs_below(folder.path()))).is_ok());
    file("some.log", "what-is-in-the-file");
    assert!(catch_unwind(AssertUnwindSafe(|| confidence.check_logs_below(folder.path()))).is_err());
}
