//! One slot: a token of the configuration with its vault, its objects and its login.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
    time::Duration,
};

use cryptoki_sys::*;
use zeroize::Zeroizing;

use crate::{
    config::{Login, TokenConfig, verify_pin},
    crypto::{self, Rejection},
    error::{Error, Result},
    mechanism::{MECHANISMS, Mechanism},
    metrics::TokenMetrics,
    object::{Object, certificate::Certificate, store::Store},
    operation::{flight::Flights, outage::Outage},
    vault::{Carried, Vault, is_not_found},
};

/// A slot, whose token is one vault or Managed HSM.
pub struct Slot {
    /// CK_SLOT_ID.
    pub id: CK_SLOT_ID,
    /// What the configuration says of it.
    pub token: Arc<TokenConfig>,
    /// The way to the service.
    pub vault: Vault,
    /// The objects known so far.
    pub store: Store,
    /// Searches under way.
    pub flights: Flights,
    /// What searches cannot learn just now.
    pub outage: Outage,
    /// What keys with bad padding become that the service unwraps.
    pub rejection: Rejection,
    logged_in: AtomicBool,
    device_error: AtomicU16,
}

impl Slot {
    /// A slot nobody has logged in to. Makes no request.
    ///
    /// # Errors
    /// CKR_GENERAL_ERROR or CKR_FUNCTION_FAILED for certificates and CA files that cannot be read,
    /// CKR_RANDOM_NO_RNG.
    pub fn new(
        token: Arc<TokenConfig>,
        carried: Carried,
        first_handle: CK_OBJECT_HANDLE,
    ) -> Result<Slot> {
        let mut certificates = Vec::new();
        for file in &token.certificates {
            certificates.push(Certificate::parse_pem(&file.pem).map_err(|error| {
                Error::new(
                    CKR_FUNCTION_FAILED,
                    format!("{}: {}", file.path.display(), error.sentence()),
                )
            })?);
        }
        let mut secret = Zeroizing::new([0; 32]);
        crypto::random(secret.as_mut_slice())?;
        Ok(Slot {
            id: token.slot as CK_SLOT_ID,
            vault: Vault::new(&token, carried)?,
            store: Store::new(certificates, first_handle),
            flights: Flights::default(),
            outage: Outage::default(),
            rejection: Rejection::new(secret.as_slice()),
            logged_in: AtomicBool::new(false),
            device_error: AtomicU16::new(0),
            token,
        })
    }

    /// The slot of a forked child: objects, login and access token of the parent, connections of its
    /// own. It starts empty where the parent's lock was held by a thread that is not here; then its
    /// handles begin with `first_handle`.
    ///
    /// # Errors
    /// As [`Slot::new`].
    pub fn adopted(
        parents: &Slot,
        metrics: Option<Arc<TokenMetrics>>,
        first_handle: CK_OBJECT_HANDLE,
    ) -> Result<Slot> {
        let carried = Carried { metrics, ..parents.vault.carried() };
        let slot = Slot::new(Arc::clone(&parents.token), carried, first_handle)?;
        let slot = Slot { rejection: parents.rejection.clone(), ..slot };
        let logged_in = parents.logged_in.load(Ordering::Relaxed);
        slot.logged_in.store(logged_in, Ordering::Relaxed);
        Ok(match parents.store.carried_over() {
            Some(store) => Slot { store, ..slot },
            None => slot,
        })
    }

    /// The row of a mechanism that this token offers, and what it offers it for.
    ///
    /// # Errors
    /// CKR_MECHANISM_INVALID.
    pub fn mechanism(&self, kind: CK_MECHANISM_TYPE) -> Result<(&'static Mechanism, CK_FLAGS)> {
        Mechanism::find(kind)
            .map(|row| (row, row.uses_on(&self.token)))
            .filter(|(_, uses)| *uses != 0)
            .ok_or_else(|| {
                Error::new(
                    CKR_MECHANISM_INVALID,
                    format!("token '{}' has no mechanism {kind:#x}", self.token.label),
                )
            })
    }

    /// All mechanisms of the token.
    pub fn mechanisms(&self) -> Vec<CK_MECHANISM_TYPE> {
        let offered = MECHANISMS.iter().filter(|row| row.uses_on(&self.token) != 0);
        offered.map(|row| row.kind).collect()
    }

    /// Whether the token asks for C_Login at all.
    pub fn needs_login(&self) -> bool {
        self.token.login != Login::None
    }

    /// Whether there is a credential to ask the service with: the login may have to bring it.
    pub fn vault_can_be_asked(&self) -> bool {
        self.token.login != Login::ClientSecret || self.is_logged_in()
    }

    /// Whether a user is logged in.
    pub fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Relaxed)
    }

    /// Logs the user in with a PIN.
    ///
    /// # Errors
    /// CKR_USER_ALREADY_LOGGED_IN, CKR_PIN_INCORRECT, or why the service could not be asked.
    pub fn login(&self, pin: &[u8]) -> Result<()> {
        if self.is_logged_in() {
            let sentence = format!("token '{}' has its user logged in", self.token.label);
            return Err(Error::new(CKR_USER_ALREADY_LOGGED_IN, sentence));
        }
        match &self.token.login {
            Login::None => {}
            Login::ClientSecret => self.vault.login(pin)?,
            Login::Pin(phc) if verify_pin(phc, pin) => {}
            Login::Pin(_) => {
                let sentence = format!("token '{}' has another PIN", self.token.label);
                return Err(Error::new(CKR_PIN_INCORRECT, sentence));
            }
        }
        self.logged_in.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Logs the user out; private session objects are gone.
    ///
    /// # Errors
    /// CKR_USER_NOT_LOGGED_IN.
    pub fn logout(&self) -> Result<()> {
        if !self.logged_in.swap(false, Ordering::Relaxed) {
            let sentence = format!("nobody is logged in to token '{}'", self.token.label);
            return Err(Error::new(CKR_USER_NOT_LOGGED_IN, sentence));
        }
        self.forget_login();
        Ok(())
    }

    /// What the end of the last session does to the login: it is over.
    pub fn end_login(&self) {
        if self.logged_in.swap(false, Ordering::Relaxed) {
            self.forget_login();
        }
    }

    fn forget_login(&self) {
        if self.token.login == Login::ClientSecret {
            self.vault.logout();
        }
        self.store.remove_where(Object::is_private);
    }

    /// Whether an object may be seen now: private ones after login only.
    pub fn shows(&self, object: &Object) -> bool {
        !object.is_private() || self.is_logged_in()
    }

    /// How long a finding is served without asking again.
    pub fn ttl(&self) -> Duration {
        self.token.cache_ttl
    }

    /// HTTP status of the last answer that was an error, for CK_SESSION_INFO.ulDeviceError.
    pub fn device_error(&self) -> CK_ULONG {
        CK_ULONG::from(self.device_error.load(Ordering::Relaxed))
    }

    /// Notes whether a search could learn `what`, and passes the outcome on. That there is no such
    /// thing is learnt, too. The end of an outage is one line in the log.
    pub fn learnt<T>(&self, what: &str, outcome: Result<T>) -> Result<T> {
        match &outcome {
            Err(error) if !is_not_found(error) => {
                self.outage.failed(what);
            }
            _ => self.told(what),
        }
        outcome
    }

    /// Notes that the service told `what`.
    pub fn told(&self, what: &str) {
        if self.outage.succeeded(what) {
            let label = &self.token.label;
            log::warn!(
                "token '{label}': the service tells again what it has: searches are current"
            );
        }
    }

    /// Remembers the HTTP status of an error, and passes the error on.
    pub fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && let Some(remote) = error.remote()
        {
            self.device_error.store(remote.status, Ordering::Relaxed);
        }
        outcome
    }
}
