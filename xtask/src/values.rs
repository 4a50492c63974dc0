//! docs/helm-values.md: every value of the chart with its default and the comment before it.
//!
//! Reads the layout that values.yaml has, which is not all of YAML: two spaces for each level, one key a line, lists and mappings
//! that are defaults either in one line or in the lines below.

use std::fmt::Write as _;

/// The document.
pub(crate) fn reference(values: &str) -> String {
    let mut out = String::from(
        "# The values of the chart\n\n<!-- Written by \"cargo xtask manifests\" from deploy/helm/garpike/values.yaml. -->\n\n\
         They have the names that they have in MetalLB's chart where they mean the same. A wrong one is refused by name\n\
         (`values.schema.json`).\n\n| value | default | |\n|---|---|---|\n",
    );
    for Value { path, default, comment } in read(values) {
        let default = default.replace('|', "\\|");
        let _ = writeln!(out, "| `{path}` | `{default}` | {} |", comment.replace('|', "\\|"));
    }
    out
}

#[derive(Debug, PartialEq, Eq)]
struct Value {
    path: String,
    default: String,
    comment: String,
}

fn read(values: &str) -> Vec<Value> {
    let lines: Vec<&str> = values.lines().collect();
    let mut found = Vec::new();
    // The keys above, each with its indentation.
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut comment = String::new();
    for (number, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        if let Some(more) = text.strip_prefix('#') {
            comment = format!("{comment} {}", more.trim()).trim().to_owned();
            continue;
        }
        let Some((key, default)) = text.split_once(':').filter(|(key, _)| is_key(key)) else {
            comment.clear();
            continue;
        };
        above.retain(|(before, _)| *before < indent);
        let path = above.iter().map(|(_, key)| *key).chain([key]).collect::<Vec<_>>().join(".");
        let below = lines.get(number + 1..).unwrap_or_default();
        let list: Vec<&str> = below
            .iter()
            .take_while(|line| line.trim_start().starts_with("- ") || line.len() - line.trim_start().len() > indent)
            .map(|line| line.trim())
            .collect();
        let is_list = list.first().is_some_and(|first| first.starts_with("- "));
        // The file itself is where long ones are read.
        let default = match default.trim() {
            "" if is_list => "(see values.yaml)".to_owned(),
            long if long.len() > LONGEST || long.ends_with(',') => "(see values.yaml)".to_owned(),
            short => short.to_owned(),
        };
        if default.is_empty() {
            if !comment.is_empty() {
                found.push(Value {
                    path,
                    default: "(the values below)".to_owned(),
                    comment: std::mem::take(&mut comment),
                });
            }
            above.push((indent, key));
        } else {
            found.push(Value { path, default, comment: std::mem::take(&mut comment) });
        }
    }
    found
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Chosen: a column that can be read.
const LONGEST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_path_its_default_and_the_comment_before_it() {
        let values = "# About a.\na: 1\n\nb:\n  # About\n  # c.\n  c: {x: 1}\n  d:\n  - {k: 1, v: 2}\n  e: \"\"\nf: [\"x\",\n  \"y\"]\n";

        let found = read(values);

        let value = |path: &str, default: &str, comment: &str| Value {
            path: path.to_owned(),
            default: default.to_owned(),
            comment: comment.to_owned(),
        };
        let long = "(see values.yaml)";
        let expected = [
            value("a", "1", "About a."),
            value("b.c", "{x: 1}", "About c."),
            value("b.d", long, ""),
            value("b.e", "\"\"", ""),
            value("f", long, ""),
        ];
        assert_eq!(found, expected);
    }
}
