//! The cases, by group.

mod attributes;
mod buffers;
mod ciphers;
mod concurrency;
mod digests;
mod encryption;
mod find;
mod imports;
mod info;
mod initialize;
mod interfaces;
mod mechanisms;
mod messages;
mod objects;
mod precedence;
mod profile_script;
mod profiles;
mod protocol;
mod random;
mod sessions;
mod signatures;
mod states;
mod templates;
mod vectors;
mod wrapping;

use crate::case::Group;

/// All groups, in the order they are tried.
pub const GROUPS: &[Group] = &[
    interfaces::GROUP,
    initialize::GROUP,
    precedence::GROUP,
    info::GROUP,
    sessions::GROUP,
    find::GROUP,
    attributes::GROUP,
    random::GROUP,
    buffers::GROUP,
    states::GROUP,
    mechanisms::GROUP,
    digests::GROUP,
    signatures::GROUP,
    encryption::GROUP,
    ciphers::GROUP,
    messages::GROUP,
    wrapping::GROUP,
    objects::GROUP,
    vectors::GROUP,
    templates::GROUP,
    concurrency::GROUP,
    profiles::GROUP,
];

/// The names of the profiles, as `--profile` takes them.
pub fn profile_names() -> impl Iterator<Item = &'static str> {
    profiles::PROFILES.iter().map(|profile| profile.name)
}

/// The group of this name.
pub fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}
