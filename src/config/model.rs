//! The types of a configuration that was found valid.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use akv_wire::{ApiVersion, Feature};
use zeroize::Zeroizing;

use crate::{crypto::PublicKey, mechanism::choice::Choice};

/// A configuration that was found valid. Cloned into a forked child as plain data.
#[derive(Clone, Debug)]
pub struct Config {
    /// One token (slot) each, in the order of the file. Never empty.
    pub tokens: Vec<TokenConfig>,
    /// Where log lines go, and which.
    pub log: LogConfig,
    /// Where the counters of each process are written; None = nowhere.
    pub metrics_dir: Option<PathBuf>,
    /// Where the configuration came from, for messages: a path, `environment` or `pReserved`.
    pub source: String,
    /// What deserves a log line but is no error; the caller logs it once the log is configured.
    pub warnings: Vec<String>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines at this level and above are written.
    pub level: log::LevelFilter,
    /// Where to.
    pub sink: LogSink,
}

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogSink {
    /// Standard error.
    Stderr,
    /// Appended to this file, one write per line.
    File(PathBuf),
    /// syslog(3)'s local socket, facility `user`.
    Syslog,
}

/// `[[token]]`: one vault or one Managed HSM.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// CK_SLOT_ID: the position in the file, unless `slot` is given. Unique.
    pub slot: u64,
    /// Token label, 1…32 bytes of UTF-8, unique; default: the first label of the host name.
    pub label: String,
    /// Token serial number, 1…16 printable ASCII characters; default: 16 hex digits of
    /// SHA-256(service host name in lower case, with `:port` unless that is 443).
    pub serial: String,
    /// Scheme, host and port of the service. Always https.
    pub endpoint: Endpoint,
    /// Connect here instead of asking DNS for the endpoint's host; SNI and Host header stay.
    pub address: Option<SocketAddr>,
    /// PEM of the roots trusted instead of the system's, already read.
    pub ca: Option<Vec<u8>>,
    /// HTTP proxy, explicit only (`http://host:port`).
    pub proxy: Option<String>,
    /// `api-version` sent with each request, "7.4" by default.
    pub api_version: String,
    /// How to authenticate.
    pub credential: CredentialConfig,
    /// Where a managed identity asks for its token; None = the virtual machine's
    /// `http://169.254.169.254/metadata/identity/oauth2/token`.
    pub managed_identity: Option<ManagedIdentityEndpoint>,
    /// Entra authority host (`https://login.microsoftonline.com`), from the endpoint's suffix
    /// unless given.
    pub authority: String,
    /// Tenant; None = from the service's challenge (only the tenant is taken from there).
    pub tenant: Option<String>,
    /// OAuth2 scope, e.g. `https://vault.azure.net/.default`, from the endpoint's suffix unless
    /// given.
    pub scope: String,
    /// When given: the only keys this token shows, and no list permission is needed.
    pub keys: Option<Vec<KeyName>>,
    /// Keys whose public part is here, so that the service is not asked for it; no name twice.
    pub public_keys: Vec<GivenKey>,
    /// Certificate files (leaf matched to a key by public key, chain certificates following).
    pub certificates: Vec<PemFile>,
    /// Directory whose `*.pem`/`*.crt` files are certificates too, and where
    /// C_CreateObject(CKO_CERTIFICATE, CKA_TOKEN true) stores them.
    pub certificate_dir: Option<PathBuf>,
    /// The issuers of the vault's certificates are taken from the secrets behind those.
    pub certificate_chains: bool,
    /// The secrets of the vault that are data objects.
    pub secrets: Secrets,
    /// Which versions of a key are objects.
    pub versions: Versions,
    /// Who must log in, if anybody.
    pub login: Login,
    /// C_DestroyObject may soft-delete keys. Default false.
    pub allow_delete: bool,
    /// `C_GenerateKeyPair` on an existing name makes a new version instead of being refused.
    pub generate_new_version: bool,
    /// What to do when the wanted name is in the deleted state.
    pub on_deleted_name: OnDeletedName,
    /// Create `-HSM` key types (vault: needs Premium; a Managed HSM knows nothing else).
    pub hsm_protection: bool,
    /// Tags put on every key created here, beside ours.
    pub tags: Vec<(String, String)>,
    /// Offer RSA PKCS#1 v1.5 decryption (padding-oracle surface). Default true.
    pub rsa_pkcs1_decrypt: bool,
    /// The service has RSNULL (raw PKCS#1 v1.5 signing). Default: vault true, Managed HSM false.
    pub rsnull: bool,
    /// Largest AES or HMAC input of one request, bytes.
    pub max_aes_payload: usize,
    /// The service computes HMAC over data of any length. Default false.
    pub hmac: bool,
    /// Mechanisms added to the default list, or taken from it.
    pub mechanisms: Choice,
    /// Deadline of one request including its retries. Default 10 s.
    pub timeout: Duration,
    /// TCP + TLS connect limit. Default 3 s.
    pub connect_timeout: Duration,
    /// Deadline of one whole open search (listing and fetching public parts). Default 60 s.
    pub find_timeout: Duration,
    /// Requests of one open search in flight at once. Default 32.
    pub find_width: usize,
    /// Requests per second an open search may send; 0 = unpaced. Default 200.
    pub find_rate: u32,
    /// How long a listing or key is served without asking again. Default 60 s.
    pub cache_ttl: Duration,
    /// Most connections of this token. Default 128.
    pub max_connections: usize,
    /// Other endpoints with the same keys, in the order in which they stand in for `endpoint`.
    pub replicas: Vec<Replica>,
    /// How long an endpoint that could not be reached is left alone. Default 30 s.
    pub failover_interval: Duration,
}

/// `[[token.replica]]`: another endpoint that holds the token's keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Where it is; the service is that of the token's endpoint.
    pub endpoint: Endpoint,
    /// As [`TokenConfig::address`].
    pub address: Option<SocketAddr>,
    /// Versions that hold the same key under different texts: key name, version at the token's
    /// endpoint, version here; all in lower case.
    pub versions: Vec<(String, String, String)>,
}

impl TokenConfig {
    /// What the configuration gives of a key, whatever the case of its name.
    pub fn given_key(&self, name: &str) -> Option<&GivenKey> {
        self.public_keys.iter().find(|given| given.key.name.eq_ignore_ascii_case(name))
    }

    /// Whether an access token for the one is good for the other.
    pub fn asks_in_the_name_of(&self, other: &TokenConfig) -> bool {
        let TokenConfig { endpoint, authority, tenant, scope, .. } = self;
        (endpoint, authority) == (&other.endpoint, &other.authority)
            && (tenant, scope) == (&other.tenant, &other.scope)
            && self.credential == other.credential
            && self.managed_identity == other.managed_identity
    }

    /// Whether the service has a feature with the `api_version` it is asked with.
    pub fn has(&self, feature: Feature) -> bool {
        self.api_version.parse::<ApiVersion>().is_ok_and(|version| version.has(feature))
    }
}

/// Where a token's service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name in lower case, without port.
    pub host: String,
    /// Port, 443 unless the URL names one.
    pub port: u16,
    /// Which of the two services answers there (from the suffix, or `service = …`).
    pub service: Service,
}

/// The two services behind one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Azure Key Vault (Standard or Premium).
    Vault,
    /// Azure Managed HSM.
    ManagedHsm,
}

/// A key named in the configuration: `"name"` or `"name/version"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyName {
    /// `^[0-9a-zA-Z-]{1,127}$`
    pub name: String,
    /// 32 hex digits; None = current.
    pub version: Option<String>,
}

/// A key whose public part the configuration gives.
#[derive(Clone, Debug)]
pub struct GivenKey {
    /// Which key; without a version requests name none, and mean the current one.
    pub key: KeyName,
    /// The file that the public key is from, for messages.
    pub path: PathBuf,
    /// The public key.
    pub public: PublicKey,
}

/// Secrets that a token shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// None: nothing is asked about secrets.
    None,
    /// All that may be listed.
    All,
    /// These, `^[0-9a-zA-Z-]{1,127}$` each; never empty.
    Named(Vec<String>),
}

/// A PEM file, read at C_Initialize.
#[derive(Clone)]
pub struct PemFile {
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its bytes.
    pub pem: Vec<u8>,
}

/// Which versions of a key are objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// The current one (or the pinned one, or the one a configured certificate belongs to).
    Current,
    /// Every enabled one; older ones are labelled `name@version`.
    Enabled,
}

/// Who must log in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Nobody: CKF_LOGIN_REQUIRED is clear and any PIN is accepted.
    None,
    /// The PIN is the Entra client secret, or `client-id:secret`.
    ClientSecret,
    /// The PIN is checked against this PHC string (Argon2).
    Pin(String),
}

/// What C_GenerateKeyPair does when its name is in the deleted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDeletedName {
    /// Refuse with a sentence.
    Refuse,
    /// Recover the deleted key first (then the name exists).
    Recover,
    /// Purge it first.
    Purge,
}

/// How to authenticate. Secrets are wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum CredentialConfig {
    /// Picked from the environment read at C_Initialize, never a program.
    ManagedIdentity {
        /// Which user-assigned identity, None = system-assigned.
        identity: Option<UserAssigned>,
    },
    /// A federated token file exchanged for an Entra token.
    WorkloadIdentity {
        /// Application id.
        client_id: String,
        /// The federated token, a file's contents at the time of the request.
        token_file: SecretSource,
    },
    /// client_credentials with a secret.
    ClientSecret {
        /// Application id.
        client_id: String,
        /// Where the secret is.
        secret: SecretSource,
    },
    /// client_credentials with a certificate: a JWT assertion that we sign.
    ClientCertificate {
        /// Application id.
        client_id: String,
        /// PEM with certificate and private key, already read.
        pem: SecretSource,
        /// Send `x5c` (subject name + issuer authentication).
        send_chain: bool,
    },
    /// `az account get-access-token`, only when the configuration names it.
    AzureCli,
    /// No credential yet: the login supplies it (`login = "client-secret"`).
    FromLogin {
        /// Application id if the PIN holds the secret only.
        client_id: Option<String>,
    },
}

/// A user-assigned managed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserAssigned {
    /// By application (client) id.
    ClientId(String),
    /// By principal (object) id.
    ObjectId(String),
    /// By ARM resource id.
    ResourceId(String),
}

/// A secret and where it came from, so that a rotated file is picked up.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// Its value (inline or `env:NAME`), read at C_Initialize.
    Value(Zeroizing<Vec<u8>>),
    /// `file:PATH`: read anew when possible, else the copy made at C_Initialize.
    File {
        /// The file.
        path: PathBuf,
        /// Its contents at C_Initialize (a trailing newline removed).
        copy: Zeroizing<Vec<u8>>,
    },
}

/// A token endpoint of App Service, Functions or Container Apps, or a stand-in for the virtual
/// machine's metadata service, as the environment named it at C_Initialize.
#[derive(Clone, PartialEq, Eq)]
pub struct ManagedIdentityEndpoint {
    /// Full URL without query: `IDENTITY_ENDPOINT`, or `AZURE_POD_IDENTITY_AUTHORITY_HOST` with
    /// `/metadata/identity/oauth2/token`.
    pub url: String,
    /// Value of the `X-IDENTITY-HEADER` header (`IDENTITY_HEADER`); None for a metadata service.
    pub header: Option<Zeroizing<String>>,
}

impl SecretSource {
    /// What was read at C_Initialize.
    pub fn initial(&self) -> &[u8] {
        match self {
            SecretSource::Value(value) => value,
            SecretSource::File { copy, .. } => copy,
        }
    }
}

// Whatever can hold a secret names its kind and nothing else.

impl fmt::Debug for CredentialConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CredentialConfig::ManagedIdentity { .. } => "ManagedIdentity",
            CredentialConfig::WorkloadIdentity { .. } => "WorkloadIdentity",
            CredentialConfig::ClientSecret { .. } => "ClientSecret",
            CredentialConfig::ClientCertificate { .. } => "ClientCertificate",
            CredentialConfig::AzureCli => "AzureCli",
            CredentialConfig::FromLogin { .. } => "FromLogin",
        })
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::Value(_) => f.write_str("Value"),
            SecretSource::File { path, .. } => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::None => "None",
            Login::ClientSecret => "ClientSecret",
            Login::Pin(_) => "Pin",
        })
    }
}

impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl fmt::Debug for ManagedIdentityEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagedIdentityEndpoint").field("url", &self.url).finish_non_exhaustive()
    }
}
