//! From a value as written to a value of the type its key says.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use cryptoki_sys::CK_RV;
use zeroize::Zeroizing;

use super::{
    Env, SecretSource, file,
    keys::{CREDENTIALS, Key, Kind},
    rules,
    value::{Item, Items, Raw},
};

/// What the reading of one configuration shares.
pub struct Context<'a> {
    /// Where relative paths start.
    pub folder: &'a Path,
    /// Where `env:NAME` and the defaults of credentials are looked up.
    pub env: &'a Env,
    /// The configuration file that everybody may read, if it is one.
    pub exposed: Option<&'a Path>,
    /// What a mistake makes C_Initialize answer.
    pub rv: CK_RV,
}

/// A value of the type its key says.
pub enum Value {
    Text(Zeroizing<String>),
    Flag(bool),
    Integer(i64),
    Duration(Duration),
    Path(PathBuf),
    Secret(SecretSource),
    Texts(Vec<String>),
    Paths(Vec<PathBuf>),
    Strings(Vec<(String, String)>),
    /// Tables are read further by whoever asked for them.
    Items(Vec<(Items, String)>),
}

/// What is wrong with a value, and where.
pub struct Problem {
    pub at: String,
    pub sentence: String,
}

impl Problem {
    fn new(item: &Item, sentence: String) -> Self {
        Problem { at: item.at.clone(), sentence }
    }
}

impl Context<'_> {
    /// The value of `item` as `key` has it.
    ///
    /// # Errors
    /// What is wrong, and where: an array's fault stands on its element's line.
    pub fn convert(&self, key: &Key, item: &Item) -> Result<Value, Problem> {
        let name = key.name;
        let wrong_type = || {
            let (needs, found) = (key.kind.describe(), item.raw.type_name());
            let sentence = format!("{name} needs {needs}, not {found} (example: {})", key.example);
            Problem::new(item, sentence)
        };
        let bad = |shown: &dyn fmt::Debug, problem: &str| {
            Problem::new(item, format!("{name} {shown:?} {problem}"))
        };
        Ok(match (&key.kind, &item.raw) {
            (Kind::Text(rule), Raw::Text(text)) => {
                rule(text).map_err(|problem| bad(&text.as_str(), problem))?;
                Value::Text(text.clone())
            }
            (Kind::OneOf(choices), Raw::Text(text)) => {
                if !choices.contains(&text.as_str()) {
                    let problem = format!("is not one of {}", choices.join(", "));
                    return Err(bad(&text.as_str(), &problem));
                }
                Value::Text(text.clone())
            }
            (Kind::Flag, Raw::Flag(flag)) => Value::Flag(*flag),
            (Kind::Integer(least, most), Raw::Integer(number)) => {
                if !(least..=most).contains(&number) {
                    return Err(bad(number, &format!("is not between {least} and {most}")));
                }
                Value::Integer(*number)
            }
            (Kind::Duration(least, most), Raw::Text(text)) => {
                let [least, most] = [*least, *most].map(Duration::from_millis);
                match humantime::parse_duration(text) {
                    Ok(duration) if (least..=most).contains(&duration) => Value::Duration(duration),
                    Ok(_) => {
                        let [least, most] = [least, most].map(humantime::format_duration);
                        let problem = format!("is not between {least} and {most}");
                        return Err(bad(&text.as_str(), &problem));
                    }
                    Err(_) => {
                        let problem = "is not a duration such as 1500ms, 10s or 2m";
                        return Err(bad(&text.as_str(), problem));
                    }
                }
            }
            (Kind::Path, Raw::Text(text)) => {
                rules::text(text).map_err(|problem| bad(&text.as_str(), problem))?;
                Value::Path(self.folder.join(text.as_str()))
            }
            (Kind::Secret, Raw::Text(text)) => Value::Secret(
                self.secret(text)
                    .map_err(|problem| Problem::new(item, format!("{name}: {problem}")))?,
            ),
            (Kind::Texts(_) | Kind::Paths, Raw::List(list)) => {
                let rule = if let Kind::Texts(rule) = key.kind { rule } else { rules::text };
                let mut texts = Vec::new();
                for item in list {
                    let Raw::Text(text) = &item.raw else { return Err(wrong_type()) };
                    rule(text).map_err(|problem| {
                        Problem::new(item, format!("{name}: {:?} {problem}", text.as_str()))
                    })?;
                    texts.push(text.to_string());
                }
                match key.kind {
                    Kind::Paths => {
                        Value::Paths(texts.iter().map(|text| self.folder.join(text)).collect())
                    }
                    _ => Value::Texts(texts),
                }
            }
            (Kind::Strings, Raw::Table(table)) => {
                let mut strings = Vec::new();
                for (key, item) in table {
                    let Raw::Text(text) = &item.raw else { return Err(wrong_type()) };
                    strings.push((key.clone(), text.to_string()));
                }
                Value::Strings(strings)
            }
            (Kind::Credential, Raw::Text(text)) => {
                let table = Items::from([("type".to_owned(), Item::text(text, item.at.clone()))]);
                Value::Items(vec![(table, item.at.clone())])
            }
            (Kind::Credential | Kind::Table(_), Raw::Table(table)) => {
                Value::Items(vec![(table.clone(), item.at.clone())])
            }
            (Kind::Tables(_), Raw::List(list)) => {
                let mut tables = Vec::new();
                for item in list {
                    let Raw::Table(table) = &item.raw else { return Err(wrong_type()) };
                    tables.push((table.clone(), item.at.clone()));
                }
                Value::Items(tables)
            }
            _ => return Err(wrong_type()),
        })
    }

    /// Reads a secret as its text says.
    fn secret(&self, text: &str) -> Result<SecretSource, String> {
        if let Some(name) = text.strip_prefix("env:") {
            return match self.env.var(name).map_err(|fault| fault.to_string())? {
                Some(value) => Ok(SecretSource::Value(Zeroizing::new(value.into_bytes()))),
                None => Err(format!("the environment variable {name} is not set")),
            };
        }
        if let Some(path) = text.strip_prefix("file:") {
            let path = self.folder.join(path);
            let copy = file::read_secret(&path)?;
            return Ok(SecretSource::File { path, copy });
        }
        if text.is_empty() {
            return Err("it is empty; give env:NAME, file:PATH or the secret".to_owned());
        }
        match self.exposed {
            Some(path) => Err(format!(
                "it is written out here, and everybody may read the file; run `chmod o-r {}`, or \
                 give env:NAME or file:PATH",
                path.display()
            )),
            _ => Ok(SecretSource::Value(Zeroizing::new(text.as_bytes().to_vec()))),
        }
    }
}

impl Kind {
    /// With its article, for "needs …".
    pub fn describe(&self) -> String {
        match self {
            Kind::Text(_) => "a string".to_owned(),
            Kind::OneOf(choices) => format!("one of the strings {}", choices.join(", ")),
            Kind::Flag => "true or false".to_owned(),
            Kind::Integer(least, most) => format!("an integer from {least} to {most}"),
            Kind::Duration(..) => "a string with a duration".to_owned(),
            Kind::Path => "a string with a path".to_owned(),
            Kind::Secret => "a string with env:NAME, file:PATH or the secret".to_owned(),
            Kind::Texts(_) => "an array of strings".to_owned(),
            Kind::Paths => "an array of strings with paths".to_owned(),
            Kind::Strings => "a table of strings".to_owned(),
            Kind::Credential => {
                let names: Vec<_> = CREDENTIALS.iter().map(|kind| kind.name).collect();
                format!("one of the strings {} or a table with such a type", names.join(", "))
            }
            Kind::Table(_) => "a table".to_owned(),
            Kind::Tables(_) => "an array of tables".to_owned(),
        }
    }
}
