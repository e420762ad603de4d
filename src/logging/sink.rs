//! Writing a line without waiting, and never to a descriptor that has become somebody else's.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{
        fd::{AsFd, BorrowedFd, IntoRawFd},
        unix::{fs::OpenOptionsExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
};

use log::Record;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, Stat, fcntl_getfl, fstat, stat},
};

use super::line::Line;
use crate::{config::LogSink, process::SigpipeGuard};

/// syslog(3)'s socket.
const SYSLOG: &str = "/dev/log";

/// Where lines go.
pub enum Sink {
    Nowhere,
    /// With what standard error was when the host initialised us.
    Stderr(Option<Identity>),
    /// Opened by whoever may; workers that gave up their privileges keep writing to it.
    File(PathBuf, Open<File>),
    Syslog(PathBuf, Open<UnixDatagram>),
}

/// Which file, pipe or socket a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// A descriptor of ours, as long as it is: hosts close descriptors they did not open, and then the
/// number belongs to a file or connection of theirs, neither written to nor closed here.
pub struct Open<T: AsFd + IntoRawFd>(Option<(T, Identity)>);

impl Sink {
    /// Opens what `config` says, or standard error where that cannot be. `before` is where lines
    /// went until now: a file that a forked worker may not open again stays open.
    pub fn open(config: &LogSink, before: &Sink) -> Self {
        match config {
            LogSink::Stderr => Sink::Stderr(Identity::of(rustix::stdio::stderr())),
            LogSink::Syslog => Sink::syslog(Path::new(SYSLOG)),
            LogSink::File(path) => {
                match append_to(path).or_else(|fault| before.kept(path).ok_or(fault)) {
                    Ok(file) => Sink::File(path.clone(), Open::new(file)),
                    Err(fault) => {
                        super::last_resort(&format!(
                            "log file {}: {fault}; log lines go to standard error",
                            path.display()
                        ));
                        Sink::open(&LogSink::Stderr, before)
                    }
                }
            }
        }
    }

    /// The file at `path`, if lines went there and still can.
    fn kept(&self, path: &Path) -> Option<File> {
        match self {
            Sink::File(same, open) if same == path => open.get()?.try_clone().ok(),
            _ => None,
        }
    }

    /// `socket` need not be there yet: it is tried again for each line.
    pub fn syslog(socket: &Path) -> Self {
        let connected = connect_to(socket).ok();
        Sink::Syslog(socket.to_owned(), connected.map_or(Open(None), Open::new))
    }

    /// Writes one line in one piece, or nothing.
    pub fn write(&self, record: &Record<'_>) {
        match self {
            Sink::Nowhere => {}
            Sink::Stderr(identity) => write_stderr(Line::stamped(record).as_bytes(), *identity),
            Sink::File(path, open) => {
                let line = Line::stamped(record);
                let renamed = || Identity::at(path).is_none_or(|now| Some(now) != open.identity());
                let written = match open.get() {
                    Some(file) if !renamed() => append(file, line.as_bytes()).is_ok(),
                    _ => false,
                };
                if !written {
                    // Rotated, closed by the host, or full: a new file for this line, and where
                    // that is not ours to open any more, the old one.
                    let last = match (append_to(path), open.get()) {
                        (Ok(file), _) => append(&file, line.as_bytes()),
                        (Err(_), Some(file)) => append(file, line.as_bytes()),
                        (Err(fault), None) => Err(fault),
                    };
                    drop(last);
                }
            }
            Sink::Syslog(path, open) => {
                let line = Line::syslog(record);
                let line = line.as_bytes().trim_ascii_end();
                let sent = open.get().is_some_and(|socket| socket.send(line).is_ok());
                if !sent {
                    // syslogd was restarted, or its queue is full.
                    drop(connect_to(path).and_then(|socket| socket.send(line)));
                }
            }
        }
    }
}

/// Writes to standard error if that is still a place for messages: what it was at C_Initialize
/// (`known`), or something a host redirects its messages to. A host that closed descriptor 2 may
/// have a database or a client's connection there.
pub fn write_stderr(line: &[u8], known: Option<Identity>) {
    let stderr = rustix::stdio::stderr();
    let Ok(now) = fstat(stderr) else { return };
    let unchanged = known.is_some() && known == Some(Identity::from(&now));
    let kind = FileType::from_raw_mode(now.st_mode);
    let for_messages = match kind {
        FileType::CharacterDevice | FileType::Fifo => true,
        FileType::RegularFile => {
            fcntl_getfl(stderr).is_ok_and(|flags| flags.contains(OFlags::APPEND))
        }
        _ => false,
    };
    // With nothing known the host is only just calling C_Initialize: its descriptor 2 is its own.
    if !(unchanged || for_messages || known.is_none()) || !takes_a_line(stderr) {
        return;
    }
    let _guard = SigpipeGuard::new();
    let _ = rustix::io::write(stderr, line);
}

/// Whether a line can be written without waiting for a reader.
pub fn takes_a_line(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)];
    match poll(&mut polled, Some(&Timespec::default())) {
        Ok(_) => polled[0].revents() == PollFlags::OUT,
        Err(_) => false,
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // A FIFO without a reader must not hold up the host.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn append(mut file: &File, line: &[u8]) -> io::Result<()> {
    let _guard = SigpipeGuard::new();
    match file.write(line) {
        Err(fault) if fault.kind() == ErrorKind::Interrupted => file.write(line).map(drop),
        other => other.map(drop),
    }
}

fn connect_to(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

impl Identity {
    fn of(descriptor: impl AsFd) -> Option<Self> {
        fstat(descriptor).ok().as_ref().map(Identity::from)
    }

    fn at(path: &Path) -> Option<Self> {
        stat(path).ok().as_ref().map(Identity::from)
    }
}

impl From<&Stat> for Identity {
    fn from(stat: &Stat) -> Self {
        Identity { device: stat.st_dev, inode: stat.st_ino }
    }
}

impl<T: AsFd + IntoRawFd> Open<T> {
    fn new(value: T) -> Self {
        Open(Identity::of(&value).map(|identity| (value, identity)))
    }

    /// One whose number has become the host's.
    #[cfg(test)]
    pub fn stolen(value: T) -> Self {
        Open(Some((value, Identity { device: 0, inode: 0 })))
    }

    fn identity(&self) -> Option<Identity> {
        self.0.as_ref().map(|(_, identity)| *identity)
    }

    /// The descriptor, if it is still what it was opened as.
    fn get(&self) -> Option<&T> {
        let (value, identity) = self.0.as_ref()?;
        (Identity::of(value) == Some(*identity)).then_some(value)
    }
}

impl<T: AsFd + IntoRawFd> Drop for Open<T> {
    fn drop(&mut self) {
        if self.get().is_none()
            && let Some((value, _)) = self.0.take()
        {
            // The number is the host's now: let go of it without closing.
            let _ = value.into_raw_fd();
        }
    }
}
