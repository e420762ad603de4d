//! One vault or HSM: from a request to an answer. State is locked for look-ups and changes only,
//! never while a key is made or used.

mod attestation;
mod backup;
mod certificates;
mod deleted;
mod keys;
mod new_key;
mod objects;
mod operations;
mod page;
mod release;
mod rotation;
mod secrets;
pub mod seed;

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use akv_wire::ApiVersion;
use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::RwLock;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{ServiceKind, Switches};
use crate::counters::Counters;
use crate::dialect::{self, Context, Dialect};
use crate::entra::Entra;
use crate::fault::Faults;
use crate::refusal::{Refusal, TokenFault};
use crate::route::{self, Found, Match, Operation};
use crate::state::{State, folded};
use crate::store::Store;
use crate::throttle::{Share, Throttle};
use crate::tls::Attestor;

/// A request, body read.
pub struct Call {
    /// HTTP method, `X-HTTP-METHOD` applied.
    pub method: Method,
    /// Path, still percent-encoded.
    pub path: String,
    /// Query parameters, decoded, in order.
    pub query: Vec<(String, String)>,
    /// Headers.
    pub headers: HeaderMap,
    /// `host[:port]` the client used.
    pub authority: String,
    /// The body, or what was read of it before it grew too large.
    pub body: Vec<u8>,
    /// Whether the body was cut.
    pub body_too_large: bool,
}

/// An answer.
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, length excepted.
    pub headers: HeaderMap,
    /// Body bytes.
    pub body: Vec<u8>,
    /// Instead of an answer the connection ends like this.
    pub close: Option<Close>,
    /// Half of the body is sent, then the connection ends.
    pub truncated: bool,
    /// Wait between two bytes of the body.
    pub pause: Duration,
}

/// How a connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// By a TCP reset.
    Reset,
    /// By the end of TCP, without a word of TLS.
    Abrupt,
    /// TLS says goodbye (`close_notify`) first.
    Notified,
}

impl Reply {
    /// An ordinary answer.
    pub fn new(status: u16, headers: HeaderMap, body: Vec<u8>) -> Self {
        Self { status, headers, body, close: None, truncated: false, pause: Duration::ZERO }
    }
}

/// What an operation comes to.
struct Outcome {
    status: u16,
    body: Vec<u8>,
    location: Option<String>,
}

/// One vault or HSM.
pub struct Service {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub kind: ServiceKind,
    dialect: &'static dyn Dialect,
    switches: Switches,
    state: RwLock<State>,
    clock: Arc<Clock>,
    counters: Arc<Counters>,
    entra: Arc<Entra>,
    faults: Arc<Faults>,
    store: Option<Arc<Store>>,
    throttle: Throttle,
    subscription: Arc<Throttle>,
    /// Held while keys rotate by policy.
    rotations: tokio::sync::Mutex<()>,
    /// When the next key rotates by policy, Unix seconds; never too late.
    next_rotation: AtomicI64,
    /// Seals backups: all vaults share one, an HSM has its own.
    backup_key: Arc<Zeroizing<Vec<u8>>>,
    /// Signs what the HSM states of its keys.
    attestor: Arc<Attestor>,
}

/// What all services of an emulator share.
pub struct Shared {
    /// The time.
    pub clock: Arc<Clock>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// Who gives tokens.
    pub entra: Arc<Entra>,
    /// Trouble on order.
    pub faults: Arc<Faults>,
    /// Where everything is kept, if it is.
    pub store: Option<Arc<Store>>,
    /// Signs what HSMs state of their keys.
    pub attestor: Arc<Attestor>,
    /// The limits that all vaults share.
    pub subscription: Arc<Throttle>,
}

/// A request that is allowed to be carried out.
#[derive(Clone, Copy)]
struct Request<'a> {
    call: &'a Call,
    name: &'a str,
    version: &'a str,
    api: ApiVersion,
}

impl Service {
    /// An empty service.
    pub fn new(
        name: &str,
        kind: ServiceKind,
        switches: Switches,
        shared: &Shared,
        backup_key: Arc<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, String> {
        let label = label(kind, name);
        let saved = shared.store.as_ref().map(|store| store.load(&label)).transpose()?;
        let state: State = saved.flatten().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            kind,
            dialect: dialect::of(kind),
            switches,
            state: RwLock::new(state),
            clock: Arc::clone(&shared.clock),
            counters: Arc::clone(&shared.counters),
            entra: Arc::clone(&shared.entra),
            faults: Arc::clone(&shared.faults),
            store: shared.store.clone(),
            throttle: Throttle::of_vault(),
            subscription: Arc::clone(&shared.subscription),
            rotations: tokio::sync::Mutex::default(),
            // The first request looks.
            next_rotation: AtomicI64::new(i64::MIN),
            backup_key,
            attestor: Arc::clone(&shared.attestor),
        })
    }

    /// Writes the state down, where it shall be kept.
    pub(crate) fn save(&self) -> Result<(), String> {
        match &self.store {
            None => Ok(()),
            Some(store) => store.save(&self.label(), || {
                serde_json::to_value(&*self.state.read()).map_err(|error| error.to_string())
            }),
        }
    }

    /// Its name in the counters: `vault:NAME` or `managed-hsm:NAME`.
    pub fn label(&self) -> String {
        label(self.kind, &self.name)
    }

    /// Answers a request, or lets it meet the trouble that was ordered for it.
    pub async fn answer(&self, call: Call) -> Reply {
        let found = route::find(self.kind, None, &call.method, &call.path);
        let (operation, name) = match &found {
            Found::Match(found) => (found.route.name, found.name.as_str()),
            Found::LeftOut(row) => (row.name, ""),
            _ => ("unknown", ""),
        };
        match self.faults.hit(&self.label(), operation, name) {
            None => self.answer_well(call).await,
            Some(fault) => fault.befall(self.answer_well(call)).await,
        }
    }

    async fn answer_well(&self, call: Call) -> Reply {
        let started = Instant::now();
        let request_id = dialect::uuid();
        let outcome = self.carry_out(&call).await;
        let authorization = self.entra.authorization_url(&call.authority);
        let context = Context {
            authority: &call.authority,
            path: &call.path,
            service: &self.name,
            request_id: &request_id,
            authorization: &authorization,
            latency_ms: started.elapsed().as_millis(),
            switches: &self.switches,
        };
        self.reply(&call, outcome, &context)
    }

    fn reply(
        &self,
        call: &Call,
        outcome: Result<Outcome, Refusal>,
        context: &Context<'_>,
    ) -> Reply {
        let mut headers = HeaderMap::new();
        self.dialect.headers(&mut headers, context);
        let echo = call.headers.get("x-ms-return-client-request-id");
        if echo.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
            && let Some(id) = call.headers.get("x-ms-client-request-id")
            && let Ok(id) = id.to_str()
        {
            set(&mut headers, "x-ms-client-request-id", id);
        }
        let (status, body, content_type) = match outcome {
            Ok(outcome) => {
                if let Some(location) = &outcome.location {
                    set(&mut headers, "location", location);
                }
                (outcome.status, outcome.body, "application/json; charset=utf-8")
            }
            Err(refusal) => {
                if let Refusal::Unauthorized(fault) = &refusal {
                    let challenge = match fault {
                        TokenFault::Claims(claims) => format!(
                            "Bearer realm=\"\", authorization_uri=\"{}/oauth2/authorize\", \
                             error=\"insufficient_claims\", claims=\"{claims}\"",
                            context.authorization
                        ),
                        _ => format!(
                            "Bearer authorization=\"{}\", resource=\"{}\"",
                            context.authorization,
                            self.kind.resource()
                        ),
                    };
                    set(&mut headers, "www-authenticate", &challenge);
                }
                if let (Refusal::Throttled, Some(seconds)) = (&refusal, self.switches.retry_after) {
                    set(&mut headers, "retry-after", &seconds.to_string());
                }
                let error = self.dialect.refusal(&refusal, context);
                if matches!(refusal, Refusal::FrontEnd) {
                    // Recorded: the page of the web server in front has its own headers.
                    set(&mut headers, "cache-control", "private");
                    headers.remove("pragma");
                    headers.remove("expires");
                }
                (error.status, error.body, error.content_type)
            }
        };
        if !body.is_empty() || self.kind == ServiceKind::ManagedHsm {
            set(&mut headers, "content-type", content_type);
        }
        Reply::new(status, headers, body)
    }

    /// Authentication, then version, then path: a stranger learns nothing.
    async fn carry_out(&self, call: &Call) -> Result<Outcome, Refusal> {
        let version = self.api_version(call);
        let found =
            route::find(self.kind, version.as_ref().ok().copied(), &call.method, &call.path);
        let principal = match self.entra.authenticate(&call.headers, self.kind) {
            Ok(principal) => principal,
            Err(fault) => {
                self.counters.count(&self.label(), "401");
                return Err(Refusal::Unauthorized(fault));
            }
        };
        let name = match &found {
            Found::Match(found) => found.route.name,
            Found::LeftOut(row) => row.name,
            _ => "unknown",
        };
        self.counters.count(&self.label(), name);
        if call.body_too_large {
            return Err(Refusal::BodyTooLarge);
        }
        let api = version?;
        let found = match found {
            Found::Match(found) => found,
            Found::LeftOut(row) => {
                principal.check_left_out(self.kind, &self.switches, row, &call.method)?;
                return Err(Refusal::NotSupported(row.action()));
            }
            Found::UnknownAction(action) => return Err(Refusal::ActionNotSupported(action)),
            Found::OtherMethod => return Err(Refusal::MethodNotAllowed),
            Found::Nothing => return Err(Refusal::NoRoute),
        };
        self.check_name(&found)?;
        principal.check(self.kind, &self.switches, &found)?;
        if self.switches.throttle {
            self.admit(self.share(&found))?;
        }
        self.rotate_due().await;
        let request = Request { call, name: &found.name, version: &found.version, api };
        let outcome = self.dispatch(found.route.operation, &request).await?;
        if found.route.changes() {
            self.plan_rotations();
            self.save().map_err(Refusal::Internal)?;
        }
        Ok(outcome)
    }

    fn api_version(&self, call: &Call) -> Result<ApiVersion, Refusal> {
        match call.parameter("api-version") {
            Some(name) => name.parse().map_err(|_| Refusal::ApiVersionUnknown(name.to_owned())),
            // Recorded: a Managed HSM's own links to next pages carry none.
            None if self.kind == ServiceKind::ManagedHsm
                && call.parameter("$skiptoken").is_some() =>
            {
                Ok(ApiVersion::V7_4)
            }
            None => Err(Refusal::ApiVersionMissing),
        }
    }

    async fn dispatch(
        &self,
        operation: Operation,
        request: &Request<'_>,
    ) -> Result<Outcome, Refusal> {
        match operation {
            Operation::KeyCreate => self.create_key(request).await,
            Operation::KeyImport => self.import_key(request),
            Operation::KeyGet => self.get_key(request),
            Operation::KeyList => self.list_keys(request),
            Operation::KeyVersions => self.list_key_versions(request),
            Operation::KeyUpdate => self.update_key(request),
            Operation::KeyDelete => self.delete_key(request),
            Operation::DeletedKeyList => self.list_deleted_keys(request),
            Operation::DeletedKeyGet => self.get_deleted_key(request),
            Operation::DeletedKeyRecover => self.recover_key(request),
            Operation::DeletedKeyPurge => self.purge_key(request),
            Operation::KeySign => self.sign(request),
            Operation::KeyVerify => self.verify(request),
            Operation::KeyEncrypt => self.encrypt(request, "encrypt"),
            Operation::KeyWrap => self.encrypt(request, "wrapKey"),
            Operation::KeyDecrypt => self.decrypt(request, "decrypt"),
            Operation::KeyUnwrap => self.decrypt(request, "unwrapKey"),
            Operation::Random => self.random(request),
            Operation::CertificateCreate => self.create_certificate(request).await,
            Operation::CertificateImport => self.import_certificate(request),
            Operation::CertificateGet => self.get_certificate(request),
            Operation::CertificateList => self.list_certificates(request),
            Operation::CertificateVersions => self.list_certificate_versions(request),
            Operation::CertificateUpdate => self.update_certificate(request),
            Operation::CertificateDelete => self.delete_certificate(request),
            Operation::CertificatePolicyGet => self.certificate_policy(request),
            Operation::CertificatePending => self.pending_certificate(request),
            Operation::CertificateMerge => self.merge_certificate(request),
            Operation::SecretGet => self.get_secret(request),
            Operation::SecretSet => self.set_secret(request),
            Operation::SecretList => self.list_secrets(request),
            Operation::SecretVersions => self.list_secret_versions(request),
            Operation::SecretUpdate => self.update_secret(request),
            Operation::SecretDelete => self.delete_secret(request),
            Operation::KeyRestore => self.restore_key(request),
            Operation::KeyBackup => self.backup_key(request),
            Operation::KeyRotate => self.rotate_key(request).await,
            Operation::RotationPolicyGet => self.rotation_policy(request),
            Operation::RotationPolicySet => self.set_rotation_policy(request),
            Operation::CertificateRestore => self.restore_certificate(request),
            Operation::CertificateBackup => self.backup_certificate(request),
            Operation::CertificatePolicyUpdate => self.update_certificate_policy(request),
            Operation::CertificateCancel => self.cancel_certificate(request),
            Operation::CertificatePendingDelete => self.delete_pending_certificate(request),
            Operation::DeletedCertificateList => self.list_deleted_certificates(request),
            Operation::DeletedCertificateGet => self.get_deleted_certificate(request),
            Operation::DeletedCertificatePurge => self.purge_certificate(request),
            Operation::DeletedCertificateRecover => self.recover_certificate(request),
            Operation::SecretRestore => self.restore_secret(request),
            Operation::SecretBackup => self.backup_secret(request),
            Operation::DeletedSecretList => self.list_deleted_secrets(request),
            Operation::DeletedSecretGet => self.get_deleted_secret(request),
            Operation::DeletedSecretPurge => self.purge_secret(request),
            Operation::DeletedSecretRecover => self.recover_secret(request),
            Operation::KeyRelease => self.release_key(request),
            Operation::KeyAttestation => self.attest_key(request),
        }
    }

    /// `^[0-9a-zA-Z-]{1,127}$`; an empty or percent-carrying name does not even reach a vault.
    fn check_name(&self, found: &Match) -> Result<(), Refusal> {
        if !found.route.path.contains(&"{n}") {
            return Ok(());
        }
        let name = &found.name;
        if self.kind == ServiceKind::Vault && (name.is_empty() || name.contains('%')) {
            return Err(Refusal::FrontEnd);
        }
        let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if legal && (1..=127).contains(&name.len()) {
            Ok(())
        } else {
            Err(Refusal::NameInvalid(name.clone()))
        }
    }

    /// What a request takes of a vault's limits. A creation is weighed where its key is known.
    fn share(&self, found: &Match) -> Option<Share> {
        let (operation, collection) = (found.route.operation, found.route.path[0]);
        if operation == Operation::KeyCreate {
            return None;
        }
        if operation == Operation::SecretSet {
            return Some(Share::SECRET);
        }
        let state = self.state.read();
        let key = state.keys.get(&folded(&found.name)).filter(|_| collection == "keys");
        let creates = matches!(operation, Operation::KeyRelease | Operation::KeyRotate);
        let share = key
            .and_then(|key| key.version(&found.version))
            .map(|key| Share::of_key(key.kty, key.material.bits().unwrap_or_default(), creates));
        Some(share.unwrap_or(Share::OTHER))
    }

    /// Counts a transaction against the documented limits, where they are switched on. A Managed
    /// HSM has none on its transactions.
    fn admit(&self, share: Option<Share>) -> Result<(), Refusal> {
        let throttled = self.switches.throttle && self.kind == ServiceKind::Vault;
        let Some(share) = share.filter(|_| throttled) else { return Ok(()) };
        let now = self.clock.now();
        if self.throttle.admit(now, share) && self.subscription.admit(now, share) {
            return Ok(());
        }
        Err(Refusal::Throttled)
    }

    fn ok<T: Serialize>(&self, body: &T) -> Result<Outcome, Refusal> {
        Ok(Outcome { status: 200, body: dialect::render(self.kind, body), location: None })
    }
}

impl Call {
    /// The first value of a query parameter; names are case-insensitive.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

fn label(kind: ServiceKind, name: &str) -> String {
    format!("{}:{name}", kind.as_str())
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

impl From<openssl::error::ErrorStack> for Refusal {
    fn from(stack: openssl::error::ErrorStack) -> Self {
        Self::Internal(format!("OpenSSL: {stack}"))
    }
}

impl From<TokenFault> for Refusal {
    fn from(fault: TokenFault) -> Self {
        Self::Unauthorized(fault)
    }
}
