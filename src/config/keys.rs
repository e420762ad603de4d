//! Every key of the configuration, once: the reader, its error texts and docs/configuration.md
//! iterate these tables.

mod credentials;

pub use self::credentials::{CREDENTIALS, CredentialType};
use super::rules::{self, Rule};
use crate::mechanism;

/// One key.
pub struct Key {
    /// Its name in TOML. A token's key is `AKV_PKCS11_` + this in capitals in the environment.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
    /// What holds when it is not given.
    pub absent: Absent,
    /// A value as one would write it in TOML, other than the default.
    pub example: &'static str,
    /// One or two sentences for the documentation.
    pub meaning: &'static str,
}

/// What a value may be.
pub enum Kind {
    /// A string that keeps the rule.
    Text(Rule),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// An integer in this range, ends included.
    Integer(i64, i64),
    /// A string like `"10s"` or `"1500ms"`, in this range of milliseconds, ends included.
    Duration(u64, u64),
    /// A file or directory; relative ones start at the configuration's folder.
    Path,
    /// `"env:NAME"`, `"file:PATH"` or the secret itself. Never printed.
    Secret,
    /// An array of strings, each of which keeps the rule.
    Texts(Rule),
    /// An array of files.
    Paths,
    /// A table of strings.
    Strings,
    /// A `type` of [`CREDENTIALS`], or a table with `type` and that type's keys.
    Credential,
    /// A table with these keys.
    Table(&'static [Key]),
    /// An array of tables with these keys.
    Tables(&'static [Key]),
}

/// What holds when a key is not given.
pub enum Absent {
    /// It must be given.
    Required,
    /// This TOML value.
    Is(&'static str),
    /// What these words say.
    Means(&'static str),
    /// The value of this environment variable; required where that is not set either.
    Env(&'static str),
    /// As `Env`, and nothing where that is not set either.
    EnvIfSet(&'static str),
    /// The contents of the file that this environment variable names; required.
    EnvFile(&'static str),
}

use Absent::{Is, Means, Required};
use Kind::{Credential, Duration, Flag, Integer, OneOf, Path, Paths, Secret, Strings, Text, Texts};

/// `api-version` values this module knows how to speak.
pub const API_VERSIONS: &[&str] = &["7.2", "7.3", "7.4", "7.5", "7.6", "2025-07-01", "2026-04-01"];

/// The top level of the file.
pub static ROOT: &[Key] = &[
    Key {
        name: "log",
        kind: Kind::Table(LOG),
        absent: Means("the defaults of `[log]`"),
        example: r#"{ level = "info" }"#,
        meaning: "Where log lines go, and which.",
    },
    Key {
        name: "metrics_dir",
        kind: Path,
        absent: Means("none: nothing is written"),
        example: r#""/run/akv-pkcs11""#,
        meaning: "Directory where each process keeps its counters as a Prometheus text file \
                  (docs/metrics.md). It must exist; `AKV_PKCS11_METRICS_DIR` overrides it.",
    },
    Key {
        name: "token",
        kind: Kind::Tables(TOKEN),
        absent: Required,
        example: r#"[{ endpoint = "https://contoso.vault.azure.net" }]"#,
        meaning: "One `[[token]]` per vault or Managed HSM: a slot with a token in it.",
    },
];

/// `[log]`.
pub static LOG: &[Key] = &[
    Key {
        name: "level",
        kind: OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
        absent: Is(r#""warn""#),
        example: r#""info""#,
        meaning: "Lines of this level and above are written: `error` faults, `warn` what is about \
                  to become one, `info` refusals and key life, `debug` each request, `trace` each \
                  call. No level shows a secret.",
    },
    Key {
        name: "sink",
        kind: Text(rules::sink),
        absent: Is(r#""stderr""#),
        example: r#""file:/var/log/akv-pkcs11.log""#,
        meaning: "`stderr`, `syslog` (local socket, facility user) or `file:PATH` (appended to, \
                  one write per line, so that log rotation by rename works).",
    },
];

/// `[[token.replica]]`.
pub static REPLICA: &[Key] = &[
    Key {
        name: "endpoint",
        kind: Text(rules::text),
        absent: Required,
        example: r#""https://contoso-west.vault.azure.net""#,
        meaning: "URL of the other vault or Managed HSM, of the same service and cloud.",
    },
    Key {
        name: "address",
        kind: Text(rules::text),
        absent: Means("what DNS says"),
        example: r#""10.1.0.4""#,
        meaning: "As the token's `address`, for this endpoint.",
    },
    Key {
        name: "versions",
        kind: Strings,
        absent: Means("none"),
        example: r#"{ "kek/0123456789abcdef0123456789abcdef" = "fedcba9876543210fedcba9876543210" }"#,
        meaning: "Secret keys (AES) that were imported twice: `name/version` at the token's \
                  endpoint, and the version here that holds the same key. Key pairs are matched \
                  by their public key, restored secret keys have the same version.",
    },
];

/// `[[token]]`.
pub static TOKEN: &[Key] = &[
    Key {
        name: "endpoint",
        kind: Text(rules::text),
        absent: Required,
        example: r#""https://contoso.vault.azure.net""#,
        meaning: "URL of the vault or Managed HSM: `https`, a host, perhaps a port, nothing more.",
    },
    Key {
        name: "label",
        kind: Text(rules::label),
        absent: Means("the first label of the endpoint's host name"),
        example: r#""Web servers""#,
        meaning: "Token label, at most 32 bytes of UTF-8; no two tokens share one.",
    },
    Key {
        name: "slot",
        kind: Integer(0, 0xffff_fffe),
        absent: Means("the token's position in the file, from 0"),
        example: "17",
        meaning: "Slot id; no two tokens share one.",
    },
    Key {
        name: "serial",
        kind: Text(rules::serial),
        absent: Means("16 hex digits of the SHA-256 of the host name"),
        example: r#""2026-0001""#,
        meaning: "Token serial number, at most 16 printable ASCII characters.",
    },
    Key {
        name: "service",
        kind: OneOf(&["vault", "managed-hsm"]),
        absent: Means("from the endpoint's suffix (table below)"),
        example: r#""vault""#,
        meaning: "Which service answers at the endpoint. Required where the suffix is not in the \
                  table, and may not contradict it.",
    },
    Key {
        name: "authority",
        kind: Text(rules::text),
        absent: Means("`AZURE_AUTHORITY_HOST`, else from the endpoint's suffix"),
        example: r#""https://login.microsoftonline.us""#,
        meaning: "Microsoft Entra authority, where tokens are asked for. Never taken from an \
                  answer of the service.",
    },
    Key {
        name: "scope",
        kind: Text(rules::scope),
        absent: Means("from the endpoint's suffix"),
        example: r#""https://vault.usgovcloudapi.net/.default""#,
        meaning: "OAuth 2 scope of the token; ends in `/.default`.",
    },
    Key {
        name: "tenant",
        kind: Text(rules::tenant),
        absent: Means("the credential's `tenant`, else from the service's challenge"),
        example: r#""00000000-0000-0000-0000-000000000000""#,
        meaning: "Entra tenant, as GUID or domain name. Saves one request per process.",
    },
    Key {
        name: "credential",
        kind: Credential,
        absent: Is(r#""auto""#),
        example: r#""managed-identity""#,
        meaning: "How to authenticate: a type as a string, or a table with `type` and its keys; \
                  see below. With `login = \"client-secret\"` the default is `\"login\"`.",
    },
    Key {
        name: "keys",
        kind: Texts(rules::key_name),
        absent: Means("every key that may be listed"),
        example: r#"["www", "mail/0123456789abcdef0123456789abcdef"]"#,
        meaning: "The only keys this token shows, as `name` (its current version) or \
                  `name/version`. No list permission is needed then.",
    },
    Key {
        name: "public_keys",
        kind: Strings,
        absent: Means("none: the service tells them"),
        example: r#"{ www = "www-key.pem" }"#,
        meaning: "PEM files with the public key, or a certificate, of keys named as in `keys`: the \
                  service is not asked for these keys, so that the permission to use them is all \
                  that is needed ([Least privilege](#least-privilege)).",
    },
    Key {
        name: "versions",
        kind: OneOf(&["current", "enabled"]),
        absent: Is(r#""current""#),
        example: r#""enabled""#,
        meaning: "`current` shows one version of each key: the pinned one, the one a configured \
                  certificate belongs to, or the current one. `enabled` shows older ones too, \
                  labelled `name@version`.",
    },
    Key {
        name: "certificates",
        kind: Paths,
        absent: Means("none"),
        example: r#"["www.pem"]"#,
        meaning: "PEM files: a leaf, matched to its key by public key, then its chain. Preferred \
                  to the vault's own; the only source for a Managed HSM.",
    },
    Key {
        name: "certificate_dir",
        kind: Path,
        absent: Means("none"),
        example: r#""certificates""#,
        meaning: "Directory whose `*.pem` and `*.crt` files are certificates too, and where \
                  C_CreateObject stores certificates. It must exist.",
    },
    Key {
        name: "certificate_chains",
        kind: Flag,
        absent: Is("false"),
        example: "true",
        meaning: "Show the issuers of a vault's certificates too, from the secret behind each: \
                  needs the permission to get secrets. That secret holds the private key as well \
                  where the certificate's policy lets it be exported: it is wiped without being \
                  read.",
    },
    Key {
        name: "secrets",
        kind: Texts(rules::secret_name),
        absent: Means("none"),
        example: r#"["database-password"]"#,
        meaning: "Secrets of the vault shown as data objects (CKO_DATA): those of these names, or \
                  `[\"*\"]` for all; never those behind certificates. A value is asked for when it \
                  is read, and not kept. Without the permission to list secrets only named ones \
                  are found.",
    },
    Key {
        name: "login",
        kind: OneOf(&["none", "client-secret", "pin"]),
        absent: Is(r#""none""#),
        example: r#""client-secret""#,
        meaning: "`none`: nobody logs in, any PIN is accepted. `client-secret`: the PIN is the \
                  Entra client secret, or `client-id:secret`. `pin`: the PIN is checked against \
                  `pin_hash`; it keeps honest programs apart and is no security boundary.",
    },
    Key {
        name: "pin_hash",
        kind: Secret,
        absent: Means("none; required with `login = \"pin\"`"),
        example: r#""file:pin.phc""#,
        meaning: "Argon2 hash of the PIN as a PHC string (`$argon2id$v=19$…`), as \
                  `argon2 SALT -id -e` prints it.",
    },
    Key {
        name: "ca_file",
        kind: Path,
        absent: Means("the system's roots"),
        example: r#""corporate-ca.pem""#,
        meaning: "PEM of the roots trusted instead of the system's, for the service and the \
                  authority alike.",
    },
    Key {
        name: "address",
        kind: Text(rules::text),
        absent: Means("what DNS says"),
        example: r#""10.0.0.4""#,
        meaning: "Connect to this `IP` or `IP:PORT`; host name, SNI and certificate check stay \
                  the endpoint's. For private endpoints without their DNS zone.",
    },
    Key {
        name: "proxy",
        kind: Text(rules::text),
        absent: Means("none; the usual proxy variables are not read"),
        example: r#""http://proxy.corp.example:3128""#,
        meaning: "HTTP proxy, `http://host:port`.",
    },
    Key {
        name: "api_version",
        kind: OneOf(API_VERSIONS),
        absent: Is(r#""7.4""#),
        example: r#""7.6""#,
        meaning: "Sent with each request. Newer ones have more mechanisms (docs/mechanisms.md).",
    },
    Key {
        name: "timeout",
        kind: Duration(100, 600_000),
        absent: Is(r#""10s""#),
        example: r#""5s""#,
        meaning: "Deadline of one request with everything it needs: name, connection, token, \
                  retries. Making and deleting keys takes several (docs/adr/006).",
    },
    Key {
        name: "connect_timeout",
        kind: Duration(50, 60_000),
        absent: Is(r#""3s""#),
        example: r#""1500ms""#,
        meaning: "Limit for one TCP connection and TLS handshake.",
    },
    Key {
        name: "find_timeout",
        kind: Duration(100, 3_600_000),
        absent: Is(r#""60s""#),
        example: r#""2m""#,
        meaning: "Deadline of one search that has to list the whole token.",
    },
    Key {
        name: "find_width",
        kind: Integer(1, 256),
        absent: Is("32"),
        example: "8",
        meaning: "Requests of one such search in flight at once.",
    },
    Key {
        name: "find_rate",
        kind: Integer(0, 10_000),
        absent: Is("200"),
        example: "50",
        meaning: "Requests per second one such search may send; 0 sends as fast as answers come.",
    },
    Key {
        name: "cache_ttl",
        kind: Duration(0, 86_400_000),
        absent: Is(r#""60s""#),
        example: r#""5m""#,
        meaning: "How long a listing or a key's public part is used without asking again. \
                  Rotation is seen after this.",
    },
    Key {
        name: "max_connections",
        kind: Integer(1, 4096),
        absent: Is("128"),
        example: "16",
        meaning: "Most connections of one process to this token; further callers wait their turn.",
    },
    Key {
        name: "replica",
        kind: Kind::Tables(REPLICA),
        absent: Means("none"),
        example: r#"[{ endpoint = "https://contoso-west.vault.azure.net" }]"#,
        meaning: "Other endpoints that hold the same keys, asked in this order while the first \
                  cannot be (below).",
    },
    Key {
        name: "failover_interval",
        kind: Duration(100, 3_600_000),
        absent: Is(r#""30s""#),
        example: r#""5s""#,
        meaning: "How long an endpoint that could not be reached is left alone where a replica \
                  can be asked.",
    },
    Key {
        name: "allow_delete",
        kind: Flag,
        absent: Is("false"),
        example: "true",
        meaning: "C_DestroyObject may soft-delete keys of the service.",
    },
    Key {
        name: "generate_on_existing",
        kind: OneOf(&["refuse", "new-version"]),
        absent: Is(r#""refuse""#),
        example: r#""new-version""#,
        meaning: "What C_GenerateKeyPair does when a key of that name exists.",
    },
    Key {
        name: "on_deleted_name",
        kind: OneOf(&["refuse", "recover", "purge"]),
        absent: Is(r#""refuse""#),
        example: r#""recover""#,
        meaning: "What it does when a soft-deleted key holds the name. A recovered key is one that \
                  exists: see `generate_on_existing`.",
    },
    Key {
        name: "hsm_protection",
        kind: Flag,
        absent: Means("`false` on a vault, `true` on a Managed HSM"),
        example: "true",
        meaning: "Create keys in the HSM (`RSA-HSM`, `EC-HSM`). A vault must be Premium for it.",
    },
    Key {
        name: "tags",
        kind: Strings,
        absent: Means("none"),
        example: r#"{ owner = "web" }"#,
        meaning: "Tags put on every key created here; at most 14, the service's fifteenth is ours.",
    },
    Key {
        name: "rsa_pkcs1_decrypt",
        kind: Flag,
        absent: Is("true"),
        example: "false",
        meaning: "Offer PKCS#1 v1.5 decryption, whose errors an attacker can use as an oracle. \
                  Without it clients must name a mechanism: `pkcs11-tool --decrypt` left alone takes \
                  RSA-X-509, which keys of the service refuse.",
    },
    Key {
        name: "rsnull",
        kind: Flag,
        absent: Means("`true` on a vault, `false` on a Managed HSM"),
        example: "false",
        meaning: "The service has RSNULL: signatures over SHA-1, SHA-224 or raw data with \
                  PKCS#1 v1.5 padding. Without it they are refused.",
    },
    Key {
        name: "max_aes_payload",
        kind: Integer(16, 1_048_576),
        absent: Is("4096"),
        example: "8192",
        meaning: "Largest AES or HMAC input of one request, in bytes. AES-CBC goes on in the next \
                  request; longer input of the others is refused.",
    },
    Key {
        name: "hmac",
        kind: Flag,
        absent: Is("false"),
        example: "true",
        meaning: "The Managed HSM computes HS256, HS384 and HS512 over data of any length: offer \
                  CKM_SHA256_HMAC and its like with its keys. Needs `api_version` 7.6.",
    },
    Key {
        name: "mechanisms",
        kind: Texts(mechanism::choice::check),
        absent: Means("what keys of the service can do (docs/mechanisms.md)"),
        example: r#"["+AES_GCM", "-RSA_PKCS"]"#,
        meaning: "Changes the list of mechanisms: `+NAME` adds one that only session keys can \
                  use, `-NAME` takes one away, and where a `NAME` stands without sign, only such \
                  are offered. `CKM_` may be left out; `AES_*` means all that begin so.",
    },
];
