//! What a case works with: the module, the token that was chosen, sessions, and the record.

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::File,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use cryptoki_sys::*;

use crate::{
    case::{Case, Line, Outcome, Record, Status, Stop, fail, skip},
    cli::Target,
    client::{Rv, Session, WRONG_LENGTH, check},
    ffi::{Module, NULL, init_args, place, write},
    functions::Function::{self, *},
    keys::Ring,
    names,
};

/// More slots, or mechanisms, than any module lists.
const MOST: CK_ULONG = 4096;

/// What a case works with.
pub struct Context {
    /// The module, never unloaded.
    pub module: &'static Module,
    /// What the user asked for.
    pub target: Target,
    /// Keys of the group, once it has asked for them.
    pub ring: Option<Ring>,
    running: bool,
    slot: Option<CK_SLOT_ID>,
    opened: Vec<Session>,
    out: File,
    current: Record,
    instances: usize,
    started: Instant,
    ended: BTreeSet<String>,
}

impl Context {
    /// Loads the module of the target; results go to `out`.
    pub fn new(target: Target, out: File) -> Result<Context, String> {
        let module = Box::leak(Box::new(Module::load(&target.module)?));
        Ok(Context {
            module,
            target,
            ring: None,
            running: false,
            slot: None,
            opened: Vec::new(),
            out,
            current: Record {
                id: String::new(),
                clause: String::new(),
                title: String::new(),
                status: Status::Passed,
                detail: String::new(),
                milliseconds: 0,
            },
            instances: 0,
            started: Instant::now(),
            ended: BTreeSet::new(),
        })
    }

    /// The same without what an earlier process has a result of.
    pub fn without(self, ended: BTreeSet<String>) -> Context {
        Context { ended, ..self }
    }

    /// Tries one case and records what came of it.
    pub fn run(&mut self, group: &str, case: &Case) {
        self.current.id = format!("{group}/{}", case.id);
        self.current.clause = case.clause.to_owned();
        self.current.title = case.title.to_owned();
        if self.ended.contains(&self.current.id) {
            return;
        }
        self.instances = 0;
        let outcome = self.timed(None, |context| (case.run)(context));
        match outcome {
            Ok(()) if self.instances > 0 => {}
            outcome => self.record(None, outcome),
        }
        self.close_from(0);
    }

    /// Closes the sessions that were opened since there were so many.
    fn close_from(&mut self, count: usize) {
        for session in self.opened.split_off(count.min(self.opened.len())) {
            let _ = session.close();
        }
    }

    /// One of several things that a case tries: a result of its own.
    pub fn each(&mut self, instance: impl Display, attempt: impl FnOnce(&mut Context) -> Outcome) {
        let instance = instance.to_string();
        self.instances += 1;
        if self.ended.contains(&self.id(Some(&instance))) {
            return;
        }
        let before = self.opened.len();
        let outcome = self.timed(Some(&instance), attempt);
        self.record(Some(&instance), outcome);
        self.close_from(before);
    }

    /// The clause of the case.
    pub fn clause(&self) -> &str {
        &self.current.clause
    }

    /// The same under a clause of its own.
    pub fn each_of(
        &mut self,
        clause: &str,
        instance: impl Display,
        attempt: impl FnOnce(&mut Context) -> Outcome,
    ) {
        let before = std::mem::replace(&mut self.current.clause, clause.to_owned());
        self.each(instance, attempt);
        self.current.clause = before;
    }

    fn timed(
        &mut self,
        instance: Option<&str>,
        attempt: impl FnOnce(&mut Context) -> Outcome,
    ) -> Outcome {
        let begin = self.entry(instance, Status::Failed, String::new());
        self.tell(&Line::Begin(begin));
        self.started = Instant::now();
        catch_unwind(AssertUnwindSafe(|| attempt(self)))
            .unwrap_or_else(|_| fail("this program panicked: a bug of its own"))
    }

    fn record(&mut self, instance: Option<&str>, outcome: Outcome) {
        let (status, detail) = match outcome {
            Ok(()) => (Status::Passed, String::new()),
            Err(Stop::Skip(why)) => (Status::Skipped, why),
            Err(Stop::Fail(how)) => (Status::Failed, how),
        };
        let mut record = self.entry(instance, status, detail);
        record.milliseconds = self.started.elapsed().as_millis() as u64;
        self.tell(&Line::End(record));
    }

    fn entry(&self, instance: Option<&str>, status: Status, detail: String) -> Record {
        Record { id: self.id(instance), status, detail, ..self.current.clone() }
    }

    fn id(&self, instance: Option<&str>) -> String {
        match instance {
            Some(instance) => format!("{}[{instance}]", self.current.id),
            None => self.current.id.clone(),
        }
    }

    /// Tells the parent process.
    pub fn tell(&mut self, line: &Line) {
        if let Ok(mut text) = serde_json::to_string(line) {
            text.push('\n');
            // A parent that is gone cannot be told so.
            let _ = self.out.write_all(text.as_bytes());
        }
    }

    /// C_Initialize with locking by the operating system; remembers that.
    pub fn initialize(&mut self) -> Rv {
        let mut args = init_args(CKF_OS_LOCKING_OK, 0, None);
        let rv = check(self.module.call(C_Initialize, &[place(&mut args)]));
        self.running |= rv.is_ok();
        rv
    }

    /// C_Finalize; remembers that.
    pub fn finalize(&mut self) -> Rv {
        let rv = check(self.module.call(C_Finalize, &[NULL]));
        self.running &= rv.is_err();
        rv
    }

    /// Forgets the group's keys: those of the session end with it, those of the token stay for the
    /// run's other groups.
    pub fn drop_keys(&mut self) {
        self.ring = None;
    }

    /// Makes sure that the module is not initialised.
    pub fn stopped(&mut self) -> Outcome {
        self.drop_keys();
        if self.running {
            self.opened.clear();
            self.expect(CKR_OK, |context| context.finalize(), "C_Finalize")?;
        }
        Ok(())
    }

    /// Makes sure that the module is initialised, and gives the slot of the token.
    pub fn slot(&mut self) -> Outcome<CK_SLOT_ID> {
        if !self.running {
            let rv = self.initialize();
            need(rv, "C_Initialize")?;
        }
        if let Some(slot) = self.slot {
            return Ok(slot);
        }
        let mut labels = Vec::new();
        for slot in need(self.slots(true), "C_GetSlotList")? {
            let Ok(info) = self.token_info(slot) else { continue };
            let label = text(&info.label);
            let fits = match &self.target.token {
                Some(wanted) => *wanted == label,
                None => info.flags & CKF_TOKEN_INITIALIZED != 0,
            };
            if fits {
                self.slot = Some(slot);
                return Ok(slot);
            }
            labels.push(label);
        }
        let labels: Vec<String> = labels.iter().map(|label| format!("{label:?}")).collect();
        fail(match (&self.target.token, labels.is_empty()) {
            (Some(label), false) => {
                format!("no token is labelled {label:?}: there are {}", labels.join(", "))
            }
            (Some(label), true) => format!("no token is labelled {label:?}: there is none"),
            (None, _) => "no token is there that is initialised".to_owned(),
        })
    }

    /// Whether a run can be made: a token, and a PIN that it takes. With a wrong one each login of
    /// each group would count, until the token is locked.
    pub fn usable(&mut self) -> Result<(), String> {
        let session = self.session();
        let session = session.map_err(|(Stop::Skip(why) | Stop::Fail(why))| why)?;
        match self.login(session) {
            Err(
                rv @ (CKR_PIN_INCORRECT | CKR_PIN_INVALID | CKR_PIN_LEN_RANGE | CKR_PIN_LOCKED
                | CKR_PIN_EXPIRED),
            ) if self.target.pin.is_some() => {
                Err(format!("the token does not take the PIN: {}", names::rv(rv)))
            }
            _ => Ok(()),
        }
    }

    fn expect(
        &mut self,
        wanted: CK_RV,
        call: impl FnOnce(&mut Context) -> Rv,
        what: &str,
    ) -> Outcome {
        let rv = call(self);
        is(rv, wanted, what)
    }

    /// C_GetSlotList by its protocol.
    pub fn slots(&self, present: bool) -> Rv<Vec<CK_SLOT_ID>> {
        let present = CK_ULONG::from(present);
        let mut count: CK_ULONG = 0;
        check(self.module.call(C_GetSlotList, &[present.into(), NULL, place(&mut count)]))?;
        if count > MOST {
            return Err(WRONG_LENGTH);
        }
        count += 1;
        let mut slots = vec![0; count as usize];
        let room = count;
        let args = [present.into(), write(&mut slots), place(&mut count)];
        check(self.module.call(C_GetSlotList, &args))?;
        if count > room {
            return Err(WRONG_LENGTH);
        }
        slots.truncate(count as usize);
        Ok(slots)
    }

    /// C_GetTokenInfo.
    pub fn token_info(&self, slot: CK_SLOT_ID) -> Rv<CK_TOKEN_INFO> {
        let mut info = CK_TOKEN_INFO::default();
        check(self.module.call(C_GetTokenInfo, &[slot.into(), place(&mut info)]))?;
        Ok(info)
    }

    /// C_GetMechanismList by its protocol.
    pub fn mechanisms(&mut self) -> Outcome<Vec<CK_MECHANISM_TYPE>> {
        let slot = self.slot()?;
        let mut list = vec![0; MOST as usize];
        let mut count = MOST;
        let args = [slot.into(), write(&mut list), place(&mut count)];
        need(check(self.module.call(C_GetMechanismList, &args)), "C_GetMechanismList")?;
        if count > MOST {
            return need(Err(WRONG_LENGTH), "C_GetMechanismList");
        }
        list.truncate(count as usize);
        Ok(list)
    }

    /// C_GetMechanismInfo.
    pub fn mechanism_info(&mut self, kind: CK_MECHANISM_TYPE) -> Outcome<Rv<CK_MECHANISM_INFO>> {
        let slot = self.slot()?;
        let mut info = CK_MECHANISM_INFO::default();
        let args = [slot.into(), kind.into(), place(&mut info)];
        let rv = check(self.module.call(C_GetMechanismInfo, &args));
        Ok(rv.map(|()| info))
    }

    /// The mechanisms that have this flag, with what is said of them.
    pub fn offered(
        &mut self,
        flag: CK_FLAGS,
    ) -> Outcome<Vec<(CK_MECHANISM_TYPE, CK_MECHANISM_INFO)>> {
        let mut offered = Vec::new();
        for kind in self.mechanisms()? {
            if let Ok(info) = self.mechanism_info(kind)?
                && info.flags & flag != 0
            {
                offered.push((kind, info));
            }
        }
        Ok(offered)
    }

    /// A session of these flags, closed when the case ends.
    pub fn open(&mut self, flags: CK_FLAGS) -> Outcome<Session> {
        let slot = self.slot()?;
        let session = need(Session::open(self.module, slot, flags), "C_OpenSession")?;
        self.opened.push(session);
        Ok(session)
    }

    /// A session nobody logged in to, closed when the case ends. It is read/write unless the run
    /// is read-only, or the token write protected.
    pub fn session(&mut self) -> Outcome<Session> {
        let slot = self.slot()?;
        let protected = need(self.token_info(slot), "C_GetTokenInfo")?.flags & CKF_WRITE_PROTECTED;
        match self.target.read_only || protected != 0 {
            true => self.open(CKF_SERIAL_SESSION),
            false => self.open(CKF_SERIAL_SESSION | CKF_RW_SESSION),
        }
    }

    /// The same with the user logged in.
    pub fn user(&mut self) -> Outcome<Session> {
        let session = self.session()?;
        match self.login(session) {
            Ok(()) | Err(CKR_USER_ALREADY_LOGGED_IN) => Ok(session),
            Err(rv) => fail(format!("C_Login: {}", names::rv(rv))),
        }
    }

    /// C_Login as the user of the token, as its flags ask for it.
    pub fn login(&mut self, session: Session) -> Rv {
        let flags = self.slot.map_or(Ok(0), |slot| self.token_info(slot).map(|info| info.flags))?;
        if flags & CKF_PROTECTED_AUTHENTICATION_PATH != 0 && self.target.pin.is_none() {
            return session.login(CKU_USER, None);
        }
        let pin = match &self.target.pin {
            Some(pin) => pin.clone(),
            None if flags & CKF_LOGIN_REQUIRED == 0 => return Ok(()),
            None => String::new(),
        };
        session.login(CKU_USER, Some(&pin))
    }

    /// Whether there is a PIN, and a login to try.
    pub fn has_login(&mut self) -> Outcome {
        let slot = self.slot()?;
        let flags = need(self.token_info(slot), "C_GetTokenInfo")?.flags;
        if self.target.pin.is_none() && flags & CKF_PROTECTED_AUTHENTICATION_PATH == 0 {
            return skip("no PIN was given");
        }
        Ok(())
    }

    /// Skips unless the run may write to the token.
    pub fn may_write(&mut self) -> Outcome {
        if self.target.read_only {
            return skip("--read-only");
        }
        let slot = self.slot()?;
        let flags = need(self.token_info(slot), "C_GetTokenInfo")?.flags;
        match flags & CKF_WRITE_PROTECTED != 0 {
            true => skip("the token is write protected"),
            false => Ok(()),
        }
    }

    /// Skips where the module's lists lack the function.
    pub fn needs(&self, function: Function) -> Outcome {
        match self.module.has(function) {
            true => Ok(()),
            false => skip(format!("{} is not in the function list", function.row().name)),
        }
    }

    /// Closes this session too when the case ends.
    pub fn remember(&mut self, session: Session) {
        self.opened.push(session);
    }

    /// Forgets a session that the case closed itself.
    pub fn forget(&mut self, session: Session) {
        self.opened.retain(|one| one.handle != session.handle);
    }
}

/// A text field without its padding.
pub fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).trim_end_matches([' ', '\0']).to_owned()
}

/// The value, or a failure that names the call.
pub fn need<T>(result: Rv<T>, what: &str) -> Outcome<T> {
    result.map_err(|rv| Stop::Fail(format!("{what}: {}", names::rv(rv))))
}

/// Fails unless the call gave this CK_RV.
pub fn is<T>(result: Rv<T>, wanted: CK_RV, what: &str) -> Outcome {
    one_of(result, &[wanted], what)
}

/// What Init refuses a mechanism's parameter with: either is an applicable code (clause 5.1.6).
pub const PARAMETER_REFUSED: [CK_RV; 2] = [CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD];

/// Fails unless the call gave one of these.
pub fn one_of<T>(result: Rv<T>, wanted: &[CK_RV], what: &str) -> Outcome {
    let rv = result.map_or_else(|rv| rv, |_| CKR_OK);
    if wanted.contains(&rv) {
        return Ok(());
    }
    let names: Vec<String> = wanted.iter().map(|rv| names::rv(*rv)).collect();
    fail(format!("{what}: {} instead of {}", names::rv(rv), names.join(" or ")))
}
