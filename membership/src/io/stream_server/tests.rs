use std::io::{ErrorKind, Read, Write};

use garpike_election::NodeName;
use tokio::io::Interest;
use tokio::time::timeout;

use super::*;
use crate::io::GossipSocket;
use crate::io::stream_client::{exchange, reach};
use crate::io::talk::connect;
use crate::{Key, ProcessId, Rejected, SecretKey};

#[tokio::test]
async fn two_nodes_with_different_states_exchange_them() {
    let mut server = Server::start();
    let (context, _published, mut heard) = context("client", 1, (1, b"of the client"));

    exchange("127.0.0.1:0".parse().unwrap(), server.addr, context).await;

    assert_eq!(state(&mut heard).await, b"of the server");
    assert_eq!(state(&mut server.heard).await, b"of the client");
}

#[tokio::test]
async fn two_nodes_with_equal_states_tell_each_other_nothing() {
    let mut server = Server::start();
    let (context, _published, mut heard) = context("client", 1, (2, b"of the server"));

    exchange("127.0.0.1:0".parse().unwrap(), server.addr, context).await;

    assert!(heard.try_recv().is_err());
    assert!(server.heard.try_recv().is_err());
}

#[tokio::test]
async fn a_long_state_is_exchanged_whole() {
    let long: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut server = Server::start_with((2, &long));
    let (context, _published, mut heard) = context("client", 1, (1, &long));

    exchange("127.0.0.1:0".parse().unwrap(), server.addr, context).await;

    assert!(state(&mut heard).await == long);
    assert!(state(&mut server.heard).await == long);
}

#[tokio::test]
async fn who_has_the_key_learns_who_is_there() {
    let server = Server::start();
    let client = || (NodeName::new("client").unwrap(), ProcessId(1));

    assert_eq!(reach(client(), None, server.addr, sealed("secret")).await.unwrap().as_str(), "server");
    assert_eq!(reach(client(), None, server.addr, sealed("other")).await, Err(StreamFault::Network));
    drop(server);
}

#[tokio::test]
async fn bad_bytes_end_with_a_reset_and_a_reason() {
    let mut server = Server::start();
    let cases: [(&[u8], StreamFault); 8] = [
        (&[0xa5; 100], Rejected::UnknownVersion.into()),
        (&[0xff; 8], Rejected::UnknownVersion.into()),
        (&[0, 0x10, 0, 0, 0], Rejected::TooLong.into()),
        (b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n", Rejected::UnknownVersion.into()),
        // What MetalLB's memberlist sends: a push-pull in the clear, an encrypted one, a ping.
        (b"\x06\x83\xa5Nodes\x01\xacUserStateLen\x00\xa4Join\xc3", Rejected::Memberlist.into()),
        (b"\x0a\x00\x00\x00\x57\x01random bytes", Rejected::Memberlist.into()),
        (b"\x00\x85\xa4Node\xa2n1\xa5SeqNo\x01", Rejected::Memberlist.into()),
        (
            &[
                0, 0, 0, 60, 0x47, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
                24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49,
                50, 51, 52, 53, 54, 55, 56, 57, 58, 59,
            ],
            Rejected::WrongKey.into(),
        ),
    ];
    for (bytes, expected) in cases {
        let mut stream = say("127.0.0.1", server.addr, bytes);

        assert_eq!(fault(&mut server.heard).await, expected, "{bytes:?}");
        assert_eq!(is_ended(&mut stream), Ended::Reset, "{bytes:?}");
    }
}

#[tokio::test]
async fn half_a_frame_and_then_the_end_is_cut() {
    let mut server = Server::start();
    let stream = say("127.0.0.1", server.addr, &[0, 0, 0, 200, 0x47]);
    stream.shutdown(std::net::Shutdown::Write).unwrap();

    assert_eq!(fault(&mut server.heard).await, StreamFault::Cut);
}

#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_late_after_two_seconds() {
    let mut server = Server::start();
    let mut stream = say("127.0.0.1", server.addr, &[0, 0, 2, 0]);
    let began = now();
    let slow = async {
        loop {
            sleep(Duration::from_millis(300)).await;
            // The server may have ended it.
            let _ = stream.write(&[0x47]);
        }
    };

    let fault = tokio::select! {
        fault = fault(&mut server.heard) => fault,
        () = slow => unreachable!("it never ends"),
    };

    assert!(now() - began >= Duration::from_millis(1900), "{:?}", now() - began);
    assert_eq!(fault, StreamFault::Late);
}

#[tokio::test]
async fn of_a_hundred_connections_at_once_sixty_four_are_served_and_then_there_is_room_again() {
    let mut server = Server::start();
    let mut streams: Vec<_> = (1..=100).map(|host| say(&format!("127.0.0.{host}"), server.addr, &[0])).collect();
    let mut faults = Vec::new();
    while faults.len() < 100 {
        faults.push(fault(&mut server.heard).await);
    }

    let of = |fault| faults.iter().filter(|other| **other == fault).count();
    assert_eq!((of(StreamFault::TooManyConnections), of(StreamFault::Late)), (36, 64), "{faults:?}");
    assert!(streams.iter_mut().all(|stream| is_ended(stream) == Ended::Reset));
    let client = (NodeName::new("client").unwrap(), ProcessId(1));
    assert!(reach(client, None, server.addr, sealed("secret")).await.is_ok());
}

#[tokio::test]
async fn of_one_source_four_are_served() {
    let mut server = Server::start();
    let streams: Vec<_> = (0..6).map(|_| say("127.0.0.9", server.addr, &[0])).collect();

    assert_eq!(fault(&mut server.heard).await, StreamFault::TooManyOfSource);
    assert_eq!(fault(&mut server.heard).await, StreamFault::TooManyOfSource);
    let client = (NodeName::new("client").unwrap(), ProcessId(1));
    assert!(reach(client, None, server.addr, sealed("secret")).await.is_ok(), "others are served");
    drop(streams);
}

#[tokio::test]
async fn thirty_two_observers_are_served_and_told_of_changes() {
    let mut server = Server::start();
    let mut observers = Vec::new();
    for host in 1..=32 {
        let mut observer = observer(host, server.addr).await;
        assert!(matches!(observer.next().await, Ok(Some(StreamEvent::Met { .. }))));
        assert_eq!(observer.next().await, Ok(Some(StreamEvent::State(b"of the server".to_vec()))));
        observers.push(observer);
    }

    let mut one_more = observer(33, server.addr).await;
    assert!(matches!(one_more.next().await, Ok(Some(StreamEvent::Met { .. }))));
    assert!(one_more.next().await.is_err());
    assert_eq!(fault(&mut server.heard).await, StreamFault::TooManyObservers);

    server.published.send_modify(|published| published.snapshot = snapshot((3, b"changed")));
    for observer in &mut observers {
        let told = timeout(LIMIT, observer.next()).await.unwrap();
        assert_eq!(told, Ok(Some(StreamEvent::State(b"changed".to_vec()))));
    }
}

#[tokio::test]
async fn a_recorded_conversation_changes_nothing() {
    let mut server = Server::start();
    let recorder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let via = recorder.local_addr().unwrap();
    let (context, _published, mut heard) = context("client", 1, (1, b"of the client"));
    let record = async {
        let (client, _) = recorder.accept().await.unwrap();
        let onward = TcpStream::connect(server.addr).await.unwrap();
        pass_on(&client, &onward).await
    };
    let ((), recorded) = tokio::join!(exchange("127.0.0.1:0".parse().unwrap(), via, context), record);
    assert_eq!(state(&mut heard).await, b"of the server");
    assert_eq!(state(&mut server.heard).await, b"of the client");
    assert!(recorded.len() > 100, "{} bytes", recorded.len());

    let _again = say("127.0.0.1", server.addr, &recorded);

    assert_eq!(fault(&mut server.heard).await, Rejected::Replayed.into());
}

const LIMIT: Duration = Duration::from_secs(20);

/// A server with the state "of the server".
struct Server {
    addr: SocketAddr,
    published: watch::Sender<Published>,
    heard: mpsc::Receiver<FromStream>,
    _task: JoinSet<()>,
}

impl Server {
    fn start() -> Self {
        Self::start_with((2, b"of the server"))
    }

    fn start_with(state: (u64, &[u8])) -> Self {
        let socket = GossipSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr();
        let (_, listener) = socket.into_parts();
        let (context, published, heard) = context("server", 2, state);
        let mut task = JoinSet::new();
        task.spawn(serve(listener, context));
        Self { addr, published, heard, _task: task }
    }
}

fn context(
    name: &str,
    process: u64,
    state: (u64, &[u8]),
) -> (Context, watch::Sender<Published>, mpsc::Receiver<FromStream>) {
    let (published, receiver) = watch::channel(Published { sealing: sealed("secret"), snapshot: snapshot(state) });
    let (node, heard) = mpsc::channel(256);
    let local = Sender { name: NodeName::new(name).unwrap(), process: ProcessId(process) };
    (Context { local, published: receiver, node }, published, heard)
}

async fn observer(host: u8, to: SocketAddr) -> Talk {
    let from = format!("127.0.1.{host}:0").parse().unwrap();
    let stream = connect(Some(from), to).await.unwrap();
    let local = Sender { name: NodeName::new("observer").unwrap(), process: ProcessId(u64::from(host) + 100) };
    let rng = StdRng::from_seed(seed());
    let snapshot = Snapshot::default();
    Talk::new(stream, Conversation::open(Purpose::Observe, sealed("secret"), local, snapshot, rng, now()))
}

/// Connects from the address and says the bytes.
fn say(from: &str, to: SocketAddr, bytes: &[u8]) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

#[derive(PartialEq, Eq, Debug)]
enum Ended {
    Reset,
    Closed,
    Not,
}

fn is_ended(stream: &mut std::net::TcpStream) -> Ended {
    match stream.read(&mut [0; 100]) {
        Ok(0) => Ended::Closed,
        Ok(_) => Ended::Not,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ended::Reset,
        Err(_) => Ended::Not,
    }
}

/// Passes everything to and fro until the server ends; gives what the client said.
async fn pass_on(client: &TcpStream, server: &TcpStream) -> Vec<u8> {
    let (mut said, mut buffer) = (Vec::new(), vec![0; 65536]);
    loop {
        tokio::select! {
            ready = client.ready(Interest::READABLE) => {
                ready.unwrap();
                if let Ok(len) = client.try_read(&mut buffer) {
                    said.extend_from_slice(&buffer[..len]);
                    server.try_write(&buffer[..len]).unwrap();
                }
            }
            ready = server.ready(Interest::READABLE) => {
                ready.unwrap();
                match server.try_read(&mut buffer) {
                    Ok(0) => return said,
                    Ok(len) => drop(client.try_write(&buffer[..len]).unwrap()),
                    Err(_) => {}
                }
            }
        }
    }
}

async fn state(heard: &mut mpsc::Receiver<FromStream>) -> Vec<u8> {
    match timeout(LIMIT, heard.recv()).await.unwrap().unwrap() {
        FromStream::State { state, .. } => state,
        FromStream::Reached { .. } => panic!("reached"),
        FromStream::Fault { fault, .. } => panic!("{fault:?}"),
    }
}

async fn fault(heard: &mut mpsc::Receiver<FromStream>) -> StreamFault {
    match timeout(LIMIT, heard.recv()).await.unwrap().unwrap() {
        FromStream::Fault { fault, .. } => fault,
        FromStream::State { .. } | FromStream::Reached { .. } => panic!("no fault"),
    }
}

fn snapshot((digest, state): (u64, &[u8])) -> Snapshot {
    Snapshot { digest, state: Arc::from(state) }
}

fn sealed(secret: &str) -> Sealing {
    Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), "test").into()
}

#[expect(clippy::disallowed_methods, reason = "real sockets have real time")]
fn now() -> Instant {
    Instant::now()
}
