//! Frames out of the bytes of a stream, and into them.
//!
//! The buffer grows with what has arrived, never with what a length claims, and holds one frame at most and the rest of
//! what came with it.

use rand::rngs::StdRng;

use super::StreamFault;
use crate::keyring::Held;
use crate::{KeyId, Rejected, Sealing, envelope};

/// The longest frame: chosen, 1 KiB for each member of a cluster of a thousand.
pub(super) const FRAME_MAX: usize = 1024 * 1024;

/// The longest first frame. A hello has at most 357 bytes: 45 of the envelope, 26 of the header, 33 and a name of up to
/// 253; the rest is room for later versions.
pub(super) const HELLO_MAX: usize = 1024;

/// The bytes that have arrived and were not yet taken.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    first_is_known: bool,
    came_with: Option<CameWith>,
}

/// How the other end sealed its latest frame: it understands what is sealed alike.
#[derive(Clone, Copy, Debug)]
enum CameWith {
    Key(KeyId),
    Nothing,
}

impl Incoming {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Nothing of a frame is there.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the next whole frame, and gives its text.
    pub(super) fn next(&mut self, sealing: &Sealing, limit: usize) -> Result<Option<Vec<u8>>, StreamFault> {
        if !self.first_is_known {
            foreign(&self.buffer)?;
        }
        let Some((&len, rest)) = self.buffer.split_first_chunk() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > limit {
            return Err(Rejected::TooLong.into());
        }
        let Some((envelope, _)) = rest.split_at_checked(len) else { return Ok(None) };
        let (text, came_with) = envelope::unwrap(sealing, envelope, limit)?;
        self.came_with = Some(came_with.map_or(CameWith::Nothing, CameWith::Key));
        self.buffer.drain(..LENGTH_LEN + len);
        self.first_is_known = true;
        Ok(Some(text))
    }

    /// A frame around `text` for the other end.
    pub(super) fn frame(&self, sealing: &Sealing, text: &[u8], rng: &mut StdRng) -> Result<Vec<u8>, StreamFault> {
        match self.came_with {
            None => frame(sealing, Held::Unknown, text, rng),
            Some(CameWith::Key(id)) => frame(sealing, Held::Keys(&[id]), text, rng),
            Some(CameWith::Nothing) => frame(sealing, Held::Keys(&[]), text, rng),
        }
    }
}

fn frame(sealing: &Sealing, held: Held<'_>, text: &[u8], rng: &mut StdRng) -> Result<Vec<u8>, StreamFault> {
    let envelope = envelope::wrap(sealing, held, text, rng);
    if envelope.len() > FRAME_MAX {
        return Err(StreamFault::StateTooLong);
    }
    let len = u32::try_from(envelope.len()).map_err(|_| StreamFault::StateTooLong)?;
    Ok([&len.to_be_bytes()[..], &envelope].concat())
}

/// Names other protocols by their first bytes. A first frame of ours begins with two zeros, it is that short.
fn foreign(bytes: &[u8]) -> Result<(), Rejected> {
    match bytes {
        [] | [0] | [0, 0, ..] => Ok(()),
        // memberlist net.go: a stream begins with a message type, 0 to 13, or the label prefix 244; a ping is 0 and a
        // MessagePack map of a few entries.
        [0, 0x80..=0x8f, ..] | [1..=13 | 0xf4, ..] => Err(Rejected::Memberlist),
        [0, ..] => Err(Rejected::TooLong),
        _ => Err(Rejected::UnknownVersion),
    }
}

const LENGTH_LEN: usize = 4;
