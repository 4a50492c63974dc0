//! What the rules say of each node, for all addresses with the same placements and endpoints.
//!
//! Hard rules decide who may own them. Those who may are ordered by state and handicaps; the hash, which differs from
//! address to address, is not looked at here. A node whose speaker is away, and for which nobody can stand in, counts as
//! the last choice: its addresses would not be answered.

use crate::assignment::Unowned;
use crate::desired::{Address, Backing, Desired, Endpoints, Selection};
use crate::members::{Member, Members, NodeState, Presence};
use crate::{InterfaceName, NodeName};

/// What the rules say of one node.
#[derive(Debug)]
pub(crate) enum Fitness<'a> {
    /// It is not alive.
    Dead,
    /// It may not own them.
    Unfit(Unowned),
    /// It may not own them for want of an endpoint, which somebody who stands in does not need.
    Unbacked(Unowned, Candidate<'a>),
    /// It may.
    Fit(Candidate<'a>),
}

/// A node that may own them.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    /// Its place before the hash is looked at.
    pub(crate) rank: Rank,
    member: &'a Member,
    /// Where it may announce them.
    interfaces: Selection<InterfaceName>,
}

/// The order of the candidates but for the hash; the first is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    cover: Cover,
    /// Before the state: endpoints that terminate are gone within seconds.
    backing: Backing,
    state: NodeState,
    /// What all candidates have adds the same to each: it changes no order, and so counts for none.
    handicaps: usize,
}

impl Rank {
    /// Whether it goes before `other` whatever the handicaps of both and whomever an operator chose.
    pub(crate) fn state_is_better_than(self, other: Self) -> bool {
        (self.cover, self.backing, self.state) < (other.cover, other.backing, other.state)
    }
}

/// Whether somebody would answer for what a node owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Cover {
    /// Itself or a stand-in.
    Answered,
    /// Nobody: its speaker is away, and no candidate that is there shares a segment with it.
    Silent,
}

impl<'a> Fitness<'a> {
    /// Judges each node of the roster for addresses with the placements of `address`.
    pub(crate) fn of_all(roster: &[NodeName], address: &Address, desired: &Desired, members: &'a Members) -> Vec<Self> {
        let mut all: Vec<Self> = roster.iter().map(|node| Self::of(node, address, desired, members)).collect();
        for number in 0..all.len() {
            let Some(Fitness::Fit(away)) = all.get(number) else { continue };
            let silent = !away.is_here() && !all.iter().any(|other| other.deputy().is_some_and(|o| o.covers(away)));
            if silent && let Some(Fitness::Fit(away)) = all.get_mut(number) {
                away.rank.cover = Cover::Silent;
            }
        }
        all
    }

    fn of(node: &NodeName, address: &Address, desired: &Desired, members: &'a Members) -> Self {
        let Some(member) = members.nodes.get(node) else { return Self::Dead };
        if address.placements.is_empty() {
            return Self::Unfit(Unowned::NoAdvertisement);
        }
        let Some(interfaces) = address.interfaces_on(node) else { return Self::Unfit(Unowned::NoSelectedNode) };
        if desired.excluded.contains(node) {
            Self::Unfit(Unowned::AllExcluded)
        } else if !interfaces.meets(&member.interfaces) {
            Self::Unfit(Unowned::NoInterface)
        } else {
            let backing = address.endpoints.on(node);
            let rank = Rank {
                cover: Cover::Answered,
                backing: backing.unwrap_or(Backing::Ready),
                state: member.state,
                handicaps: member.handicaps.len(),
            };
            let candidate = Candidate { rank, member, interfaces };
            match (backing, &address.endpoints) {
                (Some(_), _) => Self::Fit(candidate),
                (None, Endpoints::Local(_)) => Self::Unbacked(Unowned::NoLocalEndpoint, candidate),
                (None, Endpoints::Nowhere | Endpoints::Anywhere) => Self::Unbacked(Unowned::NoEndpoint, candidate),
            }
        }
    }

    /// The candidate that it is, if it may own them.
    pub(crate) fn candidate(&self) -> Option<&Candidate<'a>> {
        match self {
            Self::Dead | Self::Unfit(_) | Self::Unbacked(..) => None,
            Self::Fit(candidate) => Some(candidate),
        }
    }

    /// What it is as one that might stand in: the kernel of the owner serves, so no endpoint is needed.
    pub(crate) fn deputy(&self) -> Option<&Candidate<'a>> {
        match self {
            Self::Dead | Self::Unfit(_) => None,
            Self::Fit(candidate) | Self::Unbacked(_, candidate) => Some(candidate),
        }
    }
}

impl Candidate<'_> {
    /// Whether its speaker runs.
    pub(crate) fn is_here(&self) -> bool {
        match self.member.presence {
            Presence::Here => true,
            Presence::Away => false,
        }
    }

    /// Whether it can stand in for `owner`: it is there, and what it sends reaches a segment of the owner.
    pub(crate) fn covers(&self, owner: &Candidate<'_>) -> bool {
        // Who has not yet said how its wires look is believed to be where the others are, as most clusters are.
        let unknown = self.member.wires.is_empty() || owner.member.wires.is_empty();
        self.is_here() && (unknown || self.wires().any(|own| owner.wires().any(|other| own.meets(other))))
    }

    /// The wires of the interfaces that may announce.
    fn wires(&self) -> impl Iterator<Item = &crate::Wire> {
        self.member.wires.iter().filter(|(name, _)| self.interfaces.contains(name)).map(|(_, wire)| wire)
    }
}
