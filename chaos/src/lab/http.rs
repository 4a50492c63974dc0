//! A plain HTTP GET to a process of a node, for its `/state.json`.
//!
//! The socket is made in the node's namespace and used from the caller's thread. One deadline covers all of it, and
//! the answer is bounded.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use garpike_election::NodeName;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::{Lab, LabError, now};

impl Lab<'_> {
    /// The body of `http://127.0.0.1:port/path` as `node` sees it, when the status is 200.
    ///
    /// # Errors
    ///
    /// When nobody answers within two seconds, or not with 200.
    pub fn http_get(&self, node: &NodeName, port: u16, path: &str) -> Result<String, HttpError> {
        let failed = |source| HttpError::Io { node: node.clone(), port, path: path.to_owned(), source };
        let deadline = now() + TIMEOUT;
        let namespace = &self.node(node)?.namespace;
        let socket = namespace.run(|_| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)));
        let socket = socket.map_err(LabError::from)?.map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let answer = exchange(socket, address, path, deadline).map_err(failed)?;
        body(&answer).map_err(|status| HttpError::Status { node: node.clone(), port, path: path.to_owned(), status })
    }
}

/// Why there is no body.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The lab could not make a socket there.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Nobody answers, or not in time.
    #[error("{node}: GET http://127.0.0.1:{port}{path}: {source}")]
    Io {
        /// Where.
        node: NodeName,
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The answer is not 200, or not HTTP.
    #[error("{node}: GET http://127.0.0.1:{port}{path}: the answer is \"{status}\" instead of 200")]
    Status {
        /// Where.
        node: NodeName,
        /// The port.
        port: u16,
        /// The path.
        path: String,
        /// The first line of the answer.
        status: String,
    },
}

/// HTTP/1.0, so that the server neither chunks its answer nor keeps the connection.
fn exchange(socket: Socket, address: SocketAddr, path: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    socket.connect_timeout(&address.into(), left(deadline)?)?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let len = stream.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..len).filter(|bytes| !bytes.is_empty()) else { return Ok(answer) };
        answer.extend_from_slice(bytes);
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {MAX_ANSWER} bytes")));
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The body of an answer with status 200, or else its first line.
fn body(answer: &[u8]) -> Result<String, String> {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default();
    let mut words = status.split(' ');
    let (Some(version), Some("200")) = (words.next(), words.next()) else { return Err(status.to_owned()) };
    match text.split_once("\r\n\r\n") {
        Some((_, body)) if version.starts_with("HTTP/1.") => Ok(body.to_owned()),
        Some(_) | None => Err(status.to_owned()),
    }
}

/// For the whole exchange; chosen: long for a healthy process on the same machine under load.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Chosen: a `/state.json` of 10 000 service IPs is some 2 MB.
const MAX_ANSWER: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_server_is_asked_and_its_answer_read_to_the_end() {
        let (socket, listener, address) = loopback();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let len = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
            stream.write_all(&[b'x'; 100_000]).unwrap();
            String::from_utf8_lossy(&request[..len]).into_owned()
        });

        let answer = exchange(socket, address, "/state.json", now() + TIMEOUT).unwrap();

        assert!(server.join().unwrap().starts_with("GET /state.json HTTP/1.0\r\n"));
        assert_eq!(body(&answer).unwrap().len(), 100_000);
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let (socket, _listener, address) = loopback();

        let error = exchange(socket, address, "/", now() + Duration::from_millis(50)).unwrap_err();

        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }

    fn loopback() -> (Socket, TcpListener, SocketAddr) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap(), listener, address)
    }

    #[test]
    fn only_a_complete_answer_with_status_200_has_a_body() {
        assert_eq!(body(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Ok("{}".to_owned()));
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\n"), Ok(String::new()));
        assert_eq!(body(b"HTTP/1.1 503 Service Unavailable\r\n\r\nno"), Err("HTTP/1.1 503 Service Unavailable".into()));
        for broken in [&b""[..], b"200", b"HTTP/1.1 200 OK\r\nA: b", b"SSH-2.0 200\r\n\r\n"] {
            assert!(body(broken).is_err(), "{broken:?}");
        }
    }
}
