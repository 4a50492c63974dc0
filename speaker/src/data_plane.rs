//! Whether the kernel of this node forwards what comes for service IPs: what kube-proxy says of itself.
//!
//! A node that has just booted answers ARP long before its rules exist. The finding is a handicap, which orders nodes and
//! never empties the field: where nobody has a kube-proxy, all have it, and it counts for none.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is known of the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataPlane {
    /// It forwards, or nobody asks.
    Works,
    /// It does not, or is not there.
    Fails,
}

/// What several answers in a row say.
#[derive(Clone, Copy, Debug)]
struct Opinion {
    known: DataPlane,
    /// How many answers in a row said otherwise.
    against: u32,
}

impl Opinion {
    /// Takes an answer. One that fails may be a restart of kube-proxy, whose rules stay; one that works is enough.
    fn handle(&mut self, answer: DataPlane) -> DataPlane {
        if answer == self.known {
            self.against = 0;
            return self.known;
        }
        self.against += 1;
        let enough = match answer {
            DataPlane::Works => 1,
            DataPlane::Fails => FAILURES,
        };
        if self.against >= enough {
            *self = Self { known: answer, against: 0 };
        }
        self.known
    }
}

/// Asks before the start, so that a node that boots knows before anybody counts on it. Where nobody listens, that is told at once;
/// who is slow is asked again: the addresses of a speaker that is restarted on a busy node are not to move for it.
pub(crate) async fn first(url: &Uri) -> DataPlane {
    for _ in 0..FIRST_ASKED {
        if let Some(answer) = ask(url).await {
            return answer;
        }
    }
    DataPlane::Fails
}

/// Asks `url` again and again, until `stop`, and tells `found` what is so.
pub(crate) async fn follow(url: Uri, found: watch::Sender<DataPlane>, stop: CancellationToken) {
    let mut opinion = Opinion { known: *found.borrow(), against: 0 };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
        let known = opinion.handle(ask(&url).await.unwrap_or(DataPlane::Fails));
        found.send_if_modified(|current| {
            let changed = *current != known;
            if changed {
                match known {
                    DataPlane::Works => info!(%url, "the data plane of this node works"),
                    DataPlane::Fails => {
                        warn!(%url, "the data plane of this node does not answer: nodes with one go first");
                    }
                }
                *current = known;
            }
            changed
        });
    }
}

/// Asks once; `None`: no answer came in time.
async fn ask(url: &Uri) -> Option<DataPlane> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, answers(url)).await.ok()?;
    Some(if answer.is_ok_and(|status| status.is_success()) { DataPlane::Works } else { DataPlane::Fails })
}

async fn answers(url: &Uri) -> Result<hyper::StatusCode> {
    let authority = url.authority().context("the URL names no host")?;
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::get(url.path()).header(hyper::header::HOST, authority.as_str()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request);
    tokio::pin!(connection, response);
    // The connection moves the bytes; it ends after the answer at the latest.
    tokio::select! {
        response = &mut response => Ok(response?.status()),
        ended = &mut connection => {
            ended?;
            Ok(response.await?.status())
        }
    }
}

/// Chosen: a node that boots waits no longer than that for the rules that it has, and asking costs nothing.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Chosen: a health check that takes longer says no.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// Chosen: two seconds, after which a kubelet gives up a probe as well.
const FIRST_ASKED: u32 = 4;
/// Chosen: a kube-proxy that is replaced by a roll-out is away for less, and its rules stay.
const FAILURES: u32 = 30;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn a_restart_of_kube_proxy_is_overlooked_and_its_first_good_answer_is_believed() {
        let mut opinion = Opinion { known: DataPlane::Works, against: 0 };
        for _ in 1..FAILURES {
            assert_eq!(opinion.handle(DataPlane::Fails), DataPlane::Works);
        }
        assert_eq!(opinion.handle(DataPlane::Works), DataPlane::Works);
        for _ in 1..FAILURES {
            assert_eq!(opinion.handle(DataPlane::Fails), DataPlane::Works);
        }
        assert_eq!(opinion.handle(DataPlane::Fails), DataPlane::Fails);
        assert_eq!(opinion.handle(DataPlane::Works), DataPlane::Works);
    }

    #[tokio::test]
    async fn who_is_slow_at_the_start_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/healthz", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (_silent, _) = listener.accept().await.unwrap();
            let (mut answered, _) = listener.accept().await.unwrap();
            let _ = answered.read(&mut [0; 1024]).await.unwrap();
            answered.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(5)).await;
        });

        assert_eq!(first(&url).await, DataPlane::Works);
    }

    #[tokio::test]
    async fn only_an_answer_that_says_yes_counts() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", DataPlane::Works),
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", DataPlane::Fails),
            ("what?", DataPlane::Fails),
            ("", DataPlane::Fails),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url: Uri = format!("http://{}/healthz", listener.local_addr().unwrap()).parse().unwrap();
            let mut server = JoinSet::new();
            server.spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            assert_eq!(first(&url).await, expected, "{answer}");
            server.join_next().await.unwrap().unwrap();
        }
        let nobody: Uri = "http://127.0.0.1:1/healthz".parse().unwrap();
        assert_eq!(first(&nobody).await, DataPlane::Fails);
    }
}
