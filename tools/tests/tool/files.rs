//! `init`, `completions` and `man`.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::{SEED, World};

#[test]
fn init_writes_files_that_work() {
    let world = World::with("", "");
    let init = "init --endpoint https://contoso.vault.azure.net --credential managed-identity \
                --dir etc";
    let ran = world.run(init.split_whitespace());
    ran.golden(&world, "init");
    let config = fs::read_to_string(world.path("etc/config.toml")).unwrap();
    assert!(config.contains("endpoint = \"https://contoso.vault.azure.net\""), "{config}");
    let mode = fs::metadata(world.path("etc/config.toml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o022, 0, "the module refuses a file that others may write to");
    let offered = world.run(["--config", "etc/config.toml", "mechanisms"]).ok();
    assert!(offered.contains("CKM_RSA_PKCS "), "{offered}");
    let java = fs::read_to_string(world.path("etc/p11.cfg")).unwrap();
    assert!(java.contains("  CKM_SHA256_RSA_PKCS\n") && !java.contains("CKM_SHA256\n"), "{java}");
    let p11_kit = fs::read_to_string(world.path("etc/akv-pkcs11.module")).unwrap();
    assert!(p11_kit.contains("\nmodule: /"), "{p11_kit}");

    // Never over a file that is there: not even beside two that are not.
    fs::write(world.path("etc/config.toml"), "mine").unwrap();
    fs::remove_file(world.path("etc/p11.cfg")).unwrap();
    let sentence = world.run(init.split_whitespace()).refused(1);
    assert!(sentence.contains("etc/config.toml exists"), "{sentence}");
    assert_eq!(fs::read(world.path("etc/config.toml")).unwrap(), b"mine");
    assert!(!world.path("etc/p11.cfg").exists(), "all or nothing");
    world.run(init.split_whitespace().chain(["--force"])).ok();
    assert_eq!(fs::read_to_string(world.path("etc/config.toml")).unwrap(), config);

    let sentence = world.run(["init", "--endpoint", "http://contoso.example"]).refused(2);
    assert!(sentence.contains("http://contoso.example"), "{sentence}");
    assert!(!world.path("config.toml").exists());
}

/// What programs do with the module is tested elsewhere; here, that the written lines are right.
#[test]
fn ready_lines_are_ready() {
    let certificate = "[[certificates]]\nname = \"tls\"\nsubject = \"CN=localhost\"\n";
    let world = World::with("", &format!("{SEED}{certificate}"));
    let module = module();
    let module = module.to_str().unwrap();
    let lines = world.run(["--token", "kv1", "--json", "uri", "rsa", "--module", module]).json();
    let line = |program: &str| {
        let all = lines["lines"].as_array().unwrap().iter();
        let found = all.clone().find(|each| each["program"] == program);
        found.and_then(|each| each["line"].as_str()).expect(program).to_owned()
    };
    let data = world.write("FILE", "to be signed");
    let signature = shell(&world, &format!("{} > signature", line("openssl engine")));
    assert!(signature.is_empty(), "{signature}");
    world.write("public.pem", world.on("kv1", "key show rsa --pem").ok());
    let verified =
        shell(&world, "openssl dgst -sha256 -verify public.pem -signature signature FILE");
    assert!(verified.contains("Verified OK"), "{verified} {}", data.display());
    assert_eq!(world.counter("vault:kv1", "keys/sign"), 1);

    // Java sees what has a certificate; the p11.cfg of init is the one the line names.
    let endpoint = "https://contoso.vault.azure.net";
    world.run(["init", "--endpoint", endpoint, "--module", module]).ok();
    let lines = world.run(["--token", "kv1", "--json", "uri", "tls"]).json();
    let java = lines["lines"].as_array().unwrap().iter().find(|each| each["program"] == "java");
    let listed = shell(&world, java.expect("a line for Java")["line"].as_str().unwrap());
    assert!(listed.contains("tls, PrivateKeyEntry"), "{listed}");

    let token = world.run(["--token", "kv1", "--json", "uri", "--module", module]).json();
    let tool = token["lines"][0]["line"].as_str().unwrap();
    let listed = shell(&world, tool);
    assert!(listed.contains("Private Key Object") && listed.contains("rsa"), "{listed}");
}

/// Runs a line in the tool's environment; its standard output.
fn shell(world: &World, line: &str) -> String {
    let template = world.command();
    let variables = template.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let output = Command::new("sh")
        .args(["-euc", line])
        .envs(variables)
        .current_dir(world.path(""))
        .stdin(Stdio::null())
        .output()
        .expect("sh");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{line}: {stderr}\n(packages openssl, libengine-pkcs11-openssl, opensc, default-jre-headless: `make deps`)"
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The module that cargo built along with the tool.
fn module() -> PathBuf {
    let exe = env::current_exe().expect("the test's own path");
    let path = exe.parent().expect("a folder").join("libakv_pkcs11.so");
    assert!(path.is_file(), "{} is missing: run `cargo build --workspace`", path.display());
    path
}

#[test]
fn completions_are_made_for_every_shell() {
    let world = World::with("", "");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = world.run(["completions", shell]).ok();
        assert!(text.contains("rotation-policy"), "{shell}: {text}");
    }
    let script = world.run(["completions", "bash"]).ok();
    let path = world.write("completions.bash", script);
    let checked = Command::new("bash").arg("-n").arg(&path).status().expect("bash");
    assert!(checked.success());
}

#[test]
fn man_pages_are_made_for_every_command() {
    let world = World::with("", "");
    let page = world.run(["man"]).ok();
    assert!(page.contains(".TH akv-pkcs11 1"), "{page}");
    assert_eq!(world.run(["man", "--dir", "man1"]).ok(), "");
    for name in ["akv-pkcs11", "akv-pkcs11-doctor", "akv-pkcs11-key-rotation-policy-set"] {
        let path = world.path(&format!("man1/{name}.1"));
        let page = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(&format!(".TH {name} 1")), "{page}");
    }
}
