//! One conversation, as either end has it.
//!
//! ```text
//! client   Greeted ──hello──► Over                       equal digests, or only to be reached
//!             │──hello──► Told ──state──► Over            exchange
//!             └──hello──► Observing ◄─┐ state, unchanged
//!                             └───────┘
//! server   Silent ──hello──► Answered ──state──► Over
//!                               │──end──► Over            equal digests, or only to be reached
//!                               └──subscribe──► Observed
//! ```
//!
//! Anything else, and any frame that is not for this conversation or not the next one, ends it with a [`StreamFault`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::frames::{FRAME_MAX, HELLO_MAX, Incoming};
use super::text::{Hello, Kind, Nonce, Text};
use super::{Purpose, Snapshot, StreamFault};
use crate::datagram::Sender;
use crate::{Rejected, Sealing};

/// The state of one conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    sealing: Sealing,
    rng: StdRng,
    local: Sender,
    snapshot: Snapshot,
    incoming: Incoming,
    ours: Nonce,
    theirs: Nonce,
    /// How many frames were sent, and received.
    sent: u64,
    received: u64,
    stage: Stage,
    /// When it began.
    began: Instant,
    /// When something is to happen.
    due: Instant,
    transmits: VecDeque<Vec<u8>>,
    events: VecDeque<StreamEvent>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeted(Purpose),
    Told,
    Observing,
    Silent,
    Answered(Purpose),
    Observed,
    Over,
}

/// What a conversation brings. All of it is authentic and fresh.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum StreamEvent {
    /// The server has answered: this is who it is.
    Met {
        /// The server.
        server: Sender,
        /// Whether it has something to tell us, or we it.
        differs: bool,
    },
    /// What the other end knows.
    State(Vec<u8>),
    /// The client observes from here on: it is to be told of changes.
    Observed,
}

impl Conversation {
    /// The end that connects.
    pub(crate) fn open(
        purpose: Purpose,
        sealing: Sealing,
        local: Sender,
        snapshot: Snapshot,
        rng: StdRng,
        now: Instant,
    ) -> Self {
        let mut client = Self::new(Stage::Greeted(purpose), sealing, local, snapshot, rng, now);
        let hello = client.hello(purpose);
        client.send(Kind::ClientHello, &hello).expect("a hello is far shorter than the longest frame");
        client
    }

    /// The end that is connected to.
    ///
    /// `snapshot` may be a little older than what the node knows by the time that it is sent.
    pub(crate) fn serve(sealing: Sealing, local: Sender, snapshot: Snapshot, rng: StdRng, now: Instant) -> Self {
        Self::new(Stage::Silent, sealing, local, snapshot, rng, now)
    }

    /// Takes what the other end sent.
    ///
    /// # Errors
    ///
    /// When that ends the conversation.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], now: Instant) -> Result<(), StreamFault> {
        self.incoming.push(bytes);
        while let Some(text) = self.incoming.next(&self.sealing, self.limit())? {
            self.handle_text(&text, now)?;
        }
        Ok(())
    }

    /// The other end has nothing more to say.
    ///
    /// # Errors
    ///
    /// When it had not said enough.
    pub(crate) fn handle_end(&mut self) -> Result<(), StreamFault> {
        match self.stage {
            Stage::Silent if self.incoming.is_empty() => Err(StreamFault::Silent),
            Stage::Silent | Stage::Greeted(_) | Stage::Told => Err(StreamFault::Cut),
            Stage::Answered(_) | Stage::Observing | Stage::Observed | Stage::Over => {
                let in_the_middle = !self.incoming.is_empty();
                self.stage = Stage::Over;
                if in_the_middle { Err(StreamFault::Cut) } else { Ok(()) }
            }
        }
    }

    /// Does what is due at `now`.
    ///
    /// # Errors
    ///
    /// When the other end was too slow.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Result<(), StreamFault> {
        if now < self.due {
            return Ok(());
        }
        match self.stage {
            Stage::Observed => {
                self.due = now + KEEP_ALIVE_EVERY;
                self.send(Kind::Unchanged, &[])
            }
            Stage::Greeted(_) | Stage::Told | Stage::Observing | Stage::Silent | Stage::Answered(_) | Stage::Over => {
                Err(StreamFault::Late)
            }
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// Tells an observer what the node knows since something has changed.
    ///
    /// # Errors
    ///
    /// When it cannot be told.
    pub(crate) fn handle_snapshot(&mut self, snapshot: Snapshot, now: Instant) -> Result<(), StreamFault> {
        self.snapshot = snapshot;
        match self.stage {
            Stage::Observed => {
                self.due = now + KEEP_ALIVE_EVERY;
                self.send_state()
            }
            Stage::Greeted(_) | Stage::Told | Stage::Observing | Stage::Silent | Stage::Answered(_) | Stage::Over => {
                Ok(())
            }
        }
    }

    /// The next bytes to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next thing that the conversation brought.
    pub(crate) fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Whether the purpose is reached: once all is sent, the connection can be closed.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    fn new(stage: Stage, sealing: Sealing, local: Sender, snapshot: Snapshot, mut rng: StdRng, now: Instant) -> Self {
        Self {
            sealing,
            local,
            snapshot,
            incoming: Incoming::default(),
            ours: Nonce::draw(&mut rng),
            theirs: Nonce::UNKNOWN,
            sent: 0,
            received: 0,
            stage,
            began: now,
            due: now + HANDSHAKE_WITHIN,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng,
        }
    }

    /// Strangers may send nothing but a hello.
    fn limit(&self) -> usize {
        match self.stage {
            Stage::Silent | Stage::Greeted(_) => HELLO_MAX,
            Stage::Told | Stage::Observing | Stage::Answered(_) | Stage::Observed | Stage::Over => FRAME_MAX,
        }
    }

    fn handle_text(&mut self, text: &[u8], now: Instant) -> Result<(), StreamFault> {
        let text = Text::parse(text)?;
        // The hello of a client cannot know our nonce; whatever it leads to waits for a frame that does.
        let expected = if self.stage == Stage::Silent { Nonce::UNKNOWN } else { self.ours };
        if text.to != expected || text.number != self.received {
            return Err(Rejected::Replayed.into());
        }
        self.received += 1;
        match (self.stage, text.kind) {
            (Stage::Silent, Kind::ClientHello) => self.answer(Hello::parse(text.payload)?),
            (Stage::Greeted(purpose), Kind::ServerHello) => self.go_on(purpose, Hello::parse(text.payload)?, now),
            (Stage::Answered(Purpose::Exchange), Kind::State) => {
                self.stage = Stage::Over;
                self.events.push_back(StreamEvent::State(text.payload.to_vec()));
                self.send_state()
            }
            (Stage::Answered(Purpose::Observe), Kind::Subscribe) => {
                nothing(text.payload)?;
                self.stage = Stage::Observed;
                self.due = now + KEEP_ALIVE_EVERY;
                self.events.push_back(StreamEvent::Observed);
                self.send_state()
            }
            (Stage::Told, Kind::State) => {
                self.stage = Stage::Over;
                self.events.push_back(StreamEvent::State(text.payload.to_vec()));
                Ok(())
            }
            (Stage::Observing, Kind::State) => {
                self.due = now + IDLE_MAX;
                self.events.push_back(StreamEvent::State(text.payload.to_vec()));
                Ok(())
            }
            (Stage::Observing, Kind::Unchanged) => {
                self.due = now + IDLE_MAX;
                Ok(nothing(text.payload)?)
            }
            (_, Kind::ClientHello | Kind::ServerHello | Kind::State | Kind::Subscribe | Kind::Unchanged) => {
                Err(StreamFault::Unexpected)
            }
        }
    }

    /// The server answers a hello.
    fn answer(&mut self, client: Hello) -> Result<(), StreamFault> {
        if client.sender.process == self.local.process {
            return Err(Rejected::Own.into());
        }
        self.theirs = client.nonce;
        self.stage = Stage::Answered(client.purpose);
        self.due = self.began + DONE_WITHIN;
        let hello = self.hello(client.purpose);
        self.send(Kind::ServerHello, &hello)
    }

    /// The client says what it has come for.
    fn go_on(&mut self, purpose: Purpose, server: Hello, now: Instant) -> Result<(), StreamFault> {
        if server.sender.process == self.local.process {
            return Err(Rejected::Own.into());
        }
        if server.purpose != purpose {
            return Err(StreamFault::Unexpected);
        }
        self.theirs = server.nonce;
        let differs = server.digest != self.snapshot.digest;
        self.events.push_back(StreamEvent::Met { server: server.sender, differs });
        match purpose {
            Purpose::Exchange if differs => {
                self.stage = Stage::Told;
                self.due = self.began + DONE_WITHIN;
                self.send_state()
            }
            Purpose::Exchange | Purpose::Reach => {
                self.stage = Stage::Over;
                Ok(())
            }
            Purpose::Observe => {
                self.stage = Stage::Observing;
                self.due = now + IDLE_MAX;
                self.send(Kind::Subscribe, &[])
            }
        }
    }

    fn hello(&self, purpose: Purpose) -> Vec<u8> {
        let digest = self.snapshot.digest;
        Hello { nonce: self.ours, sender: self.local.clone(), digest, purpose }.to_bytes()
    }

    fn send_state(&mut self) -> Result<(), StreamFault> {
        let state = self.snapshot.state.clone();
        self.send(Kind::State, &state)
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), StreamFault> {
        let text = Text { kind, to: self.theirs, number: self.sent, payload }.to_bytes();
        self.transmits.push_back(self.incoming.frame(&self.sealing, &text, &mut self.rng)?);
        self.sent += 1;
        Ok(())
    }
}

fn nothing(payload: &[u8]) -> Result<(), Rejected> {
    payload.is_empty().then_some(()).ok_or(Rejected::Malformed)
}

/// Chosen: a round trip takes milliseconds; a stranger who says nothing holds a place no longer than this.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(2);

/// Chosen: 1 MiB each way at 10 Mbit/s takes 1.7 s.
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// Chosen: an observer learns within [`IDLE_MAX`] that a speaker is gone, after two lost signs of life.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Chosen: three signs of life.
const IDLE_MAX: Duration = Duration::from_secs(15);
