//! One table of the configuration, read by its list of keys: unknown keys, wrong types and bad
//! values are refused here, with their place; what is left has the type its key says.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    SecretSource,
    convert::{Context, Value},
    keys::{Absent, Key, Kind},
    value::{self, Item, Items},
};
use crate::error::{Error, Result};

/// A table whose values have the types of their keys.
pub struct Section<'a> {
    context: &'a Context<'a>,
    /// `token "www": ` or nothing.
    subject: String,
    /// Where the table stands.
    at: String,
    values: BTreeMap<&'static str, (Value, String)>,
}

impl<'a> Section<'a> {
    /// Reads `items`, which stand at `at`, by `keys`. `subject` begins each message:
    /// `token "www": `.
    ///
    /// # Errors
    /// The context's CKR, naming place and value.
    pub fn new(
        context: &'a Context<'a>,
        keys: &'static [Key],
        items: &Items,
        subject: String,
        at: String,
    ) -> Result<Self> {
        let mut section = Section { context, subject, at, values: BTreeMap::new() };
        for (name, item) in items {
            if !keys.iter().any(|key| key.name == name) {
                let known: Vec<_> = keys.iter().map(|key| key.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(section.error_at(
                    &item.at,
                    format!("unknown key {name:?}; the keys here are: {known}"),
                ));
            }
        }
        for key in keys {
            if let Some(item) = section.given_or_default(key, items)? {
                let value = context
                    .convert(key, &item)
                    .map_err(|problem| section.error_at(&problem.at, problem.sentence))?;
                section.values.insert(key.name, (value, item.at));
            }
        }
        Ok(section)
    }

    /// A string, if it was given or has a default.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A boolean, if it was given or has a default.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name)? {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// An integer of a key whose range holds no negative ones.
    pub fn integer(&self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Option<Duration> {
        match self.value(name)? {
            Value::Duration(duration) => Some(*duration),
            _ => None,
        }
    }

    /// An absolute path.
    pub fn path(&self, name: &str) -> Option<&Path> {
        match self.value(name)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    /// A secret, already read.
    pub fn secret(&self, name: &str) -> Option<&SecretSource> {
        match self.value(name)? {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// An array of strings.
    pub fn texts(&self, name: &str) -> Option<&[String]> {
        match self.value(name)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// An array of absolute paths.
    pub fn paths(&self, name: &str) -> &[PathBuf] {
        match self.value(name) {
            Some(Value::Paths(paths)) => paths,
            _ => &[],
        }
    }

    /// A table of strings.
    pub fn strings(&self, name: &str) -> &[(String, String)] {
        match self.value(name) {
            Some(Value::Strings(strings)) => strings,
            _ => &[],
        }
    }

    /// The tables of a key that holds one or more, each with its place.
    pub fn tables(&self, name: &str) -> &[(Items, String)] {
        match self.value(name) {
            Some(Value::Items(tables)) => tables,
            _ => &[],
        }
    }

    /// `value`, or that the key is missing.
    pub fn need<T>(&self, name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error_at(&self.at, format!("{name} is missing")))
    }

    /// That the value of `name` cannot be taken: `problem` ends a sentence that starts with the
    /// key and its value.
    pub fn refuse(&self, name: &str, problem: impl std::fmt::Display) -> Error {
        match self.values.get(name) {
            Some((Value::Text(text), at)) => {
                self.error_at(at, format!("{name} {:?} {problem}", text.as_str()))
            }
            Some((Value::Flag(flag), at)) => self.error_at(at, format!("{name} {flag} {problem}")),
            Some((Value::Integer(number), at)) => {
                self.error_at(at, format!("{name} {number} {problem}"))
            }
            Some((Value::Path(path), at)) => {
                self.error_at(at, format!("{name} {path:?} {problem}"))
            }
            Some((_, at)) => self.error_at(at, format!("{name} {problem}")),
            None => self.error_at(&self.at, format!("{name} {problem}")),
        }
    }

    /// An error at the place of `name`, in its own words.
    pub fn error(&self, name: &str, sentence: impl std::fmt::Display) -> Error {
        let at = self.values.get(name).map_or(&self.at, |(_, at)| at);
        self.error_at(at, sentence.to_string())
    }

    /// How messages about this table begin, behind the place.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    fn error_at(&self, at: &str, sentence: String) -> Error {
        Error::new(self.context.rv, format!("{at}: {}{sentence}", self.subject))
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).map(|(value, _)| value)
    }

    fn given_or_default(&self, key: &Key, items: &Items) -> Result<Option<Item>> {
        if let Some(item) = items.get(key.name) {
            return Ok(Some(item.clone()));
        }
        let (variable, required) = match key.absent {
            Absent::Means(_) => return Ok(None),
            Absent::Required => {
                let sentence = format!("{} is missing (example: {0} = {})", key.name, key.example);
                return Err(self.error_at(&self.at, sentence));
            }
            Absent::Is(literal) => {
                let item = value::parse_literal(literal, key.name)?;
                return Ok(Some(Item { at: self.at.clone(), ..item }));
            }
            Absent::Env(name) | Absent::EnvFile(name) => (name, true),
            Absent::EnvIfSet(name) => (name, false),
        };
        match self.context.env.var(variable)? {
            Some(text) if matches!(key.absent, Absent::EnvFile(_)) => {
                Ok(Some(Item::text(&format!("file:{text}"), variable)))
            }
            Some(_) if matches!(key.kind, Kind::Secret) => {
                Ok(Some(Item::text(&format!("env:{variable}"), variable)))
            }
            Some(text) => Ok(Some(value::from_variable(&key.kind, &text, variable))),
            None if required => {
                let sentence = format!("{} is missing, and {variable} is not set", key.name);
                Err(self.error_at(&self.at, sentence))
            }
            None => Ok(None),
        }
    }
}
