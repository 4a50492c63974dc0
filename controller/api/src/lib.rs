//! The objects people write: custom resources, Services and Nodes, read and validated.
//!
//! Text becomes [`Objects`] in [`manifests`], `Objects` become a [`Config`] in [`validate`], and a
//! `Config` becomes what the election needs in [`desired`]. Each step returns its [`Problem`]s beside its result: an
//! object that is wrong has no effect, and no effect on the others.

pub mod config;
mod crd;
mod desired;
mod endpoints;
pub mod legacy;
pub mod manifests;
mod objects;
mod overrides;
mod problem;
mod range;
mod schema;
mod selector;
mod sharing;
mod tree;
mod validate;

pub use config::Config;
pub use crd::{
    BFDProfile, BFDProfileSpec, BGPAdvertisement, BGPAdvertisementSpec, BGPPeer, BGPPeerSpec, Community,
    CommunityAlias, CommunitySpec, CommunityStatus, ConfigurationResult, ConfigurationState, ConfigurationStateSpec,
    ConfigurationStateStatus, DynamicAsn, IPAddressPool, IPAddressPoolSpec, IPAddressPoolStatus, InterfaceInfo,
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, NoStatus, OldBGPPeer, OldBGPPeerSpec, OldExpression,
    OldNodeSelector, PreferredNodeSelector, SecretReference, ServiceAllocation, ServiceBGPStatus, ServiceBGPStatusSpec,
    ServiceBGPStatusStatus, ServiceL2Status, ServiceL2StatusSpec, ServiceL2StatusStatus, definitions,
};
pub use desired::{Move, desired};
pub use endpoints::{ServingEndpoints, service_of};
pub use objects::{ObjectKey, Objects, Source, Sourced};
pub use overrides::{ChosenOwner, DRAIN_ANNOTATION, InvalidChosenOwner, OWNER_ANNOTATION};
pub use problem::{FieldPath, Problem, Severity};
pub use range::{AddressRange, Family, InvalidRange};
pub use selector::{InvalidSelector, Labels, Selector};
pub use sharing::{Clash, Port, Protocol, Sharing, SharingKey, UnknownProtocol};
pub use validate::{Claim, Scope, invalid_community, judge_community, judge_held, judge_service, validate};
