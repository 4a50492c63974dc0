use std::sync::Arc;

use garpike_election::{Address, Assignment, Desired, Elected, Endpoints, Member, Members, NodeState, ServiceIp};
use serde_json::json;

use super::*;

#[test]
fn the_owner_makes_an_object_and_says_where_it_answers() {
    let mut server = Server::default();
    let mut a = node("a");
    a.handle_view(&view("a", &["lan1", "lan0"]));
    assert_eq!(a.next(now()), None, "nothing is written before what there is was listed");

    server.list(&mut a);
    assert_eq!(server.run(&mut a, now()), ["create", "report", "adopt"][..2]);

    let object = server.objects.values().next().unwrap();
    let status = object.status.clone().unwrap();
    assert_eq!((status.node.as_str(), status.service_name.as_str()), ("a", "web"));
    let names: Vec<&str> = status.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["lan0", "lan1"]);
    assert!(server.run(&mut a, now()).is_empty() && !a.is_busy());

    a.handle_view(&view("a", &[]));
    assert_eq!(server.run(&mut a, now()), ["report"]);
    a.handle_view(&view("b", &[]));
    assert_eq!(server.run(&mut a, now()), ["delete"]);
    assert!(server.objects.is_empty());
}

#[test]
fn what_a_dead_owner_left_is_deleted_and_what_a_living_one_has_not_yet_deleted_is_not() {
    for (other, left) in [("dead", 1), ("b", 2)] {
        let mut server = Server::default();
        server.make(other);
        let mut a = node("a");
        server.list(&mut a);
        a.handle_view(&view("a", &[]));
        server.run(&mut a, now());
        assert_eq!(server.objects.len(), left, "{other}");

        server.run(&mut a, now() + OWN_AFFAIR + Duration::from_secs(1));
        assert_eq!(server.objects.len(), 1, "{other}");
    }
}

#[test]
fn two_owners_write_a_bounded_number_of_times() {
    let start = now();
    let mut server = Server::default();
    // Each has the other for dead.
    let mut nodes = [node("a"), node("b")];
    for (node, name) in nodes.iter_mut().zip(["a", "b"]) {
        server.list(node);
        let mut view = view(name, &[]);
        let members = Arc::make_mut(view.members.as_mut().unwrap());
        members.nodes.retain(|other, _| other.as_str() == name);
        node.handle_view(&view);
    }
    let mut writes = 0;
    for second in 0..3600 {
        for at in 0..2 {
            let now = start + Duration::from_secs(second);
            while let Some(write) = nodes[at].next(now) {
                writes += 1;
                let update = server.apply(&write, if at == 0 { "a" } else { "b" });
                for node in &mut nodes {
                    let update = seen_by(node, update.clone());
                    node.handle_update(update, now);
                }
            }
        }
    }
    assert!((4..150).contains(&writes), "{writes} writes in an hour");
}

#[test]
fn objects_of_an_earlier_pod_are_taken_over_and_those_without_labels_left_alone() {
    let mut server = Server::default();
    server.make("a");
    let stranger = json!({"metadata": {"name": "stranger"}, "spec": {}});
    server.objects.insert("stranger".to_owned(), serde_json::from_value(stranger).unwrap());
    let mut a = node("a");
    a.handle_pod(Some("pod-2"));
    a.handle_view(&view("a", &[]));
    server.list(&mut a);

    assert_eq!(server.run(&mut a, now()), ["adopt"]);
    assert_eq!(server.objects.len(), 2);
}

#[derive(Default)]
struct Server {
    objects: BTreeMap<String, ServiceL2Status>,
    made: u32,
}

impl Server {
    fn list(&self, node: &mut L2Statuses) {
        let seen = |object: &ServiceL2Status| Seen::by(&node.node, object.clone());
        node.handle_update(Update::All(self.objects.values().map(seen).collect()), now());
    }

    /// An object for the Service web by that node, complete.
    fn make(&mut self, node: &str) {
        self.made += 1;
        let name = format!("l2-{}", self.made);
        let json = json!({
            "metadata": {"name": name, "labels": {
                "metallb.io/node": node, "metallb.io/service-name": "web", "metallb.io/service-namespace": "default",
            }},
            "spec": {},
            "status": {"node": node, "serviceName": "web", "serviceNamespace": "default"},
        });
        self.objects.insert(name, serde_json::from_value(json).unwrap());
    }

    fn run(&mut self, node: &mut L2Statuses, now: Instant) -> Vec<&'static str> {
        let mut done = Vec::new();
        while let Some(write) = node.next(now) {
            done.push(match write {
                Write::Create { .. } => "create",
                Write::Report { .. } => "report",
                Write::Adopt { .. } => "adopt",
                Write::Delete { .. } => "delete",
            });
            let update = seen_by(node, self.apply(&write, "a"));
            node.handle_update(update, now);
            assert!(done.len() < 100, "{done:?}");
        }
        done
    }

    fn apply(&mut self, write: &Write, by: &str) -> Update<ServiceL2Status> {
        match write {
            Write::Create { .. } => {
                self.make(by);
                let (_, object) = self.objects.iter_mut().next_back().unwrap();
                object.status = None;
                Update::Applied(object.clone())
            }
            Write::Report { name, status, .. } => {
                let object = self.objects.get_mut(&**name).unwrap();
                object.status = Some(status.clone());
                Update::Applied(object.clone())
            }
            Write::Adopt { name, .. } => {
                let object = self.objects.get_mut(&**name).unwrap();
                let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pod-2"}]);
                object.metadata.owner_references = serde_json::from_value(owner).unwrap();
                Update::Applied(object.clone())
            }
            Write::Delete { name, .. } => Update::Gone(self.objects.remove(&**name).unwrap()),
        }
    }
}

fn seen_by(node: &L2Statuses, update: Update<ServiceL2Status>) -> Update<Option<Seen>> {
    let seen = |object| Seen::by(&node.node, object);
    match update {
        Update::All(objects) => Update::All(objects.into_iter().map(seen).collect()),
        Update::Applied(object) => Update::Applied(seen(object)),
        Update::Gone(object) => Update::Gone(seen(object)),
        Update::Trouble(trouble) => Update::Trouble(trouble),
    }
}

/// The Service web is owned by `owner`; the members are a and b.
fn view(owner: &str, interfaces: &[&str]) -> View {
    let ip: ServiceIp = "10.0.0.1".parse().unwrap();
    let services = [ServiceKey::new("default", "web")].into();
    let address = Address { election_key: ip, services, placements: Vec::new(), endpoints: Endpoints::Anywhere };
    let interfaces = match interfaces {
        [] => Selection::All,
        names => Selection::Only(names.iter().map(|name| name.parse().unwrap()).collect()),
    };
    let elected = Elected { ranked: vec![owner.parse().unwrap()], stand_in: None, interfaces, unowned: None };
    let member = || Member::new(NodeState::Ready, Selection::All);
    let nodes = ["a", "b"].map(|name| (name.parse().unwrap(), member())).into();
    View {
        desired: Arc::new(Desired { addresses: BTreeMap::from([(ip, address)]), ..Desired::default() }),
        members: Some(Arc::new(Members { local: owner.parse().unwrap(), nodes })),
        assignment: Arc::new(Assignment { addresses: BTreeMap::from([(ip, elected)]) }),
    }
}

fn node(name: &str) -> L2Statuses {
    L2Statuses::new(name.parse().unwrap())
}

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to start from")]
fn now() -> Instant {
    Instant::now()
}
