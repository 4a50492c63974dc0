//! The payload of a datagram.
//!
//! All that is read from an authentic datagram is read here, except what foca reads itself. Whoever a payload says it is
//! from must be the sender of the datagram.

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError, Standing};
use crate::datagram::{Datagram, Kind};
use crate::facts::Facts;
use crate::notice::{Notice, NoticeId, Vote};
use crate::session::Nonce;
use crate::{Generation, Identity, Rejected};

/// What a datagram says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Challenge(Nonce),
    Answer(Nonce, Identity),
    /// A datagram of foca by this member. Its bytes are the payload as it is.
    Swim(Identity),
    Suspected(Standing),
    Superseded(Standing),
    Facts(Facts),
    FactsWanted,
    FactsHeld(FactsHeld),
    Heartbeat(u32),
    Ping,
    Pong,
    Vote(Vote),
    Notice(Notice),
    NoticeHeld(NoticeId),
}

/// Which facts of the receiver the sender holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FactsHeld {
    pub(crate) generation: Generation,
    pub(crate) version: u64,
}

impl Message {
    pub(crate) fn parse(datagram: &Datagram<'_>) -> Result<Self, Rejected> {
        let payload = datagram.payload;
        match datagram.kind {
            Kind::Challenge => match Nonce::split(payload) {
                Some((nonce, [])) => Ok(Self::Challenge(nonce)),
                Some(_) | None => Err(Rejected::Malformed),
            },
            Kind::Answer => {
                let (nonce, identity) = Nonce::split(payload).ok_or(Rejected::Malformed)?;
                let identity = by_sender(codec::decode(identity).map_err(malformed)?, datagram)?;
                Ok(Self::Answer(nonce, identity))
            }
            Kind::Swim => {
                let header = codec::header_of(payload).map_err(malformed)?;
                Ok(Self::Swim(by_sender(header.src, datagram)?))
            }
            Kind::Suspected => Ok(Self::Suspected(codec::decode(payload).map_err(malformed)?)),
            Kind::Superseded => Ok(Self::Superseded(codec::decode(payload).map_err(malformed)?)),
            Kind::Facts => {
                let facts = Facts::parse(payload).map_err(malformed)?;
                datagram.is_by(&facts.author).then_some(Self::Facts(facts)).ok_or(Rejected::Malformed)
            }
            Kind::FactsWanted => empty(payload, Self::FactsWanted),
            Kind::FactsHeld => Ok(Self::FactsHeld(codec::decode(payload).map_err(malformed)?)),
            Kind::Heartbeat => Ok(Self::Heartbeat(codec::decode(payload).map_err(malformed)?)),
            Kind::Ping => empty(payload, Self::Ping),
            Kind::Pong => empty(payload, Self::Pong),
            Kind::Vote => Ok(Self::Vote(codec::decode(payload).map_err(malformed)?)),
            Kind::Notice => Ok(Self::Notice(codec::decode(payload).map_err(malformed)?)),
            Kind::NoticeHeld => Ok(Self::NoticeHeld(codec::decode(payload).map_err(malformed)?)),
        }
    }
}

/// Reads what an opened datagram carries, as a receiver does, and tells whether it is well formed.
///
/// # Errors
///
/// The reason for which a receiver would drop it.
pub fn check(text: &[u8]) -> Result<(), Rejected> {
    Message::parse(&Datagram::parse(text)?).map(drop)
}

fn by_sender(identity: Identity, datagram: &Datagram<'_>) -> Result<Identity, Rejected> {
    datagram.is_by(&identity).then_some(identity).ok_or(Rejected::Malformed)
}

fn empty(payload: &[u8], message: Message) -> Result<Message, Rejected> {
    payload.is_empty().then_some(message).ok_or(Rejected::Malformed)
}

fn malformed(_: CodecError) -> Rejected {
    Rejected::Malformed
}

#[cfg(test)]
mod tests {
    use foca::{Codec as _, Header};
    use garpike_election::{NodeName, NodeState, Selection};
    use proptest::prelude::*;

    use super::*;
    use crate::{ProcessId, Surroundings};

    #[test]
    fn a_payload_by_another_than_the_sender_is_malformed() {
        let mut swim = Vec::new();
        let (src, dst) = (identity("a", 1), identity("b", 2));
        let header = Header { src, src_incarnation: 0, dst, message: foca::Message::Gossip };
        codec::Codec.encode_header(&header, &mut swim).unwrap();
        let (nonce, _) = Nonce::split(&[7; 16]).unwrap();
        let payloads = [
            (Kind::Swim, swim),
            (Kind::Answer, nonce.with(&codec::encode(&identity("a", 1)).unwrap())),
            (
                Kind::Facts,
                Facts::new(&identity("a", 1), NodeState::Ready, vec![], &Surroundings::new(Selection::All)).to_bytes(),
            ),
        ];
        for (kind, payload) in &payloads {
            assert!(parse(*kind, "a", 1, payload).is_ok(), "{kind:?}");
            assert_eq!(parse(*kind, "b", 1, payload), Err(Rejected::Malformed), "{kind:?} by another node");
            assert_eq!(parse(*kind, "a", 2, payload), Err(Rejected::Malformed), "{kind:?} by another process");
        }
    }

    #[test]
    fn left_over_bytes_are_malformed() {
        for (kind, payload) in [(Kind::Challenge, &[7; 17][..]), (Kind::FactsWanted, &[0]), (Kind::Challenge, &[7; 15])]
        {
            assert_eq!(parse(kind, "a", 1, payload), Err(Rejected::Malformed), "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn checking_never_panics(kind in 0..16_u8, payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut text = b"\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\x01a".to_vec();
            text[0] = kind;
            text.extend(payload);
            let _ = check(&text);
        }
    }

    fn parse(kind: Kind, name: &str, process: u64, payload: &[u8]) -> Result<Message, Rejected> {
        let process = ProcessId(process);
        Message::parse(&Datagram { kind, to: None, name, process, sequence: 1, payload })
    }

    fn identity(name: &str, process: u64) -> Identity {
        Identity {
            name: NodeName::new(name).unwrap(),
            generation: Generation(1),
            process: ProcessId(process),
            gossip: "192.0.2.1:7946".parse().unwrap(),
        }
    }
}
