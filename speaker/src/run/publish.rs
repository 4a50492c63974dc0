//! Who is told of a new assignment: the announcer first, then people by log, metrics and `/state.json`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use garpike_election::{Change, NodeName, NodeState, Presence, Selection, ServiceIp, Unowned};
use tracing::{debug, info, warn};

use super::{Speaker, now, presence};
use crate::metrics;
use crate::pipeline::View;

impl Speaker {
    /// Makes a new assignment known: to the announcer first, then to people.
    pub(super) async fn publish(&mut self, changes: Vec<Change>, cause: &str) {
        let duties = self.pipeline.duties();
        let stood_in = self.duties.borrow().stood_in.len();
        if stood_in != duties.stood_in.len() {
            info!(before = stood_in, addresses = duties.stood_in.len(), "answering in place of owners that are away");
        }
        self.duties.send_if_modified(|current| {
            let changed = *current != duties;
            *current = duties;
            changed
        });
        // The announcer runs on this thread: its first frames do not wait for the log.
        tokio::task::yield_now().await;
        let view = self.pipeline.view().clone();
        self.report_unowned(&view);
        self.count_answered(&view);
        report_stand_ins(&view, &self.node);
        self.view.send_replace(view);
        let at = wall_clock();
        self.decisions.send_modify(|decisions| decisions.note(&changes, cause, at));
        for Change { ip, from, to } in &changes {
            let meaning = match (from, to) {
                (_, Some(to)) if *to == self.node => "gained",
                (Some(from), _) if *from == self.node => "lost",
                (_, _) => "elsewhere",
            };
            metrics::owner_changed(meaning);
            let name = |node: &Option<NodeName>| node.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            if changes.len() <= CHANGES_LOGGED {
                info!(service_ip = %ip, from = name(from), to = name(to), meaning, cause, "owner changed");
            } else {
                debug!(service_ip = %ip, from = name(from), to = name(to), meaning, "owner changed");
            }
        }
        if changes.len() > CHANGES_LOGGED {
            info!(addresses = changes.len(), cause, "owners changed; --log-level debug names each");
        }
    }

    /// Notes how many addresses this node answers for from here on, and how many nobody does, if it is the one that counts those.
    fn count_answered(&mut self, view: &View) {
        let elected = || view.assignment.addresses.values();
        let answered = elected().filter(|elected| elected.owner() == Some(&self.node)).count();
        let first = view.members.as_ref().and_then(|members| members.nodes.keys().next());
        let counts = first == Some(&self.node);
        let unowned = elected().filter(|elected| counts && elected.owner().is_none()).count();
        self.availability.handle(answered, unowned, now());
    }

    /// Counts the addresses that nobody may own, and warns once of each, as soon as this node can judge that.
    fn report_unowned(&mut self, view: &View) {
        let addresses = &view.assignment.addresses;
        let unowned: BTreeMap<ServiceIp, Unowned> =
            addresses.iter().filter_map(|(ip, elected)| Some((*ip, elected.unowned?))).collect();
        metrics::addresses(addresses.len(), unowned.len());
        let local = view.members.as_ref().and_then(|members| members.nodes.get(&self.node));
        let nowhere = Selection::Only([].into());
        if !local.is_some_and(|local| serves(local.state) && local.interfaces != nowhere) {
            return;
        }
        for (ip, unowned) in unowned.iter().filter(|(ip, unowned)| self.unowned.get(ip) != Some(unowned)) {
            let Some(address) = view.desired.addresses.get(ip) else { continue };
            let services: Vec<String> = address.services.iter().map(ToString::to_string).collect();
            let interfaces = address.placements.iter().map(|placement| placement.interfaces.clone());
            let interfaces = interfaces.reduce(Selection::union).unwrap_or(Selection::All);
            let (reason, mend) = (unowned.reason(), unowned.mend());
            warn!(service_ip = %ip, ?services, ?interfaces, reason, "nobody answers for the address; {mend}");
        }
        self.unowned = unowned;
    }
}

/// Counts the addresses whose owner is away, by who answers for them.
fn report_stand_ins(view: &View, local: &NodeName) {
    let (mut here, mut elsewhere, mut nobody) = (0, 0, 0);
    for elected in view.assignment.addresses.values() {
        let Some(owner) = elected.owner() else { continue };
        match (presence(view, owner), &elected.stand_in) {
            (Presence::Here, _) => {}
            (Presence::Away, Some(stand_in)) if stand_in == local => here += 1,
            (Presence::Away, Some(_)) => elsewhere += 1,
            (Presence::Away, None) => nobody += 1,
        }
    }
    metrics::stood_in(here, elsewhere, nobody);
}

/// Whether a node in this state answers for what it owns and can judge who else does.
fn serves(state: NodeState) -> bool {
    match state {
        NodeState::Ready | NodeState::HeldDown | NodeState::Draining => true,
        NodeState::Joining | NodeState::Restarting => false,
    }
}

#[expect(clippy::disallowed_methods, reason = "decisions are told with their time")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// Chosen: a screen of lines; a move of thousands of addresses must not flood the log.
const CHANGES_LOGGED: usize = 16;
