//! Templates that make or change objects: read into a type that has only values this module can
//! honour.

use std::collections::BTreeMap;

use cryptoki_sys::*;

use super::{
    attribute::{Classes, Giver, name_of, row_of},
    nested,
};
use crate::error::{Error, Result};

/// A template, each attribute known, of the right length, and there once.
#[derive(Clone, Debug, Default)]
pub struct Template {
    values: BTreeMap<CK_ATTRIBUTE_TYPE, zeroize::Zeroizing<Vec<u8>>>,
}

impl Template {
    /// Reads a template for an object of `class`, CKA_CLASS in it being the same or absent.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_TYPE_INVALID for an attribute that objects of the class do not have,
    /// CKR_ATTRIBUTE_VALUE_INVALID for a value of the wrong length, CKR_ATTRIBUTE_READ_ONLY for
    /// what only the token decides, CKR_TEMPLATE_INCONSISTENT for another class or for one
    /// attribute with two values.
    pub fn new<V: AsRef<[u8]>>(
        class: CK_OBJECT_CLASS,
        given: &[(CK_ATTRIBUTE_TYPE, V)],
    ) -> Result<Template> {
        let mut template = Template::default();
        for (kind, value) in given {
            let value = value.as_ref();
            let row = row_of(*kind).filter(|row| row.classes.has(Classes::of(class))).ok_or_else(
                || {
                    Error::new(
                        CKR_ATTRIBUTE_TYPE_INVALID,
                        format!(
                            "{} in the template of an object of class {class:#x}",
                            name_of(*kind)
                        ),
                    )
                },
            )?;
            row.check(value)?;
            if row.giver == Giver::Token {
                return Err(Error::new(
                    CKR_ATTRIBUTE_READ_ONLY,
                    format!("{} is not for a template to give", row.name),
                ));
            }
            let earlier = template.values.insert(*kind, value.to_vec().into());
            if earlier.is_some_and(|earlier| earlier.as_slice() != value) {
                return Err(inconsistent(format!("{} has two values", row.name)));
            }
        }
        template.fixed_ulong(CKA_CLASS, class)?;
        Ok(template)
    }

    /// The value of an attribute.
    pub fn bytes(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<&[u8]> {
        self.values.get(&kind).map(|value| value.as_slice())
    }

    /// A value that must be there.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCOMPLETE.
    pub fn required(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<&[u8]> {
        self.bytes(kind).ok_or_else(|| {
            Error::new(CKR_TEMPLATE_INCOMPLETE, format!("{} is missing", name_of(kind)))
        })
    }

    /// A CK_BBOOL.
    pub fn flag(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<bool> {
        self.bytes(kind)?.first().map(|byte| *byte != CK_FALSE)
    }

    /// A CK_ULONG.
    pub fn ulong(&self, kind: CK_ATTRIBUTE_TYPE) -> Option<CK_ULONG> {
        self.bytes(kind)?.try_into().ok().map(CK_ULONG::from_ne_bytes)
    }

    /// A text.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID for bytes that are not UTF-8.
    pub fn text(&self, kind: CK_ATTRIBUTE_TYPE) -> Result<Option<&str>> {
        let Some(bytes) = self.bytes(kind) else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| {
            Error::new(CKR_ATTRIBUTE_VALUE_INVALID, format!("{} is not UTF-8", name_of(kind)))
        })
    }

    /// Whether the object is to be on the token: CKA_TOKEN, false where absent (clause 4.4).
    pub fn on_token(&self) -> bool {
        self.flag(CKA_TOKEN).unwrap_or(false)
    }

    /// Refuses a CK_ULONG that is there with another value.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT.
    pub fn fixed_ulong(&self, kind: CK_ATTRIBUTE_TYPE, value: CK_ULONG) -> Result<()> {
        match self.ulong(kind) {
            Some(given) if given != value => {
                Err(inconsistent(format!("{} is {given:#x}, not {value:#x}", name_of(kind))))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a CK_BBOOL that is there with another value, saying why it cannot be.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT.
    pub fn fixed_flag(&self, kind: CK_ATTRIBUTE_TYPE, value: bool, why: &str) -> Result<()> {
        match self.flag(kind) {
            Some(given) if given != value => {
                Err(inconsistent(format!("{} {given}: {why}", name_of(kind))))
            }
            _ => Ok(()),
        }
    }

    /// Refuses attributes that have no place in this kind of template.
    ///
    /// # Errors
    /// CKR_TEMPLATE_INCONSISTENT.
    pub fn without(&self, kinds: &[CK_ATTRIBUTE_TYPE]) -> Result<()> {
        match kinds.iter().find(|kind| self.values.contains_key(kind)) {
            Some(kind) => Err(inconsistent(format!("{} is not for this template", name_of(*kind)))),
            None => Ok(()),
        }
    }

    /// The usages that are allowed, of `all`: where the template allows any by name, those it
    /// names; where it names none, all but those it forbids.
    pub fn usages(&self, all: &[CK_ATTRIBUTE_TYPE]) -> impl Iterator<Item = CK_ATTRIBUTE_TYPE> {
        let named = all.iter().any(|usage| self.flag(*usage) == Some(true));
        all.iter().copied().filter(move |usage| self.flag(*usage).unwrap_or(!named))
    }

    /// The same with the attributes that CKA_UNWRAP_TEMPLATE of an unwrapping key adds.
    ///
    /// # Errors
    /// As [`Template::new`]: CKR_TEMPLATE_INCONSISTENT where both have one with another value.
    pub fn with_added(&self, class: CK_OBJECT_CLASS, added: &[u8]) -> Result<Template> {
        let own = self.values.iter().map(|(kind, value)| (*kind, value.as_slice()));
        let all: Vec<_> = own.chain(nested::decode(added)?).collect();
        Template::new(class, &all)
    }

    /// Type and value of each attribute.
    pub fn iter(&self) -> impl Iterator<Item = (CK_ATTRIBUTE_TYPE, &[u8])> {
        self.values.iter().map(|(kind, value)| (*kind, value.as_slice()))
    }
}

/// CKR_TEMPLATE_INCONSISTENT with a sentence.
pub fn inconsistent(sentence: impl Into<String>) -> Error {
    Error::new(CKR_TEMPLATE_INCONSISTENT, sentence.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rv(class: CK_OBJECT_CLASS, given: &[(CK_ATTRIBUTE_TYPE, &[u8])]) -> CK_RV {
        Template::new(class, given).unwrap_err().rv()
    }

    #[test]
    fn a_template_has_only_what_can_be_honoured() {
        for (given, wanted) in [
            (&[(CKA_TOKEN, &[1u8, 1][..])][..], CKR_ATTRIBUTE_VALUE_INVALID),
            (&[(CKA_LOCAL, &[1][..])], CKR_ATTRIBUTE_READ_ONLY),
            (&[(CKA_UNIQUE_ID, &[][..])], CKR_ATTRIBUTE_READ_ONLY),
            (&[(CKA_MODULUS_BITS, &[0; 8][..])], CKR_ATTRIBUTE_TYPE_INVALID),
            (&[(0x8000_1234, &[1][..])], CKR_ATTRIBUTE_TYPE_INVALID),
            (&[(CKA_CLASS, &CKO_PUBLIC_KEY.to_ne_bytes()[..])], CKR_TEMPLATE_INCONSISTENT),
            (&[(CKA_LABEL, b"a".as_slice()), (CKA_LABEL, b"b")], CKR_TEMPLATE_INCONSISTENT),
        ] {
            assert_eq!(rv(CKO_PRIVATE_KEY, given), wanted, "{given:?}");
        }
        let twice = [(CKA_LABEL, b"a".as_slice()), (CKA_LABEL, b"a")];
        assert!(Template::new(CKO_PRIVATE_KEY, &twice).is_ok());
    }

    #[test]
    fn usages_named_leave_the_others_out() {
        let all = [CKA_SIGN, CKA_DECRYPT, CKA_UNWRAP];
        let usages = |given: &[(CK_ATTRIBUTE_TYPE, &[u8])]| -> Vec<CK_ATTRIBUTE_TYPE> {
            Template::new(CKO_PRIVATE_KEY, given).unwrap().usages(&all).collect()
        };
        assert_eq!(usages(&[]), all);
        assert_eq!(usages(&[(CKA_SIGN, &[1])]), [CKA_SIGN]);
        assert_eq!(usages(&[(CKA_SIGN, &[0])]), [CKA_DECRYPT, CKA_UNWRAP]);
        assert_eq!(usages(&[(CKA_SIGN, &[1]), (CKA_UNWRAP, &[1])]), [CKA_SIGN, CKA_UNWRAP]);
    }
}
