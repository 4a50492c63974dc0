//! The file `garpike-status.yaml`: which Service has which address, where there is no Kubernetes API to say so.
//!
//! The file is replaced as a whole, so a reader sees the old or the new one and nothing between.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use garpike_controller_api::manifests::STATUS_FILE;
use garpike_election::{ServiceIp, ServiceKey};
use serde::Serialize;
use thiserror::Error;

/// The text of the file.
///
/// # Errors
///
/// When a name cannot be written as YAML.
pub fn render(addresses: &BTreeMap<ServiceKey, Vec<ServiceIp>>) -> Result<String, UnwritableName> {
    let mut text = HEADER.to_owned();
    for (key, ips) in addresses {
        let (namespace, name) = (&*key.namespace, &*key.name);
        let document = Document {
            api_version: "v1",
            kind: "Service",
            metadata: Metadata { namespace, name },
            status: Status {
                load_balancer: LoadBalancer { ingress: ips.iter().map(|ip| Ingress { ip: *ip }).collect() },
            },
        };
        let yaml = serde_saphyr::to_string(&document)
            .map_err(|error| UnwritableName { name: format!("{namespace}/{name}"), reason: error.to_string() })?;
        // Writing to a String cannot fail.
        let _ = write!(text, "---\n{}\n", yaml.trim_end());
    }
    Ok(text)
}

/// A Service whose name YAML cannot hold.
#[derive(Debug, Error)]
#[error("cannot write the name of Service {name} as YAML: {reason}")]
pub struct UnwritableName {
    /// Namespace and name.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// Whether a write changed the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It did.
    Changed,
    /// It would have written what is there.
    Unchanged,
}

/// Makes `text` the content of the file in `dir`, at once and on the disk.
///
/// # Errors
///
/// When the directory or the file cannot be written. The file is then what it was.
pub fn write(dir: &Path, text: &str) -> Result<Written, WriteError> {
    write_file(dir, &dir.join(STATUS_FILE), text)
}

/// Makes `text` the content of the file `path` in `dir`, as [`write`] does.
pub(crate) fn write_file(dir: &Path, path: &Path, text: &str) -> Result<Written, WriteError> {
    if std::fs::read(path).is_ok_and(|present| present == text.as_bytes()) {
        return Ok(Written::Unchanged);
    }
    let error = |source| WriteError { path: path.to_owned(), source };
    replace(dir, path, text).map(|()| Written::Changed).map_err(error)
}

/// A status file that cannot be written.
#[derive(Debug, Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

fn replace(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    // Hidden until it is complete, so that nobody reads it as a manifest.
    let mut file =
        tempfile::Builder::new().prefix(".garpike.").permissions(Permissions::from_mode(0o644)).tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    // The umask of whoever runs this must not keep the speaker from reading.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

const HEADER: &str = "# Written by \"garpike allocate\"; edits are overwritten.
# It holds the addresses of the Services in this directory. Copy it to the other hosts together with them.
";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'a str,
    kind: &'a str,
    metadata: Metadata<'a>,
    status: Status,
}

#[derive(Serialize)]
struct Metadata<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    load_balancer: LoadBalancer,
}

#[derive(Serialize)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Serialize)]
struct Ingress {
    ip: ServiceIp,
}

#[cfg(test)]
mod tests {
    use garpike_controller_api::manifests::parse_documents;

    use super::*;

    #[test]
    fn the_text_is_a_list_of_services() {
        let addresses = BTreeMap::from([
            (key("default", "web"), vec!["10.0.0.1".parse().unwrap(), "fc00::1".parse().unwrap()]),
            (key("default", "on"), vec!["10.0.0.2".parse().unwrap()]),
        ]);

        assert_eq!(
            render(&addresses).unwrap(),
            "# Written by \"garpike allocate\"; edits are overwritten.\n\
             # It holds the addresses of the Services in this directory. Copy it to the other hosts together with them.\n\
             ---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: default\n  name: \"on\"\nstatus:\n  \
             loadBalancer:\n    ingress:\n    - ip: \"10.0.0.2\"\n\
             ---\napiVersion: v1\nkind: Service\nmetadata:\n  namespace: default\n  name: web\nstatus:\n  \
             loadBalancer:\n    ingress:\n    - ip: \"10.0.0.1\"\n    - ip: fc00::1\n"
        );
    }

    #[test]
    fn names_that_yaml_could_take_for_something_else_read_back() {
        for name in ["1", "1e3", "no", "null", "~", "a: b", "- a", "---", "x\ny", "0x1", "#", "'", "é", "1.2.3.4"] {
            let addresses = BTreeMap::from([(key(name, name), vec!["10.0.0.1".parse().unwrap()])]);
            let (objects, problems) = parse_documents(STATUS_FILE, &render(&addresses).unwrap());
            assert!(problems.is_empty(), "{name:?}: {problems:?}");
            let keys: Vec<ServiceKey> = objects.statuses.keys().map(ServiceKey::from).collect();
            assert_eq!(keys, [key(name, name)]);
        }
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_and_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write(dir.path(), "a").unwrap(), Written::Changed);
        let before = std::fs::metadata(dir.path().join(STATUS_FILE)).unwrap();
        assert_eq!(before.permissions().mode() & 0o777, 0o644);
        assert_eq!(write(dir.path(), "a").unwrap(), Written::Unchanged);
        assert_eq!(
            std::fs::metadata(dir.path().join(STATUS_FILE)).unwrap().modified().unwrap(),
            before.modified().unwrap()
        );
        assert_eq!(write(dir.path(), "b").unwrap(), Written::Changed);
        assert_eq!(std::fs::read_to_string(dir.path().join(STATUS_FILE)).unwrap(), "b");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error_with_the_name_of_the_file() {
        let error = write(Path::new("/nonexistent"), "a").unwrap_err();

        assert_eq!(error.to_string(), "cannot write /nonexistent/garpike-status.yaml");
    }

    fn key(namespace: &str, name: &str) -> ServiceKey {
        ServiceKey::new(namespace, name)
    }
}
