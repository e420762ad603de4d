//! Clients from their registries, each in a folder of `target/clients`, installed once.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{FlockOperation, flock};

use crate::sandbox::{built, clients, require};

/// A Python with the packages of `NAME/requirements.txt`: its interpreter; its programs are beside.
pub fn python(name: &str) -> PathBuf {
    require("python3", "python3-venv");
    let folder = installed(name, &["requirements.txt"], |folder| {
        // Debian's python3 has no venv without the package python3-venv.
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder), "python3-venv");
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        // What is imported is compiled then. Of az that is a twentieth.
        pip.arg("--no-compile");
        pip.arg("--requirement").arg(clients().join(name).join("requirements.txt"));
        run(&mut pip, "python3-venv");
    });
    folder.join("bin/python")
}

/// The packages of `NAME/package-lock.json`: their folder `node_modules`.
pub fn node(name: &str) -> PathBuf {
    require("node", "nodejs");
    require("npm", "npm");
    let files = ["package.json", "package-lock.json"];
    let folder = installed(name, &files, |folder| {
        for file in files {
            fs::copy(clients().join(name).join(file), folder.join(file)).expect("a copy");
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
        run(&mut npm, "npm");
    });
    folder.join("node_modules")
}

/// Fills `target/clients/NAME` with `install`, unless that happened with the same content of these
/// files of `tests/clients/NAME`, which say what is installed.
fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    let cache = built().parent().expect("a profile is in the target folder").join("clients");
    fs::create_dir_all(&cache).expect("a folder of the target folder");
    // Others may want the same: tests of this program, and other programs.
    let lock = File::create(cache.join(format!("{name}.lock"))).expect("a lock");
    flock(&lock, FlockOperation::LockExclusive).expect("the lock");

    let folder = cache.join(name);
    let stamp = folder.join("installed-from");
    let wanted: Vec<u8> = files
        .iter()
        .flat_map(|file| fs::read(clients().join(name).join(file)).expect("what to install"))
        .collect();
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return folder;
    }
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            panic!("{}: {error}", folder.display())
        }
        _ => {}
    }
    fs::create_dir(&folder).expect("a folder");
    install(&folder);
    fs::write(&stamp, wanted).expect("a stamp");
    folder
}

fn run(command: &mut Command, package: &str) {
    let output = command.output().expect("a program that is there starts");
    assert!(
        output.status.success(),
        "{command:?}: {}; does it want `apt-get install {package}`, or a network?\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
