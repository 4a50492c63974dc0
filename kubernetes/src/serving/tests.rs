//! Metrics over loopback, with a stub in the place of the API server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

#[tokio::test]
async fn a_token_with_the_right_reads_and_is_reviewed_once() {
    let lab = Lab::start(|path, _| match path {
        "/apis/authentication.k8s.io/v1/tokenreviews" => (201, authenticated()),
        _ => (201, json!({"spec": {}, "status": {"allowed": true}})),
    })
    .await;

    for _ in 0..3 {
        assert_eq!(lab.get("/metrics", Some("Bearer good")).await, (200, "up 1\n".to_owned()));
    }

    assert_eq!(lab.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn the_right_is_asked_for_the_user_of_the_token() {
    let lab = Lab::start(|path, body| match path {
        "/apis/authentication.k8s.io/v1/tokenreviews" => {
            assert_eq!(body["spec"]["token"], "good");
            (201, authenticated())
        }
        _ => {
            let right = json!({"path": "/metrics", "verb": "get"});
            let asked = (&body["spec"]["user"], &body["spec"]["groups"], &body["spec"]["nonResourceAttributes"]);
            assert_eq!(asked, (&json!("system:serviceaccount:monitoring:prometheus"), &json!(["g"]), &right));
            (201, json!({"spec": {}, "status": {"allowed": false}}))
        }
    })
    .await;

    let (status, text) = lab.get("/metrics", Some("bearer good")).await;

    assert_eq!(status, 403);
    assert!(text.contains("system:serviceaccount:monitoring:prometheus may not get /metrics"), "{text}");
}

#[tokio::test]
async fn whoever_is_not_known_is_sent_away_and_told_why() {
    let lab =
        Lab::start(|_, _| (201, json!({"spec": {}, "status": {"authenticated": false, "error": "expired"}}))).await;

    for (header, expected, named) in [
        (None, 401, "no bearer token"),
        (Some("Basic abc"), 401, "no bearer token"),
        (Some("Bearer  "), 401, "no bearer token"),
        (Some("Bearer old"), 401, "expired"),
    ] {
        let (status, text) = lab.get("/metrics", header).await;
        assert_eq!(status, expected, "{header:?}");
        assert!(text.contains(named), "{text}");
    }
    assert_eq!(lab.get("/secret", Some("Bearer old")).await.0, 404);
}

#[tokio::test]
async fn a_missing_right_of_our_own_is_named() {
    let message = "tokenreviews.authentication.k8s.io is forbidden: User \"x\" cannot create";
    let lab = Lab::start(move |_, _| {
        (403, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": 403}))
    })
    .await;

    let (status, text) = lab.get("/metrics", Some("Bearer good")).await;

    assert_eq!(status, 500);
    assert!(text.contains("may not create tokenreviews.authentication.k8s.io"), "{text}");
    assert!(text.contains(message), "{text}");
}

fn authenticated() -> Value {
    let user = json!({"username": "system:serviceaccount:monitoring:prometheus", "groups": ["g"]});
    json!({"spec": {}, "status": {"authenticated": true, "user": user}})
}

/// A metrics server whose API server is a stub.
struct Lab {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Lab {
    async fn start(api: impl Fn(&str, Value) -> (u16, Value) + Clone + Send + Sync + 'static) -> Self {
        let mut tasks = JoinSet::new();
        let asked = Arc::new(AtomicUsize::new(0));
        let stub = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", stub.local_addr().unwrap());
        let count = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = stub.accept().await {
                let (api, count) = (api.clone(), Arc::clone(&count));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (api, count) = (api.clone(), Arc::clone(&count));
                    async move {
                        count.fetch_add(1, Ordering::Relaxed);
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await?.to_bytes();
                        let (status, answer) = api(&path, serde_json::from_slice(&body).unwrap());
                        let body = Bytes::from(answer.to_string());
                        Ok::<_, hyper::Error>(respond(StatusCode::from_u16(status).unwrap(), "application/json", body))
                    }
                });
                let io = TokioIo::new(stream);
                connections.spawn(async move {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                });
            }
        });
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let serving = Serving { review: Some(client), ..Serving::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let render = Arc::new(|| "up 1\n".to_owned());
            serve_metrics(listener, serving, render, CancellationToken::new()).await.unwrap();
        });
        Self { address, asked, _tasks: tasks }
    }

    async fn get(&self, path: &str, authorization: Option<&str>) -> (u16, String) {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone))
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let exchange = async {
            let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        tokio::select! {
            answer = exchange => answer,
            ended = connection => panic!("the connection ended: {ended:?}"),
        }
    }
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
