use tokio::time::timeout;

use super::*;
use crate::io::GossipSocket;
use crate::io::stream_server::{Context, FromStream, Published, serve};
use crate::{Key, SecretKey};

#[tokio::test]
async fn three_of_the_speakers_are_followed_and_their_changes_told() {
    let speakers: Vec<_> = (1..=4).map(Speaker::start).collect();
    let (mut observed, _tasks) = observer(speakers.iter().map(|speaker| speaker.addr).collect());

    wait(&mut observed, |observed| observed.speakers.len() == 3).await;
    let first = &observed.borrow().speakers[&speakers[0].addr].clone();
    assert_eq!((first.node.as_str(), &*first.state), ("speaker-1", &b"state of 1"[..]));
    assert!(!observed.borrow().speakers.contains_key(&speakers[3].addr));

    speakers[1].tell(b"changed");
    wait(&mut observed, |observed| *observed.speakers[&speakers[1].addr].state == *b"changed").await;
}

#[tokio::test]
async fn another_takes_the_place_of_a_speaker_that_is_gone() {
    let mut speakers: Vec<_> = (1..=4).map(Speaker::start).collect();
    let addrs: Vec<_> = speakers.iter().map(|speaker| speaker.addr).collect();
    let (mut observed, _tasks) = observer(addrs.clone());
    wait(&mut observed, |observed| observed.speakers.len() == 3).await;

    drop(speakers.remove(0));

    wait(&mut observed, |observed| observed.speakers.keys().copied().collect::<Vec<_>>() == sorted(&addrs[1..])).await;
}

#[tokio::test]
async fn a_speaker_that_comes_back_is_followed_again() {
    let speaker = Speaker::start(1);
    let addr = speaker.addr;
    let (mut observed, _tasks) = observer(vec![addr]);
    wait(&mut observed, |observed| observed.speakers.len() == 1).await;

    drop(speaker);
    wait(&mut observed, |observed| observed.speakers.is_empty()).await;

    let _back = Speaker::start_at(addr, 1);
    wait(&mut observed, |observed| observed.speakers.len() == 1).await;
}

#[tokio::test]
async fn speakers_with_another_key_and_absent_ones_are_not_followed() {
    let speaker = Speaker::start(1);
    let absent = Speaker::start(2).addr;
    let stranger = Speaker::start(3);
    stranger.published.send_modify(|published| published.sealing = sealed("other"));
    let (mut observed, _tasks) = observer(vec![absent, stranger.addr, speaker.addr, speaker.addr]);

    wait(&mut observed, |observed| observed.speakers.contains_key(&speaker.addr)).await;

    // Long enough for both to have been tried more than once.
    let too_many = timeout(Duration::from_secs(1), observed.wait_for(|observed| observed.speakers.len() > 1)).await;
    assert!(too_many.is_err());
}

#[test]
fn the_pauses_grow_to_half_a_minute() {
    let (mut observer, _observed) = observe(config(Vec::new()));
    let pauses = [0, 1, 2, 7, u32::MAX].map(|failures| observer.pause(failures).as_secs_f64());

    assert_eq!(pauses[0], 0.0);
    for (pause, most) in pauses.into_iter().zip([0.0, 0.5, 1.0, 32.0, 32.0]) {
        assert!(pause >= most / 2.0 && pause <= most, "{pauses:?}");
    }
}

const LIMIT: Duration = Duration::from_secs(20);

/// A speaker's side of the port, which says "state of <number>".
struct Speaker {
    addr: SocketAddr,
    published: watch::Sender<Published>,
    _heard: mpsc::Receiver<FromStream>,
    _task: JoinSet<()>,
}

impl Speaker {
    fn start(number: u64) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), number)
    }

    fn start_at(addr: SocketAddr, number: u64) -> Self {
        let socket = GossipSocket::bind(addr).unwrap();
        let addr = socket.local_addr();
        let (_, listener) = socket.into_parts();
        let state = format!("state of {number}").into_bytes().into();
        let snapshot = Snapshot { digest: number, state };
        let (published, receiver) = watch::channel(Published { sealing: sealed("secret"), snapshot });
        let (node, heard) = mpsc::channel(8);
        let local = Sender { name: format!("speaker-{number}").parse().unwrap(), process: ProcessId(number) };
        let mut task = JoinSet::new();
        task.spawn(serve(listener, Context { local, published: receiver, node }));
        Self { addr, published, _heard: heard, _task: task }
    }

    fn tell(&self, state: &[u8]) {
        self.published.send_modify(|published| published.snapshot.state = Arc::from(state));
    }
}

fn observer(peers: Vec<SocketAddr>) -> (watch::Receiver<Observed>, JoinSet<()>) {
    let (observer, observed) = observe(config(peers));
    let mut tasks = JoinSet::new();
    tasks.spawn(observer.run(CancellationToken::new()));
    (observed, tasks)
}

fn config(peers: Vec<SocketAddr>) -> ObserverConfig {
    ObserverConfig { name: "controller".parse().unwrap(), process: ProcessId(100), peers, sealing: sealed("secret") }
}

async fn wait(observed: &mut watch::Receiver<Observed>, condition: impl FnMut(&Observed) -> bool) {
    timeout(LIMIT, observed.wait_for(condition)).await.unwrap().unwrap();
}

fn sorted(addrs: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addrs = addrs.to_vec();
    addrs.sort_unstable();
    addrs
}

fn sealed(secret: &str) -> Sealing {
    Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), "test").into()
}
