//! The documents say what the code does.

use std::collections::BTreeSet;

#[test]
fn every_metric_is_in_the_documents_and_every_documented_metric_exists() {
    let code = [
        include_str!("../announcer/src/metrics.rs"),
        include_str!("../controller/src/metrics.rs"),
        include_str!("../membership/src/metrics.rs"),
        include_str!("../speaker/src/metrics.rs"),
    ];

    let defined: BTreeSet<&str> = code.iter().flat_map(|code| between(code, "\"garpike_", '"')).collect();
    let documented: BTreeSet<&str> = between(include_str!("../docs/metrics.md"), "`garpike_", '`').collect();

    assert!(!defined.is_empty());
    assert_eq!(defined, documented);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = include_str!("../Cargo.toml");
    let reasons = include_str!("../docs/dependencies.md");
    let (_, table) = manifest.split_once("[workspace.dependencies]").unwrap();
    let (table, _) = table.split_once("[workspace.lints.rust]").unwrap();
    let names = table.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);

    let unexplained: Vec<&str> =
        names.filter(|name| !name.starts_with("garpike-")).filter(|name| !reasons.contains(name)).collect();

    assert_eq!(unexplained, [] as [&str; 0]);
}

#[test]
fn the_readme_names_its_two_commands() {
    let readme = include_str!("../README.md");

    assert!(readme.contains("cargo run --release -- demo"));
    assert!(readme.contains("cargo xtask test"));
}

/// What follows `start` up to `end`, `start` without its first character included, wherever it is found.
fn between<'a>(text: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.match_indices(start).filter_map(move |(at, _)| {
        let name = text.get(at + 1..)?;
        name.split(end).next()
    })
}
