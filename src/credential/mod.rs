//! Entra tokens: one cache per token, filled by azure_identity over our lanes.
//!
//! The credential classes of azure_identity are made anew for each token request, which is once
//! an hour: a rotated secret file is read then, a forced refresh needs no door they do not have,
//! and the only cache is this one. It refreshes ahead of expiry by one caller while the others go
//! on with the old token; at a cold start one caller asks and the others wait for its answer.

mod assertion;
mod challenge;
mod cli;
mod source;
mod transport;

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

use aws_lc_rs::digest;
use bytes::Bytes;
use cryptoki_sys::{
    CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_PIN_EXPIRED, CKR_PIN_INCORRECT, CKR_USER_NOT_LOGGED_IN,
};
use reqwest::header::HeaderValue;
use zeroize::Zeroizing;

use self::source::{Failure, Source};
pub use self::{
    challenge::{Challenge, parameters},
    source::LoginSecret,
};
use crate::{
    config::TokenConfig,
    error::{Error, Result},
    hex,
    metrics::TokenMetrics,
    net::Net,
};

/// A token is not sent with less than this left: the request and the clocks take their time.
const MARGIN: Duration = Duration::from_secs(20);
/// Entra's code for a client secret past its end.
const SECRET_EXPIRED: &str = "AADSTS7000222";
/// A refusal is repeated from memory for this long, so that a host that goes on calling with a
/// wrong secret does not go on asking with it.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);
/// A refresh ahead of expiry holds up the call that makes it no longer than this.
const REFRESH_PATIENCE: Duration = Duration::from_secs(2);
/// After a refresh ahead of expiry failed, the next one waits.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);

/// One token's Entra identity and its cached access token.
pub struct Credential {
    net: Net,
    source: Source,
    state: Mutex<State>,
    /// Told when an attempt to get a token ended.
    ended: Condvar,
}

/// A token that the service did not take, and the claims it asks for instead, if any.
pub struct Rejected<'a> {
    /// The token.
    pub token: &'a Token,
    /// What the next one has to be asked for with.
    pub challenge: Option<Challenge>,
}

/// An access token as the Authorization header that carries it. Never printed.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    refresh_from: Instant,
    expires: Instant,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Somebody is asking for a token.
    asking: bool,
    /// Attempts that ended, and how the last one failed: whoever waited for it shares its fate.
    attempts: u64,
    failure: Option<(Instant, Error)>,
    not_before: Option<Instant>,
    /// The operator knows that the token cannot be refreshed.
    told: bool,
    /// From the configuration, else from the service's challenge.
    tenant: Option<String>,
    login: Option<LoginSecret>,
}

impl Credential {
    /// Makes no request. `login` is what a parent process was logged in with, `token` what it
    /// had, for a forked child; `metrics` counts the requests.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR for a client certificate that cannot sign.
    pub fn new(
        config: &TokenConfig,
        net: Net,
        login: Option<LoginSecret>,
        token: Option<Arc<Token>>,
        metrics: Option<Arc<TokenMetrics>>,
    ) -> Result<Self> {
        let source = Source::new(config, metrics)?;
        let state = State { token, login, tenant: config.tenant.clone(), ..State::default() };
        Ok(Credential { net, source, state: Mutex::new(state), ended: Condvar::new() })
    }

    /// A token that is good for a request now. Waits for nobody but the authority, and only when
    /// there is no token left to use.
    ///
    /// # Errors
    /// CKR_USER_NOT_LOGGED_IN when the authority refuses or nobody has logged in,
    /// CKR_DEVICE_ERROR when it cannot be reached within `deadline`.
    pub fn token(&self, deadline: Instant) -> Result<Arc<Token>> {
        self.token_other_than(None, deadline)
    }

    /// A token to use instead of the rejected one, which the service answered with 401. Threads
    /// that were rejected with the same token share one new one.
    ///
    /// # Errors
    /// As [`Credential::token`]; CKR_USER_NOT_LOGGED_IN also when a token with the claims of the
    /// challenge takes a new login.
    pub fn replacement(&self, rejected: &Rejected<'_>, deadline: Instant) -> Result<Arc<Token>> {
        self.token_other_than(Some(rejected), deadline)
    }

    /// The tenant must be learnt from a challenge before a token can be asked for.
    pub fn needs_tenant(&self) -> bool {
        let state = self.lock();
        state.tenant.is_none() && self.source.needs_tenant(state.login.is_some())
    }

    /// Takes the tenant of a challenge, unless one is known.
    pub fn learn_tenant(&self, tenant: &str) {
        self.lock().tenant.get_or_insert_with(|| tenant.to_owned());
    }

    /// Logs in with a PIN that is a client secret or `client-id:secret`, by getting a token.
    ///
    /// # Errors
    /// CKR_PIN_INCORRECT when the authority refuses it, CKR_PIN_EXPIRED when it says that the
    /// secret has expired, CKR_DEVICE_ERROR when it cannot be asked. The previous login stays then.
    pub fn login(&self, pin: &[u8], deadline: Instant) -> Result<()> {
        let login = self.source.login_secret(pin)?;
        let tenant = self.lock().tenant.clone();
        let token = self
            .source
            .acquire(&self.net, Some(&login), tenant.as_deref(), None, deadline)
            .map_err(|failure| match failure {
                Failure::Refused(why) if why.contains(SECRET_EXPIRED) => {
                    Error::new(CKR_PIN_EXPIRED, why)
                }
                Failure::Refused(why) => Error::new(CKR_PIN_INCORRECT, why),
                other => other.into_error(),
            })?;
        let mut state = self.lock();
        state.login = Some(login);
        state.token = Some(Arc::new(token));
        state.failure = None;
        Ok(())
    }

    /// Forgets the login and its token.
    pub fn logout(&self) {
        let mut state = self.lock();
        if state.login.take().is_some() {
            state.token = None;
            state.failure = None;
        }
    }

    /// What a forked child takes along: the login and the token. Never waits: a thread that does
    /// not exist in the child may hold the lock, and then there is nothing to take.
    pub fn carried(&self) -> (Option<LoginSecret>, Option<Arc<Token>>) {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return (None, None),
        };
        (state.login.clone(), state.token.clone())
    }

    fn token_other_than(
        &self,
        rejected: Option<&Rejected<'_>>,
        deadline: Instant,
    ) -> Result<Arc<Token>> {
        let mut state = self.lock();
        if let (Some(token), Some(rejected)) = (&state.token, rejected)
            && token.header == rejected.token.header
        {
            state.token = None;
        }
        let waiting_since = state.attempts;
        loop {
            let now = Instant::now();
            if let Some(token) = state.token.clone().filter(|token| token.usable(now)) {
                let refresh = now >= token.refresh_from
                    && !state.asking
                    && state.not_before.is_none_or(|not_before| now >= not_before);
                if !refresh {
                    return Ok(token);
                }
                let patience = deadline.min(now + REFRESH_PATIENCE);
                return Ok(self.ask(state, rejected, patience).unwrap_or_else(|error| {
                    self.tell(&error, token.expires);
                    token
                }));
            }
            if !state.asking {
                if let Some((at, failure)) = &state.failure {
                    let waited_for_it = state.attempts > waiting_since;
                    let refused = failure.rv() == CKR_USER_NOT_LOGGED_IN;
                    if waited_for_it || refused && now < *at + FAILURE_HOLDS {
                        return Err(failure.clone());
                    }
                }
                return self.ask(state, rejected, deadline);
            }
            let Some(left) = deadline.checked_duration_since(now).filter(|left| !left.is_zero())
            else {
                return Err(Error::new(
                    CKR_DEVICE_ERROR,
                    "no access token within the deadline: another thread is still asking for it",
                ));
            };
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells the operator once, until a token comes again, that there is one that cannot be
    /// refreshed: calls go on with it, and nobody else would notice before its end.
    fn tell(&self, error: &Error, expires: Instant) {
        let level = match std::mem::replace(&mut self.lock().told, true) {
            true => log::Level::Debug,
            false => log::Level::Warn,
        };
        let left = expires.saturating_duration_since(Instant::now()).as_secs();
        log::log!(level, "the access token is good for {left} s and cannot be refreshed: {error}");
    }

    /// Asks the authority, without the lock, for everybody who waits.
    fn ask(
        &self,
        mut state: MutexGuard<'_, State>,
        rejected: Option<&Rejected<'_>>,
        deadline: Instant,
    ) -> Result<Arc<Token>> {
        state.asking = true;
        let (login, tenant) = (state.login.clone(), state.tenant.clone());
        drop(state);
        let mut asking = Asking { credential: self, outcome: None };
        stumble!("credential");
        let outcome = self
            .source
            .acquire(&self.net, login.as_ref(), tenant.as_deref(), rejected, deadline)
            .map(Arc::new)
            .map_err(Failure::into_error);
        stumble!("credential");
        asking.outcome = Some(outcome.clone());
        drop(asking);
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Ends an attempt whichever way it ends: a panic must not leave everybody waiting.
struct Asking<'a> {
    credential: &'a Credential,
    outcome: Option<Result<Arc<Token>>>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.credential.lock();
        state.asking = false;
        state.attempts += 1;
        match self.outcome.take() {
            Some(Ok(token)) => {
                state.token = Some(token);
                state.failure = None;
                state.not_before = None;
                state.told = false;
            }
            failed => {
                let now = Instant::now();
                // What only the asking thread could not do says nothing about the others.
                state.failure = failed
                    .and_then(Result::err)
                    .filter(|error| error.rv() != CKR_GENERAL_ERROR)
                    .map(|error| (now, error));
                state.not_before = Some(now + REFRESH_PAUSE);
            }
        }
        drop(state);
        self.credential.ended.notify_all();
    }
}

impl Token {
    /// `lifetime` is counted from now. A token of two hours or more is refreshed at half time (as
    /// Microsoft's libraries do), a shorter one five minutes (at most a fifth) before its end.
    fn new(secret: &str, lifetime: Duration) -> Option<Self> {
        let text = Zeroizing::new(format!("Bearer {secret}").into_bytes());
        // Shares these bytes instead of copying them, and they are wiped with the last copy.
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        header.set_sensitive(true);
        let ahead = match lifetime {
            long if long >= Duration::from_secs(7200) => long / 2,
            short => Duration::from_secs(300).min(short / 5),
        };
        let expires = Instant::now() + lifetime;
        let refresh_from = expires.checked_sub(ahead).unwrap_or(expires);
        Some(Token { header, refresh_from, expires })
    }

    /// The Authorization header, marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Hex of its SHA-256, which names it to those who gave it out.
    fn digest(&self) -> String {
        let header = self.header.as_bytes();
        let token = header.strip_prefix(b"Bearer ").unwrap_or(header);
        hex::encode(digest::digest(&digest::SHA256, token).as_ref())
    }

    fn usable(&self, now: Instant) -> bool {
        let ahead = self.expires.saturating_duration_since(self.refresh_from);
        now + MARGIN.min(ahead / 2) < self.expires
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Failure::Refused(why) | Failure::NobodyLoggedIn(why) => {
                Error::new(CKR_USER_NOT_LOGGED_IN, why)
            }
            Failure::Unreachable(why) => Error::new(CKR_DEVICE_ERROR, why),
            Failure::ThreadEnding => Error::new(
                CKR_GENERAL_ERROR,
                "no access token: the calling thread is ending or inside an asynchronous runtime",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refreshed_before_it_is_unusable() {
        for (seconds, refresh_at) in [(86_400, 43_200), (3600, 3300), (60, 48)] {
            let token = Token::new("t", Duration::from_secs(seconds)).expect("token");
            let made = token.expires - Duration::from_secs(seconds);
            assert_eq!((token.refresh_from - made).as_secs(), refresh_at, "{seconds}");
            assert!(token.usable(token.refresh_from), "{seconds}");
            assert!(!token.usable(token.expires));
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new("very-secret", Duration::from_secs(60)).expect("token");
        assert!(!format!("{token:?} {:?}", token.header()).contains("very-secret"));
    }
}
