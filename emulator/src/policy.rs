//! Release policies: who may have a key, by what is claimed of its environment.
//!
//! Grammar of the documentation, version 1.0.0: a list of authorities, each with conditions;
//! conditions are `anyOf`, `allOf` or `claim` with `equals`, claim names navigate with dots.

use serde_json::Value;

/// A parsed policy.
#[derive(Debug)]
pub struct Policy {
    authorities: Vec<(String, Condition)>,
}

#[derive(Debug)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Equals(String, Value),
}

impl Policy {
    /// Reads a policy; the error says what is wrong with it.
    pub fn parse(data: &[u8]) -> Result<Self, String> {
        let json: Value =
            serde_json::from_slice(data).map_err(|_| "the policy is no JSON".to_owned())?;
        if json["version"] != "1.0.0" {
            return Err("version must be \"1.0.0\"".to_owned());
        }
        only(&json, &["version", "anyOf"])?;
        let list = json["anyOf"].as_array().filter(|list| !list.is_empty());
        let list = list.ok_or("anyOf must be a list of authorities")?;
        let authorities = list.iter().map(|row| {
            only(row, &["authority", "anyOf", "allOf"])?;
            let name = row["authority"].as_str().ok_or("authority is missing")?;
            if !name.starts_with("https://") {
                return Err(format!("authority '{name}' is no https URL"));
            }
            Ok((name.trim_end_matches('/').to_owned(), conditions(row)?))
        });
        Ok(Self { authorities: authorities.collect::<Result<_, String>>()? })
    }

    /// Whether claims that `authority` made satisfy the policy.
    pub fn allows(&self, authority: &str, claims: &Value) -> bool {
        let authority = authority.trim_end_matches('/');
        self.authorities
            .iter()
            .any(|(name, condition)| name == authority && condition.holds(claims))
    }
}

impl Condition {
    fn holds(&self, claims: &Value) -> bool {
        match self {
            Self::Any(list) => list.iter().any(|condition| condition.holds(claims)),
            Self::All(list) => list.iter().all(|condition| condition.holds(claims)),
            Self::Equals(claim, expected) => {
                // Policies write "true" for claims that are true: the text counts.
                let text = |value: &Value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                find(claims, claim).is_some_and(|found| text(found) == text(expected))
            }
        }
    }
}

/// The claim of that name, or the one its dots lead to.
fn find<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    find(claims.get(first)?, rest)
}

fn conditions(row: &Value) -> Result<Condition, String> {
    let read = |list: &Value| -> Result<Vec<Condition>, String> {
        let list = list.as_array().filter(|list| !list.is_empty());
        list.ok_or("a list of conditions is missing")?.iter().map(condition).collect()
    };
    match (row.get("anyOf"), row.get("allOf")) {
        (Some(list), None) => Ok(Condition::Any(read(list)?)),
        (None, Some(list)) => Ok(Condition::All(read(list)?)),
        _ => Err("one of anyOf and allOf is needed".to_owned()),
    }
}

fn condition(row: &Value) -> Result<Condition, String> {
    let Some(claim) = row.get("claim") else {
        only(row, &["anyOf", "allOf"])?;
        return conditions(row);
    };
    only(row, &["claim", "equals"])?;
    let claim = claim.as_str().ok_or("claim is no string")?;
    match row.get("equals") {
        Some(value) if !value.is_object() && !value.is_array() && !value.is_null() => {
            Ok(Condition::Equals(claim.to_owned(), value.clone()))
        }
        _ => Err(format!("claim '{claim}' needs equals with a string, number or boolean")),
    }
}

fn only(row: &Value, members: &[&str]) -> Result<(), String> {
    let row = row.as_object().ok_or("an object is expected")?;
    match row.keys().find(|name| !members.contains(&name.as_str())) {
        Some(name) => Err(format!("'{name}' is not allowed here")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(conditions: Value) -> Result<Policy, String> {
        let mut authority = json!({"authority": "https://a.example/"});
        for (name, value) in conditions.as_object().expect("object") {
            authority[name] = value.clone();
        }
        let policy = json!({"version": "1.0.0", "anyOf": [authority]});
        Policy::parse(policy.to_string().as_bytes())
    }

    #[test]
    fn conditions_nest() {
        let policy = policy(json!({"allOf": [
            {"claim": "a.b", "equals": "x"},
            {"anyOf": [{"claim": "debug", "equals": "false"}, {"claim": "n", "equals": 5}]},
        ]}))
        .expect("policy");
        let allows = |claims: Value| policy.allows("https://a.example", &claims);
        assert!(allows(json!({"a": {"b": "x"}, "debug": false})));
        assert!(allows(json!({"a.b": "x", "n": 5})));
        assert!(!allows(json!({"a": {"b": "y"}, "debug": false})));
        assert!(!allows(json!({"a": {"b": "x"}})));
        assert!(!policy.allows("https://b.example", &json!({"a": {"b": "x"}, "n": 5})));
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        for bad in [
            json!({}),
            json!({"anyOf": []}),
            json!({"anyOf": [{"claim": "a"}]}),
            json!({"anyOf": [{"claim": "a", "less": 1}]}),
            json!({"anyOf": [{"claim": "a", "equals": {}}]}),
            json!({"anyOf": [{"claim": "a", "equals": 1}], "allOf": []}),
        ] {
            assert!(policy(bad.clone()).is_err(), "{bad}");
        }
        for bad in ["", "{}", r#"{"version":"2.0","anyOf":[]}"#] {
            assert!(Policy::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
