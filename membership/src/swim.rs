//! foca, with its effects as data.
//!
//! Every call may leave datagrams, timers and notifications behind; [`Swim::take_effects`] gives them.

use std::mem;
use std::time::Duration;

use foca::{Foca, Incarnation, Member, NoCustomBroadcast, Notification, OwnedNotification, State, Timer};
use garpike_election::NodeName;
use rand::rngs::StdRng;

use crate::codec::Codec;
use crate::{Identity, Profile, config, metrics};

/// The SWIM protocol.
pub(crate) struct Swim {
    foca: Foca<Identity, Codec, StdRng, NoCustomBroadcast>,
    effects: Effects,
}

/// What foca wants done.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) datagrams: Vec<(Identity, Vec<u8>)>,
    pub(crate) timers: Vec<(Timer<Identity>, Duration)>,
    pub(crate) notifications: Vec<OwnedNotification<Identity>>,
}

impl Swim {
    pub(crate) fn new(identity: Identity, profile: Profile, rng: StdRng) -> Self {
        let foca = Foca::new(identity, config::foca(profile), rng, Codec);
        Self { foca, effects: Effects::default() }
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

    /// A verdict: nothing that the member says can take it back, but it can come back as another identity.
    pub(crate) fn condemn(&mut self, identity: Identity) {
        note(self.foca.apply_many(std::iter::once(Member::down(identity)), true, &mut self.effects));
        self.gossip();
    }

    /// Takes in members that another node knows.
    pub(crate) fn introduce(&mut self, identities: impl Iterator<Item = Identity>) {
        note(self.foca.apply_many(identities.map(Member::alive), true, &mut self.effects));
    }

    /// Gives up the identity that the others have declared dead.
    pub(crate) fn renew(&mut self) {
        let ourselves = Member::down(self.identity().clone());
        note(self.foca.apply_many(std::iter::once(ourselves), true, &mut self.effects));
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
        mem::take(&mut self.effects)
    }
}

impl Effects {
    pub(crate) fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.timers.is_empty() && self.notifications.is_empty()
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
