//! From the configured credential to one access token.

use std::{
    fmt, fs,
    future::Future,
    path::Path,
    pin::pin,
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{AccessToken, Secret, TokenCredential},
    http::{ClientMethodOptions, ClientOptions, RetryOptions, Transport},
    time::OffsetDateTime,
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertion, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
};
use cryptoki_sys::CKR_PIN_INCORRECT;
use zeroize::Zeroizing;

use super::{
    Challenge, Rejected, Token,
    asker::{Asker, Unanswered},
    assertion::SigningCertificate,
    challenge,
    cli::CallingThread,
    identity,
    transport::{Ended, LaneTransport},
};
use crate::{
    backoff::Backoff,
    config::{CredentialConfig, ManagedIdentityEndpoint, SecretSource, TokenConfig},
    error::{Error, Result},
    metrics::TokenMetrics,
    net::{Net, NetError},
    process,
};

/// Of a virtual machine.
const METADATA_SERVICE: &str = "http://169.254.169.254/metadata/identity/oauth2/token";

/// The configured way to a token: plain data.
pub(super) struct Source {
    config: CredentialConfig,
    identity_endpoint: ManagedIdentityEndpoint,
    authority: String,
    scope: String,
    connect_timeout: Duration,
    may_run_programs: bool,
    metrics: Option<Arc<TokenMetrics>>,
    pauses: Arc<Backoff>,
}

/// A client secret that came as a PIN.
#[derive(Clone)]
pub struct LoginSecret {
    client_id: String,
    secret: Zeroizing<String>,
}

/// Why there is no token. The texts are for the operator and hold no secret.
pub(super) enum Failure {
    /// The authority (or the tool) said no.
    Refused(String),
    /// The credential comes with C_Login, and nobody has logged in.
    NobodyLoggedIn(String),
    /// No answer, or one that makes no sense.
    Unreachable(String),
    /// Nothing can be asked on this thread, which is ending.
    ThreadEnding,
    /// Nothing can be asked on this thread, which may not wait.
    InsideRuntime,
}

impl Source {
    /// Checks what can be checked without a request: a certificate that cannot sign is refused.
    pub fn new(
        config: &TokenConfig,
        may_run_programs: bool,
        metrics: Option<Arc<TokenMetrics>>,
    ) -> Result<Self> {
        if let CredentialConfig::ClientCertificate { pem, .. } = &config.credential {
            SigningCertificate::from_pem(pem.initial())?;
        }
        // azure_core keeps one runtime for the process, for pauses between its own retries. Ours
        // has no state; whoever sets one first wins. Set here and not at the first request, when
        // another thread may be forking.
        let _ = azure_core::async_runtime::set_async_runtime(Arc::new(super::transport::SleepHere));
        Ok(Source {
            config: config.credential.clone(),
            identity_endpoint: config.managed_identity.clone().unwrap_or_else(|| {
                ManagedIdentityEndpoint { url: METADATA_SERVICE.to_owned(), header: None }
            }),
            authority: config.authority.clone(),
            scope: config.scope.clone(),
            connect_timeout: config.connect_timeout,
            may_run_programs,
            metrics,
            pauses: Arc::default(),
        })
    }

    pub fn needs_tenant(&self, logged_in: bool) -> bool {
        match self.config {
            CredentialConfig::ManagedIdentity { .. } | CredentialConfig::AzureCli => logged_in,
            CredentialConfig::FromLogin { .. }
            | CredentialConfig::WorkloadIdentity { .. }
            | CredentialConfig::ClientSecret { .. }
            | CredentialConfig::ClientCertificate { .. } => true,
        }
    }

    /// Takes a PIN apart: `client-id:secret`, or the secret alone when the configuration names
    /// the application. A secret may contain colons, an application id (a GUID) may not, so the
    /// text before the first colon counts as one only if it looks like one.
    pub fn login_secret(&self, pin: &[u8]) -> Result<LoginSecret> {
        let refused = |why: &str| Error::new(CKR_PIN_INCORRECT, format!("the PIN {why}"));
        let pin = std::str::from_utf8(pin).map_err(|_| refused("is not UTF-8"))?;
        let configured = match &self.config {
            CredentialConfig::FromLogin { client_id } => client_id.clone(),
            CredentialConfig::ClientSecret { client_id, .. } => Some(client_id.clone()),
            _ => None,
        };
        let split = pin.split_once(':').filter(|(id, _)| configured.is_none() || is_guid(id));
        let (client_id, secret) = match (split, configured) {
            (Some((id, secret)), _) => (id.to_owned(), secret),
            (None, Some(id)) => (id, pin),
            (None, None) => {
                return Err(refused(
                    "must be client-id:secret, or the configuration must name the client id",
                ));
            }
        };
        if client_id.is_empty() || secret.is_empty() {
            return Err(refused("lacks the client id or the secret"));
        }
        Ok(LoginSecret { client_id, secret: secret.to_owned().into() })
    }

    /// One token, asked for on the calling thread.
    pub fn acquire(
        &self,
        net: &Net,
        login: Option<&LoginSecret>,
        tenant: Option<&str>,
        rejected: Option<&Rejected<'_>>,
        deadline: Instant,
    ) -> std::result::Result<Token, Failure> {
        let challenged = rejected.and_then(|rejected| rejected.challenge.as_ref());
        if let (CredentialConfig::AzureCli, None, Some(challenge)) =
            (&self.config, login, challenged)
        {
            return Err(self.named(self.new_login(challenge)));
        }
        let asker = Asker {
            net: net.clone(),
            deadline,
            connect_timeout: self.connect_timeout,
            pauses: self.pauses.clone(),
            metrics: self.metrics.clone(),
        };
        if let (CredentialConfig::ManagedIdentity { identity }, None) = (&self.config, login) {
            let (endpoint, identity) = (&self.identity_endpoint, identity.as_ref());
            return identity::token(&asker, endpoint, identity, &self.scope, rejected)
                .map_err(|failure| self.named(failure));
        }
        let field = challenge::form_field(challenged);
        let transport = Arc::new(LaneTransport::new(asker, field));
        let credential = self
            .credential(login, tenant.unwrap_or_default(), &transport, deadline)
            .map_err(|failure| self.named(failure))?;
        let asked = block_on(credential.get_token(&[&self.scope], None));
        let token = match asked {
            Ok(token) => token,
            Err(error) => return Err(self.named(failure(&error, transport.ended()))),
        };
        let lifetime = token.expires_on - OffsetDateTime::now_utc();
        let lifetime = Duration::try_from(lifetime).unwrap_or_default();
        Token::new(token.token.secret(), lifetime, challenged).ok_or_else(|| {
            self.named(Failure::Unreachable("the access token is no header value".into()))
        })
    }

    fn credential(
        &self,
        login: Option<&LoginSecret>,
        tenant: &str,
        transport: &Arc<LaneTransport>,
        deadline: Instant,
    ) -> std::result::Result<Arc<dyn TokenCredential>, Failure> {
        let refused = |error: azure_core::Error| Failure::Refused(first_line(&error.to_string()));
        let client_options = self.client_options(transport);
        let secret = |client_id: &str, secret: &str| {
            let options = ClientSecretCredentialOptions { client_options: client_options.clone() };
            let secret = Secret::from(secret.to_owned());
            ClientSecretCredential::new(tenant, client_id.to_owned(), secret, Some(options))
                .map(|made| made as Arc<dyn TokenCredential>)
                .map_err(refused)
        };
        let assertion = |client_id: &str, text: Zeroizing<String>| {
            let options =
                ClientAssertionCredentialOptions { client_options: client_options.clone() };
            let (tenant, client_id) = (tenant.to_owned(), client_id.to_owned());
            ClientAssertionCredential::new(tenant, client_id, Assertion(text), Some(options))
                .map(|made| made as Arc<dyn TokenCredential>)
                .map_err(refused)
        };
        if let Some(login) = login {
            return secret(&login.client_id, &login.secret);
        }
        match &self.config {
            CredentialConfig::ClientSecret { client_id, secret: source } => {
                let bytes = current(source);
                let text = std::str::from_utf8(&bytes)
                    .map_err(|_| Failure::Refused("the client secret is not UTF-8".into()))?;
                secret(client_id, text)
            }
            CredentialConfig::ClientCertificate { client_id, pem, send_chain } => {
                let audience = format!("{}/{tenant}/oauth2/v2.0/token", self.authority_root());
                // A file that is being written serves no less than its last good contents.
                let jwt = SigningCertificate::from_pem(&current(pem))
                    .or_else(|error| SigningCertificate::from_pem(pem.initial()).map_err(|_| error))
                    .and_then(|signer| signer.assertion(client_id, &audience, *send_chain))
                    .map_err(|error| Failure::Refused(error.sentence().to_owned()))?;
                assertion(client_id, jwt)
            }
            CredentialConfig::WorkloadIdentity { client_id, token_file } => {
                let bytes = current(token_file);
                let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
                if text.is_empty() {
                    let why = "the file of the federated token is empty or no text";
                    return Err(Failure::Refused(why.into()));
                }
                assertion(client_id, Zeroizing::new(text.to_owned()))
            }
            CredentialConfig::AzureCli if process::is_secure() => Err(Failure::Refused(
                "no program of the caller's PATH is started in a set-uid process".into(),
            )),
            CredentialConfig::AzureCli if !self.may_run_programs => Err(Failure::Refused(
                "the host has forbidden threads to this library \
                 (CKF_LIBRARY_CANT_CREATE_OS_THREADS), and so no program is started"
                    .into(),
            )),
            CredentialConfig::AzureCli => {
                let options = AzureCliCredentialOptions {
                    tenant_id: Some(tenant.to_owned()).filter(|tenant| !tenant.is_empty()),
                    executor: Some(Arc::new(CallingThread { deadline })),
                    ..AzureCliCredentialOptions::default()
                };
                AzureCliCredential::new(Some(options))
                    .map(|made| made as Arc<dyn TokenCredential>)
                    .map_err(refused)
            }
            // Asked without azure_identity; with nobody logged in there is nothing else to ask.
            CredentialConfig::ManagedIdentity { .. } | CredentialConfig::FromLogin { .. } => {
                Err(Failure::NobodyLoggedIn(
                    "the credential comes with C_Login, and nobody has logged in".into(),
                ))
            }
        }
    }

    fn client_options(&self, transport: &Arc<LaneTransport>) -> ClientOptions {
        let mut cloud = CustomConfiguration::default();
        cloud.authority_host = self.authority.clone();
        ClientOptions {
            // In front of all policies, which would only repeat the request.
            per_call_policies: vec![transport.clone()],
            retry: RetryOptions::none(),
            transport: Some(Transport::new(transport.clone())),
            cloud: Some(Arc::new(CloudConfiguration::Custom(cloud))),
            ..ClientOptions::default()
        }
    }

    /// The Azure CLI gives its cached token again, whatever is asked of it.
    fn new_login(&self, challenge: &Challenge) -> Failure {
        Failure::Refused(format!(
            "the service asks for claims that the Azure CLI's login lacks; run az login --scope \
             {} --claims-challenge {} (Azure CLI 2.76 or later)",
            self.scope,
            challenge.text()
        ))
    }

    fn authority_root(&self) -> &str {
        self.authority.trim_end_matches('/')
    }

    fn named(&self, failure: Failure) -> Failure {
        let name = format!("credential {:?}", self.config);
        match failure {
            Failure::Refused(why) => Failure::Refused(format!("{name}: {why}")),
            Failure::NobodyLoggedIn(why) => Failure::NobodyLoggedIn(why),
            Failure::Unreachable(why) => Failure::Unreachable(format!("{name}: {why}")),
            Failure::ThreadEnding | Failure::InsideRuntime => failure,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.config, self.authority)
    }
}

impl fmt::Debug for LoginSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginSecret").finish_non_exhaustive()
    }
}

/// A client assertion that exists already.
struct Assertion(Zeroizing<String>);

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").finish_non_exhaustive()
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        Ok(self.0.to_string())
    }
}

/// What the file says now, else what it said at C_Initialize (a chrooted child cannot read it).
fn current(source: &SecretSource) -> Zeroizing<Vec<u8>> {
    let reread = match source {
        SecretSource::Value(_) => None,
        SecretSource::File { path, .. } => read_secret(path),
    };
    reread.unwrap_or_else(|| Zeroizing::new(source.initial().to_vec()))
}

fn read_secret(path: &Path) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(fs::read(path).ok()?);
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Sorts what azure_identity says; `ended` is how its last request ended. (Its own error has no
/// status when the body is not the JSON it expects.)
fn failure(error: &azure_core::Error, ended: Option<Ended>) -> Failure {
    let text = first_line(&error.to_string());
    match ended {
        Some(Err(unanswered)) => unanswered.into(),
        Some(Ok(status @ (408 | 429 | 500..))) => {
            Failure::Unreachable(format!("HTTP {status}: {text}"))
        }
        Some(Ok(200..=299)) => Failure::Unreachable(text),
        Some(Ok(status @ 300..=399)) => Failure::Unreachable(format!(
            "HTTP {status}: redirects are never followed, is `authority` right? {text}"
        )),
        Some(Ok(status)) => Failure::Refused(format!("HTTP {status}: {text}")),
        // Nothing was asked when a program is the source, or the request could not be made.
        None => Failure::Refused(text),
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Failed(NetError::ThreadEnding) => Failure::ThreadEnding,
            Unanswered::Failed(NetError::InsideRuntime) => Failure::InsideRuntime,
            Unanswered::Failed(network) => Failure::Unreachable(network.to_string()),
            Unanswered::Paused(pause) => {
                let why = pause.reason("whoever gives out the tokens");
                Failure::Unreachable(format!("not asked, because {why}"))
            }
        }
    }
}

/// The first line, without control characters, at most 300 characters.
pub(super) fn first_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().filter(|character| !character.is_control()).take(300).collect()
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Drives azure_identity's future. Its transport blocks inside its poll, so this is ready at the
/// first one; the waiting is for whatever it may come to wait for.
fn block_on<F: Future<Output = azure_core::Result<AccessToken>>>(future: F) -> F::Output {
    struct Park(Mutex<bool>, Condvar);
    impl Wake for Park {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.1.notify_one();
        }
    }
    let park = Arc::new(Park(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(park.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = park.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !std::mem::take(&mut *woken) {
            woken = park.1.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
