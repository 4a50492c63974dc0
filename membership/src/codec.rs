//! The only file that knows bincode.
//!
//! bincode is pinned to 2.0.1 (see docs/dependencies.md). Every decode has a limit: without one, eleven bytes that claim
//! a string of 2^40 bytes abort the process. Bytes that are left over are an error. The number of the format travels
//! outside of it, in the header of the datagram, so that a later version can use another one.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::{Buf, BufMut};
use foca::{Header, Incarnation, Member, State};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Identity;

/// The number of the format of payloads.
pub(crate) const VERSION: u8 = 1;

/// The codec of foca's headers and members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Codec;

/// Why a value could not be written or read.
#[derive(Debug, Error)]
pub(crate) enum CodecError {
    #[error("encoding failed")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("decoding failed")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("{needed} bytes needed, {room} left")]
    NoRoom { needed: usize, room: usize },
    #[error("{left} bytes left over")]
    Trailing { left: usize },
}

/// An identity and what is held against it: a suspicion told to its subject, or the identity that superseded another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) identity: Identity,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: State,
}

impl foca::Codec<Identity> for Codec {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        put(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, CodecError> {
        take(buf)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), CodecError> {
        put(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, CodecError> {
        take(buf)
    }
}

/// Writes one value.
///
/// Values are bounded by their constructors, so this fails for none that can be made.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    put(value, &mut bytes)?;
    Ok(bytes)
}

/// Reads one value that is all of `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, CONFIG).map_err(CodecError::Decode)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing { left }),
    }
}

/// Writes what fits into one frame of a stream.
pub(crate) fn encode_state<T: Serialize>(state: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(state, STATE_CONFIG).map_err(CodecError::Encode)
}

/// Reads one value that is all of `bytes`, which came in one frame of a stream.
pub(crate) fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(bytes, STATE_CONFIG).map_err(CodecError::Decode)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing { left }),
    }
}

/// The header at the front of a datagram of foca.
pub(crate) fn header_of(swim: &[u8]) -> Result<Header<Identity>, CodecError> {
    take(swim)
}

/// Writes all of the value or nothing, as foca demands.
fn put<T: Serialize>(value: &T, mut buf: impl BufMut) -> Result<(), CodecError> {
    let mut scratch = [0; ITEM_MAX];
    let needed = bincode::serde::encode_into_slice(value, &mut scratch, CONFIG).map_err(CodecError::Encode)?;
    let room = buf.remaining_mut();
    let bytes = scratch.get(..needed).filter(|_| needed <= room).ok_or(CodecError::NoRoom { needed, room })?;
    buf.put_slice(bytes);
    Ok(())
}

fn take<T: DeserializeOwned>(mut buf: impl Buf) -> Result<T, CodecError> {
    let (value, used) = bincode::serde::decode_from_slice(buf.chunk(), CONFIG).map_err(CodecError::Decode)?;
    buf.advance(used);
    Ok(value)
}

/// No item is longer: a header names three identities, each with a name of 253 bytes and at most 40 more; facts hold a
/// name and at most 32 interface names. The limit is checked against bincode's own count, which takes every number,
/// lengths included, for its full eight bytes.
const ITEM_MAX: usize = 2048;

const CONFIG: Configuration<LittleEndian, Varint, Limit<ITEM_MAX>> = bincode::config::standard().with_limit();

/// What the values of one frame of a stream (1 MiB) may claim: bincode counts each number as eight bytes, however few it
/// takes, so nothing that fits into a frame is refused.
const STATE_MAX: usize = 8 * 1024 * 1024;

const STATE_CONFIG: Configuration<LittleEndian, Varint, Limit<STATE_MAX>> = bincode::config::standard().with_limit();

#[cfg(test)]
mod tests;
