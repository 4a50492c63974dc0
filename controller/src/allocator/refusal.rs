//! Why a Service does not have the address that it asks for, with what would help.

use garpike_controller_api::Clash;
use garpike_controller_api::config::PoolName;
use garpike_election::{ServiceIp, ServiceKey};
use thiserror::Error;

/// Why a Service does not get the address that it asks for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The request contradicts itself.
    #[error("what it asks for cannot be; mend its request")]
    InvalidRequest,
    /// The address lies in no pool.
    #[error("{ip} lies in no pool; the pools hold {pools}")]
    OutsidePools {
        /// The address.
        ip: ServiceIp,
        /// The ranges of the pools, in words.
        pools: String,
    },
    /// Somebody else wrote the addresses that the Service has, and no pool allows them.
    #[error("{ips} was written by somebody else and is left alone: {because}")]
    Foreign {
        /// The addresses, in words.
        ips: String,
        /// Why they cannot be ours.
        because: Box<Self>,
    },
    /// Another allocator writes other addresses whenever we write ours.
    #[error(
        "another allocator overwrites its status, last with {theirs}; give the Service a spec.loadBalancerClass of one \
         of the two, or turn the other one off"
    )]
    Contested {
        /// What it wrote, in words.
        theirs: String,
    },
    /// The addresses of one Service lie in two pools, or not in the pool that it asks for.
    #[error("{ip} lies in the pool {of} and not in {wanted}")]
    OtherPool {
        /// The address.
        ip: ServiceIp,
        /// The pool that holds it.
        of: PoolName,
        /// The pool that should.
        wanted: PoolName,
    },
    /// There is no such pool.
    #[error("there is no usable pool {pool}; correct the annotation metallb.io/address-pool or the pool")]
    UnknownPool {
        /// The name.
        pool: PoolName,
    },
    /// The pool is kept for other Services.
    #[error("the pool {pool} is kept for other Services by its spec.serviceAllocation")]
    NotAdmitted {
        /// The pool.
        pool: PoolName,
    },
    /// The pool leaves the address unused.
    #[error("the pool {pool} leaves {ip} unused by its spec.avoidBuggyIPs")]
    Avoided {
        /// The address.
        ip: ServiceIp,
        /// The pool.
        pool: PoolName,
    },
    /// Another Service has the address and cannot share it.
    #[error("{ip} is held by Service {by}, and {clash}")]
    Taken {
        /// The address.
        ip: ServiceIp,
        /// Who holds it.
        by: ServiceKey,
        /// Why the two cannot share.
        clash: Clash,
    },
    /// Another Service gives the address up, which is not published yet.
    #[error("{ip} is being given up by Service {by}; it is free as soon as that is written")]
    Leaving {
        /// The address.
        ip: ServiceIp,
        /// Who gives it up.
        by: ServiceKey,
    },
    /// The addresses are not of the families that it is to have.
    #[error("its addresses are of other families than its spec.ipFamilies and clusterIPs say")]
    WrongFamilies,
    /// No pool gives addresses to this Service without being asked.
    #[error("no pool is open to it; add an IPAddressPool, or name one in the annotation metallb.io/address-pool")]
    NoPool,
    /// No pool holds addresses of the families that it is to have.
    #[error(
        "no {wanted} address is in {pools}; add a range to spec.addresses of one, or set spec.ipFamilies of the Service"
    )]
    NoneOfFamily {
        /// The families, in words.
        wanted: &'static str,
        /// The pools that were tried, in words.
        pools: String,
    },
    /// All addresses of these pools are held.
    #[error("no free {wanted} address is left in {pools}; add a range to spec.addresses of one")]
    Exhausted {
        /// The families, in words.
        wanted: &'static str,
        /// The pools that were tried, in words.
        pools: String,
    },
}
