//! The lab judged by itself: does every fault do what it says, and does the oracle see it?
//!
//! No speaker takes part. A service IP is put on a node's network card, so that its kernel answers for it; only where a
//! host is to be stood in for, an announcer does.

mod onlookers;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use garpike_announcer::io::{OpenSocketError, PacketSocket, Received};
use garpike_announcer::wire::{self, Ethernet};
use garpike_election::{MacAddr, NodeName, ServiceIp};
use thiserror::Error;

use super::{
    AskError, ConnectError, Init, Lab, LabConfig, LabError, Links, Outage, Probe, ProbeError, Role, TapError, echo,
    now, stand_in,
};

/// Builds a lab of three nodes, tries every fault and tells what it saw.
///
/// # Errors
///
/// When the lab cannot be used at all. A fault that does not do what it should is a failed [`Check`].
pub fn selftest(init: &mut Init) -> Result<Report, SelfTestError> {
    let begun = now();
    let lab = Lab::build(init, LabConfig { nodes: 3, links: Links::One })?;
    let mut bench = Bench { built: begun.elapsed(), lab, checks: Vec::new() };
    bench.run()?;
    Ok(Report { checks: bench.checks })
}

/// All checks of a self-test.
#[derive(Clone, Debug)]
pub struct Report {
    /// In the order in which they ran.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether all passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, passed, detail } in &self.checks {
            let verdict = if *passed { "ok    " } else { "FAILED" };
            writeln!(f, "{verdict}  {name}: {detail}")?;
        }
        Ok(())
    }
}

/// One thing that the lab must do.
#[derive(Clone, Debug)]
pub struct Check {
    /// A sentence.
    pub name: &'static str,
    /// Whether it did.
    pub passed: bool,
    /// What was seen.
    pub detail: String,
}

struct Bench<'init> {
    built: Duration,
    lab: Lab<'init>,
    checks: Vec<Check>,
}

impl<'init> Bench<'init> {
    fn run(&mut self) -> Result<(), SelfTestError> {
        let nodes: Vec<NodeName> = self.lab.nodes().cloned().collect();
        let [n1, n2, n3] = nodes.as_slice() else {
            return Err(LabError::Nodes { nodes: nodes.len() }.into());
        };
        self.checks.push(Check {
            name: "the lab is built within 0.5 s",
            passed: self.built < BUILD,
            detail: format!("{:?}", self.built),
        });
        for node in &nodes {
            self.start_echo(node)?;
        }
        self.every_host_answers(&nodes)?;
        self.set_service_ips(n1, Lab::add_address)?;
        self.silent_and_back(
            "a crashed host keeps its carrier and falls silent",
            n1,
            Lab::crash,
            Lab::revive,
            Carrier::Kept,
        )?;
        self.silent_and_back("a pulled cable is seen by the node", n1, Lab::link_down, Lab::link_up, Carrier::Lost)?;
        self.silent_and_back("a partitioned node is out of reach", n1, cut_off, heal, Carrier::Kept)?;
        self.onlookers(n1, n2)?;
        self.owner_change(n1, n2)?;
        self.reboot(n1)?;
        self.stand_in(n1, n2, n3)?;
        self.speaker_faults(n3)?;
        self.unexpected_exit(n3)?;
        Ok(())
    }

    fn every_host_answers(&mut self, nodes: &[NodeName]) -> Result<(), SelfTestError> {
        let mut silent = Vec::new();
        for node in nodes {
            let host = self.lab.host(node)?;
            for ip in [IpAddr::from(host.v4), host.v6.into()] {
                let probe = self.lab.probe((ip, ECHO_PORT).into(), INTERVAL)?;
                if !probe.wait_for_answer(PATIENCE) {
                    silent.push(ip);
                }
            }
        }
        self.checks.push(Check {
            name: "every host answers for its own addresses",
            passed: silent.is_empty(),
            detail: format!("silent: {silent:?}"),
        });
        Ok(())
    }

    /// Probes both service IPs, does `fault`, sees silence, does `mend`, sees answers.
    fn silent_and_back(
        &mut self,
        name: &'static str,
        node: &NodeName,
        fault: fn(&mut Lab<'init>, &NodeName) -> Result<Instant, LabError>,
        mend: fn(&mut Lab<'init>, &NodeName) -> Result<Instant, LabError>,
        carrier: Carrier,
    ) -> Result<(), SelfTestError> {
        let probes = self.probe_service_ips()?;
        let answered_before = answered(&probes);
        let injected = fault(&mut self.lab, node)?;
        let took = injected.elapsed();
        thread::sleep(OBSERVED);
        let carrier_seen = if self.lab.has_carrier(node)? { Carrier::Kept } else { Carrier::Lost };
        let mended = mend(&mut self.lab, node)?;
        let answered_after = answered(&probes);
        let records: Vec<_> = probes.into_iter().map(Probe::stop).collect();
        let end = now();

        let silent = records.iter().all(|record| {
            let answers = record.samples.iter().filter_map(|sample| sample.answered);
            !answers.into_iter().any(|at| at > injected + took + ON_THE_WAY && at < mended)
        });
        let outages: Vec<Outage> = records.iter().map(|record| record.outage(injected, end)).collect();
        let long = outages.iter().all(|outage| outage.recovered().is_some_and(|length| length >= OBSERVED - INTERVAL));
        let passed = answered_before && answered_after && silent && long && carrier_seen == carrier;
        let detail = format!("done in {took:?}, carrier {carrier_seen:?}, {outages:?}");
        self.checks.push(Check { name, passed, detail });
        Ok(())
    }

    /// The address moves to another host while the first one is silent; the tap must tell who answers.
    fn owner_change(&mut self, from: &NodeName, to: &NodeName) -> Result<(), SelfTestError> {
        let (old, new) = (self.lab.host(from)?.mac, self.lab.host(to)?.mac);
        let tap = self.lab.tap()?;
        let probes = self.probe_service_ips()?;
        let mut passed = answered(&probes);
        let begun = now();
        let before = begun - Duration::from_millis(100)..=begun;
        let injected = self.lab.crash(from)?;
        self.set_service_ips(to, Lab::add_address)?;
        self.lab.forget_client_neighbours()?;
        passed &= answered(&probes);
        let records: Vec<_> = probes.into_iter().map(Probe::stop).collect();
        let end = now();
        let seen = tap.stop()?;

        let mut detail = String::new();
        for record in &records {
            let ip = record.target.ip();
            let (was, is) = (seen.answering(ip, before.clone()), seen.answering(ip, injected..=end));
            let claim = seen.first_claim(ip, old, injected);
            passed &= was.iter().eq([&old]) && is.contains(&new) && claim.is_some_and(|(_, mac)| mac == new);
            let claimed = claim.map(|(at, _)| at - injected);
            detail += &format!("{ip}: {was:?} then {is:?}, claimed after {claimed:?}; ");
        }
        self.checks.push(Check { name: "the tap tells which host answers", passed, detail });
        self.set_service_ips(to, Lab::remove_address)
    }

    /// A host that crashed comes back without its processes and answers once they are started again.
    fn reboot(&mut self, node: &NodeName) -> Result<(), SelfTestError> {
        self.set_service_ips(node, Lab::remove_address)?;
        let begun = self.lab.reboot(node)?;
        let took = begun.elapsed();
        let target = (self.lab.host(node)?.v4, ECHO_PORT).into();
        let empty = !self.lab.probe(target, INTERVAL)?.wait_for_answer(OBSERVED);
        self.start_echo(node)?;
        let back = self.lab.probe(target, INTERVAL)?.wait_for_answer(PATIENCE);
        let exits = self.lab.unexpected_exits();
        let passed = empty && back && exits.is_empty();
        let detail = format!("done in {took:?}, silent until started: {empty}, answers then: {back}, {exits:?}");
        self.checks.push(Check { name: "a rebooted host has no process until they are started", passed, detail });
        Ok(())
    }

    /// Nobody says where the addresses of a living host are, until another host does so in its place: a client without a
    /// cache then reaches the host itself.
    fn stand_in(&mut self, owner: &NodeName, other: &NodeName, third: &NodeName) -> Result<(), SelfTestError> {
        let mac = self.lab.host(owner)?.mac;
        self.set_service_ips(owner, Lab::add_local_address)?;
        self.lab.forget_client_neighbours()?;
        let tap = self.lab.tap()?;
        let begun = now();
        let probes = self.probe_service_ips()?;
        thread::sleep(OBSERVED);
        let silent = probes.iter().all(|probe| probe.answered() == 0);

        let ips = SERVICE_IPS.map(|ip| ServiceIp::new(ip).expect("is a service IP"));
        self.lab.spawn(other, Role::Speaker, stand_in::command(mac, &ips))?;
        let reached = answered(&probes);
        self.lab.forget_client_neighbours()?;
        thread::sleep(OBSERVED);
        let records: Vec<_> = probes.into_iter().map(Probe::stop).collect();
        let end = now();
        let seen = tap.stop()?;

        let mut passed = silent && reached;
        let mut detail = format!("silent before: {silent}, reached: {reached}; ");
        for record in &records {
            let ip = record.target.ip();
            let (claimed, answering) = (seen.claimants(ip, begun..=end), seen.answering(ip, begun..=end));
            let announced = seen.announced(ip, begun..=end);
            passed &= claimed.iter().eq([&mac]) && answering.iter().eq([&mac]) && announced == 0;
            detail +=
                &format!("{ip}: claimed for {claimed:?}, answered by {answering:?}, announced {announced} times; ");
        }
        let name = "a client is led to a living host by another that stands in for it";
        self.checks.push(Check { name, passed, detail });
        self.datagrams(third, other)?;
        self.stale_frames(third, other)?;
        self.lab.kill(other)?;
        self.lab.wait_for_end(other, PATIENCE)?;
        self.set_service_ips(owner, Lab::remove_local_address)
    }

    /// The announcer of `to` sends datagrams in bare frames back whole: padding is not taken for content, and what is not
    /// addressed to it is not heard.
    fn datagrams(&mut self, from: &NodeName, to: &NodeName) -> Result<(), SelfTestError> {
        let (source, destination) = (self.lab.host(from)?.mac, self.lab.host(to)?.mac);
        let socket = self.lab.datagram_socket(from)??;
        for (destination, len) in
            [(MacAddr::BROADCAST, 9), (destination, 1), (destination, 44), (destination, wire::MAX_DATAGRAM_LEN)]
        {
            let frame = wire::wrap_datagram(Ethernet { destination, source }, &vec![7; len]);
            socket.send(&frame.expect("is short enough"))?;
        }
        let came_back = datagrams_of(&socket)?;
        self.checks.push(Check {
            name: "datagrams in bare frames arrive whole, and only where they are addressed to",
            passed: came_back == [1, 44, wire::MAX_DATAGRAM_LEN],
            detail: format!("came back: {came_back:?}"),
        });
        Ok(())
    }

    /// What waited for a stopped announcer is not looked at when it goes on; what comes then is.
    fn stale_frames(&mut self, from: &NodeName, to: &NodeName) -> Result<(), SelfTestError> {
        let (source, destination) = (self.lab.host(from)?.mac, self.lab.host(to)?.mac);
        let socket = self.lab.datagram_socket(from)??;
        let send = |len| {
            let frame = wire::wrap_datagram(Ethernet { destination, source }, &vec![7; len]);
            socket.send(&frame.expect("is short enough"))
        };
        self.lab.freeze(to)?;
        send(2)?;
        thread::sleep(OBSERVED);
        self.lab.thaw(to)?;
        send(3)?;
        let came_back = datagrams_of(&socket)?;
        self.checks.push(Check {
            name: "frames that waited for a stopped announcer are dropped",
            passed: came_back == [3],
            detail: format!("came back: {came_back:?}"),
        });
        Ok(())
    }

    fn speaker_faults(&mut self, node: &NodeName) -> Result<(), SelfTestError> {
        let target = SocketAddr::from((self.lab.host(node)?.v6, SPEAKER_PORT));
        self.lab.spawn(node, Role::Speaker, echo::command(&[target]))?;
        let probe = self.lab.probe(target, INTERVAL)?;
        let runs = probe.wait_for_answer(PATIENCE);
        self.lab.freeze(node)?;
        // What was answered before the stop may still be on its way.
        thread::sleep(ON_THE_WAY);
        let frozen = !probe.wait_for_answer(OBSERVED);
        self.lab.thaw(node)?;
        let thawed = probe.wait_for_answer(PATIENCE);
        let mut ended = Vec::new();
        for end in [Lab::kill, Lab::term] {
            end(&mut self.lab, node)?;
            ended.push(self.lab.wait_for_end(node, PATIENCE).is_ok());
            self.lab.spawn(node, Role::Speaker, echo::command(&[target]))?;
        }
        self.lab.kill(node)?;
        self.lab.wait_for_end(node, PATIENCE)?;
        let refused = matches!(self.lab.kill(node), Err(LabError::NotRunning { .. }));
        let asked_for = self.lab.unexpected_exits().is_empty();
        let passed = runs && frozen && thawed && ended == [true, true] && refused && asked_for;
        let detail = format!("frozen: {frozen}, thawed: {thawed}, ended: {ended:?}");
        self.checks.push(Check { name: "a speaker is frozen, thawed, killed and ended alone", passed, detail });
        Ok(())
    }

    fn unexpected_exit(&mut self, node: &NodeName) -> Result<(), SelfTestError> {
        // An echo server without addresses says so and ends.
        self.lab.spawn(node, Role::Other, echo::command(&[]))?;
        let deadline = now() + PATIENCE;
        let mut exits = Vec::new();
        while exits.is_empty() && now() < deadline {
            thread::sleep(INTERVAL);
            exits = self.lab.unexpected_exits();
        }
        let told = exits.first().is_some_and(|exit| exit.node == *node && !exit.log.starts_with('('));
        let exits: Vec<String> = exits.iter().map(ToString::to_string).collect();
        self.checks.push(Check {
            name: "a process that ends by itself is told with its last lines",
            passed: told,
            detail: format!("{exits:?}"),
        });
        let missing = std::process::Command::new("/nowhere/no-such-program");
        let refused = matches!(self.lab.spawn(node, Role::Other, missing), Err(LabError::Spawn { .. }));
        self.checks.push(Check {
            name: "a program that is missing is an error",
            passed: refused,
            detail: String::new(),
        });
        Ok(())
    }

    fn start_echo(&mut self, node: &NodeName) -> Result<(), LabError> {
        let host = self.lab.host(node)?;
        let ips = SERVICE_IPS.into_iter().chain([host.v4.into(), host.v6.into()]);
        let addresses: Vec<SocketAddr> = ips.map(|ip| (ip, ECHO_PORT).into()).collect();
        self.lab.spawn(node, Role::Echo, echo::command(&addresses)).map(drop)
    }

    fn set_service_ips(
        &self,
        node: &NodeName,
        set: fn(&Lab<'init>, &NodeName, IpAddr) -> Result<(), LabError>,
    ) -> Result<(), SelfTestError> {
        for ip in SERVICE_IPS {
            set(&self.lab, node, ip)?;
        }
        Ok(())
    }

    fn probe_service_ips(&self) -> Result<Vec<Probe>, SelfTestError> {
        let probe = |ip| Ok(self.lab.probe((ip, ECHO_PORT).into(), INTERVAL)?);
        SERVICE_IPS.into_iter().map(probe).collect()
    }
}

/// Why the self-test could not go on.
#[derive(Debug, Error)]
pub enum SelfTestError {
    /// The lab refused something.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The client could not probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The client could not listen.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The client without a cache could not ask.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The client could not connect.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A node could not open a packet socket.
    #[error(transparent)]
    Socket(#[from] OpenSocketError),
    /// A packet socket of a node failed.
    #[error("a node's packet socket: {0}")]
    Frame(#[from] io::Error),
}

/// What a fault does to a node's carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    Kept,
    Lost,
}

fn cut_off(lab: &mut Lab<'_>, node: &NodeName) -> Result<Instant, LabError> {
    lab.partition([node])
}

fn heal(lab: &mut Lab<'_>, _: &NodeName) -> Result<Instant, LabError> {
    lab.heal()
}

/// The lengths of the datagrams that come for a while.
fn datagrams_of(socket: &PacketSocket) -> io::Result<Vec<usize>> {
    let mut lengths = Vec::new();
    let deadline = now() + OBSERVED;
    let mut buffer = [0; 2048];
    while now() < deadline {
        match socket.receive(&mut buffer) {
            Ok(Some(Received { frame, .. })) => {
                let whole = |datagram: &[u8]| datagram.iter().all(|byte| *byte == 7).then_some(datagram.len());
                lengths.extend(wire::unwrap_datagram(frame).ok().and_then(|(_, datagram)| whole(datagram)));
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(INTERVAL),
            Err(error) => return Err(error),
        }
    }
    Ok(lengths)
}

fn answered(probes: &[Probe]) -> bool {
    probes.iter().all(|probe| probe.wait_for_answer(PATIENCE))
}

/// The service IPs of the self-test.
const SERVICE_IPS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 168, 10, 1)), IpAddr::V6(Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 2, 1))];
const ECHO_PORT: u16 = 7007;
const SPEAKER_PORT: u16 = 7008;
/// Between probes; chosen: as scenarios use it.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long silence is observed; chosen: far above [`ON_THE_WAY`].
const OBSERVED: Duration = Duration::from_millis(300);
/// How long what was sent before a fault may still be on its way; chosen: above a stall of the machine (41 ms).
const ON_THE_WAY: Duration = Duration::from_millis(50);
/// For what must happen; chosen with room for a machine under load.
const PATIENCE: Duration = Duration::from_secs(5);
/// The promise of `garpike demo` to begin at once.
const BUILD: Duration = Duration::from_millis(500);
