//! docs/configuration.md: its tables are made of ours, its examples are read.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use super::{
    Env, Service,
    cloud::CLOUDS,
    keys::{Absent, CREDENTIALS, Key, Kind, LOG, REPLICA, ROOT, TOKEN},
    tests::Folder,
};
use crate::documents;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");

#[test]
fn the_tables_are_those_of_the_source() {
    documents::hold("configuration.md", &tables());
}

#[test]
fn every_example_is_a_good_configuration() {
    let text = std::fs::read_to_string(FILE).expect("docs/configuration.md");
    let folder = Folder::new();
    let mut read = 0;
    for block in blocks(&text, "toml") {
        folder.load(block, &environment("")).unwrap_or_else(|error| panic!("{error}\n{block}"));
        read += 1;
    }
    for block in blocks(&text, "sh").filter(|block| block.contains("AKV_PKCS11_ENDPOINT")) {
        let env = environment(block);
        super::load_from(None, &env, false, Path::new("/none"))
            .unwrap_or_else(|error| panic!("{error}\n{block}"));
        read += 1;
    }
    assert!(read >= 3, "{read} examples");
}

/// Fenced blocks of one language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let fence = format!("```{language}\n");
    let starts: Vec<_> = text.match_indices(&fence).map(|(at, _)| at + fence.len()).collect();
    starts.into_iter().map(|start| text[start..].split("```").next().unwrap_or_default())
}

/// The `export NAME=value` lines of a shell example, and what a pod's environment has.
fn environment(block: &str) -> Env {
    let mut map = BTreeMap::from([("HSM_SECRET".to_owned(), "a secret".to_owned())]);
    for line in block.lines() {
        if let Some((name, value)) = line.strip_prefix("export ").and_then(|l| l.split_once('=')) {
            map.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
    }
    Env::Map(map)
}

fn tables() -> String {
    let mut text = String::new();
    section(&mut text, "## Top level", "Before the first `[[token]]`.", ROOT);
    section(&mut text, "## `[[token]]`", "One per vault or Managed HSM.", TOKEN);
    let meaning = "Another endpoint with the same keys ([Failover](#failover)).";
    section(&mut text, "## `[[token.replica]]`", meaning, REPLICA);
    text.push_str("\n## `credential`\n\n");
    text.push_str("A type as a string (`credential = \"azure-cli\"`) or a table ");
    text.push_str("(`credential = { type = \"client-secret\", … }`). A key that is not given is ");
    text.push_str("looked up in the variable its default names.\n");
    for kind in CREDENTIALS {
        section(&mut text, &format!("### `{}`", kind.name), kind.meaning, kind.keys);
    }
    section(&mut text, "## `[log]`", "`AKV_PKCS11_LOG=LEVEL` or `LEVEL,SINK` overrides it.", LOG);
    text.push_str(
        "\n## Suffixes\n\n| endpoint | `service` | `authority` | `scope` |\n|---|---|---|---|\n",
    );
    for cloud in CLOUDS {
        let service = match cloud.service {
            Service::Vault => "vault",
            Service::ManagedHsm => "managed-hsm",
        };
        let (suffix, authority, scope) = (cloud.suffix, cloud.authority, cloud.scope);
        writeln!(text, "| `*{suffix}` | `{service}` | `{authority}` | `{scope}` |")
            .expect("String");
    }
    text
}

fn section(text: &mut String, title: &str, meaning: &str, keys: &[Key]) {
    write!(text, "\n{title}\n\n{meaning}\n").expect("String");
    if keys.is_empty() {
        return;
    }
    text.push_str("\n| key | value | default | meaning | example |\n|---|---|---|---|---|\n");
    for key in keys {
        let default = match key.absent {
            Absent::Required => "required".to_owned(),
            Absent::Is(literal) => format!("`{literal}`"),
            Absent::Means(words) => words.to_owned(),
            Absent::Env(name) => format!("`{name}`; required"),
            Absent::EnvIfSet(name) => format!("`{name}` if set"),
            Absent::EnvFile(name) => format!("the file `{name}` names; required"),
        };
        let (name, kind) = (key.name, describe(&key.kind));
        let row = format!("{kind} | {default} | {} | `{}`", key.meaning, key.example);
        writeln!(text, "| `{name}` | {row} |").expect("String");
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::OneOf(choices) => {
            choices.iter().map(|choice| format!("`\"{choice}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Duration(least, most) => {
            let [least, most] = [*least, *most]
                .map(|ms| humantime::format_duration(std::time::Duration::from_millis(ms)));
            format!("duration, {least} to {most}")
        }
        Kind::Integer(least, most) => format!("integer, {least} to {most}"),
        Kind::Flag => "boolean".to_owned(),
        Kind::Text(_) => "string".to_owned(),
        Kind::Path => "path".to_owned(),
        Kind::Secret => "`env:NAME`, `file:PATH` or the secret".to_owned(),
        Kind::Texts(_) => "array of strings".to_owned(),
        Kind::Paths => "array of paths".to_owned(),
        Kind::Strings => "table of strings".to_owned(),
        Kind::Credential => "type or table".to_owned(),
        Kind::Table(_) => "table".to_owned(),
        Kind::Tables(_) => "array of tables".to_owned(),
    }
}

#[test]
fn keys_are_unique() {
    for keys in
        [ROOT, TOKEN, REPLICA, LOG].into_iter().chain(CREDENTIALS.iter().map(|kind| kind.keys))
    {
        let mut names: Vec<_> = keys.iter().map(|key| key.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), keys.len());
    }
}
