//! `key list`, `show` and `generate`, `uri` and `mechanisms`.

use openssl::pkey::PKey;

use crate::support::{SEED, World};

#[test]
fn keys_are_listed() {
    let seed = format!("{SEED}\n[[keys]]\nname = \"aes\"\nkty = \"oct\"\nsize = 256\n");
    let world = World::with("", &seed);
    world.on("kv1", "keys").golden(&world, "keys");
    world.on("hsm1", "key list").golden(&world, "keys-hsm");
    let json = world.on("kv1", "keys --json").json();
    let names: Vec<_> = json.as_array().unwrap().iter().map(|key| key["name"].clone()).collect();
    assert_eq!(names, ["ec", "rsa"]);
    assert_eq!(json[0]["id"].as_str().map(str::len), Some(40), "{json}");
    assert_eq!(json[1]["size"], 2048);

    // Only what the configuration names, one of which does not exist.
    let config =
        world.config(|text| text.replace("label = ", "keys = [\"rsa\", \"gone\"]\nlabel = "));
    let listed = world.run(["--config", config.to_str().unwrap(), "--token", "kv1", "keys"]);
    let listed = listed.ok();
    assert!(listed.contains("rsa ") && !listed.contains("ec "), "{listed}");
    assert!(listed.contains("get key gone: there is no such object"), "{listed}");
}

#[test]
fn one_key_is_shown_with_its_versions() {
    let world = World::new();
    world.on("kv1", "key show rsa").golden(&world, "key-show");
    let first = world.on("kv1", "key show rsa --json").json()["version"].clone();
    world.on("kv1", "key generate rsa --size 3072 --new-version").ok();
    let shown = world.on("kv1", "key show rsa --json").json();
    assert_eq!(
        (&shown["size"], shown["versions"].as_array().map(Vec::len)),
        (&3072.into(), Some(2))
    );
    let first = first.as_str().unwrap();
    for spelled in [format!("rsa/{first}"), format!("rsa@{first}")] {
        let older = world.run(["--token", "kv1", "--json", "key", "show", &spelled]).json();
        assert_eq!((&older["size"], &older["version"]), (&2048.into(), &first.into()));
    }

    let pem = world.on("kv1", "key show ec --pem").ok();
    let public = PKey::public_key_from_pem(pem.as_bytes()).expect("a public key");
    assert_eq!(public.bits(), 256);
    let sentence = world.on("kv1", "key show missing").refused(1);
    assert!(sentence.starts_with("get key missing: there is no such object"), "{sentence}");
}

#[test]
fn keys_are_generated() {
    let world = World::new();
    for (token, arguments, kind, size, curve) in [
        ("kv1", "--type rsa --size 3072", "RSA", Some(3072), None),
        ("kv1", "--type ec", "EC", None, Some("P-256")),
        ("kv1", "--type ec --curve P-256K --hsm", "EC-HSM", None, Some("P-256K")),
        ("hsm1", "--type ec --curve P-521", "EC-HSM", None, Some("P-521")),
        ("hsm1", "--type rsa", "RSA-HSM", Some(2048), None),
        ("hsm1", "--type aes --size 128", "oct-HSM", None, None),
    ] {
        let label = arguments.replace([' ', '-'], "");
        let made = world.on(token, &format!("--json key generate {label} {arguments}")).json();
        assert_eq!(made["type"], kind, "{made}");
        assert_eq!(made["size"].as_u64(), size, "{made}");
        assert_eq!(made["curve"].as_str(), curve, "{made}");
    }
}

#[test]
fn what_the_command_line_says_of_a_key_is_kept() {
    let world = World::new();
    let made = world.run([
        "--token",
        "kv1",
        "key",
        "generate",
        "Web server; 1/2",
        "--type",
        "ec",
        "--ops",
        "sign,verify",
        "--not-before",
        "2026-01-02",
        "--expires",
        "2040-06-30T12:00:00Z",
        "--disabled",
        "--tag",
        "owner=web",
        "--tag",
        "a=b=c",
        "--id",
        "0aFF",
    ]);
    made.golden(&world, "key-generate");
    // The label is a label for programs as well as for this tool.
    let shown = world.run(["--token", "kv1", "--json", "key", "show", "Web server; 1/2"]).json();
    assert_eq!(shown["label"], "Web server; 1/2");
    assert_eq!(shown["uri"], "pkcs11:token=kv1;object=Web%20server%3B%201%2F2;type=private");
    assert_eq!(shown["enabled"], false);
}

#[test]
fn a_key_that_cannot_be_made_is_refused_before_anything_is_asked() {
    let world = World::new();
    for arguments in [
        "key generate k --size 1024",
        "key generate k --type ec --size 256",
        "key generate k --type rsa --curve P-256",
        "key generate k --type aes --size 512",
        "key generate k --ops everything",
        "key generate k --expires tomorrow",
        "key generate k --tag novalue",
        "key generate k --id xyz",
        "key generate k --hsm --software",
        "key generate",
        "key import k",
        "key melt k",
        "",
    ] {
        let ran = world.on("kv1", arguments);
        assert_eq!(ran.code, 2, "{arguments}: {ran:?}");
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{ran:?}");
    }
    assert_eq!(world.counter("vault:kv1", "requests"), 0);

    let sentence = world.on("kv1", "key generate RSA").refused(1);
    assert!(sentence.contains("has a key named 'RSA'"), "names differ by case alone: {sentence}");
    assert!(sentence.contains("--new-version"), "{sentence}");
    assert_eq!(world.counter("vault:kv1", "keys/create"), 0);
    let sentence = world.on("kv1", "key generate k --type aes").refused(1);
    assert!(sentence.starts_with("create key k: "), "a vault has no secret keys: {sentence}");
}

#[test]
fn a_token_must_be_chosen_where_there_are_several() {
    let world = World::new();
    for command in ["keys", "uri", "mechanisms"] {
        let sentence = world.run([command]).refused(2);
        assert!(sentence.contains("choose one of 'kv1', 'hsm1' with --token"), "{sentence}");
    }
    let sentence = world.on("kv2", "keys").refused(2);
    assert!(sentence.contains("no token 'kv2'; its tokens are 'kv1', 'hsm1'"), "{sentence}");
    assert_eq!(world.counter("vault:kv1", "requests"), 0);
}

#[test]
fn the_uri_and_its_lines() {
    let world = World::new();
    world.on("kv1", "uri ec").golden(&world, "uri-key");
    world.on("hsm1", "uri").golden(&world, "uri-token");
    assert_eq!(world.on("kv1", "uri --quiet").ok(), "pkcs11:token=kv1\n");
    assert_eq!(world.counter("managed-hsm:hsm1", "requests"), 0, "a token's URI asks nothing");
    assert!(world.on("kv1", "uri missing").refused(1).contains("no such object"));
    assert!(world.on("kv1", "uri --module nowhere.so").refused(1).contains("is no file"));
}

#[test]
fn mechanisms_are_those_the_token_offers() {
    let world = World::new();
    let all = world.run(["mechanisms", "--all"]).ok();
    let vault = world.on("kv1", "mechanisms --json").json();
    let uses = |mechanisms: &serde_json::Value, name: &str| {
        let rows = mechanisms.as_array().unwrap().iter();
        rows.clone().find(|row| row["mechanism"] == name).map(|row| row["uses"].to_string())
    };
    assert!(all.contains("CKM_SHA256_RSA_PKCS "), "{all}");
    let sha1 = uses(&vault, "CKM_SHA1_RSA_PKCS").expect("offered");
    assert!(sha1.contains("sign"), "{sha1}");
    let hsm = world.on("hsm1", "mechanisms --json").json();
    assert!(uses(&hsm, "CKM_AES_KEY_GEN").is_some_and(|uses| uses.contains("generate")));
    assert_eq!(uses(&vault, "CKM_AES_KEY_GEN"), None, "a vault has no AES keys");
    assert_eq!(world.counter("vault:kv1", "requests"), 0);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let world = World::new();
    let mut child = world.command().args(["mechanisms", "--all"]).spawn().expect("the tool");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
