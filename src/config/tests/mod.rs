//! Precedence, permissions, set-uid, environment only.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version, password_hash::SaltString};
use cryptoki_sys::{CKR_ARGUMENTS_BAD, CKR_FUNCTION_FAILED};

use super::{
    Config, CredentialConfig, Env, LogSink, Login, SecretSource, Service, UserAssigned,
    cloud::CLOUDS, load_from, verify_pin,
};
use crate::error::Error;

/// The frame is all that is checked here; what is inside is the TLS library's business.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
/// Of curve P-256.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEjM+JeiA6qXHHuRVYASZVW1tQglQX\n\
    l90pOEmiMdw34XdCmhdzx4HtMzHrqd16/2xv8rwY6rNjJ80BpPSz04/vkA==\n\
    -----END PUBLIC KEY-----\n";
const TOKEN_LINE: &str = "[[token]]\nendpoint = \"https://contoso.vault.azure.net\"\n";

mod each_key;
mod mistakes;

/// A folder with the files that examples name.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        let folder = Folder(tempfile::tempdir().expect("temporary folder"));
        folder.write("www.pem", CERTIFICATE);
        folder.write("mail.pem", CERTIFICATE);
        folder.write("corporate-ca.pem", CERTIFICATE);
        folder.write("client.pem", &format!("{CERTIFICATE}{PRIVATE_KEY}"));
        folder.write("www-key.pem", PUBLIC_KEY);
        folder.write("client-secret", "s3cr3t-from-file\n");
        folder.write("pin.phc", &phc("1234"));
        fs::create_dir(folder.path("certificates")).expect("create");
        folder.write("certificates/b.crt", CERTIFICATE);
        folder.write("certificates/a.pem", CERTIFICATE);
        folder.write("certificates/notes.txt", "not looked at");
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        path
    }

    /// Reads `text` as this folder's configuration file.
    pub fn load(&self, text: &str, env: &Env) -> crate::error::Result<Config> {
        let path = self.write("config.toml", text);
        load_from(Some(&format!("akv-pkcs11:{}", path.display())), env, false, Path::new("/none"))
    }
}

pub fn env<const N: usize>(pairs: [(&str, &str); N]) -> Env {
    Env::Map(BTreeMap::from(pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))))
}

fn phc(pin: &str) -> String {
    let salt = SaltString::from_b64("c2FsdHNhbHQ").expect("salt");
    let params = Params::new(16, 1, 1, None).expect("params");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(pin.as_bytes(), &salt).expect("hash").to_string()
}

/// The sentence, with the folder's path replaced, and the CKR.
fn refused(folder: &Folder, result: crate::error::Result<Config>) -> (String, u64) {
    let error: Error = result.expect_err("must be refused");
    let path = folder.0.path().display().to_string();
    (error.to_string().replace(&path, "DIR"), error.rv())
}

#[test]
fn the_environment_picks_auto_in_its_order() {
    let folder = Folder::new();
    let pem = folder.path("client.pem").display().to_string();
    let all = [
        ("AZURE_CLIENT_SECRET", "s3cr3t"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", pem.as_str()),
        ("AZURE_FEDERATED_TOKEN_FILE", "/run/token"),
        ("IDENTITY_ENDPOINT", "http://127.0.0.1:42/msi"),
    ];
    let kinds = ["ClientSecret", "ClientCertificate", "WorkloadIdentity", "ManagedIdentity"];
    for (first, kind) in kinds.iter().enumerate() {
        let mut map: BTreeMap<String, String> =
            all[first..].iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        map.insert("AZURE_CLIENT_ID".to_owned(), "app".to_owned());
        map.insert("AZURE_TENANT_ID".to_owned(), "contoso.example".to_owned());
        map.insert("IDENTITY_HEADER".to_owned(), "h3ad3r".to_owned());
        let config = folder.load(TOKEN_LINE, &Env::Map(map)).expect("valid");
        let token = &config.tokens[0];
        assert_eq!(format!("{:?}", token.credential), *kind);
        match &token.credential {
            CredentialConfig::ClientSecret { client_id, secret } => {
                assert_eq!((client_id.as_str(), secret.initial()), ("app", &b"s3cr3t"[..]));
                assert_eq!(token.tenant.as_deref(), Some("contoso.example"));
            }
            CredentialConfig::ManagedIdentity { identity } => {
                assert_eq!(*identity, Some(UserAssigned::ClientId("app".to_owned())));
                let endpoint = token.managed_identity.as_ref().expect("App Service");
                assert_eq!(endpoint.url, "http://127.0.0.1:42/msi");
                assert_eq!(endpoint.header.as_ref().expect("header").as_str(), "h3ad3r");
            }
            _ => assert_eq!(token.tenant.as_deref(), Some("contoso.example")),
        }
        assert!(!format!("{config:?}").contains("s3cr3t"), "{config:?}");
        assert!(!format!("{config:?}").contains("h3ad3r"), "{config:?}");
    }
}

#[test]
fn unsupported_managed_identities_are_told_apart() {
    let folder = Folder::new();
    let cases = [
        (env([("IDENTITY_ENDPOINT", "http://a"), ("IMDS_ENDPOINT", "x")]), "Azure Arc"),
        (
            env([
                ("IDENTITY_ENDPOINT", "http://a"),
                ("IDENTITY_HEADER", "x"),
                ("IDENTITY_SERVER_THUMBPRINT", "x"),
            ]),
            "Service Fabric",
        ),
        (env([("MSI_ENDPOINT", "http://a")]), "Cloud Shell"),
        (env([("MSI_ENDPOINT", "http://a"), ("MSI_SECRET", "x")]), "Azure ML"),
    ];
    for (env, whose) in cases {
        let (found, _) = refused(&folder, folder.load(TOKEN_LINE, &env));
        assert_eq!(
            found,
            format!(
                "DIR/config.toml:1: token 1: managed identity: that of {whose} is not supported; \
                 use another credential"
            )
        );
    }
    let pod = env([("AZURE_POD_IDENTITY_AUTHORITY_HOST", "http://127.0.0.1:99/")]);
    let config = folder.load(TOKEN_LINE, &pod).expect("valid");
    let endpoint = config.tokens[0].managed_identity.as_ref().expect("stand-in");
    assert_eq!(endpoint.url, "http://127.0.0.1:99/metadata/identity/oauth2/token");
    assert!(endpoint.header.is_none());
}

#[test]
fn secrets_come_from_where_their_text_says() {
    let folder = Folder::new();
    let env = env([("MY_SECRET", "s3cr3t-from-env")]);
    let cases = [
        ("env:MY_SECRET", "s3cr3t-from-env"),
        ("file:client-secret", "s3cr3t-from-file"),
        ("inline", "inline"),
    ];
    for (text, value) in cases {
        let whole = format!(
            "{TOKEN_LINE}credential = {{ type = \"client-secret\", client_id = \"a\", secret = \
             \"{text}\" }}\n"
        );
        let config = folder.load(&whole, &env).expect("valid");
        let CredentialConfig::ClientSecret { secret, .. } = &config.tokens[0].credential else {
            panic!("{:?}", config.tokens[0].credential)
        };
        assert_eq!(secret.initial(), value.as_bytes());
        match secret {
            SecretSource::File { path, .. } => assert_eq!(*path, folder.path("client-secret")),
            SecretSource::Value(_) => assert!(!text.starts_with("file:")),
        }
    }
}

#[test]
fn files_that_others_may_write_or_read() {
    let folder = Folder::new();
    let secret = format!(
        "{TOKEN_LINE}credential = {{ type = \"client-secret\", client_id = \"a\", secret = \"x\" }}"
    );
    let cases = [
        (TOKEN_LINE, 0o644, None),
        (
            TOKEN_LINE,
            0o664,
            Some("DIR/c.toml: its group may write to it (mode 0664); run `chmod go-w DIR/c.toml`"),
        ),
        (
            TOKEN_LINE,
            0o646,
            Some("DIR/c.toml: everybody may write to it (mode 0646); run `chmod go-w DIR/c.toml`"),
        ),
        (&secret, 0o640, None),
        (
            &secret,
            0o644,
            Some(
                "DIR/c.toml:3: token 1: credential \"client-secret\": secret: it is written out here, and everybody may read the file; run `chmod o-r DIR/c.toml`, or give env:NAME or file:PATH",
            ),
        ),
    ];
    for (text, mode, sentence) in cases {
        let path = folder.write("c.toml", text);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        let named = path.display().to_string();
        let result =
            load_from(None, &env([("AKV_PKCS11_CONFIG", &named)]), false, Path::new("/none"));
        match sentence {
            None => assert_eq!(result.expect("valid").source, named),
            Some(sentence) => {
                let (found, rv) = refused(&folder, result);
                assert_eq!((found.as_str(), rv), (sentence, CKR_FUNCTION_FAILED));
            }
        }
    }
    fs::write(folder.path("c.toml"), b"[[token]]\n\xff").expect("write");
    fs::set_permissions(folder.path("c.toml"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let named = folder.path("c.toml").display().to_string();
    let result = load_from(None, &env([("AKV_PKCS11_CONFIG", &named)]), false, Path::new("/none"));
    assert_eq!(refused(&folder, result).0, "DIR/c.toml:2: not UTF-8");
}

/// Only root can make a file that is somebody else's.
#[test]
fn a_file_of_another_user_is_refused() {
    let folder = Folder::new();
    let path = folder.write("c.toml", TOKEN_LINE);
    if std::os::unix::fs::chown(&path, Some(12345), None).is_err() {
        eprintln!("skipped: not root, so no file can be given away");
        return;
    }
    let named = path.display().to_string();
    let result = load_from(None, &env([("AKV_PKCS11_CONFIG", &named)]), false, Path::new("/none"));
    let ours = rustix::process::geteuid().as_raw();
    assert_eq!(
        refused(&folder, result).0,
        format!(
            "DIR/c.toml: it belongs to user 12345, who is neither root nor the user of this \
             process ({ours})"
        )
    );
}

#[test]
fn sources_in_their_order_and_none_of_them_in_a_set_uid_process() {
    let folder = Folder::new();
    let at = |name: &str, vault: &str| {
        let path = folder.path(name);
        fs::create_dir_all(path.parent().expect("folder")).expect("create");
        folder.write(name, &format!("[[token]]\nendpoint = \"https://{vault}.vault.azure.net\""));
        path.display().to_string()
    };
    let reserved = format!("akv-pkcs11:{}", at("reserved.toml", "reserved"));
    let inline = "akv-pkcs11:token = [{ endpoint = \"https://inline.vault.azure.net\" }]";
    let named = at("named.toml", "named");
    let system = PathBuf::from(at("etc/config.toml", "system"));
    at("xdg/akv-pkcs11/config.toml", "xdg");
    at("home/.config/akv-pkcs11/config.toml", "home");
    let xdg = folder.path("xdg").display().to_string();
    let home = folder.path("home").display().to_string();
    let endpoint = "https://env.vault.azure.net";
    let all: &[(&str, &str)] = &[
        ("AKV_PKCS11_CONFIG", &named),
        ("XDG_CONFIG_HOME", &xdg),
        ("HOME", &home),
        ("AKV_PKCS11_ENDPOINT", endpoint),
    ];
    let nowhere = Path::new("/nonexistent/akv/config.toml");
    // reserved, how many of `all` from the end, system file, secure -> label of the token
    let cases: &[(Option<&str>, usize, &Path, bool, &str)] = &[
        (Some(&reserved), 4, &system, false, "reserved"),
        (Some(inline), 4, &system, false, "inline"),
        (None, 4, &system, false, "named"),
        (None, 3, &system, false, "xdg"),
        (None, 2, &system, false, "home"),
        (None, 1, &system, false, "system"),
        (None, 1, nowhere, false, "env"),
        (Some(&reserved), 4, &system, true, "system"),
    ];
    for (reserved, count, system, secure, label) in cases {
        let map = all[all.len() - count..].iter();
        let env = Env::Map(map.map(|(n, v)| (n.to_string(), v.to_string())).collect());
        let config = load_from(*reserved, &env, *secure, system).expect(label);
        assert_eq!(config.tokens[0].label, *label);
        let ignored = config.warnings.iter().any(|line| line.starts_with("AKV_PKCS11_ENDPOINT"));
        assert_eq!(ignored, !secure && ["xdg", "home", "system"].contains(label), "{label}");
    }
    let none = env([("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_ENDPOINT", endpoint)]);
    let config = load_from(None, &none, false, &system).expect("environment");
    assert_eq!((config.tokens[0].label.as_str(), config.source.as_str()), ("env", "environment"));

    let error = load_from(Some(&reserved), &none, true, nowhere).expect_err("nothing left");
    assert_eq!(error.rv(), CKR_FUNCTION_FAILED);
    assert_eq!(
        error.to_string(),
        "no configuration (/nonexistent/akv/config.toml not found): write \
         /etc/akv-pkcs11/config.toml with a [[token]] and its endpoint, or name a file in \
         AKV_PKCS11_CONFIG, or set AKV_PKCS11_ENDPOINT to the URL of a vault or Managed HSM"
    );
}

#[test]
fn a_reserved_text_that_is_wrong_is_a_bad_argument() {
    let folder = Folder::new();
    let cases = [
        ("akv-pkcs11:", "pReserved: akv-pkcs11: is followed by neither a path nor TOML"),
        ("akv-pkcs11:/nonexistent/x", "/nonexistent/x: no such file or directory"),
        (
            "akv-pkcs11:\n\ntoken = 5",
            "pReserved:3: token needs an array of tables, not an integer (example: [{ endpoint = \"https://contoso.vault.azure.net\" }])",
        ),
        ("akv-pkcs11:token = [", "pReserved:1: not valid TOML: unclosed array, expected `]`"),
    ];
    for (reserved, sentence) in cases {
        let result = load_from(Some(reserved), &Env::empty(), false, Path::new("/none"));
        assert_eq!(refused(&folder, result), (sentence.to_owned(), CKR_ARGUMENTS_BAD));
    }
}

#[test]
fn the_environment_alone_is_enough() {
    let folder = Folder::new();
    let ca = folder.path("corporate-ca.pem").display().to_string();
    let env = env([
        ("AKV_PKCS11_ENDPOINT", "https://127.0.0.1:8443"),
        ("AKV_PKCS11_SERVICE", "managed-hsm"),
        ("AKV_PKCS11_AUTHORITY", "https://127.0.0.1:8444"),
        ("AKV_PKCS11_SCOPE", "https://127.0.0.1:8443/.default"),
        ("AKV_PKCS11_CA_FILE", &ca),
        ("AKV_PKCS11_KEYS", "a, b/0123456789ABCDEF0123456789abcdef"),
        ("AKV_PKCS11_ALLOW_DELETE", "1"),
        ("AKV_PKCS11_FIND_WIDTH", "7"),
        ("AKV_PKCS11_TIMEOUT", "2s"),
        ("AKV_PKCS11_LOG", "debug,file:/tmp/akv.log"),
    ]);
    let config = load_from(None, &env, false, Path::new("/none")).expect("valid");
    let token = &config.tokens[0];
    assert_eq!((token.endpoint.host.as_str(), token.endpoint.port), ("127.0.0.1", 8443));
    assert_eq!(token.endpoint.service, Service::ManagedHsm);
    assert_eq!((token.label.as_str(), token.serial.as_str()), ("127.0.0.1", "37d265174de89804"));
    assert_eq!(token.authority, "https://127.0.0.1:8444");
    assert_eq!(token.ca.as_deref(), Some(CERTIFICATE.as_bytes()));
    let keys = token.keys.as_ref().expect("keys");
    assert_eq!((keys[0].name.as_str(), keys[1].name.as_str()), ("a", "b"));
    assert_eq!(keys[1].version.as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert!(token.allow_delete && token.hsm_protection && !token.rsnull);
    assert_eq!((token.find_width, token.timeout), (7, Duration::from_secs(2)));
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert_eq!(config.log.sink, LogSink::File(PathBuf::from("/tmp/akv.log")));

    let bad = [
        (
            "AKV_PKCS11_FIND_WIDTH",
            "many",
            "AKV_PKCS11_FIND_WIDTH: token 1: find_width needs an integer from 1 to 256, not a string (example: 8)",
        ),
        (
            "AKV_PKCS11_LOG",
            "loud",
            "AKV_PKCS11_LOG: log: level \"loud\" is not one of off, error, warn, info, debug, trace",
        ),
    ];
    for (name, value, sentence) in bad {
        let Env::Map(mut map) = env.clone() else { unreachable!() };
        map.insert(name.to_owned(), value.to_owned());
        let result = load_from(None, &Env::Map(map), false, Path::new("/none"));
        assert_eq!(refused(&folder, result).0, sentence);
    }
}

#[test]
fn suffixes_decide_service_authority_and_scope() {
    for cloud in CLOUDS {
        for name in ["contoso", "contoso.eastus"] {
            let text = format!("[[token]]\nendpoint = \"HTTPS://{name}{}\"", cloud.suffix);
            let config = Config::parse(&text, "test", &Env::empty()).expect("valid");
            let token = &config.tokens[0];
            assert_eq!(token.endpoint.service, cloud.service);
            assert_eq!(token.endpoint.port, 443);
            assert_eq!((token.label.as_str(), token.serial.len()), ("contoso", 16));
            assert_eq!((&*token.authority, &*token.scope), (cloud.authority, cloud.scope));
        }
    }
    let authority = env([("AZURE_AUTHORITY_HOST", "login.corp.example")]);
    let config = Config::parse(TOKEN_LINE, "test", &authority).expect("valid");
    assert_eq!(config.tokens[0].authority, "https://login.corp.example");
    let given = format!("{TOKEN_LINE}authority = \"https://login.other.example/\"");
    let config = Config::parse(&given, "test", &authority).expect("valid");
    assert_eq!(config.tokens[0].authority, "https://login.other.example");
}

#[test]
fn certificates_are_read_now_and_in_order() {
    let folder = Folder::new();
    folder.write("certificates/broken.pem", "nothing");
    let text =
        format!("{TOKEN_LINE}certificates = [\"www.pem\"]\ncertificate_dir = \"certificates\"");
    let config = folder.load(&text, &Env::empty()).expect("valid");
    let names: Vec<_> = config.tokens[0]
        .certificates
        .iter()
        .map(|file| file.path.strip_prefix(folder.0.path()).expect("inside").to_owned())
        .collect();
    assert_eq!(names, ["www.pem", "certificates/a.pem", "certificates/b.crt"].map(PathBuf::from));
    assert!(config.tokens[0].certificates.iter().all(|file| file.pem == CERTIFICATE.as_bytes()));
    let broken = folder.path("certificates/broken.pem").display().to_string();
    assert_eq!(
        config.warnings,
        [format!("{broken}: no certificate in PEM form in it; the file is left out")]
    );
}

#[test]
fn pins_are_checked_against_their_hash() {
    let folder = Folder::new();
    let text = format!("{TOKEN_LINE}login = \"pin\"\npin_hash = \"file:pin.phc\"");
    let config = folder.load(&text, &Env::empty()).expect("valid");
    let Login::Pin(phc) = &config.tokens[0].login else { panic!("{:?}", config.tokens[0].login) };
    assert!(verify_pin(phc, b"1234"));
    assert!(!verify_pin(phc, b"1235"));
    assert!(!verify_pin(phc, b""));
    assert!(!verify_pin("", b""));
    assert!(!verify_pin("$argon2id$v=19$m=4194304,t=3,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo", b"1234"));
    assert!(!format!("{config:?}").contains("argon2"));
}

/// The best of several runs, since the machine may be busy: C_Initialize has a millisecond.
#[test]
fn reading_takes_under_a_millisecond() {
    let folder = Folder::new();
    let text = format!("{TOKEN_LINE}ca_file = \"corporate-ca.pem\"\ncertificates = [\"www.pem\"]");
    let best = (0..20)
        .map(|_| {
            let start = Instant::now();
            folder.load(&text, &Env::empty()).expect("valid");
            start.elapsed()
        })
        .min();
    assert!(best < Some(Duration::from_millis(1)), "{best:?}");
}

/// Whatever stands in the file, the answer is a configuration or a sentence.
#[test]
fn damaged_text_is_refused_or_taken_and_never_a_panic() {
    let folder = Folder::new();
    let text = format!(
        "[log]\nlevel = \"info\"\n{TOKEN_LINE}slot = 0x10\ntimeout = \"5s\"\nkeys = [\"a\", \
         \"b/0123456789abcdef0123456789abcdef\"]\ntags = {{ \"ä\" = '''x''' }}\n\
         credential = {{ type = \"client-secret\", client_id = \"a\", secret = \"x\" }}\n"
    );
    assert!(folder.load(&text, &Env::empty()).is_ok());
    let mut refused = 0;
    for at in 0..text.len() {
        for byte in [b'\0', b'"', b'\'', b'\n', b'[', b'=', b'9', b'\\', b'#', b'\x7f'] {
            let mut damaged = text.clone().into_bytes();
            damaged[at] = byte;
            // Bytes that are not UTF-8 do not get this far.
            let Ok(damaged) = String::from_utf8(damaged) else { continue };
            if let Err(error) = Config::parse(&damaged, "test", &Env::empty()) {
                assert!(error.sentence().starts_with("test"), "{error}");
                refused += 1;
            }
        }
        let Some(head) = text.get(..at) else { continue };
        if let Err(error) = Config::parse(head, "test", &Env::empty()) {
            assert!(error.sentence().starts_with("test"), "{error}");
        }
    }
    assert!(refused > text.len(), "{refused}");
}
