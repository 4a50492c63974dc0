//! Which objects are read, and what is said about the others.

use super::SYSTEM_NAMESPACE;
use crate::problem::{FieldPath, Problem};
use crate::schema;

/// What is done with an object.
pub(super) enum Kind {
    Pool,
    Advertisement,
    Service,
    Node,
    Namespace,
    List,
    Unread(Unread),
}

/// Why an object is not read.
pub(super) enum Unread {
    /// The ConfigMap of MetalLB 0.12 and older.
    LegacyConfig,
    /// A pool of MetalLB 0.13.
    LegacyPool,
    /// A kind of MetalLB's other mode.
    Bgp,
    /// A kind that is read in this version only.
    OtherVersion(&'static str),
    /// Probably meant to be this kind.
    Slip(&'static str),
    /// Nothing that concerns us.
    Foreign,
}

impl Kind {
    pub(super) fn of(version: &str, kind: &str, namespace: Option<&str>, name: Option<&str>) -> Self {
        match (version, kind) {
            ("metallb.io/v1beta1", "IPAddressPool") => Self::Pool,
            ("metallb.io/v1beta1", "L2Advertisement") => Self::Advertisement,
            ("v1", "Service") => Self::Service,
            ("v1", "Node") => Self::Node,
            ("v1", "Namespace") => Self::Namespace,
            ("v1", "ConfigMap") if namespace == Some(SYSTEM_NAMESPACE) && name == Some("config") => {
                Self::Unread(Unread::LegacyConfig)
            }
            (_, kind) if kind.ends_with("List") => Self::List,
            (version, kind) => Self::Unread(Unread::of(version, kind)),
        }
    }
}

impl Unread {
    fn of(version: &str, kind: &str) -> Self {
        let metallb = version.starts_with("metallb.io/");
        match kind {
            "IPAddressPool" | "L2Advertisement" => Self::OtherVersion("metallb.io/v1beta1"),
            "Service" | "Node" | "Namespace" if !version.contains('/') => Self::OtherVersion("v1"),
            "AddressPool" if metallb => Self::LegacyPool,
            "BGPAdvertisement" | "BGPPeer" | "BFDProfile" | "Community" if metallb => Self::Bgp,
            "ServiceL2Status" | "ServiceBGPStatus" | "ConfigurationState" => Self::Foreign,
            _ if metallb => schema::closest(kind, ["IPAddressPool", "L2Advertisement"].into_iter())
                .map_or(Self::Foreign, Self::Slip),
            _ => Self::Foreign,
        }
    }

    /// What is said about the object.
    pub(super) fn problem(&self, version: &str) -> Problem {
        match self {
            Self::LegacyConfig => Problem::warning("is the configuration of MetalLB 0.12 and older and has no effect")
                .mend("write an IPAddressPool and an L2Advertisement: \"garpike convert configmap FILE\" does it"),
            Self::LegacyPool => Problem::warning("is a kind of MetalLB 0.13 and has no effect")
                .mend("write an IPAddressPool and an L2Advertisement"),
            Self::Bgp => Problem::warning("is accepted, BGP is not active"),
            Self::OtherVersion(right) => Problem::error("is not a version of this kind")
                .at(FieldPath::of(["apiVersion"]))
                .value(version)
                .mend(format!("write {right}")),
            Self::Slip(meant) => Problem::error("is not a known kind").mend(format!("did you mean {meant}?")),
            Self::Foreign => Problem::note("is not needed here and is ignored"),
        }
    }
}
