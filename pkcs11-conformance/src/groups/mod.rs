//! The cases, by group.

mod attributes;
mod find;
mod info;
mod initialize;
mod interfaces;
mod precedence;
mod sessions;

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
];

/// The group of this name.
pub fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}
