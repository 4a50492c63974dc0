//! What the speaker of this host shows of itself: `/state.json`.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Where a speaker shows its state by default.
pub(crate) const STATE_URL: &str = "http://127.0.0.1:17472/state.json";

/// Reads a JSON document from a server in plain HTTP.
pub(crate) fn fetch(url: &str) -> Result<Value> {
    let rest = url.strip_prefix("http://").with_context(|| format!("\"{url}\" does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let with_port = if host.parse::<std::net::SocketAddr>().is_ok() || host.rsplit_once(':').is_some_and(is_port) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let address = with_port.to_socket_addrs()?.next().with_context(|| format!("\"{host}\" has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // Version 1.0: the answer ends with the connection.
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("the answer is \"{status}\"");
    }
    serde_json::from_str(body).context("the answer is no JSON")
}

fn is_port((host, port): (&str, &str)) -> bool {
    port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
}

/// Chosen: the speaker is on the same host, or a port-forward away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Chosen: far above the state of a thousand nodes with ten thousand addresses.
const ANSWER_MAX: u64 = 64 * 1024 * 1024;
