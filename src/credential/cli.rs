//! `az account get-access-token`, run by the calling thread.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use azure_identity::Executor;
use rustix::process::{Pid, Signal, kill_process_group};

/// Between two looks whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a program here instead of on a thread of its own, and ends it at the deadline.
#[derive(Debug)]
pub(super) struct CallingThread {
    pub deadline: Instant,
}

#[async_trait]
impl Executor for CallingThread {
    async fn run(&self, program: &OsStr, args: &[&OsStr]) -> io::Result<Output> {
        // Both outputs together are a few kilobytes and fit into their pipes, so that they can be
        // read after the end.
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // The shell and what it starts, so that the deadline ends both.
            .process_group(0)
            .spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= self.deadline {
                end(&mut child)?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the Azure CLI did not answer within the deadline",
                ));
            }
            thread::sleep(LOOK);
        };
        let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
        if let Some(mut pipe) = child.stdout.take() {
            pipe.read_to_end(&mut output.stdout)?;
        }
        if let Some(mut pipe) = child.stderr.take() {
            pipe.read_to_end(&mut output.stderr)?;
        }
        Ok(output)
    }
}

fn end(child: &mut Child) -> io::Result<()> {
    kill_process_group(Pid::from_child(child), Signal::KILL)?;
    child.wait().map(drop)
}
