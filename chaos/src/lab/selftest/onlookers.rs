//! Do those who look on beside the probing client see what they should?

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use garpike_election::{NodeName, ServiceIp};

use super::{Bench, Carrier, Check, ECHO_PORT, INTERVAL, OBSERVED, ON_THE_WAY, SERVICE_IPS, SelfTestError, answered};
use crate::lab::{Lab, now};

impl<'init> Bench<'init> {
    /// The addresses are at `owner`, and `other` is a second host.
    pub(super) fn onlookers(&mut self, owner: &NodeName, other: &NodeName) -> Result<(), SelfTestError> {
        self.silent_and_back(
            "an uplink that is down cuts the client off",
            owner,
            |lab, _| lab.uplink_down(),
            |lab, _| lab.uplink_up(),
            Carrier::Kept,
        )?;
        self.fresh_client(owner, other)?;
        self.connections(owner, other)
    }

    /// One host answers, then two, then one again.
    fn fresh_client(&mut self, owner: &NodeName, other: &NodeName) -> Result<(), SelfTestError> {
        let (mac, second) = (self.lab.host(owner)?.mac, self.lab.host(other)?.mac);
        let asker = self.lab.ask(&SERVICE_IPS.map(|ip| ServiceIp::new(ip).expect("is a service IP")), INTERVAL)?;
        let start = now();
        thread::sleep(OBSERVED);
        let alone = now();
        self.set_service_ips(other, Lab::add_address)?;
        thread::sleep(OBSERVED);
        self.set_service_ips(other, Lab::remove_address)?;
        thread::sleep(ON_THE_WAY);
        let again = now();
        thread::sleep(OBSERVED);
        let end = now();

        let (mut passed, mut detail) = (true, String::new());
        for (ip, asked) in asker.stop() {
            let macs = [start..=alone, alone..=again, again..=end].map(|window| asked.macs(window));
            let overlap = asked.two_macs(start..=end);
            let slow = asked.waits(start..=end).iter().filter(|wait| wait.is_none_or(|wait| wait > OBSERVED)).count();
            let [before, during, after] = &macs;
            passed &= before.iter().eq([&mac]) && during.iter().eq([&mac, &second]) && after.iter().eq([&mac]);
            passed &= (OBSERVED / 2..OBSERVED * 3).contains(&overlap) && slow == 0;
            detail += &format!("{ip}: {macs:?}, two for {overlap:?}, {slow} questions waited too long; ");
        }
        let name = "a client without a cache sees when two hosts answer";
        self.checks.push(Check { name, passed, detail });
        Ok(())
    }

    /// Connections live with their host, and no longer.
    fn connections(&mut self, owner: &NodeName, other: &NodeName) -> Result<(), SelfTestError> {
        let targets = SERVICE_IPS.map(|ip| SocketAddr::from((ip, ECHO_PORT)));
        let connections = self.lab.connect(&targets, CONNECTIONS)?;
        thread::sleep(OBSERVED);
        let kept = connections.stop()?;

        let connections = self.lab.connect(&targets, CONNECTIONS)?;
        self.set_service_ips(owner, Lab::remove_address)?;
        self.set_service_ips(other, Lab::add_address)?;
        self.lab.forget_client_neighbours()?;
        let moved = answered(&self.probe_service_ips()?);
        // A retransmission meets the other host.
        thread::sleep(RESET_WITHIN);
        let lost = connections.stop()?;
        self.set_service_ips(other, Lab::remove_address)?;
        self.set_service_ips(owner, Lab::add_address)?;
        self.lab.forget_client_neighbours()?;

        let is_kept = kept.established == CONNECTIONS && kept.resets == 0 && kept.longest > Duration::ZERO;
        let name = "connections are kept by their host and reset by another";
        let detail = format!("{kept:?}, then {lost:?}");
        self.checks.push(Check { name, passed: is_kept && moved && lost.resets == CONNECTIONS, detail });
        Ok(())
    }
}

/// Chosen: some of each family.
const CONNECTIONS: usize = 10;
/// Chosen: a byte is sent every 50 ms, and a lost one again after 200 ms.
const RESET_WITHIN: Duration = Duration::from_secs(2);
