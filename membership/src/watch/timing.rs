//! The times of the watchers, by profile.

use std::time::Duration;

use crate::Profile;

/// How often, how long, how many. The reasons are in `docs/decisions/0005-watchers.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Timing {
    /// Between two heartbeats to a watcher.
    pub(crate) heartbeat: Duration,
    /// A speaker is overdue after so long a silence, or longer where its heartbeats come unevenly.
    pub(crate) overdue: Duration,
    /// A shorter silence is not looked into, whoever votes: no verdict comes sooner than a window after it.
    pub(crate) suspicious: Duration,
    /// Between two pings of a window; the last one has as long to be answered.
    pub(crate) ping_every: Duration,
    /// Pings of a window.
    pub(crate) pings: u32,
    /// Pings of a window of a node that hears no member: nobody else confirms what it finds.
    pub(crate) pings_alone: u32,
    /// Between two looks at the host of a speaker that is gone.
    pub(crate) check_every: Duration,
    /// How long a look at a host may stay unanswered.
    pub(crate) check_patience: Duration,
    /// Between two questions to the stations on the wire while no member is heard.
    pub(crate) ask_stations_every: Duration,
    /// How old the latest answer of a station may be when a node that hears no member gives its verdict.
    pub(crate) station_fresh: Duration,
}

impl Timing {
    pub(crate) fn of(profile: Profile) -> Self {
        match profile {
            Profile::Default => Self {
                heartbeat: Duration::from_millis(25),
                overdue: Duration::from_millis(136),
                suspicious: Duration::from_millis(120),
                ping_every: Duration::from_millis(8),
                pings: 5,
                pings_alone: 8,
                check_every: Duration::from_millis(100),
                check_patience: Duration::from_millis(20),
                ask_stations_every: Duration::from_millis(10),
                station_fresh: Duration::from_millis(60),
            },
            Profile::Fast => Self {
                heartbeat: Duration::from_millis(10),
                overdue: Duration::from_millis(42),
                suspicious: Duration::from_millis(34),
                ping_every: Duration::from_millis(4),
                pings: 5,
                pings_alone: 8,
                check_every: Duration::from_millis(50),
                check_patience: Duration::from_millis(10),
                ask_stations_every: Duration::from_millis(5),
                station_fresh: Duration::from_millis(30),
            },
            Profile::Relaxed => Self {
                heartbeat: Duration::from_millis(100),
                overdue: Duration::from_millis(700),
                suspicious: Duration::from_millis(600),
                ping_every: Duration::from_millis(40),
                pings: 5,
                pings_alone: 8,
                check_every: Duration::from_millis(500),
                check_patience: Duration::from_millis(100),
                ask_stations_every: Duration::from_millis(100),
                station_fresh: Duration::from_millis(300),
            },
        }
    }

    /// How long a vote of another watcher counts: a few of its repetitions.
    pub(crate) fn vote_valid(&self) -> Duration {
        self.ping_every * 8
    }
}
