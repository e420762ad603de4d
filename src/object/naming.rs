//! Labels of PKCS#11 and names of the service.

use crate::{config::name_is_legal, crypto::Hash, hex};

/// Letters of a slug before its hash, so that the name stays readable in lists.
const MAX_SLUG: usize = 100;

/// The name a label has at the service: itself if it is legal there, else a slug of it and eight
/// hex digits of its SHA-256 (the label itself is then kept in our tag).
pub fn name_of_label(label: &str) -> String {
    if name_is_legal(label) {
        return label.to_owned();
    }
    let mut slug = String::new();
    for c in label.chars().take(MAX_SLUG) {
        match c {
            c if c.is_ascii_alphanumeric() => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let hash = hex::encode(&Hash::Sha256.digest(label.as_bytes())[..4]);
    match slug.trim_end_matches('-') {
        "" => format!("p11-{hash}"),
        slug => format!("{slug}-{hash}"),
    }
}

/// The name and the version in a label `name@version` (32 hex digits), as older versions have.
pub fn versioned(label: &str) -> Option<(&str, &str)> {
    let (name, version) = label.rsplit_once('@')?;
    (version.len() == 32 && hex::decode(version).is_some()).then_some((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_a_legal_name() {
        for (label, name) in [
            ("web-2026", "web-2026"),
            ("Web server (prod)", "Web-server-prod-"),
            ("__", "p11-"),
            ("", "p11-"),
            ("Schlüssel", "Schl-ssel-"),
            (&"é".repeat(300), "p11-"),
            (&"a_".repeat(300), "a-a-a-"),
        ] {
            let made = name_of_label(label);
            assert!(name_is_legal(&made), "{made}");
            assert!(made.starts_with(name), "{label}: {made}");
        }
        assert_ne!(name_of_label("a b"), name_of_label("a_b"));
        assert_eq!(name_of_label("a b"), name_of_label("a b"));
    }

    #[test]
    fn an_older_version_is_named_in_its_label() {
        let version = "0123456789abcdef0123456789abcdef";
        assert_eq!(versioned(&format!("a@b@{version}")), Some(("a@b", version)));
        for label in ["a", "a@b", "a@0123456789abcdef0123456789abcdeg"] {
            assert_eq!(versioned(label), None);
        }
    }
}
