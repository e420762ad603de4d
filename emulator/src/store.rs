//! Everything in one file, when asked: written whole, atomically, before a change is acknowledged.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

/// The file, and what it holds by service.
pub struct Store {
    path: PathBuf,
    content: Mutex<BTreeMap<String, Value>>,
}

impl Store {
    /// Opens the file, or begins one.
    pub fn open(path: &Path) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let content = match std::fs::read(path).map(Zeroizing::new) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| told(&error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(told(&error)),
        };
        Ok(Self { path: path.to_owned(), content: Mutex::new(content) })
    }

    /// What was saved under this name.
    pub fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(saved) = self.content.lock().get(name).cloned() else {
            return Ok(None);
        };
        serde_json::from_value(saved)
            .map(Some)
            .map_err(|error| format!("{}: {name}: {error}", self.path.display()))
    }

    /// Saves what `content` gives. It is asked while other savers wait, so that no older content
    /// overwrites newer.
    pub fn save<T: Serialize>(
        &self,
        name: &str,
        content: impl FnOnce() -> Result<T, String>,
    ) -> Result<(), String> {
        let mut all = self.content.lock();
        let value = serde_json::to_value(content()?).map_err(|error| error.to_string())?;
        all.insert(name.to_owned(), value);
        let bytes = serde_json::to_vec(&*all).map(Zeroizing::new);
        let bytes = bytes.map_err(|error| error.to_string())?;
        self.write(&bytes).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// A new file beside the old one, on disk before it takes the old one's place.
    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        // The rename itself has to survive, too.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}
