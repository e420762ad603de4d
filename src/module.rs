//! The module as a value: configuration, slots, sessions. Works in a test without C_Initialize.

use std::sync::Arc;

use cryptoki_sys::*;

use crate::{
    abi::FUNCTIONS,
    config::{Config, TokenConfig},
    credential,
    error::{Error, Result},
    handles::Handles,
    metrics::Metrics,
    net::Surroundings,
    object::{Material, Object},
    session::Session,
    slot::Slot,
    vault::Carried,
};

/// What a process reads at C_Initialize, and what it has learnt by a fork: plain data, for a child
/// that cannot read it again or need not ask for it.
#[derive(Clone, Debug)]
pub struct Heritage {
    /// The configuration, its secrets and certificates among it.
    pub config: Arc<Config>,
    /// Files of the machine.
    pub surroundings: Arc<Surroundings>,
    /// Access token and tenant of each token of the configuration, without its login.
    pub credentials: Vec<credential::Carried>,
    /// The host has not forbidden threads (CKF_LIBRARY_CANT_CREATE_OS_THREADS).
    pub may_run_programs: bool,
}

impl Heritage {
    /// What is known for a token whose requests are made in the same name as before.
    fn credential_of(&self, token: &TokenConfig) -> credential::Carried {
        let known = self.config.tokens.iter().zip(&self.credentials);
        let mut same = known.filter(|(known, _)| known.asks_in_the_name_of(token));
        same.next().map(|(_, credential)| credential.clone()).unwrap_or_default()
    }

    /// For a child with a configuration and surroundings of its own.
    #[must_use]
    pub fn for_child(
        &self,
        config: Arc<Config>,
        surroundings: Arc<Surroundings>,
        may_run_programs: bool,
    ) -> Heritage {
        let credentials = config.tokens.iter().map(|token| self.credential_of(token)).collect();
        Heritage { config, surroundings, credentials, may_run_programs }
    }
}

/// Everything between C_Initialize and C_Finalize.
pub struct Module {
    heritage: Heritage,
    slots: Vec<Slot>,
    /// The open sessions.
    pub sessions: Handles<Session>,
    inherited: bool,
    metrics: Option<Metrics>,
}

/// The short locks of a module, held while the process forks.
pub struct ShortLocks<'m> {
    _sessions: Box<dyn Lock + 'm>,
    _slots: Vec<Box<dyn Lock + 'm>>,
}

/// Handles that one epoch can give out, as a power of two; they fit 32 bits for 256 epochs.
const HANDLE_BITS: u32 = 24;

fn first_handle(epoch: u32) -> CK_ULONG {
    (CK_ULONG::from(epoch) << HANDLE_BITS) + 1
}

fn metrics(config: &Config) -> Option<Metrics> {
    let labels = config.tokens.iter().map(|token| token.label.as_str());
    Some(Metrics::new(config.metrics_dir.as_ref()?, FUNCTIONS, labels))
}

/// Anything that unlocks when it is dropped.
trait Lock {}
impl<T> Lock for T {}

impl Module {
    /// A module with the tokens of the configuration. Makes no request. Handles of different `epoch`s
    /// differ, so that one kept from before C_Finalize or from before a fork means nothing.
    ///
    /// # Errors
    /// As [`Slot::new`].
    pub fn new(heritage: Heritage, epoch: u32) -> Result<Module> {
        stumble!("module");
        let first_handle = first_handle(epoch);
        let metrics = metrics(&heritage.config);
        let slots = heritage
            .config
            .tokens
            .iter()
            .enumerate()
            .map(|(position, token)| {
                let carried = Carried {
                    credential: heritage.credentials.get(position).cloned().unwrap_or_default(),
                    may_run_programs: heritage.may_run_programs,
                    metrics: metrics.as_ref().and_then(|metrics| metrics.token(position)),
                    ..Carried::from(Arc::clone(&heritage.surroundings))
                };
                Slot::new(Arc::new(token.clone()), carried, first_handle)
            })
            .collect::<Result<_>>()?;
        let sessions = Handles::new(CKR_SESSION_HANDLE_INVALID, first_handle);
        Ok(Module { heritage, slots, sessions, inherited: false, metrics })
    }

    /// The module of a forked child that goes on with its parent's: sessions (but those with a
    /// call under way at the fork), objects, login, access token and operations are as they were;
    /// connections are new.
    ///
    /// # Errors
    /// As [`Slot::new`].
    pub fn adopted(parents: &Module, epoch: u32) -> Result<Module> {
        let first_handle = first_handle(epoch);
        // It counts from zero, in a file of its own.
        let metrics = metrics(&parents.heritage.config);
        let slots = parents.slots.iter().enumerate().map(|(position, slot)| {
            let metrics = metrics.as_ref().and_then(|metrics| metrics.token(position));
            Slot::adopted(slot, metrics, first_handle)
        });
        let slots = slots.collect::<Result<_>>()?;
        let sessions = parents
            .sessions
            .carried_over(Session::is_quiet)
            .unwrap_or_else(|| Handles::new(CKR_SESSION_HANDLE_INVALID, first_handle));
        Ok(Module { heritage: parents.heritage(), slots, sessions, inherited: true, metrics })
    }

    /// The same module, marked as begun with what a parent process had read.
    #[must_use]
    pub fn with_parents_configuration(self) -> Module {
        Module { inherited: true, ..self }
    }

    /// Whether configuration came from a parent process.
    pub fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// What was read to make it, and what a child need not ask for again.
    pub fn heritage(&self) -> Heritage {
        let carried = |slot: &Slot| slot.vault.carried().credential.without_login();
        Heritage { credentials: self.slots.iter().map(carried).collect(), ..self.heritage.clone() }
    }

    /// All slots, in the order of the configuration.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot with this id.
    ///
    /// # Errors
    /// CKR_SLOT_ID_INVALID.
    pub fn slot_by_id(&self, id: CK_SLOT_ID) -> Result<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.id == id)
            .ok_or_else(|| Error::new(CKR_SLOT_ID_INVALID, format!("there is no slot {id}")))
    }

    /// The session of a handle.
    ///
    /// # Errors
    /// CKR_SESSION_HANDLE_INVALID.
    pub fn session(&self, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>> {
        self.sessions.resolve(handle)
    }

    /// The slot a session is with.
    pub fn slot(&self, session: &Session) -> &Slot {
        &self.slots[session.slot]
    }

    /// The object of a handle, as far as the session may see it.
    ///
    /// # Errors
    /// CKR_OBJECT_HANDLE_INVALID.
    pub fn object(&self, session: &Session, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        let slot = self.slot(session);
        let object = slot.store.object(handle)?;
        if slot.shows(&object) {
            return Ok(object);
        }
        Err(Error::new(
            CKR_OBJECT_HANDLE_INVALID,
            format!("object {handle} is private, and nobody is logged in"),
        ))
    }

    /// The key of a handle.
    ///
    /// # Errors
    /// CKR_KEY_HANDLE_INVALID, also for an object that is no key.
    pub fn key(&self, session: &Session, handle: CK_OBJECT_HANDLE) -> Result<Arc<Object>> {
        self.object(session, handle)
            .ok()
            .filter(|object| !matches!(object.material, Material::None))
            .ok_or_else(|| {
                Error::new(CKR_KEY_HANDLE_INVALID, format!("handle {handle} is no key's"))
            })
    }

    /// Opens a session.
    pub fn open_session(&self, slot: &Slot, read_write: bool) -> CK_SESSION_HANDLE {
        let index = self.slots.iter().position(|s| s.id == slot.id).unwrap_or_default();
        self.sessions.insert_with(|handle| Session::new(handle, index, read_write)).0
    }

    /// Closes a session: its objects are gone, and with the token's last session the login is.
    ///
    /// # Errors
    /// CKR_SESSION_HANDLE_INVALID.
    pub fn close_session(&self, handle: CK_SESSION_HANDLE) -> Result<()> {
        let session = self.sessions.remove(handle)?;
        self.after_close(&session);
        Ok(())
    }

    /// Closes all sessions of a slot.
    pub fn close_all_sessions(&self, slot: &Slot) {
        let closed = self.sessions.remove_where(|session| self.slot(session).id == slot.id);
        for session in closed {
            self.after_close(&session);
        }
    }

    /// How many sessions a slot has: all of them, and those that may write.
    pub fn session_counts(&self, slot: &Slot) -> (usize, usize) {
        let of_slot = |session: &Session| self.slot(session).id == slot.id;
        let writing = |session: &Session| of_slot(session) && session.read_write;
        (self.sessions.count(of_slot), self.sessions.count(writing))
    }

    /// Counts a call of a function of the list.
    pub fn count(&self, function: usize, rv: CK_RV) {
        if let Some(metrics) = &self.metrics {
            metrics.called(function, rv);
        }
    }

    /// C_Finalize: every session is closed.
    pub fn close(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.write();
        }
        for slot in &self.slots {
            self.close_all_sessions(slot);
        }
    }

    /// Takes the locks that are never held across a request, in their order.
    pub fn hold_short_locks(&self) -> ShortLocks<'_> {
        let sessions: Box<dyn Lock + '_> = Box::new(self.sessions.hold());
        let slots = self.slots.iter();
        let held =
            slots.map(|slot| Box::new((slot.store.hold(), slot.vault.hold())) as Box<dyn Lock>);
        ShortLocks { _sessions: sessions, _slots: held.collect() }
    }

    fn after_close(&self, session: &Session) {
        let slot = self.slot(session);
        slot.store.remove_where(|object| object.owner == Some(session.handle));
        if self.session_counts(slot).0 == 0 {
            slot.end_login();
        }
    }
}
