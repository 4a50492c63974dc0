//! What a datagram does.

use std::time::Instant;

use foca::State;
use garpike_election::NodeName;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tracing::{debug, info, trace, warn};

use super::{Cluster, Phase, Twin};
use crate::codec::{self, Standing};
use crate::config::OUTCAST_FOR;
use crate::datagram::{Datagram, Kind};
use crate::deliveries::{Deliveries, Item};
use crate::envelope::DATAGRAM_MAX;
use crate::facts::{Facts, News};
use crate::message::{FactsHeld, Message};
use crate::peers::Peer;
use crate::session::{Answered, Held};
use crate::suspicion::Suspicions;
use crate::swim::{Spread, Swim};
use crate::{Event, Identity, Path, Rejected, Request, envelope, metrics};

impl Cluster {
    /// Takes a datagram in. Whatever the bytes are, this does not fail.
    pub fn handle_datagram(&mut self, from: impl Into<Path>, bytes: &[u8], now: Instant) {
        self.now = now;
        let from = from.into();
        match self.phase {
            Phase::Joining | Phase::Joined => {}
            Phase::Leaving { .. } | Phase::Gone => return,
        }
        if let Err(rejected) = self.receive(&from, bytes) {
            trace!(%from, reason = rejected.reason(), "datagram rejected");
            self.rejections.count(rejected, &from, now);
        }
        self.settle();
        self.keys.end_answering();
    }

    fn receive(&mut self, from: &Path, bytes: &[u8]) -> Result<(), Rejected> {
        let (text, came_with) = envelope::unwrap(&self.config.sealing, bytes, DATAGRAM_MAX)?;
        let datagram = Datagram::parse(&text)?;
        self.keys.begin_answering(datagram.process, came_with);
        if datagram.process == self.config.process {
            self.recognise_ourselves(&datagram);
            return Err(Rejected::Own);
        }
        if datagram.name == self.config.local.as_str() {
            return Err(Rejected::OwnName);
        }
        if datagram.to.is_some_and(|to| to != self.config.process) {
            return Err(Rejected::OtherProcess);
        }
        // Only a challenge may be meant for whoever gets it.
        if datagram.to.is_none() && datagram.kind != Kind::Challenge {
            return Err(Rejected::OtherProcess);
        }
        match datagram.kind {
            Kind::Challenge => return self.answer(from, &datagram),
            Kind::Answer => return self.take_answer(&datagram),
            Kind::Swim
            | Kind::Suspected
            | Kind::Superseded
            | Kind::Facts
            | Kind::FactsWanted
            | Kind::FactsHeld
            | Kind::Heartbeat
            | Kind::Ping
            | Kind::Pong
            | Kind::Vote
            | Kind::Notice
            | Kind::NoticeHeld => {}
        }
        match self.sessions.admit(&datagram, self.now) {
            Ok(name) => self.handle_proven(from, &name, &datagram),
            Err(Rejected::Unproven) => {
                let held = Held { from: from.clone(), text: text.clone() };
                let nonce = self.sessions.hold(&datagram.sender(), held, &mut self.rng, self.now)?;
                let nonce = nonce.ok_or(Rejected::Unproven)?;
                self.send(Kind::Challenge, Some(datagram.process), from, nonce.as_bytes());
                Ok(())
            }
            Err(rejected) => Err(rejected),
        }
    }

    /// One of our seeds may be an address of our own.
    fn recognise_ourselves(&mut self, datagram: &Datagram<'_>) {
        if let Ok(Message::Challenge(nonce)) = Message::parse(datagram)
            && let Some(seed) = self.sessions.seed_asked_with(nonce)
        {
            self.seeds.is_ourselves(seed);
            self.stale = true;
        }
    }

    fn answer(&mut self, from: &Path, datagram: &Datagram<'_>) -> Result<(), Rejected> {
        let Message::Challenge(nonce) = Message::parse(datagram)? else { return Err(Rejected::Malformed) };
        self.sessions.may_answer(from, self.now)?;
        self.traffic.received(datagram.kind);
        let answer = nonce.with(&codec::encode(self.swim.identity()).expect("an identity is bounded by its name"));
        self.send(Kind::Answer, Some(datagram.process), from, &answer);
        Ok(())
    }

    fn take_answer(&mut self, datagram: &Datagram<'_>) -> Result<(), Rejected> {
        let Message::Answer(nonce, identity) = Message::parse(datagram)? else { return Err(Rejected::Malformed) };
        let answered = self.sessions.answered(nonce, &datagram.sender(), datagram.sequence, self.now)?;
        self.traffic.received(datagram.kind);
        match answered {
            Answered::Seed(addr) => {
                self.seeds.found(addr, identity.name.clone());
                self.stale = true;
                if !self.swim.is_active(&identity) {
                    self.push_request(Request::Exchange { with: identity.gossip });
                    self.swim.announce(identity);
                }
                Ok(())
            }
            Answered::Sender(held) => {
                let datagram = Datagram::parse(&held.text)?;
                let name = self.sessions.admit(&datagram, self.now)?;
                self.handle_proven(&held.from, &name, &datagram)
            }
        }
    }

    /// Handles a datagram that is authentic, fresh and meant for this process, by a process of the node `name`.
    fn handle_proven(&mut self, from: &Path, name: &NodeName, datagram: &Datagram<'_>) -> Result<(), Rejected> {
        let message = Message::parse(datagram)?;
        self.traffic.received(datagram.kind);
        if self.swim.active().next().is_none() && self.watching.is_dark(self.now) {
            self.start_over();
        }
        self.hear(name, datagram.process, from);
        match message {
            Message::Swim(author) => return self.handle_swim(from, &author, datagram.payload),
            Message::Suspected(suspicion) => return self.handle_suspected(name, &suspicion),
            Message::Superseded(by) => return self.handle_superseded(name, &by),
            Message::Facts(facts) => {
                let held = FactsHeld { generation: facts.author.generation, version: facts.version };
                self.learn(facts);
                let held = codec::encode(&held).expect("is two numbers");
                self.send(Kind::FactsHeld, Some(datagram.process), from, &held);
            }
            Message::FactsWanted => {
                let facts = self.own.to_bytes();
                self.send(Kind::Facts, Some(datagram.process), from, &facts);
            }
            Message::FactsHeld(held) => {
                if (held.generation, held.version) == self.own.age() {
                    self.deliveries.acknowledged(name, &Item::Facts);
                    self.stale |= self.phase == Phase::Joining && !self.deliveries.has_facts();
                }
            }
            Message::Heartbeat(number) => self.watching.heartbeat(name, number, self.now),
            Message::Ping => {
                self.watching.subscribe(name, self.now);
                self.send(Kind::Pong, Some(datagram.process), from, &[]);
            }
            // That it was heard is all it says.
            Message::Pong => {}
            Message::Vote(vote) => self.handle_vote(name, &vote),
            Message::Notice(notice) => self.handle_notice(from, name, datagram.process, &notice),
            Message::NoticeHeld(id) => self.handle_notice_held(name, id),
            Message::Challenge(_) | Message::Answer(..) => return Err(Rejected::Malformed),
        }
        Ok(())
    }

    /// Forgets whom this node took for dead while it was alone: it was probably the one that was cut off, and would have
    /// healthy members give up their identities.
    fn start_over(&mut self) {
        debug!("somebody is heard again");
        let rng = StdRng::from_rng(&mut self.rng);
        self.swim = Swim::new(self.swim.identity().clone(), self.config.profile, rng);
        self.timers.clear_swim();
        self.suspicions = Suspicions::default();
        self.peers.pardon();
        self.deliveries = Deliveries::default();
        self.stale = true;
    }

    fn handle_swim(&mut self, from: &Path, author: &Identity, bytes: &[u8]) -> Result<(), Rejected> {
        if let Some(known) = self.swim.named(&author.name)
            && foca::Identity::win_addr_conflict(known.id(), author)
        {
            // foca would let the sender renew itself once per round trip until its generation is high enough.
            let standing =
                Standing { identity: known.id().clone(), incarnation: known.incarnation(), state: known.state() };
            if known.id().process != author.process {
                let payload = codec::encode(&standing).expect("an identity is bounded by its name");
                self.send(Kind::Superseded, Some(author.process), from, &payload);
            }
            return Err(Rejected::Superseded);
        }
        self.swim.handle_data(bytes).map_err(|error| {
            trace!(%from, %error, "foca refuses a datagram");
            Rejected::Refused
        })
    }

    /// Refutes a suspicion, and shows the accuser.
    fn handle_suspected(&mut self, accuser: &NodeName, suspicion: &Standing) -> Result<(), Rejected> {
        if suspicion.identity != *self.swim.identity() {
            return Err(Rejected::Superseded);
        }
        self.swim.refute(suspicion.incarnation);
        if let Some(accuser) = self.member_of(accuser) {
            // Any datagram of foca carries the incarnation; this is the shortest.
            self.swim.announce(accuser);
        }
        Ok(())
    }

    /// An identity with our name and a higher generation is known to a member: an earlier life of ours with a faster
    /// clock, or another node.
    fn handle_superseded(&mut self, teller: &NodeName, by: &Standing) -> Result<(), Rejected> {
        let own = self.swim.identity();
        let ours = by.identity.name == own.name && by.identity.process != own.process;
        if !ours || !foca::Identity::win_addr_conflict(&by.identity, own) {
            return Err(Rejected::Superseded);
        }
        let cannot_live = by.identity.gossip == own.gossip || by.state == State::Down;
        if cannot_live {
            let Some(above) = own.above(by.identity.generation) else { return Err(Rejected::Superseded) };
            info!(generation = %above.generation, "going above the generation of an earlier life of this node");
            self.own.set_author(above.clone());
            self.twin = None;
            self.connected = false;
            self.swim.change_identity(above);
            if let Some(teller) = self.member_of(teller) {
                self.swim.announce(teller);
            }
            self.spread_facts();
        } else {
            let twin = Twin { at: by.identity.gossip, heard: self.now, until: self.now + OUTCAST_FOR };
            if self.counts_itself() {
                warn!(name = %by.identity.name, other = %twin.at, "another node lives under this node's name");
                metrics::name_conflict();
                self.push_event(Event::NameConflict { other: twin.at });
            }
            self.twin = Some(twin);
        }
        Ok(())
    }

    /// Takes facts in, whichever way they came.
    pub(super) fn learn(&mut self, facts: Facts) {
        if facts.author.name == self.config.local {
            return;
        }
        let author = facts.author.clone();
        self.compare_gateways(&facts);
        if self.book.learn(facts) == News::Yes {
            if self.is_news(&author) {
                self.stale = true;
                // It speaks before foca has heard of it.
                self.swim.introduce(std::iter::once(author), Spread::Further);
            } else {
                let is_here = |cluster: &Self| cluster.peers.get(&author.name).map(Peer::is_here);
                let was_here = is_here(self);
                self.follow_facts(&author.name);
                self.stale |= is_here(self) != was_here;
                self.said.insert(author.name);
            }
        }
    }

    /// The identity by which a sender is known to foca.
    fn member_of(&self, sender: &NodeName) -> Option<Identity> {
        self.swim.named(sender).map(|member| member.id().clone())
    }
}
