//! What the figures of a scenario have to reach in the lab. A target is no invariant: it does not decide the exit status.

use std::fmt;

use garpike_speaker::Profile;
use serde::Serialize;

use crate::lab::Links;
use crate::report::{Distribution, PerFamily, Report};
use crate::scenario::Scenario;
use crate::trial::Plan;

/// A figure with a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Target {
    /// What is measured, in the worse of the families.
    pub measure: &'static str,
    /// What it may be at most.
    pub limit: f64,
    /// What it is; absent when it was never reached.
    pub reached: Option<f64>,
    /// Whether that is enough; absent when there are too few trials to tell.
    pub met: Option<bool>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = self.reached.map_or_else(|| "never".to_owned(), |reached| format!("{reached:.1}"));
        let verdict = match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "too few trials to tell",
        };
        write!(f, "{}: {reached} of at most {:.0}: {verdict}", self.measure, self.limit)
    }
}

/// The targets of a run, by its figures.
pub(crate) fn targets(plan: &Plan, report: &Report) -> Vec<Target> {
    if plan.profile != Profile::Default {
        return Vec::new();
    }
    let wanted: &[Wanted] = match plan.scenario {
        Scenario::Crash | Scenario::Partition => &[],
        Scenario::Rest => &[LOST],
        Scenario::LinkDown => match plan.links {
            Links::One => &[Wanted::outage(Rank::P50, 200.0), Wanted::outage(Rank::P99, 300.0)],
            Links::Two => &[Wanted::outage(Rank::P50, 60.0)],
        },
        Scenario::LinkFlap | Scenario::Conflict => &[],
        Scenario::Kill => &[LOST, RESETS, STALLS, Wanted::fresh(100.0), TWO_MACS_NEVER],
        Scenario::Freeze => &[LOST, RESETS, STALLS, Wanted::fresh(250.0), TWO_MACS_NEVER],
        Scenario::Term | Scenario::Rolling => &[LOST, RESETS, STALLS, FRESH_P999, TWO_MACS_NEVER],
        Scenario::TermAll => &[LOST, RESETS, STALLS, Wanted::fresh(1000.0), TWO_MACS_NEVER],
        Scenario::KillThenCrash | Scenario::TermThenCrash => {
            &[Wanted::outage(Rank::P50, 200.0), Wanted::outage(Rank::P99, 350.0)]
        }
        Scenario::Heal => &[Wanted::outage(Rank::Max, 100.0), DISPUTED],
        Scenario::Drain | Scenario::Undrain | Scenario::Move => &[LOST, TWO_MACS],
        Scenario::UplinkDown => &[SERVED],
    };
    wanted.iter().filter_map(|wanted| wanted.judge(report)).collect()
}

/// A target whose figure is not known yet.
#[derive(Clone, Copy)]
struct Wanted {
    measure: &'static str,
    figure: Figure,
    limit: f64,
}

#[derive(Clone, Copy)]
enum Figure {
    Outage(Rank),
    Fresh(Rank),
    FreshP999,
    TwoMacs(Rank),
    Disputed(Rank),
    Served(Rank),
    Lost,
    Resets,
    Stalls,
}

#[derive(Clone, Copy)]
enum Rank {
    P50,
    P99,
    Max,
}

impl Wanted {
    const fn outage(rank: Rank, limit: f64) -> Self {
        let measure = match rank {
            Rank::P50 => "milliseconds of outage, median",
            Rank::P99 => "milliseconds of outage, p99",
            Rank::Max => "milliseconds of outage, longest",
        };
        Self { measure, figure: Figure::Outage(rank), limit }
    }

    const fn fresh(limit: f64) -> Self {
        let measure = "milliseconds until a client without a cache is told, longest";
        Self { measure, figure: Figure::Fresh(Rank::Max), limit }
    }

    /// None when the figure was not measured.
    fn judge(&self, report: &Report) -> Option<Target> {
        let reached = match self.figure {
            Figure::Outage(rank) => worse(&report.outage_ms, |figures| rank.of(figures))?,
            Figure::Fresh(rank) => worse(&report.fresh_ms, |figures| rank.of(figures))?,
            Figure::FreshP999 => worse(&report.fresh_p999_ms, |figure| *figure)?,
            Figure::TwoMacs(rank) => worse(&report.two_macs_ms, |figures| rank.of(figures))?,
            Figure::Disputed(rank) => worse(&report.disputed_ms, |figures| rank.of(figures))?,
            Figure::Served(rank) => worse(&report.served_ms, |figures| rank.of(figures))?,
            Figure::Lost => sum(report.lost_probes.iter().flat_map(|(_, lost)| lost.iter().copied()))?,
            Figure::Resets => sum(report.resets.iter().flatten().copied())?,
            Figure::Stalls => sum(report.stalls.iter().flatten().copied())?,
        };
        let met = (report.trials >= ENOUGH).then(|| reached.is_some_and(|reached| reached <= self.limit));
        Some(Target { measure: self.measure, limit: self.limit, reached, met })
    }
}

impl Rank {
    fn of(self, figures: &Distribution) -> Option<f64> {
        match self {
            Self::P50 => figures.p50,
            Self::P99 => figures.p99,
            Self::Max => figures.max,
        }
    }
}

/// The greater of the families' figures, where `None` is infinite; `None` when none was measured.
fn worse<T>(figures: &PerFamily<T>, figure: impl Fn(&T) -> Option<f64>) -> Option<Option<f64>> {
    let worst = figures.iter().map(|(_, value)| figure(value).unwrap_or(f64::INFINITY)).reduce(f64::max)?;
    Some(worst.is_finite().then_some(worst))
}

/// `None` when nothing was counted.
#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
fn sum(counts: impl Iterator<Item = u64>) -> Option<Option<f64>> {
    counts.reduce(|sum, count| sum + count).map(|sum| Some(sum as f64))
}

const LOST: Wanted = Wanted { measure: "probes lost", figure: Figure::Lost, limit: 0.0 };
const RESETS: Wanted = Wanted { measure: "connections reset", figure: Figure::Resets, limit: 0.0 };
const STALLS: Wanted = Wanted { measure: "connections stalled", figure: Figure::Stalls, limit: 0.0 };
const FRESH_P999: Wanted = Wanted {
    measure: "milliseconds until a client without a cache is told, p99.9",
    figure: Figure::FreshP999,
    limit: 20.0,
};
const TWO_MACS_NEVER: Wanted =
    Wanted { measure: "milliseconds in which two stations answer", figure: Figure::TwoMacs(Rank::Max), limit: 0.0 };
const TWO_MACS: Wanted = Wanted {
    measure: "milliseconds in which two stations answer, p99",
    figure: Figure::TwoMacs(Rank::P99),
    limit: 5.0,
};
const DISPUTED: Wanted = Wanted {
    measure: "milliseconds until one station answers, longest",
    figure: Figure::Disputed(Rank::Max),
    limit: 1000.0,
};
const SERVED: Wanted = Wanted {
    measure: "milliseconds from being told to being served, longest",
    figure: Figure::Served(Rank::Max),
    limit: 1000.0,
};
/// Chosen: with fewer trials a percentile says little.
const ENOUGH: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Trial;

    #[test]
    fn the_worse_family_counts_and_a_trial_that_never_recovered_is_the_worst() {
        let figures = |worst| PerFamily { v4: Distribution::of([Some(1.0)]), v6: Distribution::of([worst]) };

        let p99 = |figures: &PerFamily<Distribution>| worse(figures, |figures| Rank::P99.of(figures));

        assert_eq!(p99(&figures(Some(7.0))), Some(Some(7.0)));
        assert_eq!(p99(&figures(None)), Some(None));
        assert_eq!(p99(&PerFamily::NONE), None);
    }

    #[test]
    fn few_trials_tell_the_figure_and_no_verdict() {
        let mut report = Report { trials: ENOUGH - 1, ..Report::default() };
        report.per_trial = vec![Trial { lost_probes: PerFamily { v4: Some(2), v6: None }, ..Trial::default() }];
        report.summarise();
        let few = LOST.judge(&report).unwrap();
        report.trials = ENOUGH;
        let enough = LOST.judge(&report).unwrap();

        assert_eq!((few.reached, few.met), (Some(2.0), None));
        assert_eq!(enough.met, Some(false));
        assert!(enough.to_string().ends_with("2.0 of at most 0: MISSED"), "{enough}");
    }

    #[test]
    fn what_was_not_measured_has_no_target() {
        assert!(RESETS.judge(&Report::default()).is_none());
        assert!(TWO_MACS.judge(&Report::default()).is_none());
    }
}
