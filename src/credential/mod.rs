//! Entra tokens: one cache per token, filled by azure_identity over our lanes.
//!
//! The credential classes of azure_identity are made anew for each token request, which is once
//! an hour: a rotated secret file is read then, a forced refresh needs no door they do not have,
//! and the only cache is this one. It refreshes ahead of expiry by one caller while the others go
//! on with the old token; at a cold start one caller asks and the others wait for its answer.

mod asker;
mod assertion;
mod challenge;
mod cli;
mod identity;
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
    backoff,
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
/// After a refresh ahead of expiry failed, the next one waits so long, or a quarter of what the
/// token has left.
const REFRESH_PAUSE: Duration = Duration::from_secs(30);
/// Whoever waited for an attempt shares its failure where that had as much time as it has itself,
/// but for so much.
const AS_MUCH_TIME: Duration = Duration::from_secs(1);
/// A token is not believed to live longer.
const LONGEST_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

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

/// Asks the service for its tenant, until a deadline.
pub type Learn<'a> = &'a dyn Fn(Instant) -> Result<String>;

/// What a forked child need not ask for again: plain data.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// The client secret C_Login brought.
    login: Option<LoginSecret>,
    /// The access token, still good in the child.
    token: Option<Arc<Token>>,
    /// As the configuration or the service's challenge told it.
    tenant: Option<String>,
}

impl Carried {
    /// The same for a child that begins afresh: nobody is logged in there.
    #[must_use]
    pub fn without_login(self) -> Carried {
        match self.login {
            Some(_) => Carried { login: None, token: None, tenant: self.tenant },
            None => self,
        }
    }
}

/// An access token as the Authorization header that carries it. Never printed.
#[derive(Clone)]
pub struct Token {
    header: HeaderValue,
    refresh_from: Instant,
    expires: Instant,
    /// The challenge that it answers.
    challenge: Option<Challenge>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// Logins and logouts so far: what was asked for before one of them is of no use after it.
    identity: u64,
    /// Somebody is asking for a token.
    asking: bool,
    /// Attempts that ended, and how the last one failed: whoever waited for it shares its fate.
    attempts: u64,
    failure: Option<Failed>,
    not_before: Option<Instant>,
    /// The operator knows that the token cannot be refreshed.
    told: bool,
    /// From the configuration, else from the service's challenge.
    tenant: Option<String>,
    login: Option<LoginSecret>,
}

/// An attempt that failed.
struct Failed {
    at: Instant,
    /// Until when it could have gone on.
    deadline: Instant,
    error: Error,
}

impl Credential {
    /// Makes no request. `carried` is what a parent process had; `may_run_programs` tells whether
    /// the Azure CLI can be asked; `metrics` counts the requests.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR for a client certificate that cannot sign.
    pub fn new(
        config: &TokenConfig,
        net: Net,
        carried: Carried,
        may_run_programs: bool,
        metrics: Option<Arc<TokenMetrics>>,
    ) -> Result<Self> {
        let source = Source::new(config, may_run_programs, metrics)?;
        let Carried { login, token, tenant } = carried;
        let state = State {
            token: token.map(|token| Arc::new(token.out_of_step())),
            login,
            tenant: config.tenant.clone().or(tenant),
            ..State::default()
        };
        Ok(Credential { net, source, state: Mutex::new(state), ended: Condvar::new() })
    }

    /// A token that is good for a request now. Waits for nobody but the authority, and only when
    /// there is no token left to use; `learn` is asked where the tenant is not known.
    ///
    /// # Errors
    /// CKR_USER_NOT_LOGGED_IN when the authority refuses or nobody has logged in,
    /// CKR_DEVICE_ERROR when it cannot be reached within `deadline`.
    pub fn token(&self, deadline: Instant, learn: Learn<'_>) -> Result<Arc<Token>> {
        self.token_other_than(None, deadline, learn)
    }

    /// A token to use instead of the rejected one, which the service answered with 401. Threads
    /// that were rejected with the same token share one new one.
    ///
    /// # Errors
    /// As [`Credential::token`]; CKR_USER_NOT_LOGGED_IN also when a token with the claims of the
    /// challenge takes a new login.
    pub fn replacement(
        &self,
        rejected: &Rejected<'_>,
        deadline: Instant,
        learn: Learn<'_>,
    ) -> Result<Arc<Token>> {
        self.token_other_than(Some(rejected), deadline, learn)
    }

    /// Logs in with a PIN that is a client secret or `client-id:secret`, by getting a token.
    ///
    /// # Errors
    /// CKR_PIN_INCORRECT when the authority refuses it, CKR_PIN_EXPIRED when it says that the
    /// secret has expired, CKR_DEVICE_ERROR when it cannot be asked. The previous login stays then.
    pub fn login(&self, pin: &[u8], deadline: Instant, learn: Learn<'_>) -> Result<()> {
        let login = self.source.login_secret(pin)?;
        let tenant = self.tenant(true, deadline, learn)?;
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
        state.identity += 1;
        state.login = Some(login);
        state.token = Some(Arc::new(token));
        state.failure = None;
        Ok(())
    }

    /// Forgets the login and its token.
    pub fn logout(&self) {
        let mut state = self.lock();
        if state.login.take().is_some() {
            state.identity += 1;
            state.token = None;
            state.failure = None;
        }
    }

    /// What a forked child takes along. Never waits: after a fork that went past our handlers a
    /// thread that does not exist in the child may hold the lock, and then there is nothing to take.
    pub fn carried(&self) -> Carried {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Carried::default(),
        };
        let (login, token, tenant) = (&state.login, &state.token, &state.tenant);
        Carried { login: login.clone(), token: token.clone(), tenant: tenant.clone() }
    }

    /// Holds the lock, so that [`Credential::carried`] finds everything whole after a fork.
    pub fn hold(&self) -> impl Sized {
        self.lock()
    }

    fn token_other_than(
        &self,
        rejected: Option<&Rejected<'_>>,
        deadline: Instant,
        learn: Learn<'_>,
    ) -> Result<Arc<Token>> {
        let challenge = rejected.and_then(|rejected| rejected.challenge.as_ref());
        let mut state = self.lock();
        let waiting_since = state.attempts;
        loop {
            let now = Instant::now();
            // A rejected one stays for those who have not been refused: it may be a single answer
            // that is wrong. And who waited takes what came, be it the same once more.
            let waited = state.attempts > waiting_since && state.failure.is_none();
            let usable = |token: &Arc<Token>| {
                let is_refused = rejected.is_some_and(|it| it.token.header == token.header);
                token.usable(now) && token.answers(challenge) && (!is_refused || waited)
            };
            if let Some(token) = state.token.clone().filter(usable) {
                let refresh = now >= token.refresh_from
                    && !state.asking
                    && state.not_before.is_none_or(|not_before| now >= not_before);
                if !refresh {
                    return Ok(token);
                }
                let patience = deadline.min(now + REFRESH_PATIENCE);
                return Ok(self.ask(state, rejected, patience, learn).unwrap_or_else(|error| {
                    self.tell(&error, token.expires);
                    token
                }));
            }
            if !state.asking {
                if let Some(failed) = &state.failure
                    && failed.holds_for(state.attempts > waiting_since, deadline, now)
                {
                    return Err(failed.error.clone());
                }
                return self.ask(state, rejected, deadline, learn);
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

    /// The tenant to ask for a token, where one is needed.
    fn tenant(
        &self,
        logged_in: bool,
        deadline: Instant,
        learn: Learn<'_>,
    ) -> Result<Option<String>> {
        let known = self.lock().tenant.clone();
        if known.is_some() || !self.source.needs_tenant(logged_in) {
            return Ok(known);
        }
        let learnt = learn(deadline)?;
        Ok(Some(self.lock().tenant.get_or_insert(learnt).clone()))
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
        learn: Learn<'_>,
    ) -> Result<Arc<Token>> {
        state.asking = true;
        let (login, identity) = (state.login.clone(), state.identity);
        drop(state);
        let mut asking = Asking { credential: self, identity, deadline, outcome: None };
        stumble!("credential");
        let outcome = self.tenant(login.is_some(), deadline, learn).and_then(|tenant| {
            self.source
                .acquire(&self.net, login.as_ref(), tenant.as_deref(), rejected, deadline)
                .map(Arc::new)
                .map_err(Failure::into_error)
        });
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
    identity: u64,
    deadline: Instant,
    outcome: Option<Result<Arc<Token>>>,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.credential.lock();
        state.asking = false;
        state.attempts += 1;
        if state.identity == self.identity {
            state.end(self.outcome.take(), self.deadline);
        }
        drop(state);
        self.credential.ended.notify_all();
    }
}

impl State {
    fn end(&mut self, outcome: Option<Result<Arc<Token>>>, deadline: Instant) {
        let now = Instant::now();
        match outcome {
            Some(Ok(token)) => {
                self.token = Some(token);
                self.failure = None;
                self.not_before = None;
                self.told = false;
            }
            failed => {
                // What only the asking thread could not do says nothing about the others.
                self.failure = failed
                    .and_then(Result::err)
                    .filter(|error| error.rv() != CKR_GENERAL_ERROR)
                    .map(|error| Failed { at: now, deadline, error });
                let left = self.token.as_ref().map(|token| token.expires - now);
                let pause = left.map_or(REFRESH_PAUSE, |left| REFRESH_PAUSE.min(left / 4));
                self.not_before = Some(now + pause);
            }
        }
    }
}

impl Failed {
    /// Whether a caller fails with it, too, instead of asking again: one that waited for it, unless
    /// it has more time; and for a moment everybody, where the authority has said no.
    fn holds_for(&self, waited: bool, deadline: Instant, now: Instant) -> bool {
        let refused = self.error.rv() == CKR_USER_NOT_LOGGED_IN;
        let as_much_time = self.deadline + AS_MUCH_TIME >= deadline;
        waited && (refused || as_much_time) || refused && now < self.at + FAILURE_HOLDS
    }
}

impl Token {
    /// `lifetime` is counted from now. A token of two hours or more is refreshed at half time (as
    /// Microsoft's libraries do), a shorter one five minutes (at most a fifth) before its end.
    fn new(secret: &str, lifetime: Duration, challenge: Option<&Challenge>) -> Option<Self> {
        let text = Zeroizing::new(format!("Bearer {secret}").into_bytes());
        // Shares these bytes instead of copying them, and they are wiped with the last copy.
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(text)).ok()?;
        header.set_sensitive(true);
        let lifetime = lifetime.min(LONGEST_LIFE);
        let ahead = match lifetime {
            long if long >= Duration::from_secs(7200) => long / 2,
            short => Duration::from_secs(300).min(short / 5),
        };
        let expires = Instant::now() + lifetime;
        let refresh_from = expires.checked_sub(ahead).unwrap_or(expires);
        Some(Token { header, refresh_from, expires, challenge: challenge.cloned() })
    }

    /// The same in a forked child: brothers do not refresh what they were given in the same instant.
    fn out_of_step(&self) -> Token {
        let ahead = self.expires.saturating_duration_since(self.refresh_from);
        let later = (ahead / 4).mul_f32(backoff::random_fraction());
        Token { refresh_from: self.refresh_from + later, ..self.clone() }
    }

    /// Whether it was asked for with the claims of `challenge`, if there is one.
    fn answers(&self, challenge: Option<&Challenge>) -> bool {
        challenge.is_none() || self.challenge.as_ref() == challenge
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
            Failure::ThreadEnding => {
                let sentence = "no access token: the calling thread is ending";
                Error::new(CKR_GENERAL_ERROR, sentence).expected()
            }
            Failure::InsideRuntime => Error::new(
                CKR_GENERAL_ERROR,
                "no access token: the calling thread is inside an asynchronous runtime",
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
            let token = Token::new("t", Duration::from_secs(seconds), None).expect("token");
            let made = token.expires - Duration::from_secs(seconds);
            assert_eq!((token.refresh_from - made).as_secs(), refresh_at, "{seconds}");
            assert!(token.usable(token.refresh_from), "{seconds}");
            assert!(!token.usable(token.expires));
        }
    }

    #[test]
    fn a_token_answers_the_challenge_it_was_asked_for_with() {
        let challenge = |claims: &str| {
            let header = format!("Bearer error=\"insufficient_claims\", claims=\"{claims}\"");
            let headers = reqwest::header::HeaderMap::from_iter([(
                reqwest::header::WWW_AUTHENTICATE,
                HeaderValue::from_str(&header).expect("a header"),
            )]);
            let body = Vec::new().into();
            let answer = crate::net::Response { status: 401, headers: headers.into(), body };
            Challenge::of(&answer).expect("claims")
        };
        let (one, other) = (challenge("e30="), challenge("eyJhIjp7fX0="));
        let plain = Token::new("t", Duration::from_secs(60), None).expect("token");
        let answering = Token::new("t", Duration::from_secs(60), Some(&one)).expect("token");
        assert!(plain.answers(None) && answering.answers(None));
        assert!(answering.answers(Some(&one)) && !answering.answers(Some(&other)));
        assert!(!plain.answers(Some(&one)));
    }

    #[test]
    fn a_failure_is_shared_by_those_who_waited_for_it_with_no_more_time() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let failed = |rv, patience| Failed {
            at: now,
            deadline: now + patience,
            error: Error::new(rv, "no"),
        };
        let unreachable = failed(CKR_DEVICE_ERROR, seconds(2));
        assert!(unreachable.holds_for(true, now + seconds(2), now));
        assert!(!unreachable.holds_for(true, now + seconds(10), now), "there is time left");
        assert!(!unreachable.holds_for(false, now + seconds(2), now));
        let refused = failed(CKR_USER_NOT_LOGGED_IN, seconds(2));
        assert!(refused.holds_for(true, now + seconds(10), now + seconds(9)));
        assert!(refused.holds_for(false, now + seconds(10), now));
        assert!(!refused.holds_for(false, now + seconds(10), now + seconds(2)));
    }

    #[test]
    fn children_refresh_at_times_of_their_own_and_in_time() {
        let token = Token::new("t", Duration::from_secs(3600), None).expect("token");
        let later: Vec<_> =
            (0..16).map(|_| token.out_of_step().refresh_from - token.refresh_from).collect();
        assert!(later.iter().all(|later| *later <= Duration::from_secs(75)), "{later:?}");
        assert!(later.iter().any(|one| *one != later[0]), "{later:?}");
    }

    #[test]
    fn a_token_without_end_ends() {
        let token = Token::new("t", Duration::from_secs(u64::MAX), None).expect("token");
        assert!(token.expires <= Instant::now() + LONGEST_LIFE);
    }

    #[test]
    fn a_token_is_never_printed() {
        let token = Token::new("very-secret", Duration::from_secs(60), None).expect("token");
        assert!(!format!("{token:?} {:?}", token.header()).contains("very-secret"));
    }
}
