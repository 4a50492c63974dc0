//! Label selectors: which objects a rule means, by their labels.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use thiserror::Error;

/// The labels of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// The value of the label `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether at least one of `selectors` matches.
    pub fn match_any(&self, selectors: &[Selector]) -> bool {
        selectors.iter().any(|selector| selector.matches(self))
    }
}

impl From<Option<BTreeMap<String, String>>> for Labels {
    fn from(labels: Option<BTreeMap<String, String>>) -> Self {
        Self(labels.unwrap_or_default())
    }
}

/// A label selector in one form: two that select alike by the same words are equal.
///
/// Without requirements it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// What the label `key` must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Requirement {
    key: String,
    demand: Demand,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Reads a selector as people write it.
    ///
    /// # Errors
    ///
    /// When an expression has an unknown operator, the wrong number of values, or is there twice.
    pub fn new(selector: &LabelSelector) -> Result<Self, InvalidSelector> {
        let labels = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement { key: key.clone(), demand: Demand::In(BTreeSet::from([value.clone()])) });
        let mut requirements: BTreeSet<Requirement> = labels.collect();
        let mut expressions = BTreeSet::new();
        for expression in selector.match_expressions.iter().flatten() {
            let requirement = Requirement { key: expression.key.clone(), demand: Demand::new(expression)? };
            if !expressions.insert(requirement.clone()) {
                return Err(InvalidSelector::DuplicateExpression { key: requirement.key });
            }
            requirements.insert(requirement);
        }
        match requirements.iter().find(|requirement| requirement.key.is_empty()) {
            Some(_) => Err(InvalidSelector::EmptyKey),
            None => Ok(Self { requirements }),
        }
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.holds(labels.value(&requirement.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        match &self.demand {
            Demand::In(values) => value.is_some_and(|value| values.contains(value)),
            // As in Kubernetes: an object without the label is selected too.
            Demand::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Demand::Exists => value.is_some(),
            Demand::DoesNotExist => value.is_none(),
        }
    }
}

impl Demand {
    fn new(expression: &LabelSelectorRequirement) -> Result<Self, InvalidSelector> {
        let LabelSelectorRequirement { key, operator, values } = expression;
        let values = values.as_deref().unwrap_or_default();
        let set: BTreeSet<String> = values.iter().cloned().collect();
        if set.len() != values.len() {
            return Err(InvalidSelector::DuplicateValue { key: key.clone() });
        }
        let demand = match operator.as_str() {
            "In" => Self::In(set),
            "NotIn" => Self::NotIn(set),
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            _ => return Err(InvalidSelector::Operator { key: key.clone(), operator: operator.clone() }),
        };
        let wants_values = match demand {
            Self::In(_) | Self::NotIn(_) => true,
            Self::Exists | Self::DoesNotExist => false,
        };
        if wants_values && values.is_empty() {
            return Err(InvalidSelector::NoValues { key: key.clone(), operator: operator.clone() });
        }
        if !wants_values && !values.is_empty() {
            return Err(InvalidSelector::Values { key: key.clone(), operator: operator.clone() });
        }
        Ok(demand)
    }
}

/// As `kubectl get -l` takes it.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, demand }) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let list = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match demand {
                Demand::In(values) => write!(f, "{comma}{key} in ({})", list(values))?,
                Demand::NotIn(values) => write!(f, "{comma}{key} notin ({})", list(values))?,
                Demand::Exists => write!(f, "{comma}{key}")?,
                Demand::DoesNotExist => write!(f, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

/// Why a label selector means nothing.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidSelector {
    /// The operator is none of the four.
    #[error("the operator \"{operator}\" of key \"{key}\" is not one of In, NotIn, Exists, DoesNotExist")]
    Operator {
        /// The key of the expression.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `In` or `NotIn` of nothing.
    #[error("the operator {operator} of key \"{key}\" needs at least one of values")]
    NoValues {
        /// The key of the expression.
        key: String,
        /// The operator.
        operator: String,
    },
    /// `Exists` or `DoesNotExist` with values.
    #[error("the operator {operator} of key \"{key}\" takes no values")]
    Values {
        /// The key of the expression.
        key: String,
        /// The operator.
        operator: String,
    },
    /// A value twice in one expression.
    #[error("the values of key \"{key}\" hold one value twice")]
    DuplicateValue {
        /// The key of the expression.
        key: String,
    },
    /// The same expression twice.
    #[error("the expression for key \"{key}\" is there twice")]
    DuplicateExpression {
        /// The key of the expression.
        key: String,
    },
    /// A label without a name.
    #[error("a label key is empty")]
    EmptyKey,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn matches_as_kubernetes_does() {
        let none = labels(&[]);
        let a1 = labels(&[("a", "1")]);
        let a2b = labels(&[("a", "2"), ("b", "")]);
        for (text, expected) in [
            (json!({}), [true, true, true]),
            (json!({"matchLabels": {"a": "1"}}), [false, true, false]),
            (json!({"matchLabels": {"a": "2", "b": ""}}), [false, false, true]),
            (json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}), [false, true, true]),
            (json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}), [true, false, true]),
            (json!({"matchExpressions": [{"key": "b", "operator": "Exists"}]}), [false, false, true]),
            (json!({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}), [true, true, false]),
            (
                json!({"matchLabels": {"a": "2"}, "matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}),
                [false, false, false],
            ),
        ] {
            let selector = parse(&text).unwrap();
            let actual = [&none, &a1, &a2b].map(|labels| selector.matches(labels));
            assert_eq!(actual, expected, "{text}");
        }
    }

    #[test]
    fn refuses_expressions_that_mean_nothing() {
        for (expressions, error) in [
            (
                json!([{"key": "a", "operator": "Is"}]),
                "the operator \"Is\" of key \"a\" is not one of In, NotIn, Exists, DoesNotExist",
            ),
            (json!([{"key": "a", "operator": "In"}]), "the operator In of key \"a\" needs at least one of values"),
            (
                json!([{"key": "a", "operator": "Exists", "values": ["x"]}]),
                "the operator Exists of key \"a\" takes no values",
            ),
            (
                json!([{"key": "a", "operator": "In", "values": ["x", "x"]}]),
                "the values of key \"a\" hold one value twice",
            ),
            (
                json!([{"key": "a", "operator": "Exists"}, {"key": "a", "operator": "Exists"}]),
                "the expression for key \"a\" is there twice",
            ),
            (json!([{"key": "", "operator": "Exists"}]), "a label key is empty"),
        ] {
            let error_text = parse(&json!({ "matchExpressions": expressions })).unwrap_err().to_string();
            assert_eq!(error_text, error);
        }
    }

    #[test]
    fn the_order_of_words_does_not_matter() {
        let one = parse(&json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]})).unwrap();
        let two = parse(&json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["2", "1"]}]})).unwrap();

        assert_eq!(one, two);
        assert_eq!(one.to_string(), "a in (1,2)");
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    fn parse(json: &serde_json::Value) -> Result<Selector, InvalidSelector> {
        Selector::new(&serde_json::from_value(json.clone()).unwrap())
    }
}
