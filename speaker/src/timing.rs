//! The values of the flags that say how fast failures are detected, and how long addresses wait for their owner.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use tracing::warn;

use crate::scheduling;

/// `--profile`.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A death is known within 200 ms
    Default,
    /// Within 80 ms; runs under SCHED_FIFO, for which it needs CAP_SYS_NICE, else `default` is run
    Fast,
    /// Within about a second, for routed and lossy networks
    Relaxed,
}

impl Profile {
    /// The profile that can be run here: `fast` if this thread, and those that it starts, can be scheduled before all
    /// ordinary ones. Says so when it is another one.
    pub(crate) fn make_possible(self) -> garpike_membership::Profile {
        match self {
            Self::Default => garpike_membership::Profile::Default,
            Self::Relaxed => garpike_membership::Profile::Relaxed,
            Self::Fast => match scheduling::become_real_time() {
                Ok(()) => garpike_membership::Profile::Fast,
                Err(error) => {
                    warn!(
                        %error,
                        "--profile fast needs timers that are never late, and the kernel does not schedule this process \
                         under SCHED_FIFO: running --profile default; add the capability SYS_NICE, as \
                         deploy/overlays/fast does"
                    );
                    garpike_membership::Profile::Default
                }
            },
        }
    }
}

/// `--failback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failback {
    /// A node that returned from the dead gets its addresses back after this time.
    After(Duration),
    /// Only when its addresses have no better owner.
    Never,
}

impl Failback {
    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::After(delay) => Some(delay),
            Self::Never => None,
        }
    }
}

impl FromStr for Failback {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "never" {
            return Ok(Self::Never);
        }
        let Some(delay) = s.strip_prefix("after=") else {
            return Err(format!("\"{s}\" is neither \"never\" nor a time; write after=30s"));
        };
        duration(delay).map(Self::After)
    }
}

/// Reads a time such as `60s`.
///
/// # Errors
///
/// When it is no time, has no unit, or is longer than [`LONGEST`].
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("\"{text}\" is not a time ({error}); write 500ms, 60s or 2m"))?;
    if time > LONGEST {
        return Err(format!("{text} is too long; at most {} are possible", humantime::format_duration(LONGEST)));
    }
    Ok(time)
}

/// Chosen: whoever wants more wants `never`.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for bad in ["", "60", "s", "-1s", "1 fortnight", "25h"] {
            let error = duration(bad).unwrap_err();
            assert!(error.contains(bad), "{error}");
        }
        assert!(duration("60").unwrap_err().contains("write 500ms, 60s or 2m"));
    }

    #[test]
    fn failback_is_a_time_or_never() {
        assert_eq!("never".parse(), Ok(Failback::Never));
        assert_eq!("after=30s".parse(), Ok(Failback::After(Duration::from_secs(30))));
        for bad in ["30s", "after", "after=", "after=30", "Never"] {
            assert!(bad.parse::<Failback>().is_err(), "{bad}");
        }
    }
}
