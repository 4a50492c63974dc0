//! Which requests are refused, and why.
//!
//! A drain must leave each address of the node to another one that answers for it, a move must reach its node at once.
//! Where no speaker said who lives, what the manifests allow is all that is judged.

use std::collections::{BTreeMap, BTreeSet};

use garpike_controller_api::config::{Config, Exclusion};
use garpike_election::{
    Assignment, Desired, Elected, Member, Members, NodeName, NodeState, Presence, Selection, ServiceIp, Unowned, elect,
};

use super::{Refusal, Request, after};

/// Why `request` must not be carried out; `wanted` is what would be desired then.
pub(super) fn refusals(
    request: &Request,
    config: &Config,
    desired: &Desired,
    wanted: &Desired,
    members: Option<&Members>,
) -> Vec<Refusal> {
    let judge = |node| Judge { node, config, desired, wanted, members };
    match request {
        Request::Drain(node) => judge(node).drain(request),
        Request::Undrain(_) => Vec::new(),
        Request::Move { ip, chosen } => judge(&chosen.node).choice(*ip).into_iter().collect(),
        Request::EndMove(ip) if desired.addresses.contains_key(ip) => Vec::new(),
        Request::EndMove(ip) => vec![unheld(*ip)],
    }
}

/// What is looked at.
struct Judge<'a> {
    /// The node that is drained, or moved to.
    node: &'a NodeName,
    config: &'a Config,
    desired: &'a Desired,
    wanted: &'a Desired,
    members: Option<&'a Members>,
}

impl Judge<'_> {
    fn drain(&self, request: &Request) -> Vec<Refusal> {
        if let Some(refusal) = self.no_member() {
            return vec![refusal];
        }
        let members = self.possible_members();
        let (before, after) = (elect(self.desired, &members), elect(self.wanted, &after(request, &members)));
        let mut others = members.clone();
        others.nodes.remove(self.node);
        let without = elect(self.wanted, &others);
        let concerned = after.addresses.iter().filter(|(ip, _)| match self.members {
            Some(_) => before.owner(**ip) == Some(self.node),
            None => before.addresses.get(ip).is_some_and(|elected| elected.ranked.contains(self.node)),
        });
        concerned.filter_map(|(ip, elected)| self.orphan(*ip, elected, &without, &others)).collect()
    }

    /// Why nobody would answer for an address once the node is drained, or when it is gone after that.
    fn orphan(&self, ip: ServiceIp, elected: &Elected, without: &Assignment, others: &Members) -> Option<Refusal> {
        let node = self.node;
        let (reason, mend) = match without.addresses.get(&ip)? {
            _ if others.nodes.is_empty() => {
                (format!("{node} is the last living node"), "start the speaker of another node".to_owned())
            }
            Elected { unowned: Some(unowned), .. } => {
                (format!("no other node may own it: {}", unowned.reason()), unowned.mend().to_owned())
            }
            heirs @ Elected { unowned: None, .. } => {
                let at_once = elected.owner().filter(|heir| *heir != node);
                at_once.into_iter().chain(heirs.owner()).find_map(|heir| obstacle(heir, others.nodes.get(heir)?))?
            }
        };
        Some(self.refusal(Some(ip), format!("{node} must keep it: {reason}"), mend))
    }

    fn choice(&self, ip: ServiceIp) -> Option<Refusal> {
        let Some(address) = self.desired.addresses.get(&ip) else { return Some(unheld(ip)) };
        if let Some(refusal) = self.no_member() {
            return Some(refusal);
        }
        let node = self.node;
        let members = self.possible_members();
        let member = members.nodes.get(node)?;
        let alone = Members { local: node.clone(), nodes: BTreeMap::from([(node.clone(), member.clone())]) };
        let unowned = elect(self.wanted, &alone).addresses.get(&ip).and_then(|elected| elected.unowned);
        let (reason, mend) = match unowned {
            Some(Unowned::NoAdvertisement) => {
                ("no L2Advertisement selects it".to_owned(), Unowned::NoAdvertisement.mend().to_owned())
            }
            Some(Unowned::NoSelectedNode) => (
                format!("no L2Advertisement of it selects {node}"),
                format!("let spec.nodeSelectors of the L2Advertisement match the labels of {node}"),
            ),
            Some(Unowned::AllExcluded) => self.excluded(),
            Some(Unowned::NoInterface) => {
                let allowed = address.interfaces_on(node).unwrap_or_else(|| Selection::Only(BTreeSet::new()));
                let reason = format!("no interface of {node} may announce it: it has {}", names(&member.interfaces));
                (reason, format!("spec.interfaces of the L2Advertisement names {}", names(&allowed)))
            }
            Some(unowned @ (Unowned::NoLocalEndpoint | Unowned::NoEndpoint)) => {
                (unowned.reason().to_owned(), unowned.mend().to_owned())
            }
            None => self.not_serving(member)?,
        };
        Some(self.refusal(Some(ip), reason, mend))
    }

    fn excluded(&self) -> (String, String) {
        let node = self.node;
        match self.config.nodes.get(node).and_then(|node| node.excluded) {
            Some(Exclusion::NetworkUnavailable) => {
                (format!("the network of {node} is unavailable"), format!("see the conditions of Node {node}"))
            }
            Some(Exclusion::Label) | None => {
                let label = "node.kubernetes.io/exclude-from-external-load-balancers";
                (
                    format!("{node} is excluded from load balancing"),
                    format!("remove the label {label} from Node {node}"),
                )
            }
        }
    }

    /// Why a node that may own an address does not get it.
    fn not_serving(&self, member: &Member) -> Option<(String, String)> {
        let node = self.node;
        let (reason, mend) = match (member.state, member.presence) {
            (NodeState::Draining, _) => (format!("{node} is drained"), format!("run: garpike undrain {node}")),
            (NodeState::Ready, Presence::Here) => return None,
            (NodeState::Ready, Presence::Away) => {
                (format!("the speaker of {node} is away"), format!("start the speaker of {node}"))
            }
            (state @ (NodeState::HeldDown | NodeState::Joining | NodeState::Restarting), _) => {
                (format!("{node} is {}", state.as_str()), "wait until it is ready".to_owned())
            }
        };
        Some((reason, mend))
    }

    /// The complaint about a node that does not live.
    fn no_member(&self) -> Option<Refusal> {
        let members = self.members?;
        if members.nodes.contains_key(self.node) {
            return None;
        }
        let names: Vec<&str> = members.nodes.keys().map(NodeName::as_str).collect();
        let reason = format!("{} is no living member of the cluster", self.node);
        Some(self.refusal(None, reason, format!("the members are {}", names.join(", "))))
    }

    /// The members; where they are not known, all nodes of which the manifests speak, the node itself and one more.
    fn possible_members(&self) -> Members {
        if let Some(members) = self.members {
            return members.clone();
        }
        let selected = self.desired.addresses.values().flat_map(|address| &address.placements);
        let selected = selected.filter_map(|placement| match &placement.nodes {
            Selection::All => None,
            Selection::Only(nodes) => Some(nodes),
        });
        let anybody = NodeName::new(ANYBODY).ok();
        let names = selected.flatten().chain(self.config.nodes.keys()).chain([self.node]).chain(&anybody);
        let member = |name: &NodeName| {
            let drained = self.config.drained.contains_key(name);
            Member::new(if drained { NodeState::Draining } else { NodeState::Ready }, Selection::All)
        };
        let nodes = names.map(|name| (name.clone(), member(name))).collect();
        Members { local: self.node.clone(), nodes }
    }

    fn refusal(&self, ip: Option<ServiceIp>, reason: String, mend: String) -> Refusal {
        let address = ip.and_then(|ip| self.desired.addresses.get(&ip));
        let services = address.map(|address| address.services.iter().cloned().collect()).unwrap_or_default();
        Refusal { ip, services, reason, mend }
    }
}

/// Why the heir of a drained node would not answer.
fn obstacle(heir: &NodeName, member: &Member) -> Option<(String, String)> {
    match (member.state, member.presence) {
        (NodeState::Draining, _) => {
            let reason = format!("{heir}, which would get it, is drained as well");
            Some((reason, format!("run: garpike undrain {heir}")))
        }
        (_, Presence::Away) => {
            let reason = format!("{heir}, which would get it, cannot announce it: its speaker is away");
            Some((reason, format!("start the speaker of {heir}, or wait until it has lost its addresses")))
        }
        (_, Presence::Here) => None,
    }
}

fn unheld(ip: ServiceIp) -> Refusal {
    let mend = "name an address that a Service in the manifests has".to_owned();
    Refusal { ip: Some(ip), services: BTreeSet::new(), reason: "no Service holds it".to_owned(), mend }
}

/// The names of interfaces, for people.
fn names<T: std::fmt::Display>(selection: &Selection<T>) -> String {
    match selection {
        Selection::All => "any".to_owned(),
        Selection::Only(names) if names.is_empty() => "none".to_owned(),
        Selection::Only(names) => names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// Stands for the nodes of which the manifests do not speak; longer than any name that people give.
const ANYBODY: &str = "some-node-of-which-the-manifests-do-not-speak";
