//! What belongs to the whole process: signal masks here, the module's one cell and the fork rule.

#![allow(unsafe_code)]

use std::{io, marker::PhantomData, mem::MaybeUninit, ptr};

use libc::{SIG_BLOCK, SIG_SETMASK, SIGPIPE, c_int, sigset_t};

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
