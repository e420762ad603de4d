//! TOML and environment variables, read into one shape that knows where each value stood.

use std::collections::BTreeMap;

use cryptoki_sys::{CK_RV, CKR_FUNCTION_FAILED};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{Env, keys::Key, keys::Kind};
use crate::error::{Error, Result};

/// A value and where it stood.
#[derive(Clone)]
pub struct Item {
    pub raw: Raw,
    /// `path:line`, or the name of an environment variable.
    pub at: String,
}

/// A value as written, before anything is known about its key.
#[derive(Clone)]
pub enum Raw {
    Text(Zeroizing<String>),
    Integer(i64),
    Flag(bool),
    List(Vec<Item>),
    Table(Items),
    /// A type of TOML that no key has.
    Other(&'static str),
}

/// The items of one table by name.
pub type Items = BTreeMap<String, Item>;

impl Item {
    pub fn text(text: &str, at: impl Into<String>) -> Self {
        Item { raw: Raw::Text(Zeroizing::new(text.to_owned())), at: at.into() }
    }
}

impl Raw {
    /// With its article, for "not …".
    pub fn type_name(&self) -> &'static str {
        match self {
            Raw::Text(_) => "a string",
            Raw::Integer(_) => "an integer",
            Raw::Flag(_) => "a boolean",
            Raw::List(_) => "an array",
            Raw::Table(_) => "a table",
            Raw::Other(name) => name,
        }
    }
}

/// The tables of a TOML document; `source` stands before the line number in messages.
///
/// # Errors
/// `rv` where the text is no TOML, with the line; duplicate keys are among that.
pub fn parse_toml(text: &str, source: &str, rv: CK_RV) -> Result<Items> {
    let lines = Lines::new(text, source);
    match DeTable::parse(text) {
        Ok(table) => Ok(lines.table(table.get_ref())),
        Err(fault) => {
            let at = lines.at(fault.span().map_or(text.len(), |span| span.start));
            let message = fault.message().replace('\n', ", ");
            Err(Error::new(rv, format!("{at}: not valid TOML: {message}")))
        }
    }
}

/// One value in TOML, as the tables of keys hold defaults and examples.
pub fn parse_literal(literal: &str, at: &str) -> Result<Item> {
    match DeValue::parse(literal) {
        Ok(value) => Ok(Lines::new(literal, at).item(&value)),
        Err(fault) => Err(Error::new(
            CKR_FUNCTION_FAILED,
            format!("{at}: {literal} is not valid TOML: {}", fault.message()),
        )),
    }
}

/// The table that the variables `AKV_PKCS11_…` make, one per key of `keys` that a string can say.
pub fn from_environment(keys: &[Key], env: &Env) -> Result<Items> {
    let mut items = Items::new();
    for key in keys {
        let name = format!("AKV_PKCS11_{}", key.name.to_ascii_uppercase());
        if let Some(value) = env.var(&name)? {
            items.insert(key.name.to_owned(), from_variable(&key.kind, &value, &name));
        }
    }
    Ok(items)
}

/// The value of one variable, read as `kind` where it can be; a text that cannot is left as text,
/// so that the one check of types there is names it.
pub fn from_variable(kind: &Kind, value: &str, name: &str) -> Item {
    let text = |text: &str| Item::text(text, name);
    let raw = match kind {
        Kind::Flag => match value {
            "true" | "1" => Raw::Flag(true),
            "false" | "0" => Raw::Flag(false),
            _ => return text(value),
        },
        Kind::Integer(..) => match value.parse() {
            Ok(number) => Raw::Integer(number),
            Err(_) => return text(value),
        },
        Kind::Texts(_) | Kind::Paths => {
            Raw::List(value.split(',').map(|part| text(part.trim())).collect())
        }
        _ => return text(value),
    };
    Item { raw, at: name.to_owned() }
}

/// Turns offsets into lines.
struct Lines<'a> {
    /// Offset of each line's end, ascending.
    ends: Vec<usize>,
    source: &'a str,
}

impl<'a> Lines<'a> {
    fn new(text: &str, source: &'a str) -> Self {
        Lines { ends: text.match_indices('\n').map(|(offset, _)| offset).collect(), source }
    }

    fn at(&self, offset: usize) -> String {
        format!("{}:{}", self.source, 1 + self.ends.partition_point(|end| *end < offset))
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Item {
        let raw = match value.get_ref() {
            DeValue::String(text) => Raw::Text(Zeroizing::new(text.to_string())),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Raw::Integer(number),
                    Err(_) => Raw::Other("an integer of more than 64 bits"),
                }
            }
            DeValue::Boolean(flag) => Raw::Flag(*flag),
            DeValue::Array(list) => Raw::List(list.iter().map(|item| self.item(item)).collect()),
            DeValue::Table(table) => Raw::Table(self.table(table)),
            DeValue::Float(_) => Raw::Other("a float"),
            DeValue::Datetime(_) => Raw::Other("a date"),
        };
        Item { raw, at: self.at(value.span().start) }
    }

    /// Each item is placed where its key stands: a table's value may begin lines later.
    fn table(&self, table: &DeTable<'_>) -> Items {
        let placed =
            |key: &Spanned<_>, value| Item { at: self.at(key.span().start), ..self.item(value) };
        table.iter().map(|(key, value)| (key.get_ref().to_string(), placed(key, value))).collect()
    }
}
