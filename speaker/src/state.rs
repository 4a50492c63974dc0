//! What a speaker knows, as the JSON document `/state.json`.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::Move;
use garpike_election::{Handicap, NodeName, NodeState, Presence, Selection, ServiceIp, Spread, Unowned};
use serde::{Deserialize, Serialize};

use crate::checks::{Finding, FindingState};
use crate::decisions::Decision;
use crate::pipeline::View;
use crate::run::now;
use crate::source::Origin;
use crate::source::cluster::{Kind, Watch};
use crate::window::Window;

/// The document.
#[derive(Clone, Debug, Serialize)]
pub struct State {
    /// Version of the speaker.
    pub version: &'static str,
    /// The node that speaks.
    pub node: NodeName,
    /// What it is doing; `null` before the membership has started.
    pub state: Option<NodeState>,
    /// Whole seconds since the start of the process.
    pub uptime_seconds: u64,
    /// The living members as this node sees them, in the order of their names.
    pub members: Vec<MemberState>,
    /// How owners are spread over the nodes: `balanced` while all members want it.
    pub placement: Spread,
    /// Who owns each service IP; `null`: nobody, `addresses` says why.
    pub owners: BTreeMap<ServiceIp, Option<NodeName>>,
    /// The service IPs of others that this node answers for while their owner's speaker is away.
    pub stands_in_for: Vec<ServiceIp>,
    /// Each service IP that some Service holds.
    pub addresses: BTreeMap<ServiceIp, AddressState>,
    /// The nodes that the manifests of this host say are to be emptied, each with the place that says so.
    pub drained: BTreeMap<NodeName, String>,
    /// The choices of owners that are in force.
    pub moves: Vec<MoveState>,
    /// What is wrong with the manifests or the objects of the cluster, a line each.
    pub problems: Vec<String>,
    /// What is wrong with this host and its network.
    pub findings: Vec<FindingState>,
    /// Where what is wanted comes from.
    pub source: SourceState,
    /// The last changes of owners that this node has decided, the oldest first.
    pub decisions: Vec<Decision>,
    /// What the membership shows of itself.
    pub membership: garpike_membership::Status,
    /// What the announcer shows of itself.
    pub announcer: garpike_announcer::Status,
}

/// Where what is wanted comes from.
#[derive(Clone, Debug, Serialize)]
pub struct SourceState {
    /// `nothing` is known yet, it is what was `saved` when the speaker ran last, or it is `live`.
    pub origin: &'static str,
    /// When what was saved was last known to be true.
    pub saved_at: Option<String>,
    /// The kinds of objects that the Kubernetes API does not tell at present, each with the cause; `null` without one.
    pub silent: Option<BTreeMap<&'static str, String>>,
}

/// A living member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberState {
    /// Its name.
    pub name: NodeName,
    /// The state whose rank it has: while it is away, the one that it keeps.
    pub state: NodeState,
    /// Whether its speaker runs.
    pub presence: Presence,
    /// What makes it a worse owner than others.
    pub handicaps: BTreeSet<Handicap>,
    /// The interfaces on which it can announce; `null`: more than it lists.
    pub interfaces: Option<Vec<String>>,
    /// How it wants owners to be spread; `null` until it has said so.
    pub placement: Option<Spread>,
}

/// A choice of an owner for some addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MoveState {
    /// The Services that hold them, the oldest first.
    pub services: Vec<String>,
    /// The addresses.
    pub addresses: Vec<ServiceIp>,
    /// The node that was chosen.
    pub to: NodeName,
    /// When the choice ends, as in RFC 3339.
    pub until: String,
    /// The place that says so.
    pub by: String,
}

/// A service IP.
#[derive(Clone, Debug, Serialize)]
pub struct AddressState {
    /// The Services that hold it.
    pub services: Vec<String>,
    /// The eligible living nodes: the owner first, then its heirs.
    pub candidates: Vec<NodeName>,
    /// Who answers in the owner's place while its speaker is away.
    pub stand_in: Option<NodeName>,
    /// Why nobody owns it.
    pub unowned: Option<&'static str>,
    /// What would give it an owner.
    pub mend: Option<&'static str>,
}

impl State {
    /// Puts the latest values of every task together.
    pub(crate) fn seen_through(window: &Window) -> Self {
        let node = &window.node;
        let view = window.view.borrow();
        let snapshot = window.snapshots.borrow();
        let watches = window.watches.as_ref().map(|watches| watches.borrow().clone());
        let View { desired, members, assignment } = &*view;
        let addresses = assignment.addresses.iter().map(|(ip, elected)| {
            let services = desired.addresses.get(ip).map(|address| &address.services);
            let state = AddressState {
                services: services.into_iter().flatten().map(ToString::to_string).collect(),
                candidates: elected.ranked.clone(),
                stand_in: elected.stand_in.clone(),
                unowned: elected.unowned.map(Unowned::reason),
                mend: elected.unowned.map(Unowned::mend),
            };
            (*ip, state)
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            node: node.clone(),
            state: members.as_ref().and_then(|members| members.nodes.get(node)).map(|member| member.state),
            uptime_seconds: (now() - window.started).as_secs(),
            members: members.as_deref().map(member_states).unwrap_or_default(),
            placement: members.as_deref().map_or(Spread::Hash, garpike_election::Members::spread),
            owners: assignment.addresses.iter().map(|(ip, elected)| (*ip, elected.owner().cloned())).collect(),
            stands_in_for: assignment.stood_in_by(node).map(|(ip, _)| ip).collect(),
            addresses: addresses.collect(),
            drained: snapshot.drained.iter().map(|(node, place)| (node.clone(), place.to_string())).collect(),
            moves: snapshot.moves.iter().map(move_state).collect(),
            problems: snapshot.problems.iter().map(ToString::to_string).collect(),
            findings: window.findings.borrow().iter().map(Finding::state).collect(),
            source: source_state(snapshot.origin, watches),
            decisions: window.decisions.borrow().iter().cloned().collect(),
            membership: window.membership.borrow().clone(),
            announcer: window.announcer.borrow().clone(),
        }
    }
}

fn source_state(origin: Origin, watches: Option<BTreeMap<Kind, Watch>>) -> SourceState {
    let (origin, saved_at) = match origin {
        Origin::Nothing => ("nothing", None),
        Origin::Saved { at } => ("saved", Some(humantime::format_rfc3339_seconds(at).to_string())),
        Origin::Live => ("live", None),
    };
    let silent = |(kind, watch): (Kind, Watch)| {
        let trouble = watch.trouble.map(|trouble| trouble.to_string());
        let trouble = trouble.or_else(|| (!watch.synced).then(|| "not listed yet".to_owned()))?;
        Some((kind.as_str(), trouble))
    };
    SourceState { origin, saved_at, silent: watches.map(|watches| watches.into_iter().filter_map(silent).collect()) }
}

fn move_state(moved: &Move) -> MoveState {
    let Move { services, addresses, chosen, source } = moved;
    MoveState {
        services: services.iter().map(ToString::to_string).collect(),
        addresses: addresses.iter().copied().collect(),
        to: chosen.node.clone(),
        until: chosen.time(),
        by: source.to_string(),
    }
}

fn member_states(members: &garpike_election::Members) -> Vec<MemberState> {
    let member_state = |(name, member): (&NodeName, &garpike_election::Member)| MemberState {
        name: name.clone(),
        state: member.state,
        presence: member.presence,
        handicaps: member.handicaps.clone(),
        interfaces: match &member.interfaces {
            Selection::All => None,
            Selection::Only(names) => Some(names.iter().map(ToString::to_string).collect()),
        },
        placement: member.spread,
    };
    members.nodes.iter().map(member_state).collect()
}
