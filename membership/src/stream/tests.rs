use std::time::Duration;

use proptest::prelude::*;

use super::frames::{FRAME_MAX, HELLO_MAX};
use super::*;
use crate::keyring::Held;
use crate::{Key, Rejected, SecretKey, envelope};

#[test]
fn an_exchange_of_different_states_gives_each_the_other_s() {
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b"of the client"), (2, b"of the server"));

    let (at_client, at_server) = talk(&mut client, &mut server);

    let met = StreamEvent::Met { server: sender("server", 2), differs: true };
    assert_eq!(at_client, [met, StreamEvent::State(b"of the server".to_vec())]);
    assert_eq!(at_server, [StreamEvent::State(b"of the client".to_vec())]);
    assert!(client.is_over() && server.is_over());
}

#[test]
fn an_exchange_of_equal_states_ends_with_the_hellos() {
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b"state"), (1, b"state"));

    let (at_client, at_server) = talk(&mut client, &mut server);

    assert_eq!(at_client, [StreamEvent::Met { server: sender("server", 2), differs: false }]);
    assert_eq!(at_server, []);
    assert!(client.is_over());
    assert_eq!(server.handle_end(), Ok(()));
}

#[test]
fn reaching_a_server_tells_it_nothing() {
    let (mut client, mut server) = pair(Purpose::Reach, (1, b"of the client"), (2, b"of the server"));

    let (at_client, at_server) = talk(&mut client, &mut server);

    assert_eq!(at_client, [StreamEvent::Met { server: sender("server", 2), differs: true }]);
    assert_eq!(at_server, []);
    assert!(client.is_over());
    assert_eq!(server.handle_end(), Ok(()));
}

#[test]
fn an_observer_is_told_at_once_and_on_every_change_and_that_nothing_changed() {
    let now = start();
    let (mut client, mut server) = pair(Purpose::Observe, (0, b""), (2, b"first"));

    let (at_client, at_server) = talk(&mut client, &mut server);
    assert_eq!(at_client.last(), Some(&StreamEvent::State(b"first".to_vec())));
    assert_eq!(at_server, [StreamEvent::Observed]);

    server.handle_snapshot(snapshot(3, b"second"), now).unwrap();
    assert_eq!(talk(&mut client, &mut server).0, [StreamEvent::State(b"second".to_vec())]);

    let keep_alive = server.poll_timeout();
    assert!(keep_alive <= now + Duration::from_secs(5), "a sign of life");
    server.handle_timeout(keep_alive).unwrap();
    assert!(move_bytes(&mut server, &mut client, keep_alive) > 0);
    assert_eq!(client.poll_event(), None);
    assert_eq!(client.poll_timeout(), keep_alive + Duration::from_secs(15));
    assert_eq!(client.handle_timeout(client.poll_timeout()), Err(StreamFault::Late));
}

#[test]
fn a_snapshot_reaches_only_those_who_observe() {
    let (_, mut server) = pair(Purpose::Reach, (1, b""), (2, b""));

    server.handle_snapshot(snapshot(3, b"secret"), start()).unwrap();

    assert_eq!(server.poll_transmit(), None);
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    let now = start();
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b"of the client"), (2, b"of the server"));
    let mut events = Vec::new();
    for _ in 0..2 {
        for (from, to) in [(0, 1), (1, 0)] {
            let mut ends = [&mut client, &mut server];
            let bytes: Vec<u8> = std::iter::from_fn(|| ends[from].poll_transmit()).flatten().collect();
            for byte in bytes {
                ends[to].handle_bytes(&[byte], now).unwrap();
            }
            events.extend(std::iter::from_fn(|| ends[to].poll_event()));
        }
    }

    assert_eq!(events.iter().filter(|event| matches!(event, StreamEvent::State(_))).count(), 2, "{events:?}");
}

#[test]
fn what_is_recorded_is_of_no_use_in_another_conversation() {
    let now = start();
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b"old"), (2, b"state"));
    let mut recorded = Vec::new();
    for _ in 0..2 {
        while let Some(bytes) = client.poll_transmit() {
            server.handle_bytes(&bytes, now).unwrap();
            recorded.push(bytes);
        }
        move_bytes(&mut server, &mut client, now);
    }
    assert_eq!(recorded.len(), 2, "hello and state");

    let mut again = server_with(9, (2, b"state"));
    again.handle_bytes(&recorded[0], now).unwrap();
    assert_eq!(again.handle_bytes(&recorded[1], now), Err(Rejected::Replayed.into()));

    assert_eq!(again.poll_event(), None);
    assert_eq!(std::iter::from_fn(|| again.poll_transmit()).count(), 1, "the hello, and no state");
}

#[test]
fn a_server_s_recorded_answers_do_not_fool_a_client() {
    let now = start();
    let (mut client, mut server) = pair(Purpose::Observe, (1, b""), (2, b"old"));
    let mut recorded = Vec::new();
    for _ in 0..2 {
        move_bytes(&mut client, &mut server, now);
        while let Some(bytes) = server.poll_transmit() {
            client.handle_bytes(&bytes, now).unwrap();
            recorded.extend(bytes);
        }
    }

    let mut again = client_with(10, Purpose::Observe, (1, b""));
    assert_eq!(again.handle_bytes(&recorded, now), Err(Rejected::Replayed.into()));
    assert_eq!(again.poll_event(), None);
}

#[test]
fn a_frame_repeated_left_out_or_out_of_order_ends_the_conversation() {
    let now = start();
    for order in [&[0, 0][..], &[1], &[1, 0]] {
        let (mut client, mut server) = pair(Purpose::Observe, (0, b""), (2, b"first"));
        talk(&mut client, &mut server);
        let mut frames = Vec::new();
        for state in [b"second", b"third."] {
            server.handle_snapshot(snapshot(3, state), now).unwrap();
            frames.extend(server.poll_transmit());
        }
        let result = order.iter().try_for_each(|frame| client.handle_bytes(&frames[*frame], now));
        assert_eq!(result, Err(Rejected::Replayed.into()), "{order:?}");
    }
}

#[test]
fn each_kind_of_bad_bytes_has_its_reason() {
    let hello = |sealing: &Sealing, purpose| {
        let local = sender("client", 1);
        Conversation::open(purpose, sealing.clone(), local, snapshot(1, b""), rng(1), start()).poll_transmit().unwrap()
    };
    let framed = |envelope: &[u8]| [&u32::try_from(envelope.len()).unwrap().to_be_bytes()[..], envelope].concat();
    let text = |text: &[u8]| framed(&envelope::wrap(&sealed("secret"), Held::Unknown, text, &mut rng(1)));
    let mut tampered = hello(&sealed("secret"), Purpose::Reach);
    *tampered.last_mut().unwrap() ^= 1;
    let cases: Vec<(&str, Vec<u8>, StreamFault)> = vec![
        ("nothing", vec![], StreamFault::Silent),
        ("half a length", vec![0, 0], StreamFault::Cut),
        ("half a frame", hello(&sealed("secret"), Purpose::Reach)[..50].to_vec(), StreamFault::Cut),
        ("garbage", vec![0xa5; 100], Rejected::UnknownVersion.into()),
        ("a huge length", vec![0xff; 4], Rejected::UnknownVersion.into()),
        ("16 MiB", vec![0, 0xff, 0xff, 0xff], Rejected::TooLong.into()),
        ("more than a hello", framed(&vec![0x47; HELLO_MAX + 1]), Rejected::TooLong.into()),
        ("an empty frame", vec![0; 4], Rejected::Truncated.into()),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), Rejected::UnknownVersion.into()),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), Rejected::UnknownVersion.into()),
        ("SSH", b"SSH-2.0-OpenSSH_10.0\r\n".to_vec(), Rejected::UnknownVersion.into()),
        ("memberlist push-pull", b"\x06\x83\xa5Nodes\x03".to_vec(), Rejected::Memberlist.into()),
        ("memberlist, encrypted", b"\x0a\0\0\x01\x10\x01".to_vec(), Rejected::Memberlist.into()),
        ("memberlist, labelled", b"\xf4\x05label\x06".to_vec(), Rejected::Memberlist.into()),
        ("memberlist ping", b"\0\x85\xa4Node\xa1a".to_vec(), Rejected::Memberlist.into()),
        ("another key", hello(&sealed("other"), Purpose::Reach), Rejected::WrongKey.into()),
        ("in the clear", hello(&Sealing::InsecurePlaintext, Purpose::Reach), Rejected::Plaintext.into()),
        ("a flipped bit", tampered, Rejected::Tampered.into()),
        ("no text", text(b""), Rejected::Malformed.into()),
        (
            "a datagram",
            text(b"\x03\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\x02n1"),
            Rejected::Malformed.into(),
        ),
        ("a newer layout", text(&[&[0x81, 9][..], &[0; 60]].concat()), Rejected::UnknownVersion.into()),
        ("a hello of nothing", text(&[&[0x81, 1][..], &[0; 24]].concat()), Rejected::Malformed.into()),
        ("a state at once", text(&[&[0x83, 1][..], &[0; 24]].concat()), StreamFault::Unexpected),
        ("a later frame", text(&[&[0x81, 1][..], &[0; 23], &[1]].concat()), Rejected::Replayed.into()),
    ];
    for (name, bytes, fault) in cases {
        let mut server = server_with(2, (2, b"secret"));
        let result = server.handle_bytes(&bytes, start()).and_then(|()| server.handle_end());

        assert_eq!(result, Err(fault), "{name}");
        assert_eq!((server.poll_event(), server.poll_transmit()), (None, None), "{name}");
    }
}

#[test]
fn a_length_of_a_mebibyte_is_not_believed_before_the_hellos() {
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b""), (2, b""));
    let long = u32::try_from(FRAME_MAX).unwrap().to_be_bytes();

    let mut stranger = server_with(3, (2, b""));
    assert_eq!(stranger.handle_bytes(&long, start()), Err(Rejected::TooLong.into()));

    move_bytes(&mut client, &mut server, start());
    assert_eq!(server.handle_bytes(&long, start()), Ok(()));
    let longer = u32::try_from(FRAME_MAX + 1).unwrap().to_be_bytes();
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b""), (2, b""));
    move_bytes(&mut client, &mut server, start());
    assert_eq!(server.handle_bytes(&longer, start()), Err(Rejected::TooLong.into()));
}

#[test]
fn a_state_fits_or_is_not_sent() {
    // Around a text lie 26 bytes of its header and 45 of the envelope.
    let longest = vec![7; FRAME_MAX - 71];
    let (mut client, mut server) = pair(Purpose::Exchange, (1, &longest), (2, b""));
    assert_eq!(talk(&mut client, &mut server).1, [StreamEvent::State(longest.clone())]);

    let longer = [&longest[..], &[7]].concat();
    let (mut client, mut server) = pair(Purpose::Exchange, (1, &longer), (2, b""));
    move_bytes(&mut client, &mut server, start());
    let hello = server.poll_transmit().unwrap();
    assert_eq!(client.handle_bytes(&hello, start()), Err(StreamFault::StateTooLong));
}

#[test]
fn a_speaker_that_reaches_itself_notices() {
    let now = start();
    let local = sender("server", 2);
    let mut client = Conversation::open(Purpose::Exchange, sealed("secret"), local, snapshot(1, b""), rng(1), now);
    let mut server = server_with(2, (1, b""));

    let hello = client.poll_transmit().unwrap();
    assert_eq!(server.handle_bytes(&hello, now), Err(Rejected::Own.into()));
    assert_eq!(server.poll_transmit(), None);
}

#[test]
fn what_does_not_belong_to_the_purpose_ends_the_conversation() {
    let now = start();
    for purpose in [Purpose::Observe, Purpose::Reach] {
        let (mut client, mut server) = pair(purpose, (1, b""), (2, b""));
        let mut exchanging = client_with(1, Purpose::Exchange, (1, b"state"));
        move_bytes(&mut client, &mut server, now);
        let hello = server.poll_transmit().unwrap();
        let _ = exchanging.poll_transmit();
        // Both clients drew the same nonce; the server's answer names the purpose.
        assert_eq!(exchanging.handle_bytes(&hello, now), Err(StreamFault::Unexpected), "{purpose:?}");
    }
    let (mut client, mut server) = pair(Purpose::Observe, (1, b""), (2, b"x"));
    talk(&mut client, &mut server);
    let (mut other, mut same) = (client_with(1, Purpose::Observe, (1, b"")), server_with(2, (2, b"x")));
    talk(&mut other, &mut same);
    // An observer says nothing after its subscription.
    server.handle_snapshot(snapshot(3, b"y"), now).unwrap();
    let states = server.poll_transmit().unwrap();
    assert!(same.handle_bytes(&states, now).is_err());
}

#[test]
fn who_dawdles_is_late() {
    let now = start();
    let after = |seconds| now + Duration::from_secs(seconds);
    let (mut client, mut server) = pair(Purpose::Exchange, (1, b""), (2, b""));
    assert_eq!(server.handle_timeout(now), Ok(()));
    assert_eq!((client.poll_timeout(), server.poll_timeout()), (after(2), after(2)));
    // A byte now and then wins no time.
    server.handle_bytes(&[0], after(1)).unwrap();
    assert_eq!(server.handle_timeout(after(2)), Err(StreamFault::Late));
    assert_eq!(client.handle_timeout(after(2)), Err(StreamFault::Late));

    let (mut client, mut server) = pair(Purpose::Exchange, (1, b""), (2, b""));
    move_bytes(&mut client, &mut server, now);
    move_bytes(&mut server, &mut client, now);
    assert_eq!((client.poll_timeout(), server.poll_timeout()), (after(5), after(5)));
    assert_eq!(server.handle_timeout(after(5)), Err(StreamFault::Late));
    assert_eq!(client.handle_end(), Err(StreamFault::Cut));
}

proptest! {
    #[test]
    fn no_bytes_get_anything_done_without_the_key(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut server = server_with(2, (2, b"secret"));
        let _ = server.handle_bytes(&bytes, start()).and_then(|()| server.handle_end());
        prop_assert_eq!((server.poll_event(), server.poll_transmit()), (None, None));
    }

    #[test]
    fn a_conversation_with_any_bit_flipped_brings_nothing_wrong(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let now = start();
        let (mut client, mut server) = pair(Purpose::Exchange, (1, b"of the client"), (2, b"of the server"));
        let hello: Vec<u8> = std::iter::from_fn(|| client.poll_transmit()).flatten().collect();
        server.handle_bytes(&hello, now).unwrap();
        move_bytes(&mut server, &mut client, now);
        let mut state: Vec<u8> = std::iter::from_fn(|| client.poll_transmit()).flatten().collect();
        let at = at.index(state.len());
        state[at] ^= 1 << bit;
        let _ = server.handle_bytes(&state, now);
        prop_assert_eq!(server.poll_event(), None);
    }

    #[test]
    fn an_insider_in_the_clear_gets_one_thing_done_at_most(
        purpose in 1..4_u8,
        frames in prop::collection::vec((0x80..0x87_u8, prop::collection::vec(any::<u8>(), 0..80)), 0..5),
        tail in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        // What the checked server draws; a fuzzer finds it in the committed corpus.
        let nonce = text::Nonce::draw(&mut rng(1)).0;
        let hello = [&[7; 16][..], &9_u64.to_be_bytes(), &[0; 8], &[purpose], b"insider"].concat();
        let mut bytes = in_the_clear(0x81, [0; 16], 0, &hello);
        for (number, (kind, payload)) in (1..).zip(&frames) {
            bytes.extend(in_the_clear(*kind, nonce, number, payload));
        }
        bytes.extend(tail);

        let done = check_stream(&bytes, start());

        let wanted = match (purpose, frames.first()) {
            (1, Some((0x83, _))) => 1,
            (2, Some((0x84, payload))) if payload.is_empty() => 1,
            _ => 0,
        };
        prop_assert!(done.is_err() || done == Ok(wanted), "{:?}", done);
    }
}

#[test]
fn the_checked_server_serves_an_exchange() {
    let hello = [&[7; 16][..], &9_u64.to_be_bytes(), &[0; 8], &[1], b"insider"].concat();
    let nonce = text::Nonce::draw(&mut rng(1)).0;
    let bytes = [in_the_clear(0x81, [0; 16], 0, &hello), in_the_clear(0x83, nonce, 1, b"state")].concat();

    assert_eq!(check_stream(&bytes, start()), Ok(1));
    for len in 0..bytes.len() {
        // A client may leave after the hellos.
        let expected = if len == hello.len() + 31 {
            Ok(0)
        } else if len == 0 {
            Err(StreamFault::Silent)
        } else {
            Err(StreamFault::Cut)
        };
        assert_eq!(check_stream(&bytes[..len], start()), expected, "{len} bytes");
    }
}

fn in_the_clear(kind: u8, to: [u8; 16], number: u64, payload: &[u8]) -> Vec<u8> {
    let text = [&[envelope::PLAINTEXT, kind, 1][..], &to, &number.to_be_bytes(), payload].concat();
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], &text].concat()
}

/// Hands everything to and fro until both are silent; gives what each got.
fn talk(client: &mut Conversation, server: &mut Conversation) -> (Vec<StreamEvent>, Vec<StreamEvent>) {
    let now = start();
    while move_bytes(client, server, now) + move_bytes(server, client, now) > 0 {}
    let events = |end: &mut Conversation| std::iter::from_fn(|| end.poll_event()).collect();
    (events(client), events(server))
}

fn move_bytes(from: &mut Conversation, to: &mut Conversation, now: Instant) -> usize {
    let mut moved = 0;
    while let Some(bytes) = from.poll_transmit() {
        to.handle_bytes(&bytes, now).unwrap();
        moved += bytes.len();
    }
    moved
}

fn pair(purpose: Purpose, client: (u64, &[u8]), server: (u64, &[u8])) -> (Conversation, Conversation) {
    (client_with(1, purpose, client), server_with(2, server))
}

fn client_with(seed: u64, purpose: Purpose, (digest, state): (u64, &[u8])) -> Conversation {
    Conversation::open(purpose, sealed("secret"), sender("client", 1), snapshot(digest, state), rng(seed), start())
}

fn server_with(seed: u64, (digest, state): (u64, &[u8])) -> Conversation {
    Conversation::serve(sealed("secret"), sender("server", 2), snapshot(digest, state), rng(seed), start())
}

fn snapshot(digest: u64, state: &[u8]) -> Snapshot {
    Snapshot { digest, state: Arc::from(state) }
}

fn sender(name: &str, process: u64) -> Sender {
    Sender { name: NodeName::new(name).unwrap(), process: ProcessId(process) }
}

fn sealed(secret: &str) -> Sealing {
    Key::derive(&SecretKey::parse(secret.as_bytes()).unwrap(), "garpike").into()
}

fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// The same moment whenever it is asked for.
#[expect(clippy::disallowed_methods, reason = "a test makes its own time from one reading")]
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}
