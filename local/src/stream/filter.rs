//! Event filtering: which records of a stream a function wants.
//!
//! Source: "Control which events Lambda sends to your function" and "Filter rule syntax" in the AWS
//! Lambda developer guide.

use std::collections::BTreeMap;

use serde_json::Value;

/// A pattern of `FilterCriteria`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Pattern);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    /// Every one must match what the record has under that name.
    Fields(BTreeMap<String, Pattern>),
    /// One must match.
    AnyOf(Vec<Rule>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// A text, a number, a boolean or null.
    Is(Value),
    Exists(bool),
    Prefix(String),
    /// Is there, and is none of these.
    AnythingBut(Vec<Value>),
    /// Is a text that does not begin so.
    AnythingButPrefix(String),
}

impl Filter {
    /// Parses the JSON of a `Pattern`. The error completes "the pattern …".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pattern: Value =
            serde_json::from_str(text).map_err(|error| format!("is not valid JSON: {error}"))?;
        if !pattern.is_object() {
            return Err("must be a JSON object".to_owned());
        }
        Pattern::of(pattern, "it").map(Self)
    }

    /// Whether `record`, in the form in which functions get it, is wanted.
    pub(crate) fn matches(&self, record: &Value) -> bool {
        self.0.matches(Some(record))
    }
}

impl Pattern {
    /// `name` is for messages.
    fn of(pattern: Value, name: &str) -> Result<Self, String> {
        match pattern {
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, pattern)| {
                    let pattern = Self::of(pattern, &format!("`{name}`"))?;
                    Ok((name, pattern))
                });
                fields.collect::<Result<_, String>>().map(Self::Fields)
            }
            Value::Array(rules) if !rules.is_empty() => {
                rules.into_iter().map(Rule::of).collect::<Result<_, _>>().map(Self::AnyOf)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(format!(
                    "must have an object or a list that is not empty at each name, and {name} has neither"
                ))
            }
        }
    }

    /// `value` is `None` where the record has nothing.
    fn matches(&self, value: Option<&Value>) -> bool {
        // A list matches by any of its elements.
        if let Some(Value::Array(items)) = value {
            return if items.is_empty() {
                self.matches(None)
            } else {
                items.iter().any(|item| self.matches(Some(item)))
            };
        }
        match self {
            Self::Fields(fields) => fields.iter().all(|(name, pattern)| {
                let field = value.and_then(Value::as_object).and_then(|object| object.get(name));
                pattern.matches(field)
            }),
            // Rules see leaves only.
            Self::AnyOf(rules) => {
                let leaf = value.filter(|value| !value.is_object());
                rules.iter().any(|rule| rule.matches(leaf))
            }
        }
    }
}

impl Rule {
    fn of(rule: Value) -> Result<Self, String> {
        let operator = match rule {
            Value::Object(operator) => operator,
            Value::Array(_) => return Err("must not have a list in a list".to_owned()),
            leaf @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                return Ok(Self::Is(leaf));
            }
        };
        let mut entries = operator.into_iter();
        let (Some((name, argument)), None) = (entries.next(), entries.next()) else {
            return Err("must have one operator in each object of a list".to_owned());
        };
        match (name.as_str(), argument) {
            ("exists", Value::Bool(exists)) => Ok(Self::Exists(exists)),
            ("prefix", Value::String(prefix)) => Ok(Self::Prefix(prefix)),
            ("anything-but", Value::Array(values))
                if !values.is_empty()
                    && values.iter().all(|value| value.is_string() || value.is_number()) =>
            {
                Ok(Self::AnythingBut(values))
            }
            ("anything-but", value @ (Value::String(_) | Value::Number(_))) => {
                Ok(Self::AnythingBut(vec![value]))
            }
            ("anything-but", Value::Object(inner)) => match inner.get("prefix") {
                Some(Value::String(prefix)) if inner.len() == 1 => {
                    Ok(Self::AnythingButPrefix(prefix.clone()))
                }
                _ => Err("has an argument of `anything-but` that the local stack does not know".to_owned()),
            },
            ("exists" | "prefix" | "anything-but", _) => {
                Err(format!("has an argument of `{name}` that is not right"))
            }
            _ => Err(format!("has the operator `{name}`, which the local stack does not know")),
        }
    }

    fn matches(&self, leaf: Option<&Value>) -> bool {
        let Some(leaf) = leaf else { return *self == Self::Exists(false) };
        match self {
            Self::Is(expected) => leaf == expected,
            Self::Exists(exists) => *exists,
            Self::Prefix(prefix) => leaf.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::AnythingBut(values) => !values.contains(leaf),
            Self::AnythingButPrefix(prefix) => leaf.as_str().is_some_and(|text| !text.starts_with(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matches(pattern: &Value, record: &Value) -> bool {
        Filter::parse(&pattern.to_string()).unwrap().matches(record)
    }

    #[test]
    fn each_rule_matches_what_it_says_and_nothing_else() {
        for (rule, matching, other) in [
            (json!("a"), vec![json!("a")], vec![json!("A"), json!("ab"), json!(null), json!(1)]),
            (json!(1), vec![json!(1)], vec![json!("1"), json!(2)]),
            (json!(true), vec![json!(true)], vec![json!(false), json!("true")]),
            (json!(null), vec![json!(null)], vec![json!(""), json!(0)]),
            (json!({ "exists": true }), vec![json!("a"), json!(null), json!(0)], vec![json!({ "a": 1 })]),
            (json!({ "exists": false }), vec![json!({ "a": 1 })], vec![json!("a"), json!(null)]),
            (json!({ "prefix": "ab" }), vec![json!("ab"), json!("abc")], vec![json!("a"), json!(1)]),
            (json!({ "anything-but": ["a", 1] }), vec![json!("b"), json!(null)], vec![json!("a"), json!(1)]),
            (json!({ "anything-but": "a" }), vec![json!("b")], vec![json!("a")]),
            (json!({ "anything-but": { "prefix": "a" } }), vec![json!("ba")], vec![json!("ab"), json!(1)]),
        ] {
            let pattern = json!({ "field": [rule] });
            for value in matching {
                assert!(matches(&pattern, &json!({ "field": value })), "{pattern} {value}");
            }
            for value in other {
                assert!(!matches(&pattern, &json!({ "field": value })), "{pattern} {value}");
            }
        }
    }

    #[test]
    fn only_exists_false_matches_what_is_not_there() {
        for rule in [
            json!("a"),
            json!(null),
            json!({ "exists": true }),
            json!({ "prefix": "" }),
            json!({ "anything-but": "a" }),
        ] {
            assert!(!matches(&json!({ "field": [rule] }), &json!({})), "{rule}");
            assert!(!matches(&json!({ "outer": { "field": [rule] } }), &json!({})), "{rule}");
        }
        let absent = json!({ "outer": { "field": [{ "exists": false }] } });
        assert!(matches(&absent, &json!({})));
        assert!(matches(&absent, &json!({ "outer": { "other": 1 } })));
        assert!(!matches(&absent, &json!({ "outer": { "field": 1 } })));
    }

    #[test]
    fn every_field_and_one_alternative_must_match() {
        let pattern = json!({ "name": ["INSERT", "MODIFY"], "image": { "kind": { "S": ["a"] } } });
        assert!(matches(&pattern, &json!({ "name": "MODIFY", "image": { "kind": { "S": "a" }, "x": 1 } })));
        assert!(!matches(&pattern, &json!({ "name": "REMOVE", "image": { "kind": { "S": "a" } } })));
        assert!(!matches(&pattern, &json!({ "name": "INSERT", "image": { "kind": { "S": "b" } } })));
        assert!(!matches(&pattern, &json!({ "name": "INSERT" })));
        assert!(matches(&json!({}), &json!({ "anything": 1 })));
    }

    #[test]
    fn a_list_matches_by_any_of_its_elements() {
        let pattern = json!({ "tags": { "SS": ["b"] } });
        assert!(matches(&pattern, &json!({ "tags": { "SS": ["a", "b"] } })));
        assert!(!matches(&pattern, &json!({ "tags": { "SS": ["a"] } })));
        assert!(!matches(&pattern, &json!({ "tags": { "SS": [] } })));
        assert!(matches(&json!({ "L": { "S": ["b"] } }), &json!({ "L": [{ "S": "a" }, { "S": "b" }] })));
        assert!(matches(&json!({ "L": [{ "exists": false }] }), &json!({ "L": [] })));
    }

    #[test]
    fn a_pattern_that_is_not_understood_is_refused() {
        for (pattern, reason) in [
            ("", "is not valid JSON"),
            ("[]", "must be a JSON object"),
            (r#"{"a":"b"}"#, "and `a` has neither"),
            (r#"{"a":[]}"#, "and `a` has neither"),
            (r#"{"a":[["b"]]}"#, "must not have a list in a list"),
            (r#"{"a":[{}]}"#, "one operator"),
            (r#"{"a":[{"exists":true,"prefix":"a"}]}"#, "one operator"),
            (r#"{"a":[{"exists":"yes"}]}"#, "`exists`"),
            (r#"{"a":[{"anything-but":[]}]}"#, "`anything-but`"),
            (r#"{"a":[{"anything-but":{"suffix":"x"}}]}"#, "`anything-but`"),
            (r#"{"a":[{"numeric":["=",1]}]}"#, "the operator `numeric`"),
        ] {
            let error = Filter::parse(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[\\[\\]{}:,\"ab1 ]{0,40}|\\PC{0,40}") {
            if let Ok(filter) = Filter::parse(&pattern) {
                filter.matches(&serde_json::json!({ "a": [{ "b": 1 }, "a"], "b": null }));
            }
        }
    }
}
