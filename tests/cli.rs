//! The command line as a user meets it: output, exit status, and one clear error for each wrong use.
//!
//! Needs no rights and no other program.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn owners_prints_the_order_of_each_address() {
    let output = garpike(&["owners", "--nodes", "node-a,node-b,node-c", "10.0.0.1", "2001:db8::1"]);

    assert_eq!(stdout(&output), "10.0.0.1 node-b node-a node-c\n2001:db8::1 node-b node-a node-c\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn owners_prints_json() {
    let output = garpike(&["owners", "--nodes", "node-a,node-b", "10.0.0.1", "-o", "json"]);

    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json, serde_json::json!([{ "ip": "10.0.0.1", "order": ["node-b", "node-a"] }]));
}

#[test]
fn owners_refuses_what_is_no_service_ip() {
    let output = garpike(&["owners", "--nodes", "a", "127.0.0.1"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("127.0.0.1 is a loopback address"), "{}", stderr(&output));
}

#[test]
fn every_subcommand_has_help() {
    for subcommand in [&["speaker"][..], &["allocate"], &["owners"], &["demo"], &["chaos", "run"], &["chaos", "list"]] {
        let output = garpike(&[subcommand, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{subcommand:?}");
        assert!(stdout(&output).contains("Usage: garpike"), "{subcommand:?}");
    }
}

#[test]
fn allocate_gives_each_service_an_address_and_never_rewrites_a_users_file() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "pools.yaml", FIRST_POOL);
    write(directory.path(), "web.yaml", &service("web", ""));

    let first = garpike(&["allocate", path(directory.path())]);
    let status = std::fs::read_to_string(directory.path().join("garpike-status.yaml")).unwrap();
    let second = garpike(&["allocate", path(directory.path())]);

    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stdout(&first).contains("default/web") && stdout(&first).contains("192.168.10.0"), "{}", stdout(&first));
    assert!(status.contains("192.168.10.0"), "{status}");
    assert_eq!(second.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(directory.path().join("garpike-status.yaml")).unwrap(), status);
    assert_eq!(std::fs::read_to_string(directory.path().join("pools.yaml")).unwrap(), FIRST_POOL);
}

#[test]
fn allocate_names_the_broken_object_and_serves_the_others() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bad.yaml", "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n  metadata: {");
    write(directory.path(), "pools.yaml", FIRST_POOL);
    write(directory.path(), "outside.yaml", &service("outside", "metallb.io/loadBalancerIPs: 10.9.9.9"));
    write(directory.path(), "web.yaml", &service("web", ""));

    let output = garpike(&["allocate", path(directory.path())]);

    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    assert!(errors.lines().any(|line| line.contains("bad.yaml")), "{errors}");
    assert!(errors.lines().any(|line| line.contains("default/outside") && line.contains("10.9.9.9")), "{errors}");
    assert!(stdout(&output).contains("default/web"), "{}", stdout(&output));
}

#[test]
fn speaker_names_the_missing_key_file_and_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("secretkey");

    let output = speaker(directory.path(), &["--ml-secret-key-path", path(&missing)]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(path(&missing)), "{}", stderr(&output));
    assert!(stderr(&output).contains("openssl rand -base64 128"), "{}", stderr(&output));
}

#[test]
fn speaker_refuses_an_empty_key_file() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("secretkey");
    std::fs::write(&empty, " \n").unwrap();

    let output = speaker(directory.path(), &["--ml-secret-key-path", path(&empty)]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(path(&empty)) && stderr(&output).contains("empty"), "{}", stderr(&output));
}

#[test]
fn speaker_names_the_gossip_port_that_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let output = speaker(directory.path(), &["--insecure-plaintext", "--ml-bindport", &port]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("127.0.0.1:{port}")), "{}", stderr(&output));
    assert!(stderr(&output).contains("--ml-bindport"), "{}", stderr(&output));
}

#[test]
fn speaker_names_the_manifests_directory_that_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();

    let output = speaker(&directory.path().join("nowhere"), &["--insecure-plaintext"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nowhere") && stderr(&output).contains("--manifests"), "{}", stderr(&output));
}

#[test]
fn speaker_without_a_key_asks_for_one() {
    let output = garpike(&["speaker", "--node-name", "n1", "--manifests", "."]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--ml-secret-key-path"), "{}", stderr(&output));
}

/// Runs a speaker that is expected to refuse to start, on ports that nobody else uses.
fn speaker(manifests: &Path, more: &[&str]) -> Output {
    let arguments = ["speaker", "--node-name", "n1", "--manifests", path(manifests), "--bind-service-ips", "none"];
    let ports = ["--ml-bindaddr", "127.0.0.1", "--port", "0", "--health-probe-port", "0"];
    garpike(&[&arguments[..], &ports[..], more].concat())
}

fn garpike(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_garpike")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

fn service(name: &str, annotation: &str) -> String {
    let annotations = if annotation.is_empty() { "{}".to_owned() } else { format!("{{{annotation}}}") };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {annotations}\nspec:\n  \
         type: LoadBalancer\n  ports:\n  - port: 80\n"
    )
}

const FIRST_POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first-pool
  namespace: metallb-system
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::/124
";
