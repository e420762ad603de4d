//! An emulator of Azure Key Vault and Managed HSM on one machine.
//!
//! Every answer is derived from state: keys are real keys, tokens are signed and checked, and
//! what is not implemented is refused in the service's own words.
//!
//! ```text
//! Emulator ── clock, counters, control endpoint (HTTP)
//!   ├── Entra      one tenant: tokens (HTTPS)
//!   └── Service    one per vault or HSM (HTTPS): route → body → service/* → dialect
//!         └── State    names → versions → Material (crypto/*)
//! ```

mod body;
mod clock;
pub mod config;
mod control;
mod counters;
mod crypto;
mod dialect;
mod dns;
mod entra;
mod fault;
mod place;
mod policy;
mod principal;
mod refusal;
mod route;
mod server;
mod service;
mod state;
mod store;
mod throttle;
mod tls;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{ClientConfig, Config, ServiceKind};
use crate::control::Control;
use crate::counters::Counters;
use crate::dns::NameServer;
use crate::entra::{ArcAgent, Entra};
use crate::fault::Faults;
use crate::place::Places;
use crate::server::Front;
pub use crate::service::seed::{CertificateSeed, KeySeed, Seed};
use crate::service::{Service, Shared};
use crate::store::Store;
use crate::throttle::Throttle;
use crate::tls::{Attestor, Identity};

/// A running emulator; its listeners end with the runtime it was started on.
pub struct Emulator {
    ready: Ready,
    shutdown: Arc<Notify>,
    /// Holds the CA file (unless one was named) and the module's configuration.
    folder: tempfile::TempDir,
}

/// What a client needs to know; one line of JSON on the standard output of `run`.
#[derive(Clone, Debug, Serialize)]
pub struct Ready {
    /// Vaults and HSMs, in the order they were asked for.
    pub services: Vec<ReadyService>,
    /// URL of the authority, without tenant.
    pub authority: String,
    /// Tenant id.
    pub tenant: String,
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: String,
    /// File with the CA certificate, PEM.
    pub ca_file: PathBuf,
    /// URL of the control endpoint (plain HTTP).
    pub control: String,
    /// A configuration of the PKCS#11 module: one token per service.
    pub module_config: PathBuf,
    /// A file like `/etc/hosts`, with the public names where those are used.
    pub hosts: PathBuf,
    /// The client's certificate and key, PEM, for assertions.
    pub client_certificate: PathBuf,
    /// A token of a federated workload that may act as the client.
    pub federated_token_file: PathBuf,
    /// What the App Service endpoint at `{control}/msi/token` wants in `X-IDENTITY-HEADER`; the
    /// metadata service is at `{control}/metadata/identity/oauth2/token`, the agent of Azure Arc
    /// at `{control}/arc/metadata/identity/oauth2/token`.
    pub identity_header: String,
    /// Address of the name server that knows the services' public names, UDP and TCP.
    pub dns: SocketAddr,
}

/// One vault or HSM as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyService {
    /// Name.
    pub name: String,
    /// `vault` or `managed-hsm`.
    pub kind: &'static str,
    /// URL: on loopback, or with [`Config::public_names`] the one of the public cloud.
    pub url: String,
    /// Host name in the public cloud; the port answers to it, too.
    pub host: String,
    /// Port, on loopback.
    pub port: u16,
    /// Scope of tokens.
    pub scope: String,
}

/// What to start.
#[derive(Default)]
pub struct Options {
    /// Services, identities, switches.
    pub config: Config,
    /// What to make before the first request.
    pub seeds: Vec<Seed>,
    /// Where to write the CA certificate; the emulator's temporary folder when absent.
    pub ca_file: Option<PathBuf>,
}

impl Emulator {
    /// Starts everything and plants the seeds. Must be called within a tokio runtime.
    pub async fn start(options: Options) -> Result<Self, String> {
        let config = options.config;
        let secret = match &config.client_secret {
            Some(secret) => secret.clone(),
            None => dialect::uuid().replace('-', ""),
        };
        let folder = tempfile::Builder::new()
            .prefix("akv-emulator-")
            .tempdir()
            .map_err(|error| format!("temporary folder: {error}"))?;
        let identity = Identity::new().map_err(|error| format!("TLS identity: {error}"))?;
        let attestor = Attestor::new().map_err(|error| format!("attestation chain: {error}"))?;
        let ca_file = options.ca_file.unwrap_or_else(|| folder.path().join("ca.pem"));
        write(&ca_file, &identity.ca_pem, 0o644)?;

        let clock = Arc::new(Clock::default());
        let counters = Arc::new(Counters::default());
        let shutdown = Arc::new(Notify::new());
        let faults = Arc::new(Faults::default());
        for fault in &config.fault {
            faults.order(fault.clone()).map_err(|why| format!("fault: {why}"))?;
        }
        let idle = Duration::from_secs(config.switches.idle_timeout);
        let front = |label: &str, http2: Option<bool>| -> Result<Front, String> {
            let tls = http2.map(|http2| identity.listening(http2)).transpose();
            Ok(Front {
                label: label.to_owned(),
                tls: tls.map_err(|error| format!("TLS of {label}: {error}"))?,
                faults: Arc::clone(&faults),
                idle,
            })
        };

        let (certificate, client_pem) =
            tls::client_certificate().map_err(|error| format!("client certificate: {error}"))?;
        let mighty = ClientConfig {
            id: config.client_id.clone(),
            secret: secret.clone(),
            certificate: Some(certificate),
            ..ClientConfig::default()
        };
        let mut places = Places::new(config.public_names);
        let (listener, authority) = places
            .listen(entra::PUBLIC_HOST, &[entra::manager::PUBLIC_HOST], config.authority_port)
            .await?;
        let authority = authority.url;
        let entra = Entra::new(
            &config,
            mighty,
            authority.clone(),
            ArcAgent::new(config.arc_folder.clone().unwrap_or_else(|| folder.path().join("arc"))),
            Arc::clone(&clock),
            Arc::clone(&counters),
            Arc::clone(&faults),
        );
        let entra = Arc::new(entra.map_err(|error| format!("authority: {error}"))?);
        let answering = Arc::clone(&entra);
        tokio::spawn(server::serve(listener, front("entra", Some(false))?, move |call| {
            let entra = Arc::clone(&answering);
            async move { entra.answer(call).await }
        }));

        let listener = server::bind(Ipv4Addr::LOCALHOST, config.control_port).await?;
        let control = listener.local_addr().map_err(|error| error.to_string())?;
        let control = format!("http://{control}");
        let answering = Arc::new(Control {
            counters: Arc::clone(&counters),
            clock: Arc::clone(&clock),
            entra: Arc::clone(&entra),
            faults: Arc::clone(&faults),
            shutdown: Arc::clone(&shutdown),
        });
        tokio::spawn(server::serve(listener, front("control", None)?, move |call| {
            let control = Arc::clone(&answering);
            async move { control.answer(&call).await }
        }));

        let store = config.persist.as_deref().map(Store::open).transpose()?.map(Arc::new);
        let shared = Shared {
            clock,
            counters: Arc::clone(&counters),
            entra: Arc::clone(&entra),
            faults: Arc::clone(&faults),
            store,
            attestor: Arc::new(attestor),
            subscription: Arc::new(Throttle::of_subscription()),
        };
        let subscription = backup_key(&shared, "subscription")?;
        let seeds: Vec<Arc<Seed>> = options.seeds.into_iter().map(Arc::new).collect();
        let (mut services, mut planting) = (Vec::new(), Vec::new());
        let asked = config.vault.iter().map(|one| (one, ServiceKind::Vault));
        let asked = asked.chain(config.hsm.iter().map(|one| (one, ServiceKind::ManagedHsm)));
        for (one, kind) in asked {
            let backup_key = match kind {
                ServiceKind::Vault => Arc::clone(&subscription),
                ServiceKind::ManagedHsm => backup_key(&shared, &format!("domain:{}", one.name))?,
            };
            let switches = config.switches.clone();
            let http2 = match kind {
                ServiceKind::Vault => switches.vault_http2,
                ServiceKind::ManagedHsm => switches.hsm_http2,
            };
            let service = Service::new(&one.name, kind, switches, &shared, backup_key)?;
            let service = Arc::new(service);
            for seed in &seeds {
                let (service, seed) = (Arc::clone(&service), Arc::clone(seed));
                planting.push(tokio::spawn(async move { service.plant(&seed).await }));
            }
            let host = format!("{}.{}", one.name, kind.suffix());
            let (listener, place) = places.listen(&host, &[], one.port).await?;
            services.push(ReadyService {
                name: one.name.clone(),
                kind: kind.as_str(),
                url: place.url,
                host,
                port: place.port,
                scope: format!("{}/.default", kind.resource()),
            });
            tokio::spawn(server::serve(
                listener,
                front(&service.label(), Some(http2))?,
                move |call| {
                    let service = Arc::clone(&service);
                    async move { service.answer(call).await }
                },
            ));
        }
        for planted in planting {
            planted.await.map_err(|error| error.to_string())??;
        }
        let (udp, tcp) = dns::bind(config.dns_port).await?;
        let dns = tcp.local_addr().map_err(|error| format!("DNS: {error}"))?;
        let (names, ttl) = (places.names(), config.switches.dns_ttl);
        tokio::spawn(Arc::new(NameServer { names, ttl, faults, counters }).serve(udp, tcp));
        let in_folder = |name: &str| folder.path().join(name);
        let ready = Ready {
            hosts: in_folder("hosts"),
            client_certificate: in_folder("client.pem"),
            federated_token_file: in_folder("federated-token"),
            identity_header: entra.identity_header().to_owned(),
            dns,
            services,
            authority,
            tenant: config.tenant,
            client_id: config.client_id,
            client_secret: secret,
            ca_file,
            control,
            module_config: in_folder("akv-pkcs11.toml"),
        };
        let token = entra.workload_token().map_err(|error| format!("workload token: {error}"))?;
        write(&ready.hosts, places.hosts().as_bytes(), 0o644)?;
        write(&ready.federated_token_file, token.as_bytes(), 0o600)?;
        write(&ready.client_certificate, &client_pem, 0o600)?;
        let line = serde_json::to_vec(&ready).map_err(|error| error.to_string())?;
        write(&in_folder("ready.json"), &line, 0o600)?;
        write(&ready.module_config, module_config(&ready).as_bytes(), 0o600)?;
        Ok(Self { ready, shutdown, folder })
    }

    /// What clients need to know.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Resolves when the control endpoint was asked to end the emulator.
    pub async fn asked_to_stop(&self) {
        self.shutdown.notified().await;
    }

    /// The folder that goes when the emulator does.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Verifies as the services do, with nothing but a public JSON web key: for recorded signatures,
/// whose private keys nobody has.
///
/// `jwk` is JSON; `digest` and `signature` are bytes as in the contract. The error says what is
/// wrong with key or algorithm.
pub fn verify_with_public_key(
    jwk: &str,
    alg: &str,
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, String> {
    let key = serde_json::from_str(jwk).map_err(|error| error.to_string())?;
    let alg = alg.parse().map_err(|unknown: akv_wire::UnknownName| unknown.to_string())?;
    crypto::verify_public(&key, alg, digest, signature).map_err(|fault| format!("{fault:?}"))
}

impl Ready {
    /// A file with the ready line, beside the module's configuration.
    fn ready_file(&self) -> PathBuf {
        self.module_config.with_file_name("ready.json")
    }

    /// The environment in which the PKCS#11 module and the official SDKs find the emulator.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let ca_file = self.ca_file.display().to_string();
        let mut variables = vec![
            ("AKV_EMULATOR_CONTROL", self.control.clone()),
            ("AKV_EMULATOR_HOSTS", self.hosts.display().to_string()),
            ("AKV_EMULATOR_READY", self.ready_file().display().to_string()),
            ("AKV_PKCS11_CONFIG", self.module_config.display().to_string()),
            ("AKV_PKCS11_CA_FILE", ca_file.clone()),
            ("AKV_PKCS11_AUTHORITY", self.authority.clone()),
            ("AZURE_AUTHORITY_HOST", self.authority.clone()),
            // The Azure CLI would ask the public cloud what it thinks of this authority.
            ("AZURE_CORE_INSTANCE_DISCOVERY", "false".to_owned()),
            ("AZURE_TENANT_ID", self.tenant.clone()),
            ("AZURE_CLIENT_ID", self.client_id.clone()),
            ("AZURE_CLIENT_SECRET", self.client_secret.clone()),
            // Not SSL_CERT_FILE: it would replace every other authority for the child.
            ("REQUESTS_CA_BUNDLE", ca_file.clone()),
            ("NODE_EXTRA_CA_CERTS", ca_file.clone()),
            ("CURL_CA_BUNDLE", ca_file),
        ];
        if let Some(first) = self.services.first() {
            variables.extend([
                ("AKV_PKCS11_ENDPOINT", first.url.clone()),
                ("AKV_PKCS11_SERVICE", first.kind.to_owned()),
                ("AKV_PKCS11_SCOPE", first.scope.clone()),
            ]);
        }
        variables
    }
}

/// The key that seals backups: a kept one, or a new one.
fn backup_key(shared: &Shared, name: &str) -> Result<Arc<Zeroizing<Vec<u8>>>, String> {
    let name = format!("backup-key:{name}");
    if let Some(store) = &shared.store
        && let Some(kept) = store.load::<akv_wire::Base64Url>(&name)?
    {
        return Ok(Arc::new(Zeroizing::new(kept.into_bytes())));
    }
    let key = crypto::random(32).map_err(|error| format!("random bytes: {error}"))?;
    if let Some(store) = &shared.store {
        store.save(&name, || Ok(akv_wire::Base64Url::from(key.as_slice())))?;
    }
    Ok(Arc::new(Zeroizing::new(key)))
}

/// One `[[token]]` per service, the secret left in the environment.
fn module_config(ready: &Ready) -> String {
    let mut text = String::from("# Written by akv-emulator.\n");
    let quoted = |value: &str| toml::Value::String(value.to_owned()).to_string();
    for service in &ready.services {
        let lines = [
            ("label", quoted(&service.name)),
            ("endpoint", quoted(&service.url)),
            ("service", quoted(service.kind)),
            ("authority", quoted(&ready.authority)),
            ("tenant", quoted(&ready.tenant)),
            ("scope", quoted(&service.scope)),
            ("ca_file", quoted(&ready.ca_file.display().to_string())),
            (
                "credential",
                format!(
                    "{{ type = \"client-secret\", client_id = {}, secret = \
                     \"env:AZURE_CLIENT_SECRET\" }}",
                    quoted(&ready.client_id)
                ),
            ),
        ];
        text.push_str("\n[[token]]\n");
        for (key, value) in lines {
            text.push_str(&format!("{key} = {value}\n"));
        }
    }
    text
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|error| format!("{}: {error}", path.display()))
}
