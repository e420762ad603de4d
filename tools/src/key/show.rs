//! `key show`: one key, with its versions.

use akv_pkcs11::{
    crypto::PublicKey,
    object::{
        Material,
        project::{self, Standing},
    },
    slot::Slot,
};
use akv_wire::KeyBundle;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Serialize;

use super::view::{self, KeyView, yes};
use crate::{
    failure::Failure,
    output::{Output, pairs, table},
    target::Wanted,
};

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    key: KeyView,
    /// None where they may not be listed.
    versions: Option<Vec<VersionView>>,
}

#[derive(Serialize)]
struct VersionView {
    version: String,
    enabled: bool,
    created: Option<String>,
    expires: Option<String>,
}

/// Shows a key, or with `pem` its public key alone.
pub fn run(slot: &Slot, wanted: &Wanted, pem: bool, output: &mut Output) -> Result<(), Failure> {
    let bundle = slot.vault.key(wanted.key())?;
    if pem {
        output.raw(public_pem(&bundle, slot)?.as_bytes());
        return Ok(());
    }
    let shown = Shown { key: KeyView::new(&bundle, &slot.token), versions: versions(slot, wanted) };
    output.show(&shown, |shown| {
        let mut text = pairs(shown.key.pairs());
        if let Some(versions) = &shown.versions {
            let dash = |time: &Option<String>| time.clone().unwrap_or_else(|| "-".to_owned());
            text.push('\n');
            text += &table(
                ["VERSION", "ENABLED", "CREATED", "EXPIRES"],
                versions.iter().map(|each| {
                    let (created, expires) = (dash(&each.created), dash(&each.expires));
                    [each.version.clone(), yes(each.enabled).to_owned(), created, expires]
                }),
            );
        }
        text
    })
}

/// Newest first. Without the permission to list there are none to show, and the key still is.
fn versions(slot: &Slot, wanted: &Wanted) -> Option<Vec<VersionView>> {
    let mut items = slot.vault.key_versions(&wanted.name, slot.vault.find_deadline()).ok()?;
    items.sort_by(|a, b| {
        let key = |item: &akv_wire::KeyItem| std::cmp::Reverse(item.attributes.created);
        key(a).cmp(&key(b)).then_with(|| a.kid.cmp(&b.kid))
    });
    let view = |item: &akv_wire::KeyItem| {
        let (_, version) = item.name_and_version()?;
        Some(VersionView {
            version: version.to_owned(),
            enabled: item.attributes.enabled.unwrap_or(true),
            created: view::time(item.attributes.created),
            expires: view::time(item.attributes.exp),
        })
    };
    Some(items.iter().filter_map(view).collect())
}

fn public_pem(bundle: &KeyBundle, slot: &Slot) -> Result<String, Failure> {
    let Some(public) = public_key(bundle, slot)? else {
        return Err(Failure::new(format!(
            "'{}' is a secret key: it has no public half",
            bundle.key.name_and_version().unwrap_or_default().0
        )));
    };
    let text = BASE64_STANDARD.encode(public.spki_der());
    let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem.push_str("-----END PUBLIC KEY-----\n");
    Ok(pem)
}

/// The public half of a key; None for a secret one.
pub fn public_key(bundle: &KeyBundle, slot: &Slot) -> Result<Option<PublicKey>, Failure> {
    let objects = project::objects(bundle, &slot.token, Standing::Meant)?;
    Ok(objects.iter().find_map(|object| match &object.material {
        Material::Public(public) => Some(public.clone()),
        _ => None,
    }))
}
