//! Whether the wall clock of this host agrees with the API server's, which tells its own with every answer (RFC 9110 section
//! 6.6.1).

use std::time::{Duration, SystemTime};

use hyper::header::DATE;
use hyper::{HeaderMap, Request};
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Tells until `stop` by how many seconds the clock of this host is ahead; what cannot be asked stays as it was.
pub(crate) async fn follow(client: Client, ahead: watch::Sender<i64>, stop: CancellationToken) {
    let ask_again_and_again = async {
        loop {
            if let Ok(Some(seconds)) = timeout(ANSWER_WITHIN, ask(&client)).await {
                ahead.send_replace(seconds);
            }
            sleep(ASK_EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = ask_again_and_again => {}
    }
}

async fn ask(client: &Client) -> Option<i64> {
    // Everybody may read it; a refusal has a date too.
    let request = Request::get("/version").body(Body::empty()).ok()?;
    let before = now();
    let answer = client.send(request).await.ok()?;
    ahead_of(answer.headers(), before, now())
}

/// By how many seconds a clock that showed `before` and `after` around an answer is ahead of the one that dated it.
fn ahead_of(headers: &HeaderMap, before: SystemTime, after: SystemTime) -> Option<i64> {
    let date = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    // The date is cut off to its second.
    let dated = date..date + Duration::from_secs(1);
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    if let Ok(ahead) = before.duration_since(dated.end) {
        Some(seconds(ahead))
    } else if let Ok(behind) = dated.start.duration_since(after) {
        Some(-seconds(behind))
    } else {
        Some(0)
    }
}

#[expect(clippy::disallowed_methods, reason = "a shell reads the clock: here it is what is judged")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Chosen: a clock that is wrong stays so for long.
const ASK_EVERY: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_clock_is_wrong_by_what_no_way_of_the_answer_explains() {
        // 784111777 s, the example of RFC 9110 section 5.6.7.
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (before, after, ahead) in [
            (784_111_777.0, 784_111_777.5, 0),
            (784_111_776.0, 784_111_777.0, 0),
            (784_111_770.0, 784_111_785.0, 0),
            (784_111_787.9, 784_111_788.0, 9),
            (784_111_700.0, 784_111_707.0, -70),
        ] {
            assert_eq!(ahead_of(&dated(date), at(before), at(after)), Some(ahead), "{before} to {after}");
        }
    }

    #[test]
    fn what_has_no_date_tells_nothing() {
        for headers in [HeaderMap::new(), dated(""), dated("yesterday"), dated("Sun, 06 Nov 1994 08:49:37 +0200")] {
            assert_eq!(ahead_of(&headers, at(0.0), at(0.0)), None, "{headers:?}");
        }
    }

    fn dated(date: &str) -> HeaderMap {
        HeaderMap::from_iter([(DATE, date.parse().unwrap())])
    }

    fn at(seconds: f64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs_f64(seconds)
    }
}
