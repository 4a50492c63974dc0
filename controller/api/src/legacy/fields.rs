//! The fields of the old configuration, and what they are called today.

use std::fmt;

use serde_json::Value;

/// The fields of one kind of mapping, by their old names.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) &'static [(&'static str, Kept)]);

/// What becomes of a field.
pub(super) enum Kept {
    /// It becomes this field, when it has this shape.
    As(&'static str, Shape),
    /// It is read by a function of its own.
    Elsewhere,
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    Text,
    Number,
    Bool,
    Texts,
    Labels,
    /// `{key, operator, values}`, which is what it was.
    Requirements,
}

impl Shape {
    pub(super) fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_u64() || value.is_i64(),
            Self::Bool => value.is_boolean(),
            Self::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            Self::Labels => value.as_object().is_some_and(|labels| labels.values().all(Value::is_string)),
            Self::Requirements => value.as_array().is_some_and(|items| items.iter().all(Value::is_object)),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "a text",
            Self::Number => "a whole number",
            Self::Bool => "true or false",
            Self::Texts => "a list of texts",
            Self::Labels => "a mapping of texts",
            Self::Requirements => "a list of mappings",
        })
    }
}

pub(super) const ROOT: Table = Table(&[
    ("peers", Kept::Elsewhere),
    ("bgp-communities", Kept::Elsewhere),
    ("address-pools", Kept::Elsewhere),
    ("bfd-profiles", Kept::Elsewhere),
]);

pub(super) const POOL: Table = Table(&[
    ("protocol", Kept::Elsewhere),
    ("name", Kept::Elsewhere),
    ("bgp-advertisements", Kept::Elsewhere),
    ("addresses", Kept::As("addresses", Shape::Texts)),
    ("auto-assign", Kept::As("autoAssign", Shape::Bool)),
    ("avoid-buggy-ips", Kept::As("avoidBuggyIPs", Shape::Bool)),
]);

pub(super) const ADVERTISEMENT: Table = Table(&[
    ("aggregation-length", Kept::As("aggregationLength", Shape::Number)),
    ("aggregation-length-v6", Kept::As("aggregationLengthV6", Shape::Number)),
    ("localpref", Kept::As("localPref", Shape::Number)),
    ("communities", Kept::As("communities", Shape::Texts)),
]);

pub(super) const PEER: Table = Table(&[
    ("my-asn", Kept::As("myASN", Shape::Number)),
    ("peer-asn", Kept::As("peerASN", Shape::Number)),
    ("peer-address", Kept::As("peerAddress", Shape::Text)),
    ("source-address", Kept::As("sourceAddress", Shape::Text)),
    ("peer-port", Kept::As("peerPort", Shape::Number)),
    ("hold-time", Kept::As("holdTime", Shape::Text)),
    ("keepalive-time", Kept::As("keepaliveTime", Shape::Text)),
    ("router-id", Kept::As("routerID", Shape::Text)),
    ("node-selectors", Kept::Elsewhere),
    ("password", Kept::As("password", Shape::Text)),
    ("bfd-profile", Kept::As("bfdProfile", Shape::Text)),
    ("ebgp-multihop", Kept::As("ebgpMultiHop", Shape::Bool)),
]);

pub(super) const SELECTOR: Table = Table(&[
    ("match-labels", Kept::As("matchLabels", Shape::Labels)),
    ("match-expressions", Kept::As("matchExpressions", Shape::Requirements)),
]);

pub(super) const BFD_PROFILE: Table = Table(&[
    ("name", Kept::Elsewhere),
    ("receive-interval", Kept::As("receiveInterval", Shape::Number)),
    ("transmit-interval", Kept::As("transmitInterval", Shape::Number)),
    ("detect-multiplier", Kept::As("detectMultiplier", Shape::Number)),
    ("echo-interval", Kept::As("echoInterval", Shape::Number)),
    ("echo-mode", Kept::As("echoMode", Shape::Bool)),
    ("passive-mode", Kept::As("passiveMode", Shape::Bool)),
    ("minimum-ttl", Kept::As("minimumTtl", Shape::Number)),
]);
