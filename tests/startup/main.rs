//! What a host program and its operator see of configuration and log: a C program with nothing
//! but the module, run as a process of its own.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

const ENDPOINT: &str = "https://contoso.vault.azure.net";

/// The compiled host, in a folder that lives as long as the process: other users may run it.
static HOST: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let library = module();
    let host = folder.path().join("host");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/startup/host.c");
    let output = Command::new(env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&host)
        .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
        .arg(source)
        .arg(&library)
        .arg(format!("-Wl,-rpath,{}", library.parent().expect("folder").display()))
        .output()
        .expect("a C compiler (cc, or what CC names)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, host)
});

fn module() -> PathBuf {
    env::current_exe().expect("path").with_file_name("libakv_pkcs11.so")
}

/// Runs the host with these variables and no others.
fn run(host: &Path, reserved: &str, env: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new(host);
    let output = command.arg(reserved).env_clear().envs(env.iter().copied()).output();
    said(output.expect("the host starts"))
}

fn said(output: Output) -> (String, String) {
    assert!(output.status.success(), "{output:?}");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_start_says_nothing() {
    let (out, err) =
        run(&HOST.1, "", &[("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_ENDPOINT", ENDPOINT)]);
    assert_eq!((out.as_str(), err.as_str()), ("0x0\n", ""));
}

#[test]
fn a_mistake_is_one_line_on_standard_error() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("config.toml");
    fs::write(&path, "[[token]]\nendpoint = \"https://contoso.vault.azure.net\"\nretries = 3\n")
        .expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
    let named = path.display().to_string();
    let cases = [
        // CKR_FUNCTION_FAILED
        (
            "",
            vec![("AKV_PKCS11_CONFIG", named.as_str())],
            "0x6\n",
            format!("{named}:3: token 1: unknown key \"retries\"; the keys here are: "),
        ),
        (
            "",
            vec![("AKV_PKCS11_CONFIG", "none")],
            "0x6\n",
            "no configuration: write /etc/akv-pkcs11/config.toml".into(),
        ),
        // CKR_ARGUMENTS_BAD
        (
            "akv-pkcs11:/nonexistent/config.toml",
            vec![],
            "0x7\n",
            "/nonexistent/config.toml: no such file or directory".into(),
        ),
        (
            "akv-pkcs11:token = 1",
            vec![],
            "0x7\n",
            "pReserved:1: token needs an array of tables, not an integer".into(),
        ),
    ];
    for (reserved, env, rv, sentence) in cases {
        let (out, err) = run(&HOST.1, reserved, &env);
        assert_eq!(out, rv, "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.starts_with("akv-pkcs11: ") && err.contains(&sentence), "{err}");
    }
}

/// The parent, its forked child, and the exit handlers of both.
#[test]
fn lines_are_written_in_children_and_exit_handlers() {
    let folder = tempfile::tempdir().expect("folder");
    let log = folder.path().join("log");
    let toml = format!(
        "akv-pkcs11:log = {{ level = \"trace\", sink = \"file:{}\" }}\n\
         token = [{{ endpoint = \"{ENDPOINT}\" }}]\n",
        log.display()
    );
    let (out, err) = run(&HOST.1, &toml, &[]);
    assert_eq!((out.as_str(), err.as_str()), ("0x0\n", ""));
    let text = fs::read_to_string(&log).expect("log");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("C_CloseSession")).collect();
    let pid = |line: &str| line.split(' ').nth(1).map(str::to_owned).expect("pid");
    let parent = pid(lines.first().expect("a line"));
    let of_parent = lines.iter().filter(|line| pid(line) == parent).count();
    assert_eq!((of_parent, lines.len()), (2, 4), "{text}");
}

/// AT_SECURE for real: needs root, to make programs that run as somebody else.
#[test]
fn a_set_uid_host_believes_neither_its_environment_nor_its_home() {
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let home = folder.path().join("home");
    let config = home.join(".config/akv-pkcs11/config.toml");
    fs::create_dir_all(config.parent().expect("a folder")).expect("folders");
    let log = folder.path().join("log");
    let token = format!("[[token]]\nendpoint = \"{ENDPOINT}\"\n");
    fs::write(&config, &token).expect("write");
    let (home, sink) = (home.display().to_string(), format!("trace,file:{}", log.display()));
    let config = config.display().to_string();
    let environments: [&[(&str, &str)]; 3] = [
        &[("AKV_PKCS11_CONFIG", "none"), ("AKV_PKCS11_ENDPOINT", ENDPOINT)],
        &[("AKV_PKCS11_CONFIG", &config), ("AKV_PKCS11_LOG", &sink)],
        &[("HOME", &home)],
    ];
    if Path::new("/etc/akv-pkcs11/config.toml").exists() {
        eprintln!("skipped: this machine has a configuration of its own");
        return;
    }
    for (user, mode) in [(None, 0o755), (Some(NOBODY), 0o4755), (None, 0o2755)] {
        let host = folder.path().join(format!("host-{mode:o}"));
        fs::copy(&HOST.1, &host).expect("copy");
        let group = (mode == 0o2755).then_some(NOBODY);
        if std::os::unix::fs::chown(&host, user, group).is_err() {
            eprintln!("skipped: not root, so no set-uid program can be made");
            return;
        }
        fs::set_permissions(&host, fs::Permissions::from_mode(mode)).expect("chmod");
        for env in environments {
            for reserved in ["", &format!("akv-pkcs11:{token}")] {
                let mut command = Command::new(&host);
                let output = command.arg(reserved).env_clear().envs(env.iter().copied()).output();
                let output = output.expect("the host starts");
                let err = String::from_utf8_lossy(&output.stderr);
                if err.contains("error while loading shared libraries") {
                    eprintln!("skipped: user {NOBODY} may not read {}", module().display());
                    return;
                }
                let out = String::from_utf8_lossy(&output.stdout);
                if mode == 0o755 {
                    assert_eq!(out, "0x0\n", "a host like others is served: {env:?} {err}");
                    continue;
                }
                assert_eq!(out, "0x6\n", "{mode:o} {env:?} {reserved} {err}");
                let sentence = "no configuration (/etc/akv-pkcs11/config.toml not found)";
                assert!(err.contains(sentence), "{err}");
                assert!(!log.exists(), "{mode:o}: nor the log file");
            }
        }
        let _ = fs::remove_file(&log);
    }
}
