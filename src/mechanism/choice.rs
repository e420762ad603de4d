//! Which mechanisms a token's configuration adds, takes away, or names as the only ones.

use cryptoki_sys::CK_MECHANISM_TYPE;

use super::MECHANISMS;

/// `mechanisms` of a token. Empty: the default list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The names without `-`.
    named: Vec<CK_MECHANISM_TYPE>,
    /// The names with `-`.
    denied: Vec<CK_MECHANISM_TYPE>,
    /// Whether a name stands without sign: then what is not named is not offered.
    only: bool,
}

impl Choice {
    /// Reads the entries, each of which [`check`] lets through: `NAME`, `+NAME` or `-NAME`,
    /// `CKM_` before it or not, `*` at the end for all names that begin so. A `-` wins.
    pub fn parse(entries: &[String]) -> Choice {
        let mut choice = Choice::default();
        for entry in entries {
            let kinds = matching(entry);
            match entry.as_bytes().first() {
                Some(b'-') => choice.denied.extend(kinds),
                Some(b'+') => choice.named.extend(kinds),
                _ => {
                    choice.only = true;
                    choice.named.extend(kinds);
                }
            }
        }
        choice
    }

    /// Whether the configuration allows (true) or forbids (false) a mechanism; None where it
    /// leaves that to the default.
    pub fn decides(&self, kind: CK_MECHANISM_TYPE) -> Option<bool> {
        if self.denied.contains(&kind) {
            return Some(false);
        }
        if self.named.contains(&kind) {
            return Some(true);
        }
        self.only.then_some(false)
    }
}

/// Whether an entry of `mechanisms` names any: the rule of its values.
///
/// # Errors
/// The end of a sentence that begins with the entry.
pub fn check(entry: &str) -> Result<(), &'static str> {
    match matching(entry).next() {
        Some(_) => Ok(()),
        None => Err("names no mechanism of docs/mechanisms.md"),
    }
}

fn matching(entry: &str) -> impl Iterator<Item = CK_MECHANISM_TYPE> {
    let entry = entry.strip_prefix(['+', '-']).unwrap_or(entry);
    let name = entry.strip_prefix("CKM_").unwrap_or(entry);
    MECHANISMS
        .iter()
        .filter(move |row| {
            let known = row.name.strip_prefix("CKM_").unwrap_or(row.name);
            match name.strip_suffix('*') {
                Some(start) => known.starts_with(start),
                None => known == name,
            }
        })
        .map(|row| row.kind)
}

#[cfg(test)]
mod tests {
    use cryptoki_sys::*;

    use super::*;

    fn choice(entries: &[&str]) -> Choice {
        for entry in entries {
            assert_eq!(check(entry), Ok(()), "{entry}");
        }
        Choice::parse(&entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn entries_add_take_away_and_name_the_only_ones() {
        for (entries, gcm, rsa, digest) in [
            (&[][..], None, None, None),
            (&["+AES_*"], Some(true), None, None),
            (&["-CKM_RSA_PKCS"], None, Some(false), None),
            (&["CKM_AES_GCM", "SHA256"], Some(true), Some(false), Some(true)),
            (&["*", "-AES_*"], Some(false), Some(true), Some(true)),
            (&["+*", "-SHA256"], Some(true), Some(true), Some(false)),
        ] {
            let choice = choice(entries);
            let decided = [CKM_AES_GCM, CKM_RSA_PKCS, CKM_SHA256].map(|kind| choice.decides(kind));
            assert_eq!(decided, [gcm, rsa, digest], "{entries:?}");
        }
        for entry in ["", "-", "AES", "aes_gcm", "CKM_FOO*", "++AES_GCM", "AES_GCM "] {
            assert!(check(entry).is_err(), "{entry}");
        }
    }
}
