//! One file per process in a directory that other processes, and perhaps other users, write to.
//!
//! It is written whole under a name that nobody can have put there before (O_EXCL, O_NOFOLLOW)
//! and renamed, so that whoever reads sees a whole file, and a planted link leads nowhere. It is
//! readable by all (0644): the collector is another user, and nothing in it is secret.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, lstat, openat, renameat,
        statat, unlinkat,
    },
    io::Errno,
    process::{Pid, geteuid, test_kill_process},
};

use super::text::Program;

/// Where the files are.
pub struct Folder {
    path: PathBuf,
    program: Program,
    told: AtomicBool,
    writing: AtomicBool,
}

/// A process of another name space whose file is older has called nothing for so long, if it is
/// there at all: its next call writes the file anew, with all that it ever counted.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

const PREFIX: &str = "akv-pkcs11-";
const SUFFIX: &str = ".prom";

impl Folder {
    /// The folder at `path`, for this process as it is now.
    pub fn new(path: &Path) -> Folder {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let namespace = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
        let program = Program {
            pid: std::process::id(),
            pid_namespace: namespace,
            name: name.trim_end().to_owned(),
        };
        let (told, writing) = (AtomicBool::new(false), AtomicBool::new(false));
        Folder { path: path.to_owned(), program, told, writing }
    }

    /// Replaces this process's file and removes those of dead ones. What goes wrong is logged
    /// once; two threads never write at once.
    pub fn write(&self, text: impl FnOnce(&Program) -> String) {
        let Some(_turn) = Turn::of(&self.writing) else { return };
        if let Err(why) = self.try_to_write(text)
            && !self.told.swap(true, Relaxed)
        {
            log::warn!("metrics_dir {}: {why}; nothing is written there", self.path.display());
        }
    }

    fn try_to_write(&self, text: impl FnOnce(&Program) -> String) -> Result<(), String> {
        let said = |what: &str, error: io::Error| format!("{what}: {error}");
        let folder = open_folder(&self.path)?;
        let name = self.name_of(self.program.pid);
        let temporary = format!(".{name}.new");
        // One of ours that a killed process left, or somebody else's: not written to either way.
        match unlinkat(&folder, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(said(&temporary, error.into())),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY;
        let file = openat(&folder, &temporary, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map_err(|error| said(&temporary, error.into()))?;
        let written = fchmod(&file, Mode::from_raw_mode(0o644))
            .map_err(io::Error::from)
            .and_then(|()| File::from(file).write_all(text(&self.program).as_bytes()))
            .and_then(|()| Ok(renameat(&folder, &temporary, &folder, &name)?));
        if let Err(error) = written {
            let _ = unlinkat(&folder, &temporary, AtFlags::empty());
            return Err(said(&name, error));
        }
        self.prune(folder);
        Ok(())
    }

    /// Removes the files of processes that are gone. Whether those of other name spaces are there,
    /// nobody here can tell: their files stay until they are [`FORGOTTEN`]. What cannot be removed
    /// is its owner's.
    fn prune(&self, folder: OwnedFd) {
        let Ok(entries) = Dir::read_from(&folder) else { return };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Some((namespace, pid)) = process_of(name) else { continue };
            let ours = self.program.pid_namespace != 0 && namespace == self.program.pid_namespace;
            if ours && !is_gone(pid) {
                continue;
            }
            let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if regular && (ours || age(&stat) > FORGOTTEN) {
                let _ = unlinkat(&folder, name, AtFlags::empty());
            }
        }
    }

    fn name_of(&self, pid: u32) -> String {
        format!("{PREFIX}{}-{pid}{SUFFIX}", self.program.pid_namespace)
    }
}

/// The one who writes; the next one may when this is dropped, whatever happened meanwhile.
struct Turn<'f>(&'f AtomicBool);

impl<'f> Turn<'f> {
    fn of(taken: &'f AtomicBool) -> Option<Turn<'f>> {
        (!taken.swap(true, Relaxed)).then_some(Turn(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Name space and id of the process whose file, or half-written file, has this name.
fn process_of(name: &str) -> Option<(u64, i32)> {
    let name = match name.strip_prefix('.') {
        Some(rest) => rest.strip_suffix(".new")?,
        None => name,
    };
    let (namespace, pid) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some((namespace.parse().ok()?, pid.parse().ok()?))
}

/// Whether no process of this name space has this id.
fn is_gone(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| matches!(test_kill_process(pid), Err(Errno::SRCH)))
}

/// How long ago it was written; nothing where that is still to come, by this machine's clock.
fn age(stat: &Stat) -> Duration {
    let written = u64::try_from(stat.st_mtime).unwrap_or_default();
    let written = UNIX_EPOCH.checked_add(Duration::from_secs(written));
    written.and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default()
}

/// Opens the directory, unless somebody else decides what is in it: a link must be root's or ours,
/// and a directory that others may write to must be sticky.
fn open_folder(path: &Path) -> Result<OwnedFd, String> {
    let said = |error: Errno| io::Error::from(error).to_string();
    let trusted = |stat: &Stat| stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    let link = lstat(path).map_err(said)?;
    let is_link = FileType::from_raw_mode(link.st_mode) == FileType::Symlink;
    if is_link && !trusted(&link) {
        return Err("it is a symbolic link of another user".to_owned());
    }
    let nofollow = if is_link { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(said)?;
    let stat = fstat(folder.as_fd()).map_err(said)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let sticky = mode.contains(Mode::SVTX);
    if !trusted(&stat) && !sticky {
        return Err("it belongs to another user; give it to root with mode 1777".to_owned());
    }
    if mode.contains(Mode::WOTH) && !sticky {
        return Err("everybody may remove files in it; `chmod +t` it".to_owned());
    }
    Ok(folder)
}
