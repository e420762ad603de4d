//! `az account get-access-token`, run by the calling thread.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use azure_identity::Executor;
use rustix::{
    io::{Errno, ioctl_fionbio},
    process::{Pid, Signal, kill_process_group},
};

/// Between two looks whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);
/// It writes a few kilobytes.
const MOST: usize = 1 << 20;

/// Runs a program here instead of on a thread of its own, and ends it at the deadline.
#[derive(Debug)]
pub(super) struct CallingThread {
    pub deadline: Instant,
}

#[async_trait]
impl Executor for CallingThread {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The shell and what it starts, so that the deadline ends both.
            .process_group(0)
            .spawn()?;
        let mut stdout = Outflow::of(child.stdout.take())?;
        let mut stderr = Outflow::of(child.stderr.take())?;
        loop {
            let ended = ended(&mut child);
            // After the end, too: what it wrote last. A process that it left behind may keep the
            // pipes open for ever and is not waited for.
            let read = stdout.read().and_then(|()| stderr.read());
            match (ended, read) {
                (Ok(Some(status)), Ok(())) => {
                    return Ok(Output { status, stdout: stdout.read, stderr: stderr.read });
                }
                (Ok(None), Ok(())) if Instant::now() < self.deadline => thread::sleep(LOOK),
                (Ok(None), Ok(())) => {
                    end(&mut child);
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the Azure CLI did not answer within the deadline",
                    ));
                }
                (Err(error), _) | (_, Err(error)) => {
                    end(&mut child);
                    return Err(error);
                }
            }
        }
    }
}

/// One of the program's outputs, read as it comes.
struct Outflow<R> {
    pipe: Option<R>,
    read: Vec<u8>,
}

impl<R: Read + AsFd> Outflow<R> {
    fn of(pipe: Option<R>) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Outflow { pipe, read: Vec::new() })
    }

    /// Takes what is there.
    fn read(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut piece = [0; 4096];
        loop {
            match pipe.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(length) if self.read.len() < MOST => {
                    self.read.extend_from_slice(&piece[..length]);
                }
                Ok(_) => return Err(io::Error::other("the Azure CLI writes without end")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How the program ended, if it has. Where the host ignores SIGCHLD, or waits for children that are
/// not its own, nobody can tell how: its output tells then.
fn ended(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    match child.try_wait() {
        Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => {
            Ok(Some(ExitStatus::from_raw(0)))
        }
        ended => ended,
    }
}

/// Ends the program and what it has started.
fn end(child: &mut Child) {
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.wait();
}
