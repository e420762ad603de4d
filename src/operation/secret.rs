//! Secrets of a vault: which there are, found by searches, and their values, asked for when they
//! are read.

use std::time::{Duration, Instant};

use cryptoki_sys::*;
use zeroize::Zeroizing;

use super::flight::Known;
use crate::{
    config::Secrets,
    error::{Error, Result},
    object::{data, store::Wanted},
    slot::Slot,
    vault::{KeyRef, is_forbidden, is_not_found},
};

/// A client asks for a length and then for the value: the second call takes what the first one
/// fetched, if it comes within this time.
const KEPT_FOR: Duration = Duration::from_secs(5);

/// The value whose length a session asked for last. Wiped when it is taken, replaced or dropped.
#[derive(Debug, Default)]
pub struct Kept(Option<Fetched>);

struct Fetched {
    object: CK_OBJECT_HANDLE,
    value: Zeroizing<Vec<u8>>,
    at: Instant,
}

impl Kept {
    /// Takes the value of an object out, if it was put here just now; whatever else is here is
    /// wiped.
    pub fn take(&mut self, object: CK_OBJECT_HANDLE) -> Option<Zeroizing<Vec<u8>>> {
        let fetched = self.0.take()?;
        (fetched.object == object && fetched.at.elapsed() < KEPT_FOR).then_some(fetched.value)
    }

    /// Puts a value here, for the call that comes for it.
    pub fn put(&mut self, object: CK_OBJECT_HANDLE, value: Zeroizing<Vec<u8>>) {
        self.0 = Some(Fetched { object, value, at: Instant::now() });
    }
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fetched").field("object", &self.object).finish_non_exhaustive()
    }
}

/// Whether a search can find secrets, and whether it can find nothing else.
pub fn sought(slot: &Slot, wanted: &Wanted) -> (bool, bool) {
    let value = |kind| wanted.iter().find(|(k, _)| *k == kind).map(|(_, v)| v.as_slice());
    let only = value(CKA_CLASS).map(|class| class == CKO_DATA.to_ne_bytes());
    let possible = slot.token.secrets != Secrets::None
        && value(CKA_TOKEN) != Some(&[CK_FALSE])
        && value(CKA_ID).is_none();
    (possible && only != Some(false), only == Some(true))
}

/// Makes sure that the secrets to be shown are known: from a listing, which tells no values. Where
/// that is forbidden, the ones that the configuration names are looked at one by one.
///
/// # Errors
/// Why the service could not be asked.
pub fn learn(slot: &Slot) -> Result<()> {
    let known = || Known::of(slot.store.secrets_are_listed(slot.ttl()), slot.store.has_secrets());
    if known() == Known::Fresh || !slot.vault_can_be_asked() {
        return Ok(());
    }
    let deadline = slot.vault.find_deadline();
    slot.flights
        .share("all secrets", deadline, known, || slot.learnt("all secrets", fetch(slot, deadline)))
}

fn fetch(slot: &Slot, deadline: Instant) -> Result<()> {
    let names = match (slot.vault.secrets(deadline), &slot.token.secrets) {
        (Ok(items), shown) => {
            let is_shown = |name: &str| match shown {
                Secrets::All => true,
                Secrets::Named(names) => names.iter().any(|one| one.eq_ignore_ascii_case(name)),
                Secrets::None => false,
            };
            let names = items.iter().filter(|item| item.managed != Some(true));
            let names = names.filter_map(|item| name_of(&item.id)).filter(|name| is_shown(name));
            names.map(str::to_owned).collect()
        }
        (Err(error), Secrets::Named(names)) if is_forbidden(&error) => one_by_one(slot, names)?,
        (Err(error), _) => return Err(error),
    };
    let objects = names.iter().map(|name: &String| data::object(name, &slot.token)).collect();
    slot.store.put_secrets(objects);
    Ok(())
}

/// The names among `names` that secrets have which stand for themselves.
fn one_by_one(slot: &Slot, names: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in names {
        match slot.vault.secret(KeyRef::current(name)) {
            Ok(bundle) if bundle.managed == Some(true) || bundle.kid.is_some() => {}
            Ok(bundle) => {
                found.extend(bundle.id.as_deref().and_then(name_of).map(str::to_owned));
            }
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The name in `https://{host}/secrets/{name}[/{version}]`.
fn name_of(id: &str) -> Option<&str> {
    id.split_once("/secrets/")?.1.split('/').next().filter(|name| !name.is_empty())
}

/// The value of the secret with this name: UTF-8, as its owner stored it.
///
/// # Errors
/// CKR_ATTRIBUTE_SENSITIVE for the secret of a certificate, which may hold a private key;
/// docs/errors.md.
pub fn value(slot: &Slot, name: &str) -> Result<Zeroizing<Vec<u8>>> {
    let mut bundle = slot.note(slot.vault.secret(KeyRef::current(name)))?;
    if bundle.managed == Some(true) || bundle.kid.is_some() {
        return Err(Error::new(
            CKR_ATTRIBUTE_SENSITIVE,
            format!("secret '{name}' is that of a certificate: it is not given out"),
        ));
    }
    Ok(Zeroizing::new(bundle.value.take().unwrap_or_default().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_value_is_for_the_next_call_about_it() {
        let mut kept = Kept::default();
        let value = || Zeroizing::new(b"secret".to_vec());
        kept.put(1, value());
        assert_eq!(kept.take(2), None);
        assert_eq!(kept.take(1), None, "a call about another object wiped it");
        kept.put(1, value());
        assert_eq!(kept.take(1), Some(value()));
        assert_eq!(kept.take(1), None, "taken once");
        kept.put(1, value());
        assert!(!format!("{kept:?}").contains("secret"));
    }

    #[test]
    fn names_are_taken_from_identifiers() {
        assert_eq!(name_of("https://h/secrets/a-1"), Some("a-1"));
        assert_eq!(name_of("https://h/secrets/a/0123"), Some("a"));
        assert_eq!(name_of("https://h/secrets/"), None);
        assert_eq!(name_of("https://h/keys/a"), None);
    }
}
