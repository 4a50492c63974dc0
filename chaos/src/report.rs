//! What a run of a scenario found, as the JSON object that scripts rely on and as a few lines for people.
//!
//! A value that was never reached (a trial that did not recover) is `None`: it counts as infinite in percentiles and is
//! printed as `null`. A family that was not run is `null` as a whole.

use std::collections::BTreeMap;
use std::fmt;

use garpike_election::ServiceIp;
use serde::Serialize;

pub use crate::target::Target;

/// The result of `garpike chaos run`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What was judged.
    #[serde(rename = "impl")]
    pub implementation: String,
    /// Its version.
    pub version: String,
    /// Nodes in the lab.
    pub nodes: usize,
    /// Network cards of each node.
    pub links: u8,
    /// The detection profile.
    pub profile: String,
    /// Where the speakers took their objects from: `manifests`, `kubernetes` or `kubernetes, API server killed`.
    pub source: String,
    /// How many trials were run.
    pub trials: usize,
    /// The seed of the first trial; trial `i` has `seed + i`.
    pub seed: u64,
    /// Of 1, 5 and 15 minutes, when the run ended.
    pub load_average: [f64; 3],
    /// Longest time between two answers at the client, less the probe interval.
    pub outage_ms: PerFamily<Distribution>,
    /// Probes that were never answered, for each trial.
    pub lost_probes: PerFamily<Vec<u64>>,
    /// How often the address moved as a switch sees it, for each trial.
    pub moves: PerFamily<Vec<u64>>,
    /// From the injection to the first frame in which another MAC claims the address; `null` where none may.
    pub detect_ms: PerFamily<Distribution>,
    /// From that frame to the first frame of the last address that moved.
    pub announce_ms: PerFamily<Distribution>,
    /// The longest time that a client without a cache waited until it was told where the address is.
    pub fresh_ms: PerFamily<Distribution>,
    /// 99.9 % of its questions, of all trials together, waited at most this long.
    pub fresh_p999_ms: PerFamily<Option<f64>>,
    /// The longest time in which two stations answered it.
    pub two_macs_ms: PerFamily<Distribution>,
    /// How long after the fault an answer last named another station than in the end; where either may have the address.
    pub disputed_ms: PerFamily<Distribution>,
    /// From the first frame that told the client of another station until it was served; of `uplink-down`.
    pub served_ms: PerFamily<Distribution>,
    /// Established connections that were reset, for each trial; `null` where there were none.
    pub resets: Option<Vec<u64>>,
    /// How often a byte took longer than a second to come back on one of them, for each trial.
    pub stalls: Option<Vec<u64>>,
    /// What the figures have to reach.
    pub targets: Vec<Target>,
    /// Each invariant that was judged, and how it came out.
    pub invariants: BTreeMap<String, Verdict>,
    /// What was violated, when.
    pub violations: Vec<Violation>,
    /// Every trial.
    pub per_trial: Vec<Trial>,
}

/// What became of the client's established connections.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TcpConnections {
    /// How many there were.
    pub established: usize,
    /// How many were reset.
    pub resets: usize,
    /// How often a byte took longer than a second to come back.
    pub stalls: usize,
    /// The longest that a byte took.
    pub longest_ms: f64,
}

/// What a speaker uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Resources {
    /// Resident memory in MB (10^6 bytes).
    pub rss_mb: f64,
    /// Share of one core, in percent.
    pub cpu_percent: f64,
}

/// How an invariant came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Not violated in any trial.
    #[serde(rename = "held")]
    Held,
    /// See the violations.
    #[serde(rename = "violated")]
    Violated,
}

/// One value for each address family; `None` for a family that was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PerFamily<T> {
    /// IPv4.
    pub v4: Option<T>,
    /// IPv6.
    pub v6: Option<T>,
}

/// One trial.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Trial {
    /// What replays it.
    pub seed: u64,
    /// Longest time between two answers; `null` in a family that was run: it never recovered.
    pub outage_ms: PerFamily<Option<f64>>,
    /// Probes that were never answered.
    pub lost_probes: PerFamily<u64>,
    /// How often the address moved as a switch sees it: how often another MAC than the one before announced it.
    pub moves: PerFamily<u64>,
    /// From the injection to the first foreign claim; `null` in a family that was run: there was none, or none may be.
    pub detect_ms: PerFamily<Option<f64>>,
    /// From the first to the last moved address.
    pub announce_ms: PerFamily<Option<f64>>,
    /// The longest time that a client without a cache waited; `null` in a family that was run: in vain.
    pub fresh_ms: PerFamily<Option<f64>>,
    /// How long each of its questions waited.
    #[serde(skip)]
    pub fresh_waits_ms: PerFamily<Vec<Option<f64>>>,
    /// The longest time in which two stations answered it.
    pub two_macs_ms: PerFamily<Option<f64>>,
    /// How long after the fault an answer last named another station than in the end.
    pub disputed_ms: PerFamily<Option<f64>>,
    /// From the first frame that told the client of another station until it was served.
    pub served_ms: PerFamily<Option<f64>>,
    /// What became of established connections; `null` where there were none.
    pub connections: Option<TcpConnections>,
    /// Who answered the client before.
    pub owner_before: Option<String>,
    /// Who answered the client at the end.
    pub owner_after: Option<String>,
    /// What each speaker used during the trial, those excepted that were started or ended in it.
    pub used: BTreeMap<String, Resources>,
    /// Whether the measurement itself was disturbed: how late its own threads woke up at worst.
    pub worst_lateness_ms: f64,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Its name.
    pub invariant: String,
    /// In which trial, from 0.
    pub trial: usize,
    /// What replays it.
    pub seed: u64,
    /// What was seen.
    pub detail: String,
}

/// Something that does not hold, before it is known in which trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Finding {
    /// The violation that it is in a trial.
    pub fn in_trial(self, trial: usize, seed: u64) -> Violation {
        Violation { invariant: self.invariant.to_owned(), trial, seed, detail: self.detail }
    }
}

/// Five figures of a sample, by nearest rank. `None` is infinite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distribution {
    /// The least value.
    pub min: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// 90 of 100 values are at most this.
    pub p90: Option<f64>,
    /// 99 of 100 values are at most this.
    pub p99: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
}

impl Distribution {
    /// The figures of `samples`; `None` when there is no sample.
    pub fn of(samples: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let mut sorted: Vec<f64> = samples.into_iter().map(|sample| sample.unwrap_or(f64::INFINITY)).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).max(1) - 1;
            sorted.get(at).copied().filter(|value| value.is_finite())
        };
        (!sorted.is_empty()).then(|| Self { min: rank(0), p50: rank(50), p90: rank(90), p99: rank(99), max: rank(100) })
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |value: Option<f64>| value.map_or_else(|| "never".to_owned(), |value| format!("{value:.0}"));
        write!(
            f,
            "min {} / median {} / p90 {} / p99 {} / max {} ms",
            figure(self.min),
            figure(self.p50),
            figure(self.p90),
            figure(self.p99),
            figure(self.max)
        )
    }
}

impl<T> Default for PerFamily<T> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<T> PerFamily<T> {
    /// No family was run.
    pub const NONE: Self = Self { v4: None, v6: None };

    /// Sets the value of the family of `ip`.
    pub(crate) fn put(&mut self, ip: ServiceIp, value: T) {
        if ip.v4().is_some() {
            self.v4 = Some(value);
        } else {
            self.v6 = Some(value);
        }
    }

    /// The families that were run, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        [("v4", self.v4.as_ref()), ("v6", self.v6.as_ref())]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
    }
}

impl Report {
    /// Fills the distributions from the trials.
    pub fn summarise(&mut self) {
        let trials = &self.per_trial;
        self.outage_ms = distributions(trials, |trial| &trial.outage_ms);
        self.detect_ms = distributions(trials, |trial| &trial.detect_ms);
        self.announce_ms = distributions(trials, |trial| &trial.announce_ms);
        self.fresh_ms = distributions(trials, |trial| &trial.fresh_ms);
        self.two_macs_ms = distributions(trials, |trial| &trial.two_macs_ms);
        self.disputed_ms = distributions(trials, |trial| &trial.disputed_ms);
        self.served_ms = distributions(trials, |trial| &trial.served_ms);
        self.fresh_p999_ms = PerFamily {
            v4: per_mille(trials.iter().filter_map(|trial| trial.fresh_waits_ms.v4.as_deref())),
            v6: per_mille(trials.iter().filter_map(|trial| trial.fresh_waits_ms.v6.as_deref())),
        };
        let connections = || trials.iter().map(|trial| trial.connections).collect::<Option<Vec<_>>>();
        let counts = |of: fn(&TcpConnections) -> usize| {
            connections().filter(|all| !all.is_empty()).map(|all| all.iter().map(|kept| of(kept) as u64).collect())
        };
        self.resets = counts(|kept| kept.resets);
        self.stalls = counts(|kept| kept.stalls);
        let each = |of: fn(&Trial) -> Option<u64>| trials.iter().map(of).collect::<Option<Vec<u64>>>();
        self.lost_probes = PerFamily { v4: each(|trial| trial.lost_probes.v4), v6: each(|trial| trial.lost_probes.v6) };
        self.moves = PerFamily { v4: each(|trial| trial.moves.v4), v6: each(|trial| trial.moves.v6) };
    }

    /// Whether nothing was violated.
    pub fn is_good(&self) -> bool {
        self.violations.is_empty()
    }
}

fn distributions(trials: &[Trial], of: impl Fn(&Trial) -> &PerFamily<Option<f64>>) -> PerFamily<Distribution> {
    PerFamily {
        v4: Distribution::of(trials.iter().filter_map(|trial| of(trial).v4)),
        v6: Distribution::of(trials.iter().filter_map(|trial| of(trial).v6)),
    }
}

/// What 999 of 1000 of the waits are at most, by nearest rank: `None` when that is infinite, and as a whole when there is
/// none.
fn per_mille<'a>(waits: impl Iterator<Item = &'a [Option<f64>]>) -> Option<Option<f64>> {
    let mut sorted: Vec<f64> = waits.flatten().map(|wait| wait.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * 999).div_ceil(1000).checked_sub(1)?;
    sorted.get(at).map(|value| value.is_finite().then_some(*value))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, five, fifteen] = self.load_average;
        writeln!(
            f,
            "{}: {} nodes, {}, {} trials, seed {}, load average {one:.2} {five:.2} {fifteen:.2}",
            self.scenario, self.nodes, self.source, self.trials, self.seed
        )?;
        let rows = [
            ("outage", &self.outage_ms),
            ("detect", &self.detect_ms),
            ("announce", &self.announce_ms),
            ("fresh", &self.fresh_ms),
            ("two MACs", &self.two_macs_ms),
            ("disputed", &self.disputed_ms),
            ("served", &self.served_ms),
        ];
        for (name, figures) in rows {
            for (family, distribution) in figures.iter() {
                writeln!(f, "  {name:<9} {family}  {distribution}")?;
            }
        }
        for (family, figure) in self.fresh_p999_ms.iter() {
            let figure = figure.map_or_else(|| "never".to_owned(), |figure| format!("{figure:.1} ms"));
            writeln!(f, "  fresh     {family}  99.9 % of all questions within {figure}")?;
        }
        if let (Some(resets), Some(stalls)) = (&self.resets, &self.stalls) {
            let (resets, stalls): (u64, u64) = (resets.iter().sum(), stalls.iter().sum());
            writeln!(f, "  TCP           {resets} connections reset, {stalls} stalls")?;
        }
        for (family, moves) in self.moves.iter() {
            let most = moves.iter().max().copied().unwrap_or_default();
            writeln!(
                f,
                "  moves     {family}  {} in {} trials, {most} at most in one",
                moves.iter().sum::<u64>(),
                moves.len()
            )?;
        }
        for (family, lost) in self.lost_probes.iter() {
            writeln!(f, "  lost      {family}  {} probes in {} trials", lost.iter().sum::<u64>(), lost.len())?;
        }
        let used: Vec<Resources> = self.per_trial.iter().flat_map(|trial| trial.used.values().copied()).collect();
        let rss = Distribution::of(used.iter().map(|used| Some(used.rss_mb))).and_then(|figures| figures.max);
        let cpu = Distribution::of(used.iter().map(|used| Some(used.cpu_percent)));
        if let (Some(rss), Some(Distribution { p50: Some(median), max: Some(max), .. })) = (rss, cpu) {
            writeln!(f, "  speakers  {rss:.1} MB resident at most; median {median:.2}, max {max:.2} % of a core")?;
        }
        for target in &self.targets {
            writeln!(f, "  target    {target}")?;
        }
        for (invariant, verdict) in &self.invariants {
            let verdict = match verdict {
                Verdict::Held => "held",
                Verdict::Violated => "VIOLATED",
            };
            writeln!(f, "  {verdict:<9} {invariant}")?;
        }
        for violation in &self.violations {
            writeln!(
                f,
                "  trial {} (seed {}): {}: {}",
                violation.trial, violation.seed, violation.invariant, violation.detail
            )?;
        }
        Ok(())
    }
}

/// The load averages of 1, 5 and 15 minutes; zeros where the system tells none.
pub fn load_average() -> [f64; 3] {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut figures = text.split(' ').map(|figure| figure.parse().unwrap_or(0.0));
    std::array::from_fn(|_| figures.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let figures = Distribution::of((1..=20).map(|value| Some(f64::from(value)))).unwrap();

        let expected =
            Distribution { min: Some(1.0), p50: Some(10.0), p90: Some(18.0), p99: Some(20.0), max: Some(20.0) };
        assert_eq!(figures, expected);
    }

    #[test]
    fn a_trial_that_never_recovered_is_the_worst_of_all() {
        let figures = Distribution::of([Some(3.0), None, Some(1.0)]).unwrap();

        assert_eq!((figures.min, figures.p50, figures.max), (Some(1.0), Some(3.0), None));
        assert_eq!(serde_json::to_value(figures).unwrap()["max"], serde_json::Value::Null);
    }

    #[test]
    fn one_of_a_thousand_questions_may_wait_longer() {
        let mut waits = vec![Some(1.0); 1998];
        waits.extend([Some(5.0), None]);

        assert_eq!(per_mille([waits.as_slice()].into_iter()), Some(Some(1.0)));
        assert_eq!(per_mille([waits.get(1..).unwrap(), &[None; 2]].into_iter()), Some(None));
        assert_eq!(per_mille([].into_iter()), None);
    }

    #[test]
    fn no_sample_has_no_distribution() {
        assert_eq!(Distribution::of([]), None);
    }

    #[test]
    fn a_single_sample_is_every_figure() {
        let figures = Distribution::of([Some(7.0)]).unwrap();

        assert_eq!((figures.min, figures.p50, figures.p99), (Some(7.0), Some(7.0), Some(7.0)));
    }
}
