//! What ServiceAccounts have asked an API server for, by its own account.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Deserialize;

/// The audit log of an API server.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asked: `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// As RBAC names it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// As RBAC names it: `services`, or `services/status`.
    pub resource: String,
    /// The namespace of the object; empty for cluster-wide ones.
    pub namespace: String,
    /// The name of the object; empty where many are asked for.
    pub name: String,
    /// The status code of the answer.
    pub code: u16,
    /// The host that asked.
    pub from: Option<IpAddr>,
    /// When the request came; `None`: the log does not say.
    pub at: Option<SystemTime>,
}

impl Audit {
    pub(super) fn of(path: PathBuf) -> Self {
        Self { path }
    }

    /// What the ServiceAccounts of a namespace have asked for, in the order of the answers.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn requests_of(&self, namespace: &str) -> io::Result<Vec<Request>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            // The server begins it with the first line.
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let from = format!("system:serviceaccount:{namespace}:");
        let requests = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()).map(Request::from);
        Ok(requests.filter(|request| request.user.starts_with(&from)).collect())
    }
}

impl Request {
    /// Whether it was to change something, and has.
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection") && self.code < 300
    }

    /// Whether a right was missing.
    pub fn is_forbidden(&self) -> bool {
        self.code == 403
    }
}

/// Metadata level of `audit.k8s.io/v1`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default, rename = "sourceIPs")]
    source_ips: Vec<IpAddr>,
    #[serde(default)]
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: Option<String>,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Line> for Request {
    fn from(line: Line) -> Self {
        let ObjectRef { resource, subresource, namespace, name } = line.object_ref;
        let resource = match subresource {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource,
        };
        Self {
            user: line.user.username,
            verb: line.verb,
            resource,
            namespace,
            name,
            code: line.response_status.code,
            from: line.source_ips.first().copied(),
            at: humantime::parse_rfc3339(&line.request_received_timestamp).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_says_who_did_what_to_what() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        fs::write(&path, format!("{LINE}\n{{\"half a li")).unwrap();
        let audit = Audit::of(path);

        let requests = audit.requests_of("metallb-system").unwrap();

        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        assert!(request.is_write() && !request.is_forbidden());
        assert_eq!((request.resource.as_str(), request.name.as_str()), ("services/status", "nginx"));
        assert_eq!(request.from, Some(IpAddr::from([127, 0, 0, 1])));
        let at = request.at.unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!((at.as_secs() % 60, at.subsec_micros()), (3, 456_789));
        assert!(audit.requests_of("metallb").unwrap().is_empty());
    }

    const LINE: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","auditID":"1","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/default/services/nginx/status","verb":"update","user":{"username":"system:serviceaccount:metallb-system:controller","groups":["system:serviceaccounts"]},"sourceIPs":["127.0.0.1"],"objectRef":{"resource":"services","namespace":"default","name":"nginx","apiVersion":"v1","subresource":"status"},"responseStatus":{"metadata":{},"code":200},"requestReceivedTimestamp":"2026-11-22T01:02:03.456789Z"}"#;
}
