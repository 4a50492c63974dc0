//! The server over loopback, with a stub in the place of the API server.

use std::net::SocketAddr;
use std::time::SystemTime;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::certificates::{CA, Entries, make};
use super::*;
use crate::stub_api::{StubApi, refusal};

#[tokio::test]
async fn a_review_is_answered_by_the_certificate_of_the_secret() {
    let lab = Lab::start(200).await;

    let (status, answer) = lab.post(POOLS, &review("10.0.0.128/25")).await;
    assert_eq!((status, &answer["response"]["uid"], &answer["response"]["allowed"]), (200, &json!("u"), &json!(false)));
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("overlaps with already defined CIDR"), "{message}");

    let (status, answer) = lab.post(POOLS, &review("10.0.1.0/24")).await;
    assert_eq!((status, &answer["response"]), (200, &json!({"uid": "u", "allowed": true})));
}

#[tokio::test]
async fn what_cannot_be_judged_is_left_to_the_failure_policy() {
    let lab = Lab::start(500).await;

    let (status, text) = lab.post(POOLS, &review("10.0.1.0/24")).await;

    assert_eq!(status, 500);
    assert!(text.as_str().unwrap().contains("cannot be read: no list today (500)"), "{text}");
}

#[tokio::test]
async fn what_is_no_review_is_sent_back() {
    let lab = Lab::start(200).await;
    let long = "x".repeat(MAX_BODY_BYTES + 1);

    for (path, body, expected) in [
        ("/", "{}", 404),
        (POOLS, "{}", 400),
        (POOLS, "\u{0}", 400),
        ("/convert", "[]", 400),
        (POOLS, long.as_str(), 413),
    ] {
        assert_eq!(lab.post(path, body).await.0, expected, "{path} {}", body.len());
    }
}

fn review(addresses: &str) -> String {
    let object = json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
        "metadata": {"name": "new", "namespace": "metallb-system"}, "spec": {"addresses": [addresses]},
    });
    let request = json!({
        "uid": "u", "operation": "CREATE", "namespace": "metallb-system", "name": "new", "kind": {"kind": "IPAddressPool"},
        "object": object,
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string()
}

/// A webhook with a good Secret and one pool, 10.0.0.0/24.
struct Lab {
    address: SocketAddr,
    entries: Entries,
    _api: StubApi,
    _tasks: JoinSet<()>,
}

impl Lab {
    /// The lists of objects are answered with `status`.
    async fn start(status: u16) -> Self {
        let entries = make(HOST, &Entries::default(), now()).unwrap();
        let secret = json!({"metadata": {"name": "s", "resourceVersion": "1"}, "data": entries.0});
        let pool = json!({
            "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool",
            "metadata": {"name": "old", "namespace": "metallb-system", "creationTimestamp": "2026-11-21T12:00:00Z"},
            "spec": {"addresses": ["10.0.0.0/24"]},
        });
        let api = StubApi::start(move |_, path| match path {
            "/api/v1/namespaces/metallb-system/secrets/s" => (200, secret.clone()),
            "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools" if status == 200 => {
                (200, json!({"metadata": {}, "items": [pool]}))
            }
            path if path.contains("ipaddresspools") => refusal(status, "no list today"),
            _ => refusal(404, "not found"),
        })
        .await;
        let client = api.client.clone();
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificates = Certificates::Rotated { secret: "s".to_owned(), service: "webhook".to_owned() };
        tasks.spawn(async move {
            let (namespace, stop) = ("metallb-system".to_owned(), CancellationToken::new());
            let health = watch::Sender::new(Health::default());
            serve(listener, client, namespace, certificates, TlsRules::default(), health, stop).await.unwrap();
        });
        Self { address, entries, _api: api, _tasks: tasks }
    }

    /// Posts to the server, once it has its certificate.
    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.entries.entry(CA).unwrap()) {
            roots.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let connect = async {
            loop {
                let stream = TcpStream::connect(self.address).await.unwrap();
                let name = ServerName::try_from(HOST).unwrap();
                if let Ok(stream) = connector.connect(name, stream).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stream = tokio::time::timeout(Duration::from_secs(20), connect).await.expect("it gets its certificate");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let (ended, mut end) = watch::channel(false);
        let exchange = async move {
            let request = Request::post(path).header("host", "webhook").body(Full::new(Bytes::from(body.to_owned())));
            let response = sender.send_request(request.unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            ended.send_replace(true);
            let text = String::from_utf8(body.to_vec()).unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
        };
        let drive = async {
            tokio::select! {
                _ = connection => {}
                _ = end.changed() => {}
            }
        };
        tokio::join!(exchange, drive).0
    }
}

#[expect(clippy::disallowed_methods, reason = "the certificate must be good today")]
fn now() -> SystemTime {
    SystemTime::now()
}

const POOLS: &str = "/validate-metallb-io-v1beta1-ipaddresspool";
const HOST: &str = "webhook.metallb-system.svc";
