//! The attributes this module knows: one row each.

use cryptoki_sys::*;

use super::nested;
use crate::error::{Error, Result};

/// How a value is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CK_BBOOL: one byte.
    Bool,
    /// CK_ULONG in the host's byte order.
    Ulong,
    /// Bytes of any length: strings, DER, identifiers.
    Bytes,
    /// An unsigned integer, big-endian, without leading zeros.
    BigInteger,
    /// CK_DATE: `YYYYMMDD` in ASCII, or empty.
    Date,
    /// An array of CK_MECHANISM_TYPE.
    Mechanisms,
    /// A template, kept as [`nested::encode`] has it.
    Nested,
}

/// Who may give the attribute a value of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// Nobody: it follows from the key or is fixed by the token. A template may repeat it where
    /// the value is the one it has anyway.
    Token,
    /// The template that makes the object.
    Template,
    /// The template that makes the object, and C_SetAttributeValue later.
    Owner,
}

/// Object classes as a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes(u8);

impl Classes {
    /// CKO_PRIVATE_KEY.
    pub const PRIVATE: Classes = Classes(1);
    /// CKO_PUBLIC_KEY.
    pub const PUBLIC: Classes = Classes(2);
    /// CKO_SECRET_KEY.
    pub const SECRET: Classes = Classes(4);
    /// CKO_CERTIFICATE.
    pub const CERTIFICATE: Classes = Classes(8);
    /// CKO_DATA.
    pub const DATA: Classes = Classes(16);
    /// None.
    pub const NONE: Classes = Classes(0);
    /// All keys.
    pub const KEYS: Classes = Classes(7);
    /// Everything.
    pub const ALL: Classes = Classes(31);
    const KEYS_AND_CERTIFICATES: Classes = Classes(15);
    const PRIVATE_OR_PUBLIC: Classes = Classes(3);
    const PRIVATE_OR_SECRET: Classes = Classes(5);
    const PUBLIC_OR_SECRET: Classes = Classes(6);
    const SECRET_OR_CERTIFICATE: Classes = Classes(12);
    const PUBLIC_SECRET_OR_CERTIFICATE: Classes = Classes(14);
    const VALUED: Classes = Classes(29);
    const KEY_PAIRS_AND_CERTIFICATES: Classes = Classes(11);

    /// The set of one CK_OBJECT_CLASS; empty for a class that has no row.
    pub fn of(class: CK_OBJECT_CLASS) -> Classes {
        match class {
            CKO_PRIVATE_KEY => Classes::PRIVATE,
            CKO_PUBLIC_KEY => Classes::PUBLIC,
            CKO_SECRET_KEY => Classes::SECRET,
            CKO_CERTIFICATE => Classes::CERTIFICATE,
            CKO_DATA => Classes::DATA,
            _ => Classes::NONE,
        }
    }

    /// Whether all of `other` are in this set, and `other` is not empty.
    pub fn has(self, other: Classes) -> bool {
        other.0 != 0 && self.0 & other.0 == other.0
    }
}

/// One attribute.
#[derive(Debug)]
pub struct Row {
    /// CKA_….
    pub kind: CK_ATTRIBUTE_TYPE,
    /// Its name in the standard.
    pub name: &'static str,
    /// How its value is encoded.
    pub value: Kind,
    /// The classes that have it.
    pub classes: Classes,
    /// Who gives it a value.
    pub giver: Giver,
    /// The classes whose owner may change it, where others have it from the template only.
    pub owned: Classes,
    /// The classes where it is key material: CKR_ATTRIBUTE_SENSITIVE unless the key gives it out.
    pub secret: Classes,
    /// Its value on a key of the service, in words, for docs/attributes.md.
    pub on_vault_key: &'static str,
}

const fn row(
    (kind, name): (CK_ATTRIBUTE_TYPE, &'static str),
    value: Kind,
    classes: Classes,
    giver: Giver,
    on_vault_key: &'static str,
) -> Row {
    let (owned, secret) = (Classes::NONE, Classes::NONE);
    Row { kind, name, value, classes, giver, owned, secret, on_vault_key }
}

const fn rsa_secret((kind, name): (CK_ATTRIBUTE_TYPE, &'static str)) -> Row {
    Row {
        kind,
        name,
        value: Kind::BigInteger,
        classes: Classes::PRIVATE,
        giver: Giver::Template,
        owned: Classes::NONE,
        secret: Classes::PRIVATE,
        on_vault_key: "never given out (CKR_ATTRIBUTE_SENSITIVE)",
    }
}

macro_rules! named {
    ($name:ident) => {
        ($name, stringify!($name))
    };
}

use Giver::{Owner, Template, Token};
use Kind::{BigInteger, Bool, Bytes, Date, Mechanisms, Nested, Ulong};

/// Every attribute, sorted by its number.
#[rustfmt::skip]
pub static ATTRIBUTES: &[Row] = &[
    row(named!(CKA_CLASS), Ulong, Classes::ALL, Template, "as the object"),
    row(named!(CKA_TOKEN), Bool, Classes::ALL, Template, "true"),
    row(named!(CKA_PRIVATE), Bool, Classes::ALL, Template, "private and secret keys, data: true where the token has a login mode, else false; public keys and certificates: false"),
    row(named!(CKA_LABEL), Bytes, Classes::ALL, Owner, "the name of the key or secret; the label it was given, where that is no legal name; `name@version` for an older version"),
    row(named!(CKA_UNIQUE_ID), Bytes, Classes::ALL, Token, "`name/version#priv`, `#pub`, `#sec` or `#cert`; a secret: `name#data`"),
    row(named!(CKA_APPLICATION), Bytes, Classes::DATA, Owner, "a secret: `Azure Key Vault`"),
    Row { owned: Classes::DATA, secret: Classes::PRIVATE_OR_SECRET, ..row(named!(CKA_VALUE), Bytes, Classes::VALUED, Template, "certificate: its DER; data: the secret, asked for when it is read; EC private key, secret key: never given out (CKR_ATTRIBUTE_SENSITIVE)") },
    row(named!(CKA_OBJECT_ID), Bytes, Classes::DATA, Owner, "a secret: empty"),
    row(named!(CKA_CERTIFICATE_TYPE), Ulong, Classes::CERTIFICATE, Template, "CKC_X_509"),
    row(named!(CKA_ISSUER), Bytes, Classes::CERTIFICATE, Template, "DER of the issuer's name"),
    row(named!(CKA_SERIAL_NUMBER), Bytes, Classes::CERTIFICATE, Template, "DER of the serial number"),
    row(named!(CKA_TRUSTED), Bool, Classes::PUBLIC_SECRET_OR_CERTIFICATE, Template, "false"),
    row(named!(CKA_CERTIFICATE_CATEGORY), Ulong, Classes::CERTIFICATE, Template, "CK_CERTIFICATE_CATEGORY_AUTHORITY for a CA, else _UNSPECIFIED"),
    row(named!(CKA_JAVA_MIDP_SECURITY_DOMAIN), Ulong, Classes::CERTIFICATE, Template, "unspecified"),
    row(named!(CKA_URL), Bytes, Classes::CERTIFICATE, Template, "empty"),
    row(named!(CKA_HASH_OF_SUBJECT_PUBLIC_KEY), Bytes, Classes::CERTIFICATE, Template, "empty"),
    row(named!(CKA_HASH_OF_ISSUER_PUBLIC_KEY), Bytes, Classes::CERTIFICATE, Template, "empty"),
    row(named!(CKA_NAME_HASH_ALGORITHM), Ulong, Classes::CERTIFICATE, Template, "CKM_SHA_1"),
    row(named!(CKA_CHECK_VALUE), Bytes, Classes::SECRET_OR_CERTIFICATE, Template, "certificate: first three bytes of the SHA-1 of its DER; secret key of the service: none"),
    row(named!(CKA_KEY_TYPE), Ulong, Classes::KEYS, Template, "CKK_RSA, CKK_EC, CKK_AES, or CKK_GENERIC_SECRET for a key that only signs"),
    row(named!(CKA_SUBJECT), Bytes, Classes::KEY_PAIRS_AND_CERTIFICATES, Owner, "keys: empty; certificates: DER of the subject's name"),
    row(named!(CKA_ID), Bytes, Classes::KEYS_AND_CERTIFICATES, Owner, "SHA-1 of the subjectPublicKey bits; secret keys: the 16 bytes of the version; or as set by its owner"),
    row(named!(CKA_SENSITIVE), Bool, Classes::PRIVATE_OR_SECRET, Template, "true"),
    row(named!(CKA_ENCRYPT), Bool, Classes::PUBLIC_OR_SECRET, Owner, "public key: true for RSA (it is local); secret key: from key_ops and enabled"),
    row(named!(CKA_DECRYPT), Bool, Classes::PRIVATE_OR_SECRET, Owner, "from key_ops and enabled"),
    row(named!(CKA_WRAP), Bool, Classes::PUBLIC_OR_SECRET, Owner, "as CKA_ENCRYPT; secret key: from key_ops and enabled"),
    row(named!(CKA_UNWRAP), Bool, Classes::PRIVATE_OR_SECRET, Owner, "from key_ops and enabled; true for an import-only key"),
    row(named!(CKA_SIGN), Bool, Classes::PRIVATE_OR_SECRET, Owner, "from key_ops and enabled"),
    row(named!(CKA_SIGN_RECOVER), Bool, Classes::PRIVATE, Owner, "RSA: as CKA_SIGN; EC: false"),
    row(named!(CKA_VERIFY), Bool, Classes::PUBLIC_OR_SECRET, Owner, "public key: true (it is local); secret key: from key_ops and enabled"),
    row(named!(CKA_VERIFY_RECOVER), Bool, Classes::PUBLIC, Owner, "true for RSA (it is local)"),
    row(named!(CKA_DERIVE), Bool, Classes::KEYS, Owner, "false"),
    row(named!(CKA_START_DATE), Date, Classes::KEYS_AND_CERTIFICATES, Owner, "the day of nbf (UTC), empty without one"),
    row(named!(CKA_END_DATE), Date, Classes::KEYS_AND_CERTIFICATES, Owner, "the day of exp (UTC), empty without one"),
    row(named!(CKA_MODULUS), BigInteger, Classes::PRIVATE_OR_PUBLIC, Template, "RSA: n"),
    row(named!(CKA_MODULUS_BITS), Ulong, Classes::PUBLIC, Template, "RSA: bits of n"),
    row(named!(CKA_PUBLIC_EXPONENT), BigInteger, Classes::PRIVATE_OR_PUBLIC, Template, "RSA: e"),
    rsa_secret(named!(CKA_PRIVATE_EXPONENT)),
    rsa_secret(named!(CKA_PRIME_1)),
    rsa_secret(named!(CKA_PRIME_2)),
    rsa_secret(named!(CKA_EXPONENT_1)),
    rsa_secret(named!(CKA_EXPONENT_2)),
    rsa_secret(named!(CKA_COEFFICIENT)),
    row(named!(CKA_PUBLIC_KEY_INFO), Bytes, Classes::KEY_PAIRS_AND_CERTIFICATES, Template, "DER of the SubjectPublicKeyInfo"),
    row(named!(CKA_VALUE_LEN), Ulong, Classes::SECRET, Template, "bytes of the key, where the service (api-version 2025-07-01 on) or our tag tells it"),
    row(named!(CKA_EXTRACTABLE), Bool, Classes::PRIVATE_OR_SECRET, Template, "false"),
    row(named!(CKA_LOCAL), Bool, Classes::KEYS, Token, "false (unknown: false claims nothing)"),
    row(named!(CKA_NEVER_EXTRACTABLE), Bool, Classes::PRIVATE_OR_SECRET, Token, "false (unknown)"),
    row(named!(CKA_ALWAYS_SENSITIVE), Bool, Classes::PRIVATE_OR_SECRET, Token, "false (unknown)"),
    row(named!(CKA_KEY_GEN_MECHANISM), Ulong, Classes::KEYS, Token, "CK_UNAVAILABLE_INFORMATION"),
    row(named!(CKA_MODIFIABLE), Bool, Classes::ALL, Template, "true for keys, else false"),
    row(named!(CKA_COPYABLE), Bool, Classes::ALL, Template, "false"),
    row(named!(CKA_DESTROYABLE), Bool, Classes::ALL, Template, "as `allow_delete` says; false for a `managed` key and for data"),
    row(named!(CKA_EC_PARAMS), Bytes, Classes::PRIVATE_OR_PUBLIC, Template, "EC: DER of the curve's object identifier"),
    row(named!(CKA_EC_POINT), Bytes, Classes::PRIVATE_OR_PUBLIC, Template, "EC: DER OCTET STRING of 04‖X‖Y"),
    row(named!(CKA_ALWAYS_AUTHENTICATE), Bool, Classes::PRIVATE, Template, "false"),
    row(named!(CKA_WRAP_WITH_TRUSTED), Bool, Classes::PRIVATE_OR_SECRET, Template, "false"),
    row(named!(CKA_PROFILE_ID), Ulong, Classes::NONE, Token, "profile objects: CKP_…"),
    row(named!(CKA_WRAP_TEMPLATE), Nested, Classes::PUBLIC_OR_SECRET, Template, "none"),
    row(named!(CKA_UNWRAP_TEMPLATE), Nested, Classes::PRIVATE_OR_SECRET, Template, "none"),
    row(named!(CKA_ALLOWED_MECHANISMS), Mechanisms, Classes::KEYS, Template, "what this token offers for the key's type and class: signing and decrypting for a private key, verifying and encrypting for a public one"),
];

/// Attributes are looked up by binary search, and no row may shadow another.
const _: () = {
    let mut i = 1;
    while i < ATTRIBUTES.len() {
        assert!(ATTRIBUTES[i - 1].kind < ATTRIBUTES[i].kind, "ATTRIBUTES is not sorted");
        i += 1;
    }
};

/// The row of an attribute.
pub fn row_of(kind: CK_ATTRIBUTE_TYPE) -> Option<&'static Row> {
    ATTRIBUTES.binary_search_by_key(&kind, |row| row.kind).ok().map(|i| &ATTRIBUTES[i])
}

/// The name of an attribute for a sentence; its number where it has no row.
pub fn name_of(kind: CK_ATTRIBUTE_TYPE) -> String {
    row_of(kind).map_or_else(|| format!("attribute {kind:#x}"), |row| row.name.to_owned())
}

impl Row {
    /// Whether C_SetAttributeValue may give it another value, of an object of this class.
    pub fn is_owners(&self, class: CK_OBJECT_CLASS) -> bool {
        self.giver == Giver::Owner || self.owned.has(Classes::of(class))
    }

    /// Whether `value` has the length its kind asks for.
    ///
    /// # Errors
    /// CKR_ATTRIBUTE_VALUE_INVALID.
    pub fn check(&self, value: &[u8]) -> Result<()> {
        let fits = match self.value {
            Kind::Bool => value.len() == size_of::<CK_BBOOL>(),
            Kind::Ulong => value.len() == size_of::<CK_ULONG>(),
            Kind::Date => {
                value.is_empty() || (value.len() == 8 && value.iter().all(u8::is_ascii_digit))
            }
            Kind::Mechanisms => value.len().is_multiple_of(size_of::<CK_MECHANISM_TYPE>()),
            Kind::Nested => nested::decode(value).is_ok(),
            Kind::Bytes | Kind::BigInteger => true,
        };
        if fits {
            return Ok(());
        }
        Err(Error::new(
            CKR_ATTRIBUTE_VALUE_INVALID,
            format!("{} has a value of {} bytes; it is a {:?}", self.name, value.len(), self.value),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_length_is_refused() {
        for (kind, good, bad) in [
            (CKA_TOKEN, &[1][..], &[1, 0][..]),
            (CKA_KEY_TYPE, &[0; 8][..], &[0; 4][..]),
            (CKA_START_DATE, b"20261122", b"2026-11-22"),
            (CKA_END_DATE, b"", b"2026112x"),
            (CKA_ALLOWED_MECHANISMS, &[0; 16][..], &[0; 9][..]),
            (CKA_WRAP_TEMPLATE, &[0; 16][..], &[0; 9][..]),
        ] {
            let row = row_of(kind).unwrap();
            assert!(row.check(good).is_ok(), "{}", row.name);
            assert_eq!(row.check(bad).unwrap_err().rv(), CKR_ATTRIBUTE_VALUE_INVALID);
        }
    }

    #[test]
    fn the_documentation_shows_this_table() {
        use std::fmt::Write;

        let mut text = String::from(
            "| attribute | objects | who gives it | on a key of the service |\n|---|---|---|---|\n",
        );
        let classes = [
            (Classes::PRIVATE, "private"),
            (Classes::PUBLIC, "public"),
            (Classes::SECRET, "secret"),
            (Classes::CERTIFICATE, "certificate"),
            (Classes::DATA, "data"),
        ];
        for row in ATTRIBUTES {
            let having: Vec<_> =
                classes.iter().filter(|(c, _)| row.classes.has(*c)).map(|(_, n)| *n).collect();
            let objects = match having.len() {
                0 => "profile".to_owned(),
                5 => "all".to_owned(),
                _ => having.join(", "),
            };
            let giver = match row.giver {
                Giver::Token => "token",
                Giver::Template if row.owned == Classes::DATA => "template; data: owner",
                Giver::Template => "template",
                Giver::Owner => "owner",
            };
            writeln!(text, "| {} | {objects} | {giver} | {} |", row.name, row.on_vault_key)
                .unwrap();
        }
        crate::documents::hold("attributes.md", &text);
    }
}
