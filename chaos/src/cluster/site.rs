//! What the client sees of a cluster: who answers for an address, and whether it is served.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use garpike_election::{MacAddr, NodeName, ServiceIp};

use super::Cluster;
use crate::lab::{Outage, Record, now};

impl Cluster<'_> {
    /// The node that a client without a cache is told of.
    pub(super) fn owner_of(&self, ip: IpAddr) -> Result<NodeName> {
        let service_ip = ServiceIp::new(ip).with_context(|| format!("{ip} is no address of a Service"))?;
        let begun = now();
        let asker = self.lab.ask(&[service_ip], ASK_EACH)?;
        thread::sleep(ASKED_FOR);
        let asked = asker.stop();
        let macs = asked.get(&ip).map(|asked| asked.macs(begun..=now())).unwrap_or_default();
        let mut macs = macs.into_iter();
        match (macs.next(), macs.next()) {
            (Some(mac), None) => self.node_with(mac),
            (None, _) => bail!("nobody answers for {ip}"),
            (Some(one), Some(other)) => bail!("{one} and {other} answer for {ip}"),
        }
    }

    /// The owners of addresses.
    pub(super) fn owners(&self, ips: &[IpAddr]) -> Result<BTreeMap<IpAddr, NodeName>> {
        ips.iter().map(|ip| Ok((*ip, self.owner_of(*ip)?))).collect()
    }

    /// The node with this network card.
    pub(super) fn node_with(&self, mac: MacAddr) -> Result<NodeName> {
        for node in self.nodes() {
            if self.lab.host(node)?.mac == mac {
                return Ok(node.clone());
            }
        }
        bail!("{mac} is no node's")
    }

    /// Waits until a datagram to the address comes back; when it did.
    pub(super) fn wait_until_served(&self, ip: IpAddr, within: Duration) -> Result<Instant> {
        let probe = self.lab.probe(SocketAddr::new(ip, ECHO), PROBE_EACH)?;
        if !probe.wait_for_answer(within) {
            bail!("no answer from {ip} within {within:?}");
        }
        Ok(now())
    }
}

/// The longest time without an answer, in milliseconds; infinite if it did not end.
pub(super) fn outage_ms(record: &Record, from: Instant, to: Instant) -> f64 {
    match record.outage(from, to) {
        Outage::Recovered(length) => length.as_secs_f64() * 1000.0,
        Outage::NotRecovered | Outage::NotAnsweredBefore => f64::INFINITY,
    }
}

/// RFC 862.
pub(super) const ECHO: u16 = 7;
const PROBE_EACH: Duration = Duration::from_millis(5);
const ASK_EACH: Duration = Duration::from_millis(20);
const ASKED_FOR: Duration = Duration::from_millis(250);
