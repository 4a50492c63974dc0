//! Names of BGP communities. Nobody acts by them; they are judged so that people see today what a router would refuse later.

use super::{Complaints, Scope, Subject};
use crate::Community;
use crate::objects::{Objects, Sourced};
use crate::problem::{FieldPath, Problem};

/// Judges all, in the order of their names: of two that define one name the later one is wrong.
pub(super) fn validate(objects: &Objects, scope: &Scope, problems: &mut Vec<Problem>) {
    let mut before: Vec<&Community> = Vec::new();
    for (key, Sourced { object, source }) in &objects.communities {
        let mut complaints = Complaints::new(Subject { kind: "Community", key }, source, problems);
        if !complaints.in_scope(scope) {
            continue;
        }
        for problem in judge_community(object, before.iter().copied()) {
            complaints.add(problem);
        }
        before.push(object);
    }
}

/// What is wrong with an object beside others: a value that is no community, and a name that is there twice.
pub fn judge_community<'a>(object: &Community, others: impl IntoIterator<Item = &'a Community>) -> Vec<Problem> {
    let all = others.into_iter().flat_map(|other| &other.spec.communities);
    let taken: Vec<&str> = all.map(|alias| alias.name.as_str()).collect();
    let own = &object.spec.communities;
    let mut problems = Vec::new();
    for (index, alias) in own.iter().enumerate() {
        let field = FieldPath::of(["spec", "communities"]).index(index);
        let earlier = own.iter().take(index).any(|earlier| earlier.name == alias.name);
        if earlier || taken.contains(&alias.name.as_str()) {
            let text = format!("duplicate definition of community \"{}\"", alias.name);
            problems.push(Problem::error(text).at(field.key("name")).mend("give each name once"));
        }
        problems.extend(invalid_community(&alias.value).map(|problem| problem.at(field.key("value"))));
    }
    problems
}

/// What is wrong with a community: two numbers of 16 bits, or `large` and three of 32 bits.
pub fn invalid_community(value: &str) -> Option<Problem> {
    let parts: Vec<&str> = value.split(':').collect();
    let wrong = match parts.as_slice() {
        [high, low] => [high, low].into_iter().find(|part| part.parse::<u16>().is_err()),
        ["large", rest @ ..] if rest.len() == 3 => rest.iter().find(|part| part.parse::<u32>().is_err()),
        [_, _, _, _] => {
            let text = format!("invalid community value: \"{value}\"; expected community to be of format large:A:B:C");
            return Some(Problem::error(text));
        }
        _ => {
            let text = format!("invalid community format: \"{value}\"");
            return Some(Problem::error(text).mend("write A:B, or large:A:B:C"));
        }
    };
    let text = format!("invalid community value: invalid section \"{}\" of community \"{value}\"", wrong?);
    Some(Problem::error(text).mend("write numbers from 0 to 65535, after large: from 0 to 4294967295"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{ObjectKey, Source};

    #[test]
    fn communities_are_two_or_three_numbers() {
        for (value, named) in [
            ("65535:65281", None),
            ("large:1:2:4294967295", None),
            ("65536:1", Some("invalid community value: invalid section \"65536\"")),
            ("large:1:2:x", Some("invalid community value: invalid section \"x\"")),
            ("lrge:1:2:3", Some("expected community to be of format large")),
            ("1:2:3", Some("invalid community format")),
            ("", Some("invalid community format")),
        ] {
            let text = invalid_community(value).map(|problem| problem.to_string());
            match (text, named) {
                (None, None) => {}
                (Some(text), Some(named)) => assert!(text.contains(named), "{text}"),
                (text, named) => panic!("{value}: {text:?}, expected {named:?}"),
            }
        }
    }

    #[test]
    fn a_name_is_defined_once_in_all_objects_and_the_later_one_is_wrong() {
        let entry = |name: &str| {
            let object = serde_json::json!({"metadata": {"name": name}, "spec": {"communities": [{"name": "x", "value": "1:1"}]}});
            let key = ObjectKey { namespace: "metallb-system".to_owned(), name: name.to_owned() };
            (key, Sourced { object: serde_json::from_value(object).unwrap(), source: Source::default() })
        };
        let objects = Objects { communities: [entry("b"), entry("a")].into(), ..Objects::default() };

        let (_, problems) = crate::validate(&objects, &Scope::default());

        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        assert!(problem.to_string().contains("Community metallb-system/b: spec.communities[0].name"), "{problem}");
    }
}
