//! No key is read and forgotten, no example is a bad one.

use super::{Folder, TOKEN_LINE, env};
use crate::config::{
    Env,
    keys::{Absent, CREDENTIALS, Key, Kind, LOG, REPLICA, ROOT, TOKEN},
};

/// Each key changes something when it is given, nothing when it is given its default, and its
/// example is a good one: no key is read and forgotten.
#[test]
fn every_key_has_an_effect() {
    let folder = Folder::new();
    let base = "[[token]]\nendpoint = \"https://base.vault.azure.net\"\n";
    let foreign = "[[token]]\nendpoint = \"https://kv.corp.example\"\n\
                   authority = \"https://a.example\"\nscope = \"https://s.example/.default\"\n";
    let env = env([("AZURE_CLIENT_ID", "app"), ("AZURE_CLIENT_SECRET", "s3cr3t")]);
    let read = |text: &str| format!("{:?}", folder.load(text, &env));
    let mut checked = 0;
    let mut check = |key: &Key, before: &str, after: &str| {
        let with = |literal: &str| read(&format!("{before}{} = {literal}{after}", key.name));
        let without = read(&format!("{before}{after}"));
        let given = with(key.example);
        assert!(given.starts_with("Ok"), "{}: {given}", key.name);
        assert_ne!(given, without, "{} has no effect", key.name);
        if let Absent::Is(literal) = key.absent {
            assert_eq!(with(literal), without, "{}: default", key.name);
        }
        checked += 1;
    };
    for key in TOKEN {
        match key.name {
            "endpoint" => check(key, "[[token]]\n", "\n"),
            "service" => check(key, foreign, "\n"),
            "pin_hash" => check(key, &format!("{base}login = \"pin\"\n"), "\n"),
            _ => check(key, base, "\n"),
        }
    }
    for key in LOG {
        check(key, "[log]\n", &format!("\n{base}"));
    }
    for key in ROOT.iter().filter(|key| !matches!(key.kind, Kind::Table(_) | Kind::Tables(_))) {
        check(key, "", &format!("\n{base}"));
    }
    let replica = format!("{base}[[token.replica]]\n");
    for key in REPLICA {
        match key.name {
            "endpoint" => check(key, &replica, "\n"),
            _ => check(key, &format!("{replica}endpoint = \"https://b.vault.azure.net\"\n"), "\n"),
        }
    }
    assert_eq!(checked, TOKEN.len() + LOG.len() + 1 + REPLICA.len());
}

#[test]
fn examples_of_each_credential_make_one() {
    let folder = Folder::new();
    for kind in CREDENTIALS {
        // Keys of which only one may be given are tried one by one.
        let sets: Vec<Vec<&Key>> = match kind.name {
            "managed-identity" => kind.keys.iter().map(|key| vec![key]).collect(),
            _ => vec![kind.keys.iter().collect()],
        };
        for keys in sets {
            let keys: Vec<_> =
                keys.iter().map(|key| format!(", {} = {}", key.name, key.example)).collect();
            let login = if kind.name == "login" { "login = \"client-secret\"\n" } else { "" };
            let text = format!(
                "{TOKEN_LINE}{login}credential = {{ type = {:?}{} }}\n",
                kind.name,
                keys.concat()
            );
            let config = folder.load(&text, &Env::empty()).expect(&text);
            let tenant = config.tokens[0].tenant.as_deref();
            assert_eq!(tenant.is_some(), text.contains("tenant = "), "{text}");
        }
    }
}
