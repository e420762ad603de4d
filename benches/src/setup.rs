//! One run's folder, twin and configuration, and the program as its own child in other roles.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::Deserialize;

use crate::{
    host::Target,
    pki::Pki,
    twin::{TENANT, Twin},
};

/// Label of the twin's token.
pub const TOKEN: &str = "twin";

/// A run.
pub struct Setup {
    /// Certificates and configuration; goes with the run.
    pub folder: tempfile::TempDir,
    /// The module that is measured.
    pub module: PathBuf,
}

impl Setup {
    /// Makes the certificates.
    pub fn new(module: PathBuf) -> io::Result<Setup> {
        let folder = tempfile::tempdir()?;
        // nginx's workers may be another user.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Pki::make(folder.path())?;
        Ok(Setup { folder, module })
    }

    /// A twin with this many keys beside `web`, and the module's configuration for it with more
    /// lines in its token's table.
    pub fn twin(&self, keys: usize, more: &str) -> io::Result<Twin> {
        let twin = Twin::start(self.folder.path(), keys)?;
        self.configure(&twin, &format!("tenant = '{TENANT}'\n{more}"))?;
        Ok(twin)
    }

    /// Writes the module's configuration for a twin; `more` is for its token's table.
    pub fn configure(&self, twin: &Twin, more: &str) -> io::Result<()> {
        let port = twin.ports.https;
        let text = format!(
            "[[token]]\nlabel = '{TOKEN}'\nendpoint = 'https://localhost:{port}'\n\
             service = 'vault'\nscope = 'https://vault.azure.net/.default'\n\
             authority = 'https://localhost:{port}'\nca_file = 'ca.pem'\n\
             credential = {{ type = 'client-secret', secret = 'env:BENCH_SECRET', \
             client_id = '11111111-2222-4333-8444-555555555555' }}\n{more}\n"
        );
        let path = self.config();
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
    }

    /// The module's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// The key `web` of the twin's token.
    pub fn target(&self) -> Target {
        Target {
            module: self.module.clone(),
            token: Some(TOKEN.to_owned()),
            key: crate::twin::WEB.to_owned(),
            pin: None,
        }
    }

    /// This program in another role, with the module's environment.
    pub fn again(&self, role: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(role).env("AKV_PKCS11_CONFIG", self.config()).env("BENCH_SECRET", "secret");
        command
    }

    /// Runs a role for a target to its end, and reads what it printed.
    pub fn ask<T: for<'a> Deserialize<'a>>(&self, role: &str) -> io::Result<T> {
        let mut command = self.again(&[role]);
        answer(command.args(arguments(&self.target())))
    }
}

/// The arguments that tell a role its target.
pub fn arguments(target: &Target) -> Vec<String> {
    let option = |name: &str, value: &Option<String>| {
        value.iter().flat_map(|value| [format!("--{name}"), value.clone()]).collect::<Vec<_>>()
    };
    let module = target.module.display().to_string();
    let fixed = vec!["--module".to_owned(), module, "--key".to_owned(), target.key.clone()];
    [fixed, option("token", &target.token), option("pin", &target.pin)].concat()
}

/// Runs a command to its end, and reads the JSON it printed.
pub fn answer<T: for<'a> Deserialize<'a>>(command: &mut Command) -> io::Result<T> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{command:?}: {}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(io::Error::other)
}

/// The module that `cargo build --release` put beside this program.
pub fn built_module() -> io::Result<PathBuf> {
    let module = std::env::current_exe()?.with_file_name("libakv_pkcs11.so");
    existing(&module)
}

/// The path, made absolute, if there is a file.
pub fn existing(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
