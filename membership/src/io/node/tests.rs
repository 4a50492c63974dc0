use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use garpike_election::{NodeName, Presence, Selection};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::io::{BindError, ObserverConfig, new_process, observe};
use crate::{Account, FeatureLevel, Key, Profile, SecretKey};

#[tokio::test]
async fn two_nodes_on_loopback_find_and_lose_each_other() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (a, b) = (socket(), socket());
    let seeds = [a.local_addr(), b.local_addr()];
    let (node_a, mut a) = Node::new(config("a", &a, &seeds), a);
    let (node_b, mut b) = Node::new(config("b", &b, &seeds), b);
    tasks.spawn(node_a.run(cancel.clone()));
    tasks.spawn(node_b.run(cancel.clone()));

    wait(&mut a, |members| states(members) == [("a", NodeState::Ready), ("b", NodeState::Ready)]).await;
    wait(&mut b, |members| states(members) == [("a", NodeState::Ready), ("b", NodeState::Ready)]).await;

    b.commands.send(Command::SetState(NodeState::Restarting)).await.unwrap();
    let away = |members: &Members| members.nodes.values().any(|member| member.presence == Presence::Away);
    wait(&mut a, away).await;

    let (done, left) = oneshot::channel();
    b.commands.send(Command::Leave { done }).await.unwrap();
    timeout(LIMIT, left).await.unwrap().unwrap();
    timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();

    let mut events = Vec::new();
    while let Ok(event) = a.events.try_recv() {
        events.push(event);
    }
    assert!(events.contains(&Event::Ready), "{events:?}");

    cancel.cancel();
    timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_speaker_that_is_gone_while_its_host_lives_is_away_for_the_others() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let sockets = [socket(), socket(), socket()];
    let seeds = sockets.each_ref().map(GossipSocket::local_addr);
    let mut nodes = Vec::new();
    for (name, socket) in ["a", "b", "c"].into_iter().zip(sockets) {
        let (node, handle) = Node::new(config(name, &socket, &seeds), socket);
        nodes.push((tasks.spawn(node.run(cancel.clone())), handle));
    }
    let ready = |name| (name, NodeState::Ready);
    for (_, handle) in &mut nodes {
        wait(handle, |members| states(members) == [ready("a"), ready("b"), ready("c")]).await;
    }

    let (gone, _handle) = nodes.pop().unwrap();
    gone.abort();

    // The kernel refuses connections to its port: the host lives.
    let c_is_away = |members: &Members| {
        members.nodes.iter().any(|(name, member)| name.as_str() == "c" && member.presence == Presence::Away)
    };
    for (_, handle) in &mut nodes {
        wait(handle, c_is_away).await;
    }
    cancel.cancel();
    assert!(tasks.join_next().await.unwrap().is_err(), "the one that is gone");
    while let Some(ended) = timeout(LIMIT, tasks.join_next()).await.unwrap() {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_and_garbage_do_not_end_the_task() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let socket = socket();
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Nobody listens on a port that was just given back: its kernel answers "port unreachable".
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    stranger.send_to(b"garbage", socket.local_addr()).unwrap();
    stranger.send_to(&[0x47; 5000], socket.local_addr()).unwrap();

    let (node, mut handle) = Node::new(config("a", &socket, &[nobody]), socket);
    tasks.spawn(node.run(cancel.clone()));

    wait(&mut handle, |members| states(members) == [("a", NodeState::Ready)]).await;
    let reasons: Vec<_> = handle.status.borrow().rejected.iter().map(|rejected| rejected.reason).collect();
    assert_eq!(reasons, ["too_long", "unknown_version"]);
    cancel.cancel();
    timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn who_was_held_up_reads_what_has_arrived_before_its_timers() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let socket = socket();
    let addr = socket.local_addr();
    // The seed is nobody: it is tried every half a second.
    let (node, mut handle) = Node::new(config("a", &socket, &["127.0.0.1:9".parse().unwrap()]), socket);
    tasks.spawn(node.run(cancel.clone()));
    timeout(LIMIT, handle.status.changed()).await.unwrap().unwrap();
    handle.status.mark_unchanged();

    // The node is woken and does not come to run: this thread runs its tasks.
    handle.commands.try_send(Command::SetState(NodeState::Draining)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"garbage", addr).unwrap();
    std::thread::sleep(Duration::from_millis(100));

    timeout(LIMIT, handle.status.changed()).await.unwrap().unwrap();
    let reasons: Vec<_> = handle.status.borrow().rejected.iter().map(|rejected| rejected.reason).collect();
    assert_eq!(reasons, ["unknown_version"]);
    cancel.cancel();
    timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn one_exchange_with_a_node_and_eight_in_all_go_on_at_a_time() {
    let socket = socket();
    let (mut node, _handle) = Node::new(config("a", &socket, &[]), socket);
    let with = |port| SocketAddr::from(([127, 0, 0, 1], port));

    node.exchange(with(1));
    node.exchange(with(1));
    assert_eq!(node.tasks.len(), 1);

    (2..20).for_each(|port| node.exchange(with(port)));
    assert_eq!(node.tasks.len(), 8);
}

#[tokio::test]
async fn a_stranger_on_the_tcp_port_is_shown_with_the_mend() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let socket = socket();
    let addr = socket.local_addr();
    let (node, mut handle) = Node::new(config("a", &socket, &[]), socket);
    tasks.spawn(node.run(cancel.clone()));

    for bytes in [&b"\x06\x83\xa5Nodes"[..], b"\x0a\0\0\0\x20", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }

    let shown = |status: &Status| {
        let counts: Vec<_> = status.rejected.iter().map(|rejected| (rejected.reason, rejected.count)).collect();
        let complaints: Vec<_> = status.complaints.iter().map(|complaint| complaint.reason).collect();
        counts == [("unknown_version", 1), ("memberlist", 2)] && complaints == ["unknown_version", "memberlist"]
    };
    timeout(LIMIT, handle.status.wait_for(shown)).await.unwrap().unwrap();
    cancel.cancel();
    timeout(LIMIT, tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(addr).is_err(), "the port is free again");
}

#[tokio::test]
async fn a_node_tells_observers_who_its_members_are() {
    let cancel = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let socket = socket();
    let addr = socket.local_addr();
    let config = config("a", &socket, &[]);
    let observer = ObserverConfig {
        name: NodeName::new("controller").unwrap(),
        process: crate::ProcessId(7),
        peers: vec![addr],
        sealing: config.sealing.clone(),
    };
    let (node, handle) = Node::new(config, socket);
    let (observer, mut observed) = observe(observer);
    tasks.spawn(node.run(cancel.clone()));
    tasks.spawn(observer.run(cancel.clone()));

    let told = timeout(LIMIT, observed.wait_for(|observed| observed.speakers.contains_key(&addr))).await;

    assert_eq!(told.unwrap().unwrap().speakers[&addr].node.as_str(), "a");
    let account = Account::read(&observed.borrow().speakers[&addr].state).unwrap();
    assert_eq!(account.members.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["a"]);
    // Long enough for the node to take it in, if it did.
    sleep(Duration::from_millis(500)).await;
    assert_eq!(states(&handle.members.borrow()), [("a", NodeState::Ready)], "an observer is no member");
    let status = handle.status.borrow().clone();
    assert!(status.members.is_empty(), "there is nobody who could watch or be watched");
    cancel.cancel();
    while let Some(ended) = timeout(LIMIT, tasks.join_next()).await.unwrap() {
        ended.unwrap();
    }
}

#[tokio::test]
async fn a_socket_bound_to_every_address_reaches_both_families() {
    let Ok(both) = GossipSocket::bind("[::]:0".parse().unwrap()) else {
        // Only a kernel without IPv6 refuses it.
        assert!(!std::path::Path::new("/proc/net/if_inet6").exists());
        return;
    };
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 9];

    let (port, (both, _listener)) = (both.local_addr().port(), both.into_parts());
    timeout(LIMIT, both.writable()).await.unwrap().unwrap();
    both.send(b"hello", peer.local_addr().unwrap()).unwrap();
    assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 5);
    peer.send_to(b"hi", ("127.0.0.1", port)).unwrap();
    timeout(LIMIT, both.readable()).await.unwrap().unwrap();
    assert_eq!(both.receive(&mut buffer).unwrap(), (2, peer.local_addr().unwrap()));
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_mend() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holder = UdpSocket::bind(taken).unwrap();

    let error = GossipSocket::bind(taken).unwrap_err();

    let text = error.to_string();
    assert!(matches!(error, BindError::InUse { .. }), "{text}");
    assert!(text.contains("127.0.0.1") && text.contains(&taken.port().to_string()) && text.contains("--ml-bindport"));
    drop(holder);
    let _holder = TcpListener::bind(taken).unwrap();
    let error = GossipSocket::bind(taken).unwrap_err().to_string();
    assert!(error.contains("TCP 127.0.0.1") && error.contains("--ml-bindport"), "{error}");
    assert!(matches!(GossipSocket::bind("192.0.2.1:0".parse().unwrap()), Err(BindError::NotOurs { .. })));
}

const LIMIT: Duration = Duration::from_secs(10);

async fn wait(handle: &mut Handle, condition: impl FnMut(&Members) -> bool) {
    timeout(LIMIT, handle.members.wait_for(condition)).await.unwrap().unwrap();
}

fn states(members: &Members) -> Vec<(&str, NodeState)> {
    members.nodes.iter().map(|(name, member)| (name.as_str(), member.state)).collect()
}

fn socket() -> GossipSocket {
    GossipSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

fn config(name: &str, socket: &GossipSocket, seeds: &[SocketAddr]) -> Config {
    let (generation, process) = new_process();
    Config {
        local: NodeName::new(name).unwrap(),
        generation,
        process,
        gossip: socket.local_addr(),
        seeds: seeds.to_vec(),
        sealing: Key::derive(&SecretKey::parse(b"secret").unwrap(), "test").into(),
        surroundings: Surroundings::new(Selection::All),
        profile: Profile::Default,
        restart_grace: Duration::from_secs(60),
        failback: Some(Duration::from_secs(30)),
        host_ports: Vec::new(),
        spread: garpike_election::Spread::Hash,
        feature_level: FeatureLevel::CURRENT,
        later_facts: BTreeMap::new(),
    }
}
