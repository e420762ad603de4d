//! What belongs to the whole process: the one static of the crate, the fork rule, signal masks,
//! and whether a pointer that a host passed can be read.
//!
//! **The fork rule.** A forked child holds a copy of the parent's module whose locks may be held
//! by threads that are not there, and whose sockets and runtimes still belong to the parent. So
//! the static points to a cell that is stamped with the process's generation; every entry
//! compares stamps before it touches a lock, and in a child puts a new cell in place. The old one
//! is leaked, never dropped. What the child gets is decided by its first call: C_Initialize makes
//! a fresh module, C_Finalize ends the inherited one, anything else adopts sessions, objects and
//! operations as they were at the fork (CKF_INTERFACE_FORK_SAFE).

#![allow(unsafe_code)]

use std::{
    cell::UnsafeCell,
    ffi::c_void,
    io::{self, Read},
    marker::PhantomData,
    mem::MaybeUninit,
    num::NonZeroUsize,
    os::fd::AsRawFd,
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering},
    },
};

use cryptoki_sys::{CKR_CRYPTOKI_ALREADY_INITIALIZED, CKR_CRYPTOKI_NOT_INITIALIZED};
use libc::{SIG_BLOCK, SIG_SETMASK, SIGPIPE, c_int, sigset_t};
use once_cell::race::OnceNonZeroUsize;

use crate::{
    error::{Error, Result},
    module::{Heritage, Module, ShortLocks},
};

/// The one static: the cell of this process, made at the first call.
static CELL: AtomicPtr<Cell> = AtomicPtr::new(ptr::null_mut());

/// The module, stamped with the process generation that made it.
struct Cell {
    stamp: u64,
    state: Mutex<State>,
}

enum State {
    /// Not initialised. `parents` is what a parent process had read, for a child that can no
    /// longer read files or environment.
    Empty { parents: Option<Heritage> },
    /// Initialised by this process, or adopted from its parent.
    Live(Arc<Module>),
    /// The parent's module, as it was at the fork; no call has been made in this process yet.
    Inherited(Arc<Module>),
}

/// The module of this process.
///
/// # Errors
/// CKR_CRYPTOKI_NOT_INITIALIZED; whatever adopting an inherited module fails with.
pub fn module() -> Result<Arc<Module>> {
    let mut state = lock(cell());
    match &*state {
        State::Live(module) => Ok(Arc::clone(module)),
        State::Empty { .. } => Err(not_initialized()),
        State::Inherited(parents) => {
            let adopted = Arc::new(Module::adopted(parents, epoch())?);
            leak(std::mem::replace(&mut *state, State::Live(Arc::clone(&adopted))));
            Ok(adopted)
        }
    }
}

/// C_Initialize: puts the module that `make` builds in place. `make` is given what a parent
/// process had read, if there was one.
///
/// # Errors
/// CKR_CRYPTOKI_ALREADY_INITIALIZED, or whatever `make` fails with.
pub fn initialize(make: impl FnOnce(Option<Heritage>) -> Result<Module>) -> Result<()> {
    register_fork_handlers();
    let mut state = lock(cell());
    let parents = match &*state {
        State::Live(_) => {
            return Err(Error::new(CKR_CRYPTOKI_ALREADY_INITIALIZED, "C_Initialize came twice"));
        }
        State::Empty { parents } => parents.clone(),
        State::Inherited(module) => Some(module.heritage()),
    };
    let module = make(parents)?;
    leak(std::mem::replace(&mut *state, State::Live(Arc::new(module))));
    Ok(())
}

/// C_Finalize: takes the module away. Calls that are under way finish with it.
///
/// # Errors
/// CKR_CRYPTOKI_NOT_INITIALIZED.
pub fn finalize() -> Result<()> {
    let mut state = lock(cell());
    let parents = match &*state {
        State::Live(module) if module.is_inherited() => Some(module.heritage()),
        State::Live(_) => None,
        State::Inherited(module) => Some(module.heritage()),
        State::Empty { .. } => return Err(not_initialized()),
    };
    let ended = std::mem::replace(&mut *state, State::Empty { parents });
    drop(state);
    if let State::Live(module) = &ended {
        module.close();
    }
    leak(ended);
    Ok(())
}

/// Drops what is this process's own; what came from a parent is leaked, since dropping it would
/// use the parent's sockets, runtimes and locks.
fn leak(state: State) {
    match state {
        State::Inherited(module) => std::mem::forget(module),
        own @ (State::Live(_) | State::Empty { .. }) => drop(own),
    }
}

fn not_initialized() -> Error {
    Error::new(CKR_CRYPTOKI_NOT_INITIALIZED, "C_Initialize has not been called")
}

fn lock(cell: &'static Cell) -> MutexGuard<'static, State> {
    cell.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cell of this process: made at the first call, and again at the first call after a fork.
fn cell() -> &'static Cell {
    let stamp = generation();
    loop {
        let current = CELL.load(Ordering::Acquire);
        // SAFETY: CELL is NULL or points to a cell that was leaked for ever by this function.
        let old: Option<&'static Cell> = unsafe { current.as_ref() };
        let state = match old {
            Some(cell) if cell.stamp == stamp => return cell,
            Some(parents) => inherited(parents),
            None => State::Empty { parents: None },
        };
        let new = Box::into_raw(Box::new(Cell { stamp, state: Mutex::new(state) }));
        if CELL.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `new` was made above and given to nobody: another thread's cell won.
            let lost = unsafe { Box::from_raw(new) };
            leak(lost.state.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// A number that no earlier C_Initialize had, in this process or in those it was forked from.
pub fn epoch() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a child finds in its parent's cell. The lock can be had when the fork went through our
/// handlers; after a raw system call it may be held by a thread that is not here: then nothing.
fn inherited(parents: &'static Cell) -> State {
    let state = match parents.state.try_lock() {
        Ok(state) => state,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return State::Empty { parents: None },
    };
    match &*state {
        State::Live(module) | State::Inherited(module) => State::Inherited(Arc::clone(module)),
        State::Empty { parents } => State::Empty { parents: parents.clone() },
    }
}

/// The generation of this process: a number no ancestor had. One page of memory that the kernel
/// wipes in a forked child holds it; where the kernel lacks MADV_WIPEONFORK it is the process id
/// (which misses a child in a new pid namespace that gets its parent's number).
fn generation() -> u64 {
    static PAGE: OnceNonZeroUsize = OnceNonZeroUsize::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    const NO_PAGE: NonZeroUsize = NonZeroUsize::MAX;
    let page = PAGE.get_or_init(|| wiped_page().unwrap_or(NO_PAGE));
    if page == NO_PAGE {
        return u64::from(std::process::id());
    }
    // SAFETY: `wiped_page` mapped a whole zeroed page that is never unmapped; it is used as this
    // one atomic only.
    let stamp = unsafe { AtomicU64::from_ptr(page.get() as *mut u64) };
    match stamp.load(Ordering::Acquire) {
        0 => {
            let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
            match stamp.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => fresh,
                Err(others) => others,
            }
        }
        known => known,
    }
}

/// A zeroed page that the kernel zeroes again in every forked child.
fn wiped_page() -> Option<NonZeroUsize> {
    const LENGTH: usize = 4096;
    let (access, kind) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing of ours.
    let page = unsafe { libc::mmap(ptr::null_mut(), LENGTH, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping made above, whole.
    if unsafe { libc::madvise(page, LENGTH, libc::MADV_WIPEONFORK) } == 0 {
        return NonZeroUsize::new(page as usize);
    }
    // SAFETY: the mapping made above, which nothing points to.
    unsafe { libc::munmap(page, LENGTH) };
    None
}

/// Leaves the pages that hold `bytes` out of core dumps, for as long as the process lives: other
/// data of the same pages is missing there too, which harms nobody. A kernel that lacks it leaves
/// everything as it was.
pub fn leave_out_of_core_dumps(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let start = bytes.as_ptr() as usize & !(PAGE - 1);
    let end = (bytes.as_ptr() as usize + bytes.len()).next_multiple_of(PAGE);
    if !bytes.is_empty() {
        // SAFETY: MADV_DONTDUMP changes neither access to the pages nor what is in them; a range
        // the kernel does not like (larger pages) is an error and no change.
        unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTDUMP) };
    }
}

/// What is held between the fork handlers, so that the child's copy of what the short locks guard
/// is whole.
struct Held {
    /// Of a live module. Dropped first: the guards borrow from the module kept beside them.
    locks: Option<(ShortLocks<'static>, Arc<Module>)>,
    cell: MutexGuard<'static, State>,
}

/// Where it is held. `before_fork` fills it and `after_fork` empties it, in one thread.
struct HeldHere(UnsafeCell<Option<Held>>);

// SAFETY: touched only by a thread that holds the cell's lock: `before_fork` takes it before it
// writes, and gives it to `after_fork` of the same thread by way of this very value.
unsafe impl Sync for HeldHere {}

static HELD: HeldHere = HeldHere(UnsafeCell::new(None));

fn register_fork_handlers() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if !DONE.swap(true, Ordering::Relaxed) {
        // SAFETY: the handlers are functions of this library, which is never unmapped
        // (-z nodelete).
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(after_fork)) };
    }
}

/// Takes the short locks in their order (cell, sessions, objects). None of them is ever held
/// across a request, so this never waits for the network.
extern "C" fn before_fork() {
    let cell = lock(cell());
    let locks = match &*cell {
        State::Live(module) => {
            let module = Arc::clone(module);
            // SAFETY: the module is kept beside the guards and dropped after them.
            let borrowed: &'static Module = unsafe { &*Arc::as_ptr(&module) };
            Some((borrowed.hold_short_locks(), module))
        }
        State::Empty { .. } | State::Inherited(_) => None,
    };
    // SAFETY: this thread holds the cell's lock (see `HeldHere`).
    unsafe { *HELD.0.get() = Some(Held { locks, cell }) };
}

/// Gives the locks back, in the parent and in the child.
extern "C" fn after_fork() {
    // SAFETY: `before_fork` of this thread left the cell's lock here (see `HeldHere`).
    let held = unsafe { (*HELD.0.get()).take() };
    if let Some(Held { locks, cell }) = held {
        drop(locks);
        drop(cell);
    }
}

/// The NUL-terminated string at `address`, at most `most` bytes of it, if all of it can be read:
/// the kernel is asked to copy it through a pipe, so that a pointer to nowhere is an answer and
/// not a crash. None for NULL, unreadable memory, or no NUL within `most`.
pub fn readable_c_string(address: *const c_void, most: usize) -> Option<Vec<u8>> {
    const PAGE: usize = 4096;
    let (mut reader, writer) = io::pipe().ok()?;
    let mut text = Vec::new();
    while !address.is_null() && text.len() < most {
        let start = (address as usize).checked_add(text.len())?;
        // Up to the end of its page: whether the next one can be read is another question.
        let wanted = (PAGE - start % PAGE).min(most - text.len());
        // SAFETY: write(2) only reads from `start`, and answers EFAULT where it cannot.
        let copied = unsafe { libc::write(writer.as_raw_fd(), start as *const c_void, wanted) };
        let copied = usize::try_from(copied).ok().filter(|n| *n > 0)?;
        let mut part = vec![0; copied];
        reader.read_exact(&mut part).ok()?;
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Some(text);
        }
        text.extend_from_slice(&part);
    }
    None
}

/// Whether the process runs with more rights than its user (set-uid and the like): then the
/// environment and the home directory are not to be believed.
pub fn is_secure() -> bool {
    // SAFETY: getauxval reads a table the kernel gave the process.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Keeps SIGPIPE away from the host while this thread writes to sockets.
///
/// A TLS write to a connection that the server has closed raises SIGPIPE, whose default action
/// ends the process. The signal is blocked for the calling thread only; one that was raised
/// meanwhile is consumed on drop, one that was pending before stays pending, and the thread's mask
/// is put back. Costs four system calls (about a microsecond). Not `Send`: the mask belongs to the
/// thread that made it.
#[must_use = "the signal is blocked only while the guard lives"]
pub struct SigpipeGuard {
    saved: Option<Saved>,
    _thread_bound: PhantomData<*const ()>,
}

struct Saved {
    mask: sigset_t,
    was_pending: bool,
}

impl SigpipeGuard {
    /// Blocks SIGPIPE for the calling thread. Should the kernel refuse, nothing is blocked and
    /// nothing is restored.
    pub fn new() -> Self {
        let was_pending = sigpipe_pending();
        let set = sigpipe_set();
        let mut old = MaybeUninit::<sigset_t>::uninit();
        // SAFETY: both pointers are to live sigset_t values of this frame; `set` is initialised,
        // and pthread_sigmask writes `old` when it returns 0.
        let rc = unsafe { libc::pthread_sigmask(SIG_BLOCK, &raw const set, old.as_mut_ptr()) };
        let saved = (rc == 0).then(|| {
            // SAFETY: pthread_sigmask returned 0, so it has written the previous mask.
            let mask = unsafe { old.assume_init() };
            Saved { mask, was_pending }
        });
        SigpipeGuard { saved, _thread_bound: PhantomData }
    }
}

impl Default for SigpipeGuard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SigpipeGuard {
    fn drop(&mut self) {
        let Some(Saved { mask, was_pending }) = &self.saved else { return };
        if !was_pending {
            consume_pending();
        }
        // SAFETY: `mask` is the mask pthread_sigmask gave us; a null pointer asks for no old mask.
        unsafe { libc::pthread_sigmask(SIG_SETMASK, mask, ptr::null_mut()) };
    }
}

/// Takes a pending SIGPIPE off this thread without waiting for one.
fn consume_pending() {
    let set = sigpipe_set();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: `set` and `now` are live and initialised; a null siginfo_t is allowed.
        let taken = unsafe { libc::sigtimedwait(&raw const set, ptr::null_mut(), &raw const now) };
        let interrupted =
            taken == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        if !interrupted {
            return;
        }
    }
}

fn sigpipe_pending() -> bool {
    let mut pending = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: the pointer is to a sigset_t of this frame, which sigpending writes when it returns 0.
    let rc = unsafe { libc::sigpending(pending.as_mut_ptr()) };
    if rc != 0 {
        return false;
    }
    is_member(pending.as_ptr(), SIGPIPE)
}

fn is_member(set: *const sigset_t, signal: c_int) -> bool {
    // SAFETY: the only caller passes a set that sigpending has written.
    unsafe { libc::sigismember(set, signal) == 1 }
}

fn sigpipe_set() -> sigset_t {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given and cannot fail on a valid pointer.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was initialised above, and SIGPIPE is a valid signal number.
    unsafe { libc::sigaddset(set.as_mut_ptr(), SIGPIPE) };
    // SAFETY: initialised by sigemptyset above.
    unsafe { set.assume_init() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise_for_this_thread() {
        // SAFETY: pthread_self is always valid for the calling thread.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: `this` is the calling thread, SIGPIPE a valid signal; it is blocked by then.
        assert_eq!(unsafe { libc::pthread_kill(this, SIGPIPE) }, 0);
    }

    fn blocked() -> bool {
        let mut mask = MaybeUninit::<sigset_t>::uninit();
        // SAFETY: a null new set only asks; the old mask is written to `mask`.
        let rc = unsafe { libc::pthread_sigmask(SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
        assert_eq!(rc, 0);
        is_member(mask.as_ptr(), SIGPIPE)
    }

    #[test]
    fn consumes_what_it_caught_and_restores_the_mask() {
        let before = blocked();
        {
            let _guard = SigpipeGuard::new();
            assert!(blocked());
            raise_for_this_thread();
            assert!(sigpipe_pending());
        }
        assert!(!sigpipe_pending());
        assert_eq!(blocked(), before);
    }

    #[test]
    fn leaves_a_signal_that_was_pending_before() {
        let outer = SigpipeGuard::new();
        raise_for_this_thread();
        drop(SigpipeGuard::new());
        assert!(sigpipe_pending(), "the host's own SIGPIPE must stay pending");
        assert!(blocked());
        drop(outer);
        assert!(!sigpipe_pending());
    }
}
