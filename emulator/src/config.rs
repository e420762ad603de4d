//! What an emulator consists of: services, identities, switches.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::fault::{DnsTrouble, Ending, Fault};
pub use crate::refusal::DeniedBy;

/// Which of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Azure Key Vault.
    Vault,
    /// Azure Managed HSM.
    ManagedHsm,
}

impl ServiceKind {
    /// `vault` or `managed-hsm`, as the module's configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vault => "vault",
            Self::ManagedHsm => "managed-hsm",
        }
    }

    /// The resource that tokens are for; their audience.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Vault => "https://vault.azure.net",
            Self::ManagedHsm => "https://managedhsm.azure.net",
        }
    }

    /// DNS suffix of the public cloud.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Vault => "vault.azure.net",
            Self::ManagedHsm => "managedhsm.azure.net",
        }
    }
}

/// One vault or HSM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Its name, the first label of its host name.
    pub name: String,
    /// Port; 0 for any, or for 443 with [`Config::public_names`].
    #[serde(default)]
    pub port: u16,
}

/// A client and what it may do. A list that is absent allows everything, an empty one nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientConfig {
    /// Client id.
    pub id: String,
    /// Client secret.
    pub secret: String,
    /// Permissions on keys, as access policies name them: get, list, create, import, update,
    /// delete, recover, purge, backup, restore, encrypt, decrypt, wrapKey, unwrapKey, sign,
    /// verify, release, rotate, getrotationpolicy, setrotationpolicy, getrandom.
    pub keys: Option<Vec<String>>,
    /// Permissions on secrets: get, list, set, delete, recover, purge, backup, restore.
    pub secrets: Option<Vec<String>>,
    /// Permissions on certificates: get, list, create, import, update, delete, recover, purge,
    /// backup, restore.
    pub certificates: Option<Vec<String>>,
    /// Its certificate, PEM: it may sign client assertions with the key.
    pub certificate: Option<String>,
    /// Resource id, where it stands for a user-assigned managed identity.
    pub resource_id: Option<String>,
    /// The only keys of a Managed HSM that this client may touch.
    pub names: Option<Vec<String>>,
}

/// How a vault decides who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PermissionModel {
    /// Access policies: refusals say `ForbiddenByPolicy`.
    Policy,
    /// Role assignments: refusals say `ForbiddenByRbac`.
    Rbac,
}

/// The whole configuration; every member has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Vaults.
    pub vault: Vec<ServiceConfig>,
    /// Managed HSMs.
    pub hsm: Vec<ServiceConfig>,
    /// Whether everything goes by its name in the public cloud, for clients that insist on it:
    /// authority and services have a loopback address each, and port 443 where none is given.
    pub public_names: bool,
    /// Port of the authority; 0 for any, or for 443 with [`Config::public_names`].
    pub authority_port: u16,
    /// Port of the control endpoint; 0 for any.
    pub control_port: u16,
    /// Port of the name server, UDP and TCP; 0 for any.
    pub dns_port: u16,
    /// Tenant id.
    pub tenant: String,
    /// Further tenants of the authority: it gives their tokens, the services refuse them.
    pub other_tenants: Vec<String>,
    /// The client that may do everything.
    pub client_id: String,
    /// Its secret; a random one when absent.
    pub client_secret: Option<String>,
    /// Folder of the key files of Azure Arc's agent; the emulator's own when absent. Official
    /// clients take `/var/opt/azcmagent/tokens` only.
    pub arc_folder: Option<PathBuf>,
    /// Further clients, each with what it may do.
    pub client: Vec<ClientConfig>,
    /// File that everything is kept in; without it everything goes with the emulator.
    pub persist: Option<PathBuf>,
    /// Trouble on order from the start.
    pub fault: Vec<Fault>,
    /// Life of a token in seconds.
    pub token_lifetime: i64,
    /// Behaviour that is unknown, or that tests want to vary.
    pub switches: Switches,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vault: Vec::new(),
            hsm: Vec::new(),
            public_names: false,
            authority_port: 0,
            control_port: 0,
            dns_port: 0,
            tenant: "7e1a0000-0000-4000-8000-0000000e0a1d".to_owned(),
            other_tenants: Vec::new(),
            client_id: "11111111-2222-4333-8444-555555555555".to_owned(),
            client_secret: None,
            arc_folder: None,
            client: Vec::new(),
            persist: None,
            fault: Vec::new(),
            token_lifetime: 3599,
            switches: Switches::default(),
        }
    }
}

/// Named switches. Each default is documented in docs/emulator.md with its evidence.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Switches {
    /// Seconds until a vault's deletion is visible under `/deleted…`.
    pub deletion_delay: i64,
    /// Seconds until a vault's recovery is visible.
    pub recovery_delay: i64,
    /// Seconds until a self-signed certificate is ready.
    pub certificate_delay: i64,
    /// Days a deleted object can be recovered: 7 to 90.
    pub recoverable_days: u32,
    /// Whether a caller's `iv` with GCM encryption is refused (else ignored).
    pub gcm_caller_iv_refused: bool,
    /// Whether HS256 and its kin take any length (else the hash's length only).
    pub hmac_any_length: bool,
    /// Whether a vault has RSNULL.
    pub vault_rsnull: bool,
    /// Whether a Managed HSM has RSNULL.
    pub hsm_rsnull: bool,
    /// Whether a vault takes oct keys (premium preview of 2026).
    pub vault_oct_keys: bool,
    /// Whether a vault's documented limits hold (transactions per ten seconds, by key).
    pub throttle: bool,
    /// `Retry-After` of a refusal for that reason, seconds; the recorded one has none.
    pub retry_after: Option<u32>,
    /// How a vault decides who may do what (a Managed HSM always has roles).
    pub permission_model: PermissionModel,
    /// Refuses every request of every client for this reason.
    pub denied_by: Option<DeniedBy>,
    /// Whether a vault begins every listing with an empty page that links to the next.
    pub vault_empty_pages: bool,
    /// Largest `value` of an AES operation in bytes; 0 for no limit.
    pub max_aes_payload: usize,
    /// Whether encrypt, verify and wrapKey work on a disabled key.
    pub disabled_key_public_operations: bool,
    /// Longest `value` of RSNULL in bytes below the modulus: PKCS#1 needs 11.
    pub rsnull_margin: usize,
    /// Whether a Managed HSM's refusals of a use name an inner code, as a vault's do.
    pub hsm_inner_codes: bool,
    /// Code of a Managed HSM's refusal of a use.
    pub hsm_refusal_code: String,
    /// Whether refusals outside of `nbf` and `exp` name an inner code.
    pub time_inner_codes: bool,
    /// Whether a vault speaks HTTP/2 to clients that offer it.
    pub vault_http2: bool,
    /// Whether a Managed HSM does.
    pub hsm_http2: bool,
    /// Seconds after which an idle connection is closed; 0 for never.
    pub idle_timeout: u64,
    /// Seconds that an answer of the name server holds.
    pub dns_ttl: u32,
    /// Most keys of a Managed HSM, deleted ones included.
    pub hsm_keys: usize,
    /// Most versions of a key of a Managed HSM.
    pub hsm_key_versions: usize,
    /// Most versions that a backup holds.
    pub backup_versions: usize,
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            deletion_delay: 0,
            recovery_delay: 0,
            certificate_delay: 0,
            recoverable_days: 7,
            gcm_caller_iv_refused: true,
            hmac_any_length: false,
            vault_rsnull: true,
            hsm_rsnull: true,
            vault_oct_keys: false,
            throttle: false,
            retry_after: None,
            permission_model: PermissionModel::Policy,
            denied_by: None,
            vault_empty_pages: false,
            max_aes_payload: 0,
            disabled_key_public_operations: false,
            rsnull_margin: 11,
            hsm_inner_codes: false,
            hsm_refusal_code: "Forbidden".to_owned(),
            time_inner_codes: true,
            vault_http2: true,
            hsm_http2: true,
            idle_timeout: 240,
            dns_ttl: 5,
            hsm_keys: 5_000,
            hsm_key_versions: 100,
            backup_versions: 500,
        }
    }
}
