//! One run of a scenario: a world that has converged, what is done to it, and what must hold.
//!
//! The scenarios are in the modules below, by what they break. A run ends with the judgement that all have in common:
//! one owner of each address on the wire, known to the gateways; nobody declared dead who lived; no address taken from
//! a living host that was not maltreated.

mod churn;
mod deaths;
mod intruders;
mod links;
mod speakers;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::Duration;

use garpike_election::{Address, Desired, Endpoints, NodeName, NodeState, Placement, Presence, Selection, ServiceIp};
use garpike_membership::{Key, Sealing, SecretKey};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::client::PROBE_INTERVAL;
use super::host::name_of;
use super::world::{Blueprint, Start, World};
use super::{Config, Protection, Scenario};
use crate::report::Finding;

/// What one run gave.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the death until every survivor knows of it.
    pub all_know: Option<Option<Duration>>,
    /// The longest outage of a measured address at the client.
    pub outage: Option<Option<Duration>>,
    /// From the end of the fault until every address has one owner on the wire.
    pub heal: Option<Option<Duration>>,
    /// From the end of the fault until everybody knows everybody.
    pub whole: Option<Option<Duration>>,
    /// From the start of the last joining speaker until all know all.
    pub join: Option<Option<Duration>>,
    /// The host that was hit.
    pub victim: Option<NodeName>,
    /// What did not hold.
    pub findings: Vec<Finding>,
    /// Events handled.
    pub events: u64,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Packets that one node sent in a second at rest.
    pub packets_per_second: Option<f64>,
    /// Bytes that one node sent in a second at rest.
    pub bytes_per_second: Option<f64>,
    /// How often a living host was seen as dead.
    pub false_downs: u64,
    /// How many addresses moved although the host of their owner lived.
    pub moves_with_host_alive: u64,
}

/// Runs `scenario` once.
pub fn run(scenario: Scenario, config: Config, seed: u64) -> Outcome {
    let config = Config { nodes: scenario.nodes(config.nodes), ..config };
    match scenario.with_dead(config.dead) {
        Scenario::BootAll => Run::boot_all(config, seed),
        Scenario::Join => Run::join(config, seed),
        Scenario::JoinStorm => Run::join_storm(config, seed),
        Scenario::Racks => Run::prepared(config, seed, Shape { racks: 3, ..SHAPE }, Run::racks),
        Scenario::DuplicateName => Run::prepared(config, seed, Shape { spare: 1, ..SHAPE }, Run::duplicate_name),
        Scenario::Crash | Scenario::TwoNodes => Run::prepared(config, seed, SHAPE, Run::crash),
        Scenario::CrashMany => Run::prepared(config, seed, SHAPE, Run::crash_many),
        Scenario::SpeakerKill => Run::prepared(config, seed, SHAPE, Run::speaker_kill),
        Scenario::KillThenCrash => Run::prepared(config, seed, SHAPE, Run::kill_then_crash),
        Scenario::TermThenCrash => Run::prepared(config, seed, SHAPE, Run::term_then_crash),
        Scenario::StandInCrash => Run::prepared(config, seed, SHAPE, Run::stand_in_crash),
        Scenario::StandInDrain => Run::prepared(config, seed, SHAPE, Run::stand_in_drain),
        Scenario::TermAll => Run::prepared(config, seed, SHAPE, Run::term_all),
        Scenario::Freeze => Run::prepared(config, seed, SHAPE, Run::freeze),
        Scenario::VmPause => Run::prepared(config, seed, SHAPE, Run::vm_pause),
        Scenario::Stall => Run::prepared(config, seed, SHAPE, Run::stall),
        Scenario::Rest => Run::prepared(config, seed, SHAPE, Run::rest),
        Scenario::BurstLoss => Run::prepared(config, seed, SHAPE, Run::burst_loss),
        Scenario::AsymmetricLoss => Run::prepared(config, seed, SHAPE, Run::asymmetric_loss),
        Scenario::Halves => Run::prepared(config, seed, SHAPE, Run::halves),
        Scenario::OneVersusRest => Run::prepared(config, seed, SHAPE, Run::one_versus_rest),
        Scenario::BridgePartition => Run::prepared(config, seed, SHAPE, Run::bridge_partition),
        Scenario::Partition => Run::prepared(config, seed, SHAPE, Run::partition),
        Scenario::SegmentBlackout => Run::prepared(config, seed, SHAPE, Run::segment_blackout),
        Scenario::Blocked7946 => Run::prepared(config, seed, SHAPE, Run::blocked_7946),
        Scenario::BondFailover => Run::prepared(config, seed, SHAPE, Run::bond_failover),
        Scenario::RollingRestart => Run::prepared(config, seed, SHAPE, Run::rolling_restart),
        Scenario::FlipFlop => Run::prepared(config, seed, SHAPE, Run::flip_flop),
        Scenario::ClockJump => Run::prepared(config, seed, SHAPE, Run::clock_jump),
        Scenario::KeyRotation => Run::prepared(config, seed, SHAPE, Run::key_rotation),
        Scenario::VersionSkew => Run::prepared(config, seed, SHAPE, Run::version_skew),
        Scenario::Forged => Run::prepared(config, seed, SHAPE, Run::forged),
    }
}

/// How the world of a scenario differs from one segment with the hosts that are there from the beginning.
#[derive(Clone, Copy, Debug)]
struct Shape {
    racks: usize,
    /// How many of the hosts come later.
    late: usize,
    /// How many may come besides.
    spare: usize,
}

const SHAPE: Shape = Shape { racks: 1, late: 0, spare: 0 };

/// A world, and what is known of the run so far.
struct Run {
    world: World,
    config: Config,
    ips: Vec<ServiceIp>,
    /// A host that owns addresses.
    victim: usize,
    rng: StdRng,
    outcome: Outcome,
}

impl Run {
    /// Waits until all is well, goes on to an instant that the seed decides, does the scenario, and judges.
    fn prepared(config: Config, seed: u64, shape: Shape, scenario: impl FnOnce(&mut Self)) -> Outcome {
        let mut run = Self::begin(config, seed, shape, None);
        if run.settle_in() {
            scenario(&mut run);
        }
        run.end()
    }

    /// A world that has just begun. Small clusters join; large ones would need minutes of computing for it, so they are
    /// formed unless `boot_within` says otherwise.
    fn begin(config: Config, seed: u64, shape: Shape, boot_within: Option<Duration>) -> Self {
        let nodes = config.nodes.saturating_sub(shape.late);
        let desired = desired(config.addresses, config.nodes, shape.racks);
        let ips = desired.addresses.keys().copied().collect();
        let secret = SecretKey::parse(b"the simulator has no secrets").expect("is not empty");
        let sealing = match config.protection {
            Protection::Sealed => Key::derive(&secret, "simulator").into(),
            Protection::Plain => Sealing::InsecurePlaintext,
        };
        let start = match boot_within {
            Some(within) => Start::Join { within },
            None if nodes <= JOINING_MAX => Start::Join { within: BOOT_SPREAD },
            None => Start::Formed,
        };
        let blueprint = Blueprint {
            nodes,
            spare: shape.late + shape.spare,
            racks: shape.racks,
            desired,
            loss: config.loss_percent / 100.0,
            profile: config.profile,
            sealing,
            gateways: config.gateways,
            start,
        };
        let world = World::begin(blueprint, seed);
        let rng = StdRng::seed_from_u64(seed ^ 0x6372_6173_6800_0000);
        Self { world, config, ips, victim: 0, rng, outcome: Outcome::default() }
    }

    /// Waits until all is well, measures the traffic at rest, and chooses the victim; tells whether it went well.
    fn settle_in(&mut self) -> bool {
        let well = |world: &World| world.is_whole() && world.has_one_owner_each();
        if self.world.wait(LONGEST_JOIN, well).is_none() {
            self.found(CONVERGES, format!("no full membership {LONGEST_JOIN:?} after the start: {}", self.doubts()));
            return false;
        }
        self.world.advance(SETTLING);
        let before = self.world.sent;
        self.world.advance(AT_REST);
        let after = self.world.sent;
        let per_node_and_second = |n: u64| number(n) / number_of(self.config.nodes) / AT_REST.as_secs_f64();
        self.outcome.packets_per_second = Some(per_node_and_second(after.packets - before.packets));
        self.outcome.bytes_per_second = Some(per_node_and_second(after.bytes - before.bytes));
        // The instant within the periods of the protocol is part of the seed.
        let phase = self.between(Duration::ZERO..PHASES);
        self.world.advance(phase);
        self.choose_victim()
    }

    /// From here on addresses stay where they are; the victim is one who has some.
    fn choose_victim(&mut self) -> bool {
        let owners = self.world.owners();
        let candidates: Vec<usize> = owners.values().copied().collect::<BTreeSet<_>>().into_iter().collect();
        self.world.judge.set_owners(owners);
        let Some(victim) = candidates.get(self.rng.random_range(0..candidates.len().max(1))) else {
            self.found(CONVERGES, "nobody owns anything".to_owned());
            return false;
        };
        self.victim = *victim;
        self.outcome.victim = Some(self.world.name(self.victim));
        true
    }

    fn found(&mut self, invariant: &'static str, detail: String) {
        self.outcome.findings.push(Finding { invariant, detail });
    }

    /// A duration that the seed decides.
    fn between(&mut self, range: Range<Duration>) -> Duration {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.random_range(nanos(range.start)..nanos(range.end)))
    }

    /// A duration that the seed decides, short ones as often as long ones.
    fn log_between(&mut self, range: Range<Duration>) -> Duration {
        let factor = range.end.as_secs_f64() / range.start.as_secs_f64();
        range.start.mul_f64(factor.powf(self.rng.random::<f64>()))
    }

    /// How long the fault lasts.
    fn lasts(&mut self, range: Range<Duration>) -> Duration {
        let drawn = self.log_between(range);
        self.config.lasts.unwrap_or(drawn)
    }

    /// One of `count`, by the seed.
    fn one_of(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count.max(1))
    }

    /// Some host that is not in `but`.
    fn another(&mut self, but: &[usize]) -> usize {
        let others: Vec<usize> = (0..self.world.hosts().len()).filter(|host| !but.contains(host)).collect();
        let at = self.one_of(others.len());
        others.get(at).copied().unwrap_or(self.victim)
    }

    fn all(&self) -> BTreeSet<usize> {
        (0..self.world.hosts().len()).collect()
    }

    /// The addresses of a host.
    fn ips_of(&self, host: usize) -> Vec<ServiceIp> {
        let owners = self.world.judge.owners();
        self.ips.iter().copied().filter(|ip| owners.get(ip) == Some(&host)).collect()
    }

    /// Begins to measure the outage of the addresses of `hosts`.
    fn measure(&mut self, hosts: &BTreeSet<usize>) {
        let owners = self.world.judge.owners();
        let moving = self.ips.iter().copied().filter(|ip| owners.get(ip).is_some_and(|owner| hosts.contains(owner)));
        self.world.measure(moving.collect::<Vec<_>>());
    }

    /// Waits until all survivors of `by` know that `dead` are dead.
    fn wait_until_known(&mut self, by: &BTreeSet<usize>, dead: &BTreeSet<usize>) {
        let known = self.world.wait(LONGEST_DETECTION, |world| world.know_dead(by, dead));
        self.outcome.all_know = Some(known);
        if known.is_none() {
            let names: Vec<String> = dead.iter().map(|dead| self.world.name(*dead).to_string()).collect();
            self.found(DEATH_IS_KNOWN, format!("not all know {LONGEST_DETECTION:?} later of {}", names.join(", ")));
        }
    }

    /// The longest gap of what is measured.
    fn take_outage(&mut self) {
        if let Some(gap) = self.world.stop_measuring() {
            let recovered = gap < LONGEST_OUTAGE;
            self.outcome.outage = Some(recovered.then(|| gap.saturating_sub(PROBE_INTERVAL)));
        }
    }

    /// After the end of a fault: waits until every address has one owner on the wire, and all know all.
    fn recover(&mut self) {
        let start = self.world.clock().elapsed();
        // One owner counts from when there is one for good.
        let (mut one_owner, mut whole) = (None, None);
        let mut look = |world: &World| {
            let now = world.clock().elapsed();
            one_owner = if world.has_one_owner_each() { one_owner.or(Some(now)) } else { None };
            if whole.is_none() && world.is_whole() {
                whole = Some(now);
            }
            whole.is_some() && one_owner.is_some()
        };
        self.world.wait(LONGEST_HEAL, &mut look);
        self.world.wait(SETTLING, |world| {
            look(world);
            false
        });
        let since_start = |at: Option<Duration>| at.map(|at| at.saturating_sub(start));
        self.outcome.heal = Some(since_start(one_owner));
        self.outcome.whole = Some(since_start(whole));
        if one_owner.is_none() || whole.is_none() {
            self.found(HEALS, format!("not whole {LONGEST_HEAL:?} after the fault: {}", self.doubts()));
        }
    }

    /// What is not as it ought to be, for people.
    fn doubts(&self) -> String {
        let mut doubts = Vec::new();
        for ip in self.ips.iter().filter(|ip| self.world.owner(**ip).is_none()) {
            doubts.push(format!("{ip} is answered by {}", self.world.describe_answers(*ip)));
            if doubts.len() == DOUBTS_SHOWN / 2 {
                break;
            }
        }
        for host in self.world.hosts().iter().filter(|host| host.runs()) {
            let members = &host.process.members().nodes;
            let living = self.world.hosts().iter().filter(|host| host.lives()).count();
            let unlike = members.values().filter(|member| {
                member.presence != Presence::Here || !matches!(member.state, NodeState::Ready | NodeState::HeldDown)
            });
            let unlike = unlike.count();
            if members.len() != living || unlike > 0 {
                doubts.push(format!("{} counts {} members, {unlike} of them not in service", host.name, members.len()));
            }
        }
        doubts.truncate(DOUBTS_SHOWN);
        if doubts.is_empty() { "but it is later".to_owned() } else { doubts.join("; ") }
    }

    /// One owner of each address on the wire, and the gateways know it.
    fn judge_wire(&mut self) {
        for ip in self.ips.clone() {
            let Some(owner) = self.world.owner(ip) else {
                self.found(ONE_OWNER, format!("{ip} is answered by {}", self.world.describe_answers(ip)));
                continue;
            };
            let cached = self.world.cached(ip);
            if cached != Some(owner) {
                let to = cached.map_or_else(|| "nobody".to_owned(), |cached| self.world.name(cached).to_string());
                let detail = format!("the gateway sends {ip} to {to}, the owner is {}", self.world.name(owner));
                self.found(THE_OWNER_SPEAKS_LAST, detail);
            }
        }
    }

    /// What all scenarios have in common.
    fn end(mut self) -> Outcome {
        let convicted: Vec<_> = self.world.judge.false_downs.drain(..).collect();
        self.outcome.false_downs = u64::try_from(convicted.len()).unwrap_or(u64::MAX);
        let mut dead: BTreeMap<NodeName, Vec<String>> = BTreeMap::new();
        for (node, by) in convicted {
            dead.entry(node).or_default().push(by.to_string());
        }
        for (node, by) in dead {
            let detail = format!("{node} lives, but not for {}", by.join(", "));
            self.found(NO_LIVING_HOST_IS_DECLARED_DEAD, detail);
        }
        let moves: Vec<_> = self.world.judge.moves.drain(..).collect();
        self.outcome.moves_with_host_alive = u64::try_from(moves.len()).unwrap_or(u64::MAX);
        for (ip, to) in moves {
            let owner = self.world.judge.owners().get(&ip).map(|owner| self.world.name(*owner));
            let from = owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
            self.found(NO_MOVE_WHILE_THE_HOST_LIVES, format!("{to} took {ip} from {from}"));
        }
        self.outcome.events = self.world.events;
        self.outcome.elapsed = self.world.clock().elapsed();
        self.outcome
    }
}

/// Addresses that every node of one rack may own.
fn desired(count: u32, nodes: usize, racks: usize) -> Desired {
    let addresses = (0..count).filter_map(|i| {
        let ip = ServiceIp::new(IpAddr::V4(Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + i))).ok()?;
        let rack = usize::try_from(i).ok()? % racks;
        let allowed = if racks == 1 {
            Selection::All
        } else {
            Selection::Only((rack..nodes).step_by(racks).map(name_of).collect())
        };
        let placements = vec![Placement { nodes: allowed, interfaces: Selection::All }];
        Some((ip, Address { election_key: ip, services: Box::default(), placements, endpoints: Endpoints::Anywhere }))
    });
    Desired { addresses: addresses.collect(), ..Desired::default() }
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
fn number(n: u64) -> f64 {
    n as f64
}

pub(super) fn number_of(n: usize) -> f64 {
    number(u64::try_from(n).unwrap_or(u64::MAX))
}

const CONVERGES: &str = "after the start everybody knows everybody, and every address has one owner";
const DEATH_IS_KNOWN: &str = "the death of a host becomes known to all survivors";
const ONE_OWNER: &str = "after convergence all who answer for an address name the same living host";
const HEALS: &str = "after a fault every address has one owner and everybody knows everybody";
const THE_OWNER_SPEAKS_LAST: &str = "after a fault the neighbour cache of the gateway names the owner";
const NO_LIVING_HOST_IS_DECLARED_DEAD: &str = "no living host is declared dead";
const NO_MOVE_WHILE_THE_HOST_LIVES: &str = "no address moves while the host of its owner lives";
const SOMEBODY_STANDS_IN: &str = "while a speaker is gone another node answers with its Ethernet address";

/// Where the pool of the users' documents begins.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 0);
/// Chosen: above that a cluster is formed, not joined.
const JOINING_MAX: usize = 10;
/// Chosen: hosts do not start their timers in step.
const BOOT_SPREAD: Duration = Duration::from_secs(2);
/// Chosen: ten times what a join takes at 10 % loss.
const LONGEST_JOIN: Duration = Duration::from_secs(20);
/// Chosen: long enough to average the rate of datagrams, and to show a false death.
const AT_REST: Duration = Duration::from_secs(5);
/// Chosen: longer than the periods of the heartbeat and of SWIM.
const PHASES: Duration = Duration::from_millis(200);
/// Chosen: a bound far above the targets, which the distribution shows.
const LONGEST_DETECTION: Duration = Duration::from_secs(5);
/// Chosen: as above.
const LONGEST_HEAL: Duration = Duration::from_secs(20);
/// Chosen: an address that is away for so long has not recovered.
const LONGEST_OUTAGE: Duration = Duration::from_secs(4);
/// The whole schedule of announcements of a gained address.
const SETTLING: Duration = Duration::from_secs(4);
/// Chosen: enough to see what is wrong.
const DOUBTS_SHOWN: usize = 6;
