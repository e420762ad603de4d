//! Making a key at the service, by create or by import: its name, our tag on it, what is done
//! about a name that exists or is deleted, and about an answer that was lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use akv_wire::{KeyAttributes, KeyBundle, KeyUpdateParameters, Tags};
use cryptoki_sys::*;

use super::find;
use crate::{
    config::OnDeletedName,
    crypto,
    error::{Error, Result},
    hex,
    object::{
        naming::name_of_label,
        tag::{TAG, Tag},
        template::{Template, inconsistent},
    },
    slot::Slot,
    vault::{KeyRef, Vault, is_conflict, is_lost_answer, is_not_found},
};

/// Tags a key of the service can have.
pub const MAX_TAGS: usize = 15;
/// How often a name that is being deleted is looked at again.
const DELETION_POLL: Duration = Duration::from_millis(500);
/// The resolution of the service's times.
const A_SECOND: Duration = Duration::from_secs(1);
/// Bytes of the mark that tells our own create from a stranger's.
const MARK: usize = 8;

/// The usages of a key and the service's key_ops for them.
pub type Usages = &'static [(CK_ATTRIBUTE_TYPE, &'static str)];

/// What a private key does.
pub const PRIVATE_RSA: Usages =
    &[(CKA_SIGN, "sign"), (CKA_DECRYPT, "decrypt"), (CKA_UNWRAP, "unwrapKey")];
/// What a public key does.
pub const PUBLIC_RSA: Usages =
    &[(CKA_VERIFY, "verify"), (CKA_ENCRYPT, "encrypt"), (CKA_WRAP, "wrapKey")];
/// What a private EC key does.
pub const PRIVATE_EC: Usages = &[(CKA_SIGN, "sign")];
/// What a public EC key does.
pub const PUBLIC_EC: Usages = &[(CKA_VERIFY, "verify")];
/// What a secret key does.
pub const SECRET: Usages = &[
    (CKA_SIGN, "sign"),
    (CKA_VERIFY, "verify"),
    (CKA_ENCRYPT, "encrypt"),
    (CKA_DECRYPT, "decrypt"),
    (CKA_WRAP, "wrapKey"),
    (CKA_UNWRAP, "unwrapKey"),
];

/// The key_ops that a template allows.
pub fn operations(template: &Template, usages: Usages) -> impl Iterator<Item = String> {
    let all: Vec<CK_ATTRIBUTE_TYPE> = usages.iter().map(|(usage, _)| *usage).collect();
    let allowed: Vec<CK_ATTRIBUTE_TYPE> = template.usages(&all).collect();
    usages
        .iter()
        .filter(move |(usage, _)| allowed.contains(usage))
        .map(|(_, operation)| (*operation).to_owned())
}

/// A key about to be made at the service.
pub struct Making<'a> {
    slot: &'a Slot,
    name: String,
    tag: Tag,
    deadline: Instant,
}

impl<'a> Making<'a> {
    /// A key with the label and id that a client wants; without label it gets a random name.
    /// Nothing is asked of the service yet.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID for a label and id that do not fit our tag together,
    /// CKR_TEMPLATE_INCONSISTENT where the configuration leaves no room for the tag.
    pub fn new(slot: &'a Slot, label: Option<&str>, id: Option<&[u8]>) -> Result<Making<'a>> {
        let name = match label {
            Some(label) => name_of_label(label),
            None => format!("p11-{}", hex::encode(&random::<16>()?)),
        };
        let tag = Tag {
            label: label.filter(|label| *label != name).map(str::to_owned),
            id: id.map(<[u8]>::to_vec),
            size: None,
            request: Some(random::<MARK>()?.to_vec()),
            lost: false,
        };
        let making = Making { slot, name, tag, deadline: slot.vault.find_deadline() };
        making.tags()?;
        Ok(making)
    }

    /// The same with the size of a secret key in its tag: the service does not tell it before
    /// api-version 2025-07-01.
    #[must_use]
    pub fn sized(self, bits: u32) -> Making<'a> {
        Making { tag: Tag { size: Some(bits), ..self.tag }, ..self }
    }

    /// The key's name at the service.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tags of the key: those of the configuration, and ours.
    ///
    /// # Errors
    /// As [`Making::new`].
    pub fn tags(&self) -> Result<Tags> {
        let mut tags: Tags = self.slot.token.tags.iter().cloned().collect();
        let tag = self.tag.to_value().ok_or_else(|| {
            Error::new(
                CKR_ATTRIBUTE_VALUE_INVALID,
                "CKA_LABEL and CKA_ID together are longer than the 256 characters of a tag",
            )
        })?;
        tags.insert(TAG.to_owned(), tag);
        if tags.len() > MAX_TAGS {
            return Err(inconsistent(format!("{} tags, a key has {MAX_TAGS}", tags.len())));
        }
        Ok(tags)
    }

    /// Sends `request`, which makes the key, and shows it. A name that exists is refused before
    /// (one look); the request is never repeated after a lost answer: a look tells whether the
    /// key was made, by the mark in our tag; a name in the deleted state is treated as the
    /// configuration says. Gives back the handles of its objects.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT for a name that exists; docs/errors.md.
    pub fn send(
        self,
        request: impl Fn(&Vault, &str) -> Result<KeyBundle>,
    ) -> Result<Vec<CK_OBJECT_HANDLE>> {
        self.refuse_existing()?;
        let bundle = self.make(request)?;
        self.slot.store.outdate(&self.name);
        if !self.slot.token.generate_new_version {
            self.settle_race(&bundle)?;
        }
        Ok(find::show_changed(self.slot, &self.name, &bundle, self.deadline))
    }

    fn refuse_existing(&self) -> Result<()> {
        match self.slot.note(self.slot.vault.key(KeyRef::current(&self.name))) {
            Ok(_) if self.slot.token.generate_new_version => Ok(()),
            Ok(_) => Err(self.exists("")),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn exists(&self, since: &str) -> Error {
        inconsistent(format!(
            "token '{}' has a key named '{}'{since}; another version of it is made only with \
             generate_on_existing = \"new-version\"",
            self.slot.token.label, self.name
        ))
    }

    fn make(&self, request: impl Fn(&Vault, &str) -> Result<KeyBundle>) -> Result<KeyBundle> {
        let (slot, name) = (self.slot, self.name.as_str());
        let wait_again = || Instant::now() + DELETION_POLL < self.deadline;
        let mut cleared = false;
        loop {
            let error = match slot.note(request(&slot.vault, name)) {
                Ok(bundle) => return Ok(bundle),
                Err(error) => error,
            };
            if is_lost_answer(&error) {
                return self.made_by_us(error);
            }
            if !is_conflict(&error) {
                return Err(error);
            }
            let being_deleted =
                error.remote().is_some_and(|remote| remote.code == "ObjectIsBeingDeleted");
            match slot.token.on_deleted_name {
                // A vault frees a name some seconds after it said so.
                _ if (being_deleted || cleared) && wait_again() => thread::sleep(DELETION_POLL),
                OnDeletedName::Recover if !cleared => {
                    slot.note(slot.vault.recover_key(name))?;
                    if !slot.token.generate_new_version {
                        slot.store.outdate(name);
                        return Err(self.exists(", recovered just now"));
                    }
                    cleared = true;
                }
                OnDeletedName::Purge if !cleared => {
                    slot.note(slot.vault.purge_key(name))?;
                    cleared = true;
                }
                OnDeletedName::Refuse | OnDeletedName::Recover | OnDeletedName::Purge => {
                    return Err(error);
                }
            }
        }
    }

    /// The service has no "create if absent": two processes that both found the name free make two
    /// versions. The older one is the key; of two made in one second the one with the smaller
    /// version. The loser disables its own, marks it as lost, and says so. Versions tell their time
    /// in whole seconds, so that a look counts only when that second has passed.
    fn settle_race(&self, made: &KeyBundle) -> Result<()> {
        let Some((_, ours)) = made.key.name_and_version() else { return Ok(()) };
        thread::sleep(A_SECOND);
        let rank = |created: Option<i64>, version: &str| (created, version.to_owned());
        let our_rank = rank(made.attributes.created, ours);
        let versions = match self.slot.vault.key_versions(&self.name, self.deadline) {
            Ok(versions) => versions,
            Err(error) => {
                log::info!("whether another made key '{}' too cannot be told: {error}", self.name);
                return Ok(());
            }
        };
        let earlier = versions.iter().any(|item| {
            item.name_and_version().is_some_and(|(_, version)| {
                version != ours && rank(item.attributes.created, version) < our_rank
            })
        });
        if !earlier {
            return Ok(());
        }
        let mut tags = made.tags.clone().unwrap_or_default();
        let lost = Tag { lost: true, ..self.tag.clone() };
        tags.extend(lost.to_value().map(|value| (TAG.to_owned(), value)));
        let parameters = KeyUpdateParameters {
            attributes: Some(KeyAttributes { enabled: Some(false), ..KeyAttributes::default() }),
            tags: Some(tags),
            ..KeyUpdateParameters::default()
        };
        let disabled =
            self.slot.vault.update_key(KeyRef::version(&self.name, ours), &parameters).map(drop);
        Err(inconsistent(match disabled {
            Ok(()) => format!(
                "another process made key '{}' at the same time and came first; the version made \
                 here, {ours}, is disabled",
                self.name
            ),
            Err(error) => format!(
                "another process made key '{}' at the same time and came first; the version made \
                 here, {ours}, should be disabled by hand ({error})",
                self.name
            ),
        }))
    }

    fn made_by_us(&self, lost: Error) -> Result<KeyBundle> {
        let mark = |bundle: &KeyBundle| {
            let value = bundle.tags.as_ref().and_then(|tags| tags.get(TAG))?;
            Tag::parse(value).request
        };
        match self.slot.vault.key(KeyRef::current(&self.name)) {
            Ok(bundle) if mark(&bundle) == self.tag.request => Ok(bundle),
            Ok(_) => Err(lost),
            Err(error) if is_not_found(&error) => Err(lost),
            Err(error) => Err(Error::new(
                CKR_DEVICE_ERROR,
                format!(
                    "whether key '{}' was made cannot be told ({lost}; {error}): look at it \
                     before trying again",
                    self.name
                ),
            )),
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    crypto::random(&mut bytes)?;
    Ok(bytes)
}
