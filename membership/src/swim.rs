//! foca, with its effects as data.
//!
//! Every call may leave datagrams, timers and notifications behind; [`Swim::take_effects`] gives them.

use std::mem;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use foca::{Foca, Incarnation, Member, Notification, OwnedNotification, State, Timer};
use garpike_election::NodeName;
use rand::rngs::StdRng;

use crate::codec::Codec;
use crate::facts::{Facts, Relay};
use crate::{Identity, config, metrics};

/// The SWIM protocol.
pub(crate) struct Swim {
    foca: Foca<Identity, Codec, StdRng, Relay>,
    effects: Effects,
    gossiped: Receiver<Facts>,
}

/// What foca wants done.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) datagrams: Vec<(Identity, Vec<u8>)>,
    pub(crate) timers: Vec<(Timer<Identity>, Duration)>,
    pub(crate) notifications: Vec<OwnedNotification<Identity>>,
    /// News from gossip.
    pub(crate) facts: Vec<Facts>,
}

impl Swim {
    pub(crate) fn new(identity: Identity, rng: StdRng) -> Self {
        let (relay, gossiped) = Relay::new();
        let foca = Foca::with_custom_broadcast(identity, config::foca(), rng, Codec, relay);
        Self { foca, effects: Effects::default(), gossiped }
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The members that are alive or suspected, this node not among them.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.foca.iter_members()
    }

    /// All members that are remembered.
    pub(crate) fn known(&self) -> impl Iterator<Item = &Member<Identity>> {
        self.foca.iter_membership_state().filter(|member| member.id().name != self.identity().name)
    }

    pub(crate) fn named(&self, name: &NodeName) -> Option<&Member<Identity>> {
        self.known().find(|member| member.id().name == *name)
    }

    pub(crate) fn is_active(&self, identity: &Identity) -> bool {
        self.active().any(|member| member.id() == identity)
    }

    pub(crate) fn handle_data(&mut self, data: &[u8]) -> Result<(), foca::Error> {
        self.foca.handle_data(data, &mut self.effects)
    }

    pub(crate) fn handle_timer(&mut self, timer: Timer<Identity>) {
        note(self.foca.handle_timer(timer, &mut self.effects));
    }

    pub(crate) fn announce(&mut self, to: Identity) {
        note(self.foca.announce(to, &mut self.effects));
    }

    pub(crate) fn gossip(&mut self) {
        note(self.foca.gossip(&mut self.effects));
    }

    /// Puts our facts into the gossip of the next time, and sends them to a few members at once.
    pub(crate) fn gossip_facts(&mut self, facts: &Facts) {
        let result = self.foca.add_broadcast(&facts.to_bytes());
        note(result.and_then(|_added| self.foca.broadcast(&mut self.effects)));
    }

    /// Hears that this node is suspected at `incarnation`, and refutes.
    pub(crate) fn refute(&mut self, incarnation: Incarnation) {
        let ourselves = Member::new(self.identity().clone(), incarnation, State::Suspect);
        note(self.foca.apply_many(std::iter::once(ourselves), true, &mut self.effects));
    }

    pub(crate) fn change_identity(&mut self, identity: Identity) {
        note(self.foca.change_identity(identity, &mut self.effects));
    }

    pub(crate) fn leave(&mut self) {
        note(self.foca.leave_cluster(&mut self.effects));
    }

    pub(crate) fn take_effects(&mut self) -> Effects {
        self.effects.facts.extend(self.gossiped.try_iter());
        mem::take(&mut self.effects)
    }
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.timers.is_empty() && self.notifications.is_empty() && self.facts.is_empty()
    }
}

impl foca::Runtime<Identity> for Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        self.notifications.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.datagrams.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, timer: Timer<Identity>, after: Duration) {
        self.timers.push((timer, after));
    }
}

/// Errors of foca end nothing: it recovers by itself, so they are counted.
fn note(result: Result<(), foca::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "foca");
        metrics::foca_error();
    }
}
