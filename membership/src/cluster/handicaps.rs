//! The links of this node, and what makes it a worse owner than others: it finds that out itself, and tells.

use std::time::{Duration, Instant};

use garpike_election::Handicap;
use tracing::{info, warn};

use super::Cluster;
use crate::facts::{Facts, News};
use crate::lost_gateway::Finding;
use crate::{Gateway, Request, Surroundings, metrics};

impl Cluster {
    /// Takes the links of this node, and tells everybody what they should know of them.
    pub fn set_surroundings(&mut self, surroundings: Surroundings, now: Instant) {
        self.now = now;
        self.config.surroundings = surroundings;
        self.say_surroundings();
        self.review_handicaps();
        self.settle();
    }

    /// Takes note of how late this node comes to do what was due.
    pub(super) fn note_lateness(&mut self, due: Option<Instant>) {
        let by = due.map_or(Duration::ZERO, |due| self.now.saturating_duration_since(due));
        if self.lateness.handle(by, self.now) == News::Yes {
            warn!("the timers of this node are late again and again: it ranks behind others");
            self.say_surroundings();
        }
    }

    /// Looks whether what this node says of its fitness is still true.
    pub(super) fn review_handicaps(&mut self) {
        if self.lateness.review(self.now) == News::Yes {
            info!("the timers of this node are in time");
            self.say_surroundings();
        }
        let finding = self.look_for_gateway();
        if self.lost_gateway.handle(finding, self.now) == News::Yes {
            if self.lost_gateway.is_handicap() {
                warn!("this node has lost a gateway that others reach: it ranks behind them");
            } else {
                info!("the gateway of this node answers");
            }
            self.say_surroundings();
        }
    }

    /// Tells what there is to know of the links of this node, and of its fitness, if that is news.
    pub(super) fn say_surroundings(&mut self) {
        let mut said = self.config.surroundings.clone();
        let found =
            [(Handicap::Late, self.lateness.is_handicap()), (Handicap::NoGateway, self.lost_gateway.is_handicap())];
        said.handicaps.extend(found.into_iter().filter_map(|(handicap, is_so)| is_so.then_some(handicap)));
        metrics::handicaps(&said.handicaps);
        if self.own.set_surroundings(&said) == News::Yes {
            self.spread_facts();
        }
    }

    /// A neighbour's gateway is silent: is ours? Whoever looks at once keeps those apart who have lost it from those who
    /// have not.
    pub(super) fn compare_gateways(&mut self, theirs: &Facts) {
        let ours = self.config.surroundings.gateway;
        if theirs.gateway() == Gateway::Silent && ours == Gateway::Answers && self.is_neighbour(theirs) {
            self.push_request(Request::AskStations);
        }
    }

    fn look_for_gateway(&self) -> Finding {
        match self.config.surroundings.gateway {
            Gateway::Answers => Finding::Reached,
            Gateway::Silent => {
                let mut said = self.peers.here().filter_map(|peer| self.book.of(&peer.identity));
                let knows_better = |facts: &Facts| facts.gateway() == Gateway::Answers && self.is_neighbour(facts);
                let lost_here = !self.watching.is_dark(self.now) && said.any(knows_better);
                if lost_here { Finding::LostHere } else { Finding::LostEverywhere }
            }
        }
    }

    /// Whether the node that says this is on a wire of ours.
    fn is_neighbour(&self, facts: &Facts) -> bool {
        !self.wire_paths(&facts.wires()).is_empty()
    }
}
