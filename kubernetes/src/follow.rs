//! All objects of a kind, and what becomes of them.

use std::collections::VecDeque;
use std::fmt;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::failure::failure;

/// What there is of a kind, or what has become of it.
#[derive(Clone, Debug)]
pub enum Update<K> {
    /// These are all, whatever was told before: at the start, and whenever changes may have been missed.
    All(Vec<K>),
    /// One is there, or has changed.
    Applied(K),
    /// One is gone; this was its last state.
    Gone(K),
    /// Nothing is told until the API server answers again; what was told before may be old by now. Told once until then.
    Trouble(Trouble),
}

/// Why nothing is told of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The right is missing; the text of the API server names verb and resource.
    Forbidden(String),
    /// The kind is unknown: its CRD is missing.
    Unknown(String),
    /// The API server is away, or answers with something else.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden(text) => write!(f, "a right is missing: {text}"),
            Self::Unknown(text) => write!(f, "the cluster does not know the kind, its CRD is missing: {text}"),
            Self::Failed(text) => f.write_str(text),
        }
    }
}

/// Tells what there is of a kind, for ever. `trim` takes away from each object, as it comes, what nobody here reads: most
/// of its size.
pub fn follow<K>(api: Api<K>, config: watcher::Config, trim: fn(&mut K)) -> impl Stream<Item = Update<K>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    follow_as(api, config, move |mut object| {
        trim(&mut object);
        object
    })
}

/// As [`follow`]; of each object only what `keep` makes of it is kept, from the first page of a list on.
pub fn follow_as<K, T>(
    api: Api<K>,
    config: watcher::Config,
    keep: impl Fn(K) -> T + Send,
) -> impl Stream<Item = Update<T>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Send,
{
    let events = watcher::watcher(api, config.page_size(PAGE));
    let state = State { keep, listing: Vec::new(), trouble: None, failures: 0, pause: None, ready: VecDeque::new() };
    stream::unfold((Box::pin(events), state), move |(mut events, mut state)| async move {
        loop {
            if let Some(update) = state.ready.pop_front() {
                return Some((update, (events, state)));
            }
            if let Some(pause) = state.pause.take() {
                sleep(pause).await;
            }
            match events.next().await? {
                Ok(event) => state.handle(event),
                Err(error) => state.fail(&error),
            }
        }
    })
}

struct State<T, F> {
    keep: F,
    listing: Vec<T>,
    /// What was told last, until an answer comes.
    trouble: Option<Trouble>,
    /// How many requests failed since something was told.
    failures: u32,
    /// How long to wait before the API server is asked again.
    pause: Option<Duration>,
    ready: VecDeque<Update<T>>,
}

impl<T, F> State<T, F> {
    fn handle<K>(&mut self, event: Event<K>)
    where
        F: Fn(K) -> T,
    {
        match event {
            Event::Init => {
                self.listing = Vec::new();
                return;
            }
            // The next page may fail.
            Event::InitApply(object) => {
                self.listing.push((self.keep)(object));
                return;
            }
            Event::InitDone => self.ready.push_back(Update::All(std::mem::take(&mut self.listing))),
            Event::Apply(object) => self.ready.push_back(Update::Applied((self.keep)(object))),
            Event::Delete(object) => self.ready.push_back(Update::Gone((self.keep)(object))),
        }
        self.trouble = None;
        self.failures = 0;
    }

    fn fail(&mut self, error: &watcher::Error) {
        self.pause = Some(FIRST_PAUSE.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS)));
        self.failures = self.failures.saturating_add(1);
        let Some(trouble) = trouble(error) else { return };
        if self.trouble.as_ref() != Some(&trouble) {
            self.ready.push_back(Update::Trouble(trouble.clone()));
            self.trouble = Some(trouble);
        }
    }
}

/// What is worth telling of an error; `None`: the watch goes on by itself.
fn trouble(error: &watcher::Error) -> Option<Trouble> {
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => cause,
        // Too old a version, mostly: everything is listed again.
        watcher::Error::WatchError(status) if status.code == GONE => return None,
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => {
            return Some(Trouble::Failed(error.to_string()));
        }
    };
    let kube::Error::Api(status) = cause else { return Some(Trouble::Failed(failure(cause))) };
    match status.code {
        GONE => None,
        FORBIDDEN => Some(Trouble::Forbidden(status.message.clone())),
        NOT_FOUND => Some(Trouble::Unknown(status.message.clone())),
        code => Some(Trouble::Failed(format!("{} ({code})", status.message))),
    }
}

/// How many objects are listed at once. Chosen: five kinds are listed at a time, and each page is there as text and as objects.
const PAGE: u32 = 100;
const FORBIDDEN: u16 = 403;
const NOT_FOUND: u16 = 404;
/// The version is too old (410).
const GONE: u16 = 410;
/// Chosen: an API server that restarts is away for seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Chosen: 100 ms become 6.4 s.
const MAX_DOUBLINGS: u32 = 6;
