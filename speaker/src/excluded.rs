//! Which interfaces never announce: the file of `--excluded-interfaces`, in the form of MetalLB's `excludel2.yaml`.
//!
//! It is read once, at the start, as MetalLB does; a mistake in it is told then, and not when an address is missing.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use garpike_announcer::{BadPattern, Excluded};
use serde::Deserialize;

/// The interfaces that `file` excludes; without one, those that MetalLB's own file does, unless it lies where MetalLB
/// has it.
pub(crate) fn read(file: Option<&Path>) -> Result<Excluded> {
    let path = file.unwrap_or_else(|| Path::new(METALLBS));
    match fs::read_to_string(path) {
        Ok(text) => parse(&text).with_context(|| format!("{}: {FIELD}", path.display())),
        Err(error) if file.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Excluded::default()),
        Err(error) => Err(error)
            .with_context(|| format!("cannot read {}, which says which interfaces never announce", path.display())),
    }
}

fn parse(text: &str) -> Result<Excluded> {
    let document: Document = serde_saphyr::from_str(text)
        .map_err(|error| anyhow!("is no list of regular expressions, such as [\"^docker.*\", \"^veth.*\"]: {error}"))?;
    Excluded::new(&document.announced_interfaces_to_exclude).map_err(|BadPattern { pattern, reason }| match pattern {
        Some(pattern) => {
            anyhow!("\"{pattern}\" is no regular expression: {reason}; a literal . ( [ is written \\. \\( \\[")
        }
        None => anyhow!("the patterns are too large together: {reason}"),
    })
}

/// The file. A field that is missing excludes nothing, as with MetalLB.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    announced_interfaces_to_exclude: Vec<String>,
}

/// Where MetalLB's manifests mount the ConfigMap `metallb-excludel2`.
const METALLBS: &str = "/etc/metallb/excludel2.yaml";
const FIELD: &str = "announcedInterfacesToExclude";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metallbs_file_is_read() {
        let excluded = parse("announcedInterfacesToExclude: [\"^docker.*\", \"^ens19$\"]\n").unwrap();

        assert_eq!(excluded.patterns(), ["^docker.*", "^ens19$"]);
        assert!(excluded.contains(&"ens19".parse().unwrap()));
        assert!(!excluded.contains(&"veth0".parse().unwrap()), "what the file does not name is not excluded");
    }

    #[test]
    fn an_empty_list_excludes_nothing() {
        for text in ["announcedInterfacesToExclude: []\n", "{}\n"] {
            assert_eq!(parse(text).unwrap(), Excluded::nothing(), "{text}");
        }
    }

    #[test]
    fn a_mistake_names_file_field_value_and_mend() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, named) in [
            ("announcedInterfacesToExclude: [\"^eth0$\", \"^(veth\"]\n", "\"^(veth\" is no regular expression"),
            ("announcedInterfacesToExclude: {eth0: no}\n", "is no list of regular expressions"),
        ] {
            fs::write(file.path(), text).unwrap();
            let error = format!("{:#}", read(Some(file.path())).unwrap_err());
            assert!(error.contains(&*file.path().to_string_lossy()), "{error}");
            assert!(error.contains(FIELD) && error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_named_must_be_there() {
        let error = format!("{:#}", read(Some(Path::new("/nowhere/excludel2.yaml"))).unwrap_err());
        assert!(error.contains("/nowhere/excludel2.yaml"), "{error}");
    }
}
