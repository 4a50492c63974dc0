//! The network between the stations: what gets through, when, and how often.
//!
//! Each station (a host, or the gateway of a rack) has one port. Frames stay within a rack; datagrams and TCP are routed
//! between racks. What the network does to a packet is drawn when it is sent. It knows nothing of what packets mean, and
//! nothing of hosts that are off or do not listen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

/// The number of a station: the hosts from 0, then the gateways of the racks.
pub(super) type Station = usize;

/// What a packet is, as far as a network treats packets differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Traffic {
    /// UDP from and to the gossip port.
    Gossip,
    /// A bare frame.
    Wire,
    /// TCP to a port.
    Tcp(u16),
    /// What a kernel says of a packet.
    Icmp,
}

/// The network.
pub(super) struct Network {
    rng: Xoshiro256PlusPlus,
    /// The share of packets that is lost on any way.
    loss: f64,
    ports: Vec<Port>,
    cuts: Vec<Cut>,
    pair_loss: BTreeMap<(Station, Station), f64>,
    bursts: Option<Bursts>,
    /// Nothing gets through at all.
    dark: bool,
    /// No fault but `loss` is there: the way of nearly all packets.
    calm: bool,
}

/// The connection of a station.
#[derive(Clone, Debug)]
struct Port {
    rack: usize,
    /// The link carries nothing, and nobody is told.
    dead: bool,
    /// A firewall drops the gossip port, UDP and TCP.
    filtered: bool,
    loss_in: f64,
    loss_out: f64,
    burst_in: Burst,
    burst_out: Burst,
}

/// Nothing goes from one set to another; the other direction is another cut.
#[derive(Clone, Debug)]
struct Cut {
    from: BTreeSet<Station>,
    to: BTreeSet<Station>,
}

/// Gilbert and Elliott's model for each direction of each port: good and bad times take turns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bursts {
    /// How long a good time lasts on average.
    pub(super) good: Duration,
    /// How long a bad time lasts on average.
    pub(super) bad: Duration,
    /// No bad time is longer than this.
    pub(super) longest: Duration,
    /// The share of packets that is lost in a bad time.
    pub(super) loss: f64,
}

/// In which time a direction of a port is, and until when.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    bad: bool,
    until: Option<Instant>,
}

/// When the copies of a packet arrive: none, one or two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Carried {
    pub(super) first: Option<Duration>,
    pub(super) again: Option<Duration>,
}

impl Network {
    /// A network of `racks`: the rack of each station.
    pub(super) fn new(racks: Vec<usize>, loss: f64, rng: Xoshiro256PlusPlus) -> Self {
        Self {
            rng,
            loss,
            ports: racks.into_iter().map(Port::new).collect(),
            cuts: Vec::new(),
            pair_loss: BTreeMap::new(),
            bursts: None,
            dark: false,
            calm: true,
        }
    }

    /// What becomes of a packet.
    pub(super) fn carry(&mut self, from: Station, to: Station, traffic: Traffic, now: Instant) -> Carried {
        if !self.is_open(from, to, traffic) || self.loses(from, to, now) {
            return Carried::default();
        }
        let first = Some(self.delay());
        let again = self.rng.random_bool(DUPLICATED).then(|| self.delay());
        Carried { first, again }
    }

    /// Whether packets can get through, but for chance.
    pub(super) fn is_open(&self, from: Station, to: Station, traffic: Traffic) -> bool {
        let (Some(source), Some(target)) = (self.ports.get(from), self.ports.get(to)) else { return false };
        if traffic == Traffic::Wire && source.rack != target.rack {
            return false;
        }
        if self.calm {
            return true;
        }
        let filtered = match traffic {
            Traffic::Gossip | Traffic::Tcp(GOSSIP_PORT) => source.filtered || target.filtered,
            Traffic::Wire | Traffic::Tcp(_) | Traffic::Icmp => false,
        };
        let cut = || self.cuts.iter().any(|cut| cut.from.contains(&from) && cut.to.contains(&to));
        !(self.dark || source.dead || target.dead || filtered || cut())
    }

    /// How long one way takes.
    pub(super) fn delay(&mut self) -> Duration {
        let range = if self.rng.random_bool(OUTLIERS) { OUTLIER_MICROS } else { DELAY_MICROS };
        Duration::from_nanos(self.rng.random_range(range.start * 1000..range.end * 1000))
    }

    /// How late a timer comes: drawn here because nothing else in a world is drawn as often.
    pub(super) fn lateness(&mut self, latest: Duration) -> Duration {
        latest.mul_f64(self.rng.random::<f64>())
    }

    /// Lets nothing pass from the one to the other, nor back.
    pub(super) fn cut(&mut self, a: &BTreeSet<Station>, b: &BTreeSet<Station>) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// Lets nothing pass from the one to the other.
    pub(super) fn cut_one_way(&mut self, from: &BTreeSet<Station>, to: &BTreeSet<Station>) {
        self.cuts.push(Cut { from: from.clone(), to: to.clone() });
        self.calm = false;
    }

    /// Lets nothing pass at all.
    pub(super) fn black_out(&mut self) {
        self.dark = true;
        self.calm = false;
    }

    /// The link of a station carries nothing.
    pub(super) fn unplug(&mut self, station: Station) {
        self.change(station, |port| port.dead = true);
    }

    /// A firewall of a station drops the gossip port.
    pub(super) fn filter(&mut self, station: Station) {
        self.change(station, |port| port.filtered = true);
    }

    /// Loses this share of what a station receives and sends.
    pub(super) fn lose_at(&mut self, station: Station, received: f64, sent: f64) {
        self.change(station, |port| (port.loss_in, port.loss_out) = (received, sent));
    }

    /// Loses this share of what goes from the one to the other.
    pub(super) fn lose_between(&mut self, from: Station, to: Station, share: f64) {
        self.pair_loss.insert((from, to), share);
        self.calm = false;
    }

    /// Lets good and bad times take turns at every port.
    pub(super) fn burst(&mut self, bursts: Bursts) {
        self.bursts = Some(bursts);
        self.calm = false;
    }

    /// Ends all faults but the loss that the network began with.
    pub(super) fn mend(&mut self) {
        self.cuts.clear();
        self.pair_loss.clear();
        self.bursts = None;
        self.dark = false;
        self.calm = true;
        for port in &mut self.ports {
            *port = Port::new(port.rack);
        }
    }

    fn change(&mut self, station: Station, change: impl FnOnce(&mut Port)) {
        if let Some(port) = self.ports.get_mut(station) {
            change(port);
            self.calm = false;
        }
    }

    /// Whether chance takes the packet.
    fn loses(&mut self, from: Station, to: Station, now: Instant) -> bool {
        if self.loss > 0.0 && self.rng.random::<f64>() < self.loss {
            return true;
        }
        if self.calm {
            return false;
        }
        let sent = self.ports.get(from).map_or(0.0, |port| port.loss_out);
        let received = self.ports.get(to).map_or(0.0, |port| port.loss_in);
        let between = self.pair_loss.get(&(from, to)).copied().unwrap_or_default();
        let passes = (1.0 - sent) * (1.0 - received) * (1.0 - between);
        if passes < 1.0 && self.rng.random::<f64>() >= passes {
            return true;
        }
        let Some(bursts) = self.bursts else { return false };
        let rng = &mut self.rng;
        let out = self.ports.get_mut(from).is_some_and(|port| port.burst_out.loses(bursts, now, rng));
        out || self.ports.get_mut(to).is_some_and(|port| port.burst_in.loses(bursts, now, rng))
    }
}

impl Port {
    fn new(rack: usize) -> Self {
        Self {
            rack,
            dead: false,
            filtered: false,
            loss_in: 0.0,
            loss_out: 0.0,
            burst_in: Burst::default(),
            burst_out: Burst::default(),
        }
    }
}

impl Burst {
    fn loses(&mut self, model: Bursts, now: Instant, rng: &mut Xoshiro256PlusPlus) -> bool {
        let mut until = self.until.unwrap_or(now);
        while until <= now {
            // The first time of a port is a good one.
            self.bad = self.until.is_some() && !self.bad;
            let (mean, longest) = if self.bad { (model.bad, model.longest) } else { (model.good, Duration::MAX) };
            let exponential = -(1.0 - rng.random::<f64>()).ln();
            until += mean.mul_f64(exponential).min(longest).max(Duration::from_micros(1));
            self.until = Some(until);
        }
        self.bad && rng.random::<f64>() < model.loss
    }
}

/// The port of UDP and TCP at which members are reached.
pub(super) const GOSSIP_PORT: u16 = 7946;

/// One way through a switch and two kernels; as the prototype behind the detection figures assumed.
const DELAY_MICROS: Range<u64> = 100..500;
/// Chosen: now and then an interrupt comes late. Such a packet is overtaken by later ones.
const OUTLIER_MICROS: Range<u64> = 1_000..5_000;
/// Chosen: one packet in a thousand.
const OUTLIERS: f64 = 0.001;
/// Chosen: switches do it while they learn; rare, but every scenario ought to see it.
const DUPLICATED: f64 = 0.0005;

#[cfg(test)]
mod tests;
