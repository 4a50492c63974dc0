//! foca, with its effects as data.
//!
//! Every call may leave datagrams, timers and notifications behind; [`Swim::take_effects`] gives them. foca itself
//! remembers whomever it hears of; here it hears of nobody more when [`NODES_MAX`] nodes are remembered, the dead included.

use std::mem;
use std::time::Duration;

use foca::{Foca, Incarnation, Member, NoCustomBroadcast, Notification, OwnedNotification, State, Timer};
use garpike_election::NodeName;
use rand::rngs::StdRng;
use thiserror::Error;

use crate::codec::Codec;
use crate::facts::NODES_MAX;
use crate::{Identity, Profile, config, metrics};

/// The SWIM protocol.
pub(crate) struct Swim {
    foca: Foca<Identity, Codec, StdRng, NoCustomBroadcast>,
    effects: Effects,
}

/// Whether what this node has learnt is to be gossiped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spread {
    /// Somebody may not know it yet.
    Further,
    /// Everybody else knows it.
    No,
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

    /// Takes in a datagram of foca. One that comes while there is room may name as many nodes as fit into it.
    pub(crate) fn handle_data(&mut self, data: &[u8]) -> Result<(), RefusedData> {
        if self.room() == 0 {
            return Err(RefusedData::Full);
        }
        Ok(self.foca.handle_data(data, &mut self.effects)?)
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
    pub(crate) fn introduce(&mut self, identities: impl Iterator<Item = Identity>, spread: Spread) {
        let members = identities.take(self.room()).map(Member::alive);
        note(self.foca.apply_many(members, spread == Spread::Further, &mut self.effects));
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

    /// How many more nodes may be remembered.
    fn room(&self) -> usize {
        NODES_MAX.saturating_sub(self.foca.iter_membership_state().len())
    }
}

/// Why a datagram of foca was not taken in.
#[derive(Debug, Error)]
pub(crate) enum RefusedData {
    #[error("{NODES_MAX} nodes are remembered, there is no room for another")]
    Full,
    #[error(transparent)]
    Foca(#[from] foca::Error),
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use bytes::BufMut as _;
    use foca::{Codec as _, Header};
    use rand::SeedableRng as _;

    use super::*;
    use crate::{Generation, ProcessId};

    #[test]
    fn whoever_is_named_no_more_nodes_are_remembered_than_there_may_be() {
        let mut swim = Swim::new(identity(0), Profile::Default, StdRng::seed_from_u64(1));
        let mut refused = 0;

        for first in (2..2 * NODES_MAX).step_by(NAMED) {
            refused += swim.handle_data(&naming(first..first + NAMED)).map_or(1, |()| 0);
        }
        swim.introduce((3 * NODES_MAX..3 * NODES_MAX + 10).map(identity), Spread::Further);

        let known = swim.known().count();
        assert!((NODES_MAX..=NODES_MAX + NAMED).contains(&known), "{known}");
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn what_is_introduced_at_once_is_bounded_too() {
        let mut swim = Swim::new(identity(0), Profile::Default, StdRng::seed_from_u64(1));

        swim.introduce((1..2 * NODES_MAX).map(identity), Spread::No);

        assert_eq!(swim.known().count(), NODES_MAX);
    }

    #[test]
    fn only_what_somebody_may_not_know_is_gossiped() {
        for (spread, told) in [(Spread::Further, 5), (Spread::No, 0)] {
            let mut swim = Swim::new(identity(0), Profile::Default, StdRng::seed_from_u64(1));

            swim.introduce((1..=5).map(identity), spread);

            assert_eq!((swim.active().count(), swim.foca.updates_backlog()), (5, told), "{spread:?}");
        }
    }

    /// A datagram of node 1 that names these nodes.
    fn naming(nodes: Range<usize>) -> Vec<u8> {
        let (src, dst) = (identity(1), identity(0));
        let mut data = Vec::new();
        Codec
            .encode_header(&Header { src, src_incarnation: 0, dst, message: foca::Message::Gossip }, &mut data)
            .unwrap();
        data.put_u16(nodes.len().try_into().unwrap());
        for node in nodes {
            Codec.encode_member(&Member::alive(identity(node)), &mut data).unwrap();
        }
        data
    }

    fn identity(node: usize) -> Identity {
        Identity {
            name: NodeName::new(&format!("n{node}")).unwrap(),
            generation: Generation(1),
            process: ProcessId(1),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        }
    }

    /// So many fit into a datagram.
    const NAMED: usize = 30;
}
