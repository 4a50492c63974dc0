//! From what is desired and who is alive to what this node answers for.
//!
//! The pure middle of the walk: it keeps the latest of both inputs and elects anew on every change of either. It does
//! not talk to the wire; the shell hands [`Pipeline::owned`] to the announcer.

use std::collections::BTreeMap;
use std::sync::Arc;

use garpike_election::{Assignment, Change, Desired, Elector, InterfaceName, Members, NodeName, Selection, ServiceIp};

/// The latest inputs of the election and its latest result.
#[derive(Debug)]
pub struct Pipeline {
    local: NodeName,
    elector: Elector,
    view: View,
}

/// What a pipeline knows; cheap to clone, so that others can look at it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is to be answered.
    pub desired: Arc<Desired>,
    /// Who is alive, once that is known.
    pub members: Option<Arc<Members>>,
    /// Who owns what.
    pub assignment: Arc<Assignment>,
}

impl Pipeline {
    /// A pipeline of the node `local` that knows nothing yet: it owns nothing.
    pub fn new(local: NodeName) -> Self {
        Self { local, elector: Elector::default(), view: View::default() }
    }

    /// Takes what is desired and gives the addresses whose owner changed.
    pub fn handle_desired(&mut self, desired: Desired) -> Vec<Change> {
        self.view.desired = Arc::new(desired);
        self.elect()
    }

    /// Takes who is alive and gives the addresses whose owner changed.
    pub fn handle_members(&mut self, members: Members) -> Vec<Change> {
        self.view.members = Some(Arc::new(members));
        self.elect()
    }

    /// The latest inputs and result.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The addresses that this node answers for, with the interfaces on which it does.
    pub fn owned(&self) -> BTreeMap<ServiceIp, Selection<InterfaceName>> {
        self.view.assignment.owned_by(&self.local).map(|(ip, interfaces)| (ip, interfaces.clone())).collect()
    }

    fn elect(&mut self) -> Vec<Change> {
        let Some(members) = &self.view.members else { return Vec::new() };
        let next = self.elector.elect(&self.view.desired, members);
        let changes = self.view.assignment.changes_to(&next);
        self.view.assignment = Arc::new(next);
        changes
    }
}
