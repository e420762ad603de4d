//! `doctor`: what it finds, and what it says is to be done.

use std::{fs, os::unix::fs::PermissionsExt};

use openssl::{asn1::Asn1Time, hash::MessageDigest, pkey::PKey, rsa::Rsa, x509::X509};

use crate::support::{LIMITED, LIMITED_SECRET, SEED, World};

#[test]
fn everything_is_well() {
    let world = World::new();
    let ran = world.run(["doctor"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.golden(&world, "doctor");
    for service in ["vault:kv1", "managed-hsm:hsm1"] {
        assert_eq!(world.counter(service, "keys/sign"), 1, "one signature each");
        assert_eq!(world.counter(service, "keys/list"), 1);
    }
    world.on("kv1", "doctor --no-sign --json").golden(&world, "doctor-json");
    assert_eq!(world.counter("vault:kv1", "keys/sign"), 1, "--no-sign signs nothing");
    let named = world.on("hsm1", "doctor --key rsa").words();
    assert!(named.contains("PS256 by key 'rsa', verified here"), "{named}");
}

#[test]
fn a_wrong_client_secret() {
    let world = World::new();
    let config = world.config(|text| text.replace("env:AZURE_CLIENT_SECRET", "file:wrong"));
    world.write("wrong", "hunter2-hunter2");
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    let text = ran.words();
    assert_eq!(ran.code, 1, "{text}");
    assert!(text.contains("access-token FAILED"), "{text}");
    assert!(text.contains("AADSTS7000215"), "{text}");
    assert!(!text.contains("hunter2") && !ran.stderr.contains("hunter2"), "{ran:?}");
    assert!(!text.contains(" list "), "what needs the token is not tried: {text}");
}

#[test]
fn another_authority_than_the_one_that_signed() {
    let world = World::new();
    let ca = world.write("other-ca.pem", other_ca());
    let ca = ca.display().to_string();
    let config = world.config(|text| {
        let line = text.lines().find(|line| line.starts_with("ca_file")).unwrap().to_owned();
        text.replace(&line, &format!("ca_file = {ca:?}"))
    });
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    assert_eq!(ran.code, 1);
    ran.golden(&world, "doctor-wrong-ca");

    // A file without a certificate in it does not even get so far.
    world.write("other-ca.pem", "nothing");
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    assert_eq!(ran.code, 1);
    assert!(ran.text().contains("FAILED") && ran.text().contains("ca_file"), "{}", ran.text());
}

#[test]
fn an_endpoint_nobody_answers_at() {
    let world = World::new();
    let port = {
        // Free a moment ago, and nobody's now.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let refused = format!("endpoint = \"https://127.0.0.1:{port}\"");
    let config = world.config(|text| endpoint(&text, &refused));
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    assert_eq!(ran.code, 1);
    ran.golden(&world, "doctor-unreachable");

    let config = world.config(|text| endpoint(&text, "endpoint = \"https://nosuch.invalid\""));
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    assert_eq!(ran.code, 1);
    let text = ran.words();
    assert!(text.contains("dns FAILED nosuch.invalid: "), "{text}");
    assert!(text.contains("set `address`") && !text.contains("tls"), "{text}");
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let world = World::new();
    let config = world.config(|text| text.replacen("label", "labell", 1));
    let path = config.to_str().unwrap();
    let ran = world.run(["--config", path, "doctor"]);
    assert_eq!(ran.code, 1);
    ran.golden(&world, "doctor-broken-configuration");
    // Every other command says the same in one sentence.
    let sentence = world.run(["--config", path, "keys"]).refused(1);
    assert!(sentence.contains("config.toml:4: ") && sentence.contains("\"labell\""), "{sentence}");

    let config = world.config(|text| format!("{text}\n"));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o666)).unwrap();
    let ran = world.run(["--config", path, "doctor"]);
    assert_eq!(ran.code, 1);
    assert!(ran.words().contains("configuration FAILED"), "{}", ran.text());

    let ran = world.run(["--config", "nowhere.toml", "doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.text()).expect("JSON");
    assert_eq!((ran.code, report["ok"].as_bool()), (1, Some(false)));
    assert_eq!(report["configuration"]["status"], "failed");
}

#[test]
fn a_scope_that_is_not_the_services() {
    let world = World::new();
    let config = world.config(|text| {
        text.replace("https://vault.azure.net/.default", "https://storage.azure.com/.default")
    });
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    let text = ran.words();
    assert!(text.contains("tls warning"), "{text}");
    assert!(text.contains("scope https://vault.azure.net/.default, not https://storage"), "{text}");
}

/// The emulator's client that may do some things, and how the vault decides.
fn client(permissions: &str, model: &str) -> String {
    format!(
        "[[client]]\nid = \"{LIMITED}\"\nsecret = \"{LIMITED_SECRET}\"\nkeys = [{permissions}]\nsecrets = []\n\
         [switches]\npermission_model = \"{model}\"\n"
    )
}

#[test]
fn a_missing_permission_comes_with_role_and_command() {
    // Without list: a named key signs nevertheless.
    let world = World::with(&client("\"get\", \"sign\"", "rbac"), SEED);
    let config = world.limited();
    let path = config.to_str().unwrap();
    let ran = world.run(["--config", path, "doctor"]);
    assert_eq!(ran.code, 1);
    ran.golden(&world, "doctor-no-list-rbac");
    let ran = world.run(["--config", path, "--token", "kv1", "doctor", "--key", "ec"]);
    assert!(ran.words().contains("sign ok ES256 by key 'ec'"), "{}", ran.text());
    assert_eq!(ran.code, 1, "the listing failed nevertheless");

    // Keys that the configuration names need no list permission.
    let config = world.path("named.toml");
    let text = fs::read_to_string(path).unwrap();
    fs::write(&config, text.replace("label = ", "keys = [\"ec\"]\nlabel = ")).unwrap();
    let ran = world.run(["--config", config.to_str().unwrap(), "doctor"]);
    assert_eq!((ran.code, ran.words().matches("sign ok").count()), (0, 2), "{ran:?}");

    // Their public parts at hand, nothing but the permission to sign.
    let bare = World::with(&client("\"sign\"", "rbac"), SEED);
    let file = bare.write("ec.pem", bare.on("kv1", "key show ec --pem").ok());
    let config = bare.path("given.toml");
    let given =
        format!("keys = [\"ec\"]\npublic_keys = {{ ec = \"{}\" }}\nlabel = ", file.display());
    let limited = fs::read_to_string(bare.limited()).unwrap();
    fs::write(&config, limited.replace("label = ", &given)).unwrap();
    let ran = bare.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    let words = ran.words();
    assert!(words.contains("no get permission is needed"), "{words}");
    assert!(words.contains("sign ok ES256 by key 'ec', verified here"), "{words}");
    assert_eq!(ran.code, 0, "{words}");

    // Secrets, where the token shows them.
    fs::write(&config, text.replace("label = \"kv1\"", "secrets = [\"*\"]\nlabel = \"kv1\""))
        .unwrap();
    let ran = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "doctor"]);
    let words = ran.words();
    assert!(words.contains("secrets FAILED"), "{words}");
    assert!(words.contains("Microsoft.KeyVault/vaults/secrets/readMetadata/action"), "{words}");
    assert!(words.contains("--role \"Key Vault Secrets User\""), "{words}");

    // Without sign, by access policy.
    let world = World::with(&client("\"get\", \"list\"", "policy"), SEED);
    let config = world.limited();
    let ran = world.run(["--config", config.to_str().unwrap(), "doctor"]);
    assert_eq!(ran.code, 1);
    ran.golden(&world, "doctor-no-sign-policy");
    let ran = world.run(["--config", config.to_str().unwrap(), "doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.text()).expect("JSON");
    let checks = report["tokens"][1]["checks"].as_array().expect("checks");
    let sign = checks.last().expect("a check");
    assert_eq!(sign["remedy"]["role"], "Managed HSM Crypto User");
    assert_eq!(
        sign["remedy"]["permission"],
        "data action Microsoft.KeyVault/managedHsm/keys/sign/action"
    );
}

#[test]
fn a_key_that_may_not_sign() {
    let seed = format!(
        "{SEED}\n[[keys]]\nname = \"off\"\nkty = \"EC\"\ncurve = \"P-256\"\nenabled = false\n"
    );
    let world = World::with("", &seed);
    let ran = world.on("kv1", "doctor --key off");
    assert_eq!(ran.code, 1);
    assert!(ran.words().contains("key FAILED 'off' is not enabled"), "{}", ran.text());
    let ran = world.on("kv1", "doctor --key missing");
    assert_eq!(ran.code, 1);
    assert!(ran.words().contains("get key missing: there is no such object"), "{ran:?}");

    let world = World::with(
        "",
        "[[keys]]\nname = \"w\"\nkty = \"RSA\"\nsize = 2048\nops = [\"wrapKey\"]\n",
    );
    let ran = world.on("kv1", "doctor");
    assert_eq!(ran.code, 0);
    assert!(ran.words().contains("sign skipped no key is known that may sign"), "{ran:?}");
}

#[test]
fn the_client_secret_that_a_login_brings() {
    let world = World::new();
    let config = world.config(|text| {
        let credential = "credential = { type = \"client-secret\", ";
        text.replace(credential, "login = \"client-secret\"\ncredential = { type = \"login\", ")
            .replace(", secret = \"env:AZURE_CLIENT_SECRET\"", "")
    });
    let path = config.to_str().unwrap();
    let on = |pin: &[&str], command: &str| {
        world.run([&["--config", path, "--token", "kv1"], pin, &[command]].concat())
    };
    let ran = on(&["--pin", "env:AZURE_CLIENT_SECRET"], "doctor");
    assert_eq!(ran.code, 0);
    assert!(ran.words().contains("access-token ok login got one"), "{ran:?}");
    world.write("pin", format!("{}\n", crate::support::SECRET));
    assert!(on(&["--pin", "file:pin"], "keys").ok().contains("rsa"));
    // Never asked for where nobody can answer, and never taken from the arguments.
    assert!(on(&[], "keys").refused(2).contains("--pin env:NAME or --pin file:PATH"));
    let sentence = on(&["--pin", "hunter2"], "keys").refused(2);
    assert!(sentence.contains("env:NAME") && !sentence.contains("hunter2"), "{sentence}");
    let ran = on(&["--pin", "env:LIMITED"], "doctor");
    assert!(ran.words().contains("access-token FAILED"), "{ran:?}");
}

/// The configuration with another endpoint for each token.
fn endpoint(text: &str, line: &str) -> String {
    let lines = text.lines().map(|each| match each.starts_with("endpoint") {
        true => line,
        false => each,
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    // Two tokens at one place are told apart by their labels.
    format!("{text}\n")
}

fn other_ca() -> Vec<u8> {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = openssl::x509::X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "Another CA").unwrap();
    let name = name.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    builder.set_subject_name(&name).unwrap();
    builder.set_issuer_name(&name).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    let ca = openssl::x509::extension::BasicConstraints::new().ca().critical().build().unwrap();
    builder.append_extension(ca).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    builder.build().to_pem().unwrap()
}
