//! The text inside the envelope of a frame.
//!
//! ```text
//!  0  kind; its high bit is set, so that no recorded datagram passes for a frame, nor a frame for a datagram
//!  1  version of the layout
//!  2  nonce of the receiver (16 bytes; zeros in the hello of a client, which knows none)
//! 18  number of the frame (8, big endian), from 0, counted by its sender
//! 26  payload: of a hello as below, of a state the state, of the others nothing
//!
//!  0  nonce of the sender (16)
//! 16  process of the sender (8)
//! 24  digest (8)
//! 32  purpose
//! 33  name of the sender
//! ```

use garpike_election::NodeName;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::datagram::Sender;
use crate::{ProcessId, Rejected, codec};

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// "This is what I want".
    ClientHello,
    /// "Go on".
    ServerHello,
    /// What the sender knows.
    State,
    /// "Tell me, and whenever it changes".
    Subscribe,
    /// "I am still here, and nothing has changed".
    Unchanged,
}

/// What a conversation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Both are to know what either knows.
    Exchange,
    /// The client is to know what the server knows, from here on.
    Observe,
    /// The client is to know that the server can be reached.
    Reach,
}

/// Drawn by each end for each conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Nonce(pub(super) [u8; 16]);

/// A frame without its envelope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text<'a> {
    pub(super) kind: Kind,
    pub(super) to: Nonce,
    pub(super) number: u64,
    pub(super) payload: &'a [u8],
}

/// How an end introduces itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) nonce: Nonce,
    pub(super) sender: Sender,
    pub(super) digest: u64,
    pub(super) purpose: Purpose,
}

impl Nonce {
    /// Stands where the nonce of the receiver is not known.
    pub(super) const UNKNOWN: Self = Self([0; 16]);

    pub(super) fn draw(rng: &mut StdRng) -> Self {
        Self(rng.random())
    }
}

impl<'a> Text<'a> {
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, Rejected> {
        let (&[kind, version], rest) = text.split_first_chunk().ok_or(Rejected::Malformed)?;
        let (&to, rest) = rest.split_first_chunk().ok_or(Rejected::Malformed)?;
        let (&number, payload) = rest.split_first_chunk().ok_or(Rejected::Malformed)?;
        let kind = Kind::from_byte(kind).ok_or(Rejected::Malformed)?;
        if version != codec::VERSION {
            return Err(Rejected::UnknownVersion);
        }
        Ok(Self { kind, to: Nonce(to), number: u64::from_be_bytes(number), payload })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend_from_slice(&[self.kind.to_byte(), codec::VERSION]);
        bytes.extend_from_slice(&self.to.0);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(self.payload);
        bytes
    }
}

impl Hello {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Rejected> {
        let (&nonce, rest) = payload.split_first_chunk().ok_or(Rejected::Malformed)?;
        let (&process, rest) = rest.split_first_chunk().ok_or(Rejected::Malformed)?;
        let (&digest, rest) = rest.split_first_chunk().ok_or(Rejected::Malformed)?;
        let (&purpose, name) = rest.split_first().ok_or(Rejected::Malformed)?;
        let name = str::from_utf8(name).ok().and_then(|name| NodeName::new(name).ok());
        let (name, process) = (name.ok_or(Rejected::Malformed)?, u64::from_be_bytes(process));
        let purpose = Purpose::from_byte(purpose).ok_or(Rejected::Malformed)?;
        if process == 0 || nonce == Nonce::UNKNOWN.0 {
            return Err(Rejected::Malformed);
        }
        let sender = Sender { name, process: ProcessId(process) };
        Ok(Self { nonce: Nonce(nonce), sender, digest: u64::from_be_bytes(digest), purpose })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let name = self.sender.name.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(HELLO_LEN + name.len());
        bytes.extend_from_slice(&self.nonce.0);
        bytes.extend_from_slice(&self.sender.process.0.to_be_bytes());
        bytes.extend_from_slice(&self.digest.to_be_bytes());
        bytes.push(self.purpose.to_byte());
        bytes.extend_from_slice(name);
        bytes
    }
}

impl Kind {
    const ALL: [Self; 5] = [Self::ClientHello, Self::ServerHello, Self::State, Self::Subscribe, Self::Unchanged];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::ClientHello => 0x81,
            Self::ServerHello => 0x82,
            Self::State => 0x83,
            Self::Subscribe => 0x84,
            Self::Unchanged => 0x85,
        }
    }
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Exchange, Self::Observe, Self::Reach];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.to_byte() == byte)
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Exchange => 1,
            Self::Observe => 2,
            Self::Reach => 3,
        }
    }

    /// The word for the purpose in metrics and logs.
    #[cfg(feature = "io")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Observe => "observe",
            Self::Reach => "reach",
        }
    }
}

/// The fields before the payload.
const HEADER_LEN: usize = 26;

/// The fields of a hello before the name.
const HELLO_LEN: usize = 33;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datagram::Datagram;

    #[test]
    fn golden_bytes() {
        let hello = Hello {
            nonce: Nonce([7; 16]),
            sender: Sender { name: NodeName::new("n1").unwrap(), process: ProcessId(0x0102_0304_0506_0708) },
            digest: 0x1112_1314_1516_1718,
            purpose: Purpose::Observe,
        };
        let payload = hello.to_bytes();
        let text =
            Text { kind: Kind::ClientHello, to: Nonce([9; 16]), number: 0x2122_2324_2526_2728, payload: &payload };
        let bytes = b"\x81\x01\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\x09\
            \x21\x22\x23\x24\x25\x26\x27\x28\
            \x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\
            \x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18\x02n1";

        assert_eq!(text.to_bytes(), bytes);
        assert_eq!(Text::parse(bytes).unwrap(), text);
        assert_eq!(Hello::parse(&payload).unwrap(), hello);
        for len in 0..HEADER_LEN {
            assert!(Text::parse(&bytes[..len]).is_err(), "{len} bytes");
        }
        for len in 0..=HELLO_LEN {
            assert!(Hello::parse(&payload[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn every_kind_and_purpose_has_its_own_byte() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_byte(kind.to_byte()), Some(kind));
        }
        for purpose in Purpose::ALL {
            assert_eq!(Purpose::from_byte(purpose.to_byte()), Some(purpose));
        }
        assert_eq!((Kind::from_byte(0x80), Kind::from_byte(0x86)), (None, None));
        assert_eq!((Purpose::from_byte(0), Purpose::from_byte(4)), (None, None));
    }

    #[test]
    fn no_process_and_no_nonce_are_malformed() {
        let sender = Sender { name: NodeName::new("n1").unwrap(), process: ProcessId(0) };
        let hello = Hello { nonce: Nonce([7; 16]), sender, digest: 0, purpose: Purpose::Reach };
        assert_eq!(Hello::parse(&hello.to_bytes()), Err(Rejected::Malformed));
        let sender = Sender { process: ProcessId(1), ..hello.sender };
        let hello = Hello { nonce: Nonce::UNKNOWN, sender, ..hello };
        assert_eq!(Hello::parse(&hello.to_bytes()), Err(Rejected::Malformed));
    }

    proptest! {
        #[test]
        fn a_frame_is_no_datagram(kind in 0..Kind::ALL.len(), rest in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = [&[Kind::ALL[kind].to_byte()][..], &rest].concat();
            prop_assert!(Datagram::parse(&text).is_err());
        }

        #[test]
        fn parsing_never_panics_and_inverts_writing(text in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(parsed) = Text::parse(&text) {
                prop_assert_eq!(parsed.to_bytes(), text.clone());
            }
            if let Ok(hello) = Hello::parse(&text) {
                prop_assert_eq!(hello.to_bytes(), text);
            }
        }
    }
}
