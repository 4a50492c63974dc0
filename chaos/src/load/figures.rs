//! The result of a load: rows of figures, targets, and how busy the machine was.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::report::load_average;

/// What a load found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// The name of the load.
    load: &'static str,
    version: &'static str,
    rows: Vec<Row>,
    targets: Vec<Target>,
    /// Of 1, 5 and 15 minutes: before the load, and after.
    load_average: [[f64; 3]; 2],
}

/// One thing that was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What.
    pub(crate) name: String,
    /// Its figures by name; the name ends in the unit.
    pub(crate) figures: BTreeMap<&'static str, f64>,
}

/// What should be reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    measure: String,
    reached: f64,
    bound: Bound,
    limit: f64,
    met: bool,
}

/// On which side of the limit a figure should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

impl Figures {
    /// Nothing yet.
    pub(crate) fn begin(load: &'static str) -> Self {
        let now = load_average();
        Self {
            load,
            version: env!("CARGO_PKG_VERSION"),
            rows: Vec::new(),
            targets: Vec::new(),
            load_average: [now, now],
        }
    }

    pub(crate) fn row(&mut self, name: String, figures: impl IntoIterator<Item = (&'static str, f64)>) {
        self.rows.push(Row { name, figures: figures.into_iter().collect() });
    }

    pub(crate) fn target(&mut self, measure: String, reached: f64, bound: Bound, limit: f64) {
        let met = match bound {
            Bound::AtLeast => reached >= limit,
            Bound::AtMost => reached <= limit,
        };
        self.targets.push(Target { measure, reached, bound, limit, met });
    }

    /// To be called when the load is over.
    pub(crate) fn end(mut self) -> Self {
        self.load_average[1] = load_average();
        self
    }

    pub(crate) fn all_met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        for Row { name, figures } in &self.rows {
            write!(out, "{name:<width$}")?;
            for (name, figure) in figures {
                write!(out, "  {name} {}", Figure(*figure))?;
            }
            writeln!(out)?;
        }
        for Target { measure, reached, bound, limit, met } in &self.targets {
            let verdict = if *met { "met   " } else { "MISSED" };
            let bound = match bound {
                Bound::AtLeast => "at least",
                Bound::AtMost => "at most",
            };
            writeln!(out, "{verdict}  {measure}: {}, {bound} {}", Figure(*reached), Figure(*limit))?;
        }
        let [[before, ..], [after, ..]] = self.load_average;
        writeln!(out, "load average of the last minute {before:.1} before, {after:.1} after")
    }
}

/// Three digits are enough for people.
struct Figure(f64);

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(figure) = self;
        match figure.abs() {
            100.0.. => write!(out, "{figure:.0}"),
            10.0.. => write!(out, "{figure:.1}"),
            _ => write!(out, "{figure:.2}"),
        }
    }
}

/// The value that so many of a thousand are at most, by nearest rank; of a sample in order of size.
pub(crate) fn permille(sorted: &[u64], permille: usize) -> u64 {
    let at = (sorted.len() * permille).div_ceil(1000).max(1) - 1;
    sorted.get(at).copied().unwrap_or(u64::MAX)
}

/// A time of the kernel, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "times of a load are far below 2^52 ns")]
pub(crate) fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}

/// The median of some figures; 0 of none.
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let sorted: Vec<u64> = (1..=1000).collect();

        assert_eq!([1, 500, 990, 999, 1000].map(|rank| permille(&sorted, rank)), [1, 500, 990, 999, 1000]);
        assert_eq!(permille(&[7], 999), 7);
        assert_eq!(permille(&[], 500), u64::MAX, "nothing was answered: no time is long enough");
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_missed_target_is_told_and_counts() {
        let mut figures = Figures::begin("some");
        figures.target("answers/s".to_owned(), 10.0, Bound::AtLeast, 5.0);
        assert!(figures.all_met());

        figures.target("p99 us".to_owned(), 10.0, Bound::AtMost, 5.0);

        assert!(!figures.all_met());
        assert!(figures.to_string().contains("MISSED  p99 us: 10.0, at most 5.00"), "{figures}");
    }
}
