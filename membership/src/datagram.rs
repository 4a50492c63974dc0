//! The text inside the envelope: who speaks to whom, and what it is.
//!
//! ```text
//!  0  kind
//!  1  version of the codec of the payload
//!  2  receiving process (8 bytes, big endian; 0 in a challenge: whoever gets it)
//! 10  sending process (8)
//! 18  sequence number of the sending process (8), from 1
//! 26  length n of the sender's name, then the name
//! 27+n  payload
//! ```

use garpike_election::NodeName;

use crate::{Identity, ProcessId, Rejected, codec};

/// What a datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// "Who are you? Prove that you live": a nonce.
    Challenge,
    /// The nonce of a challenge and the identity of the answerer.
    Answer,
    /// A datagram of foca.
    Swim,
    /// "I suspect you": the suspected identity and incarnation, so that the receiver can refute it at once.
    Suspected,
    /// "This identity superseded yours".
    Superseded,
    /// What the sender says about itself.
    Facts,
    /// "Tell me your facts": nothing more.
    FactsWanted,
    /// "I hold your facts of this version".
    FactsHeld,
    /// "I live": to the watchers of the sender, with a number that counts up.
    Heartbeat,
    /// "Do you live?": nothing more.
    Ping,
    /// "I do": nothing more.
    Pong,
    /// What a watcher says of a node, to the other watchers.
    Vote,
    /// A verdict, to everybody and to whom it is about.
    Notice,
    /// "I hold this verdict".
    NoticeHeld,
}

/// One process of one node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Sender {
    pub(crate) name: NodeName,
    pub(crate) process: ProcessId,
}

/// A datagram without its envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) kind: Kind,
    /// `None`: whoever gets it.
    pub(crate) to: Option<ProcessId>,
    /// The name of the sending node; it is one.
    pub(crate) name: &'a str,
    /// The sending process.
    pub(crate) process: ProcessId,
    pub(crate) sequence: u64,
    pub(crate) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, Rejected> {
        let header = Header::split(text).ok_or(Rejected::Malformed)?;
        let kind = Kind::from_byte(header.kind).ok_or(Rejected::Malformed)?;
        if header.codec != codec::VERSION {
            return Err(Rejected::UnknownVersion);
        }
        let name = str::from_utf8(header.name).map_err(|_| Rejected::Malformed)?;
        NodeName::check(name).map_err(|_| Rejected::Malformed)?;
        let process = ProcessId(u64::from_be_bytes(header.from));
        if process == NOBODY {
            return Err(Rejected::Malformed);
        }
        let to = ProcessId(u64::from_be_bytes(header.to));
        Ok(Self {
            kind,
            to: (to != NOBODY).then_some(to),
            name,
            process,
            sequence: u64::from_be_bytes(header.sequence),
            payload: header.payload,
        })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let name = self.name.as_bytes();
        let mut text = Vec::with_capacity(HEADER_LEN + name.len() + self.payload.len());
        text.push(self.kind.to_byte());
        text.push(codec::VERSION);
        text.extend_from_slice(&self.to.unwrap_or(NOBODY).0.to_be_bytes());
        text.extend_from_slice(&self.process.0.to_be_bytes());
        text.extend_from_slice(&self.sequence.to_be_bytes());
        text.push(u8::try_from(name.len()).expect("a node name has at most 253 bytes"));
        text.extend_from_slice(name);
        text.extend_from_slice(self.payload);
        text
    }

    /// Who sent it.
    pub(crate) fn sender(&self) -> Sender {
        let name = NodeName::new(self.name).expect("a datagram names a node");
        Sender { name, process: self.process }
    }

    /// Whether it was sent by the process that this identity names.
    pub(crate) fn is_by(&self, identity: &Identity) -> bool {
        identity.name.as_str() == self.name && identity.process == self.process
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::Challenge,
        Self::Answer,
        Self::Swim,
        Self::Suspected,
        Self::Superseded,
        Self::Facts,
        Self::FactsWanted,
        Self::FactsHeld,
        Self::Heartbeat,
        Self::Ping,
        Self::Pong,
        Self::Vote,
        Self::Notice,
        Self::NoticeHeld,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte).checked_sub(1)?).copied()
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Challenge => 1,
            Self::Answer => 2,
            Self::Swim => 3,
            Self::Suspected => 4,
            Self::Superseded => 5,
            Self::Facts => 6,
            Self::FactsWanted => 7,
            Self::FactsHeld => 8,
            Self::Heartbeat => 9,
            Self::Ping => 10,
            Self::Pong => 11,
            Self::Vote => 12,
            Self::Notice => 13,
            Self::NoticeHeld => 14,
        }
    }

    /// The word for the kind in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::Answer => "answer",
            Self::Swim => "swim",
            Self::Suspected => "suspected",
            Self::Superseded => "superseded",
            Self::Facts => "facts",
            Self::FactsWanted => "facts_wanted",
            Self::FactsHeld => "facts_held",
            Self::Heartbeat => "heartbeat",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Vote => "vote",
            Self::Notice => "notice",
            Self::NoticeHeld => "notice_held",
        }
    }
}

/// The fields as they lie in the bytes.
struct Header<'a> {
    kind: u8,
    codec: u8,
    to: [u8; 8],
    from: [u8; 8],
    sequence: [u8; 8],
    name: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Header<'a> {
    fn split(text: &'a [u8]) -> Option<Self> {
        let (&[kind, codec], rest) = text.split_first_chunk()?;
        let (&to, rest) = rest.split_first_chunk()?;
        let (&from, rest) = rest.split_first_chunk()?;
        let (&sequence, rest) = rest.split_first_chunk()?;
        let (&name_len, rest) = rest.split_first()?;
        let (name, payload) = rest.split_at_checked(name_len.into())?;
        Some(Self { kind, codec, to, from, sequence, name, payload })
    }
}

/// The process number that no process has.
const NOBODY: ProcessId = ProcessId(0);

/// The fields before the name.
const HEADER_LEN: usize = 27;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let datagram = Datagram {
            kind: Kind::Swim,
            to: Some(ProcessId(0x0102_0304_0506_0708)),
            name: "n1",
            process: ProcessId(0x1112_1314_1516_1718),
            sequence: 0x2122_2324_2526_2728,
            payload: b"payload",
        };
        let bytes = b"\x03\x01\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\
            \x21\x22\x23\x24\x25\x26\x27\x28\x02n1payload";

        assert_eq!(datagram.to_bytes(), bytes);
        assert_eq!(Datagram::parse(bytes).unwrap(), datagram);
    }

    #[test]
    fn every_kind_has_its_own_byte() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind.to_byte()), Some(kind));
        }
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(15), None);
    }

    #[test]
    fn what_no_sender_writes_is_malformed() {
        let good = b"\x03\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\x02n1";
        assert!(Datagram::parse(good).is_ok());
        let with = |at: usize, byte| {
            let mut bytes = good.to_vec();
            bytes[at] = byte;
            Datagram::parse(&bytes).map(|datagram| datagram.kind)
        };

        assert_eq!(with(0, 99), Err(Rejected::Malformed), "kind");
        assert_eq!(with(1, 99), Err(Rejected::UnknownVersion), "codec");
        assert_eq!(with(17, 0), Err(Rejected::Malformed), "process 0");
        assert_eq!(with(26, 3), Err(Rejected::Malformed), "name longer than the datagram");
        assert_eq!(with(26, 0), Err(Rejected::Malformed), "no name");
        assert_eq!(with(27, b'N'), Err(Rejected::Malformed), "not a node name");
        assert_eq!(with(27, 0xff), Err(Rejected::Malformed), "not UTF-8");
        for len in 0..good.len() {
            assert!(Datagram::parse(&good[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_inverts_writing(text in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(datagram) = Datagram::parse(&text) {
                prop_assert_eq!(datagram.to_bytes(), text);
            }
        }
    }
}
