//! What a token brings besides the name: rights, and claims that rules look at.

use serde_json::{Map, Value};

/// What a client may do by its token alone, and what else the token says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Channels and patterns that the client may subscribe to, whatever rules do not deny.
    pub subscribe: Vec<String>,
    /// The same for publishing.
    pub publish: Vec<String>,
    /// Everything else that is simple enough for a rule to look at.
    pub claims: Claims,
}

/// Claims as pairs of name and value: a list has a pair for each of its elements. As large as a token at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims(Box<[(Box<str>, Box<str>)]>);

impl Claims {
    /// Texts, numbers, truth values, and lists of them; anything else is not kept, and no rule finds it.
    #[must_use]
    pub fn of(claims: &Map<String, Value>) -> Self {
        let mut pairs = Vec::new();
        for (name, value) in claims {
            let values = match value {
                Value::Array(values) => values,
                value => std::slice::from_ref(value),
            };
            pairs.extend(values.iter().filter_map(simple).map(|value| (name.as_str().into(), value)));
        }
        Self(pairs.into())
    }

    /// Whether the claim `name` is `value`, or a list with it.
    #[must_use]
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.0.iter().any(|(of, is)| **of == *name && **is == *value)
    }
}

fn simple(value: &Value) -> Option<Box<str>> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(truth) => Some(truth.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_has_its_value_or_each_of_its_values() {
        let Value::Object(claims) = json!({
            "role": "editor", "level": 3, "beta": true, "groups": ["a", "b", 7], "deep": {"role": "admin"}, "none": null
        }) else {
            unreachable!()
        };
        let claims = Claims::of(&claims);
        for (name, value) in [
            ("role", "editor"),
            ("level", "3"),
            ("beta", "true"),
            ("groups", "a"),
            ("groups", "b"),
            ("groups", "7"),
        ] {
            assert!(claims.has(name, value), "{name} {value}");
        }
        for (name, value) in
            [("role", "admin"), ("role", ""), ("groups", "c"), ("deep", "admin"), ("none", "null")]
        {
            assert!(!claims.has(name, value), "{name} {value}");
        }
    }
}
