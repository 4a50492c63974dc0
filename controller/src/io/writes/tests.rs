//! Writes against an API server that gives one answer, over HTTP on loopback.

use kube::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

#[test]
fn each_answer_says_what_became_of_the_write() {
    let written = json!({
        "metadata": {"name": "web", "namespace": "default", "resourceVersion": "8"}, "spec": {"type": "LoadBalancer"},
    });
    let refusal = json!({"kind": "Status", "message": "too many requests"});

    let (_, outcome) = answered("200 OK", "", &written.to_string());
    assert!(matches!(outcome, Outcome::Written(seen) if seen.version == 8));
    assert!(matches!(answered("409 Conflict", "", "{}").1, Outcome::Conflict));
    assert!(matches!(answered("404 Not Found", "", "{}").1, Outcome::Gone));
    let (_, outcome) = answered("429 Too Many Requests", "Retry-After: 2\r\n", &refusal.to_string());
    let Outcome::Refused { text, after } = outcome else { panic!("{outcome:?}") };
    assert!(text.starts_with("too many requests (429"), "{text}");
    assert_eq!(after, Some(Duration::from_secs(2)));
    assert!(matches!(answered("403 Forbidden", "", "{}").1, Outcome::Refused { after: None, .. }));
    for unclear in ["500 Internal Server Error", "503 Service Unavailable", "504 Gateway Timeout"] {
        assert!(matches!(answered(unclear, "", "{}").1, Outcome::Unknown { .. }), "{unclear}");
    }
    assert!(matches!(answered("200 OK", "", "no json").1, Outcome::Unknown { .. }));
}

#[test]
fn an_api_server_that_does_not_answer_is_not_waited_for() {
    let (_, outcome) = runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener);
        timeout(Duration::from_secs(5), service(client, write(), b"{}".to_vec())).await.unwrap()
    });

    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
}

#[test]
fn a_write_names_its_object_its_author_and_its_limit() {
    let (request, _) = answered("200 OK", "", "{}");

    let line = request.lines().next().unwrap_or_default();
    assert_eq!(
        line,
        "PUT /api/v1/namespaces/default/services/web/status?fieldManager=garpike-controller&timeout=1s HTTP/1.1"
    );
    assert!(request.ends_with("{\"a\":1}"), "{request}");
}

/// The request, and what came of it when that is the answer.
fn answered(status: &str, header: &str, body: &str) -> (String, Outcome) {
    let answer = format!("HTTP/1.1 {status}\r\n{header}Content-Length: {}\r\n\r\n{body}", body.len());
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = client(&listener);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"a\":1}") {
                let mut some = [0; 1024];
                let n = stream.read(&mut some).await.unwrap();
                request.extend_from_slice(&some[..n]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The client closes when it is dropped.
            (String::from_utf8(request).unwrap(), stream)
        };
        let ((request, _stream), (_, outcome)) = tokio::join!(server, service(client, write(), b"{\"a\":1}".to_vec()));
        (request, outcome)
    })
}

fn client(listener: &TcpListener) -> Client {
    let address = listener.local_addr().unwrap();
    let mut config = Config::new(format!("http://{address}").parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn write() -> Write {
    let service = ServiceKey::new("default", "web");
    Write { service, version: 7, addresses: Vec::new(), pool: None }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
