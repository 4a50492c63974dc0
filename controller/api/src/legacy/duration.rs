//! Times as the old configuration writes them and MetalLB's resources have them: `90s`, `1m30s`, `2h45m0.5s`.

use std::time::Duration;

use thiserror::Error;

/// The time in whole seconds, as Go prints it.
///
/// # Errors
///
/// When the text is no time, or one that BGP does not allow.
pub(super) fn whole_seconds(text: &str) -> Result<String, InvalidTime> {
    let seconds = seconds(text).ok_or(InvalidTime::NotATime)?;
    if (1..3).contains(&seconds) {
        return Err(InvalidTime::TooShort);
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    Ok(match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        (_, _) => format!("{hours}h{minutes}m{rest}s"),
    })
}

/// A time in whole seconds, as Go reads it; `None`: the text is no time.
pub fn go_duration(text: &str) -> Option<Duration> {
    seconds(text).map(Duration::from_secs)
}

/// Why a time is not carried over.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum InvalidTime {
    #[error("is not a time; write one such as 90s")]
    NotATime,
    //= https://www.rfc-editor.org/rfc/rfc4271#section-4.2
    //# The Hold Time MUST be either zero or at least three seconds.
    #[error("is shorter than BGP allows; write 0s, or 3s or more")]
    TooShort,
}

fn seconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut nanoseconds = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(end)?;
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_len)?;
        let unit = match unit {
            "ns" => 1e0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanoseconds += number.parse::<f64>().ok()? * unit;
        rest = next;
    }
    // An empty text is no time; a hundred years are none for BGP.
    let seconds = (nanoseconds / 1e9).trunc();
    let fits = !text.is_empty() && (0.0..3_153_600_000.0).contains(&seconds);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole, positive and small"
    )]
    fits.then_some(seconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_as_go_does() {
        for (text, expected) in [
            ("90s", Ok("1m30s")),
            ("120s", Ok("2m0s")),
            ("30s", Ok("30s")),
            ("0s", Ok("0s")),
            ("0", Ok("0s")),
            ("1h", Ok("1h0m0s")),
            ("1h1m1s", Ok("1h1m1s")),
            ("3999ms", Ok("3s")),
            ("1.5m", Ok("1m30s")),
            ("500ms", Ok("0s")),
            ("2s", Err(InvalidTime::TooShort)),
            ("90", Err(InvalidTime::NotATime)),
            ("", Err(InvalidTime::NotATime)),
            ("s", Err(InvalidTime::NotATime)),
            ("1x", Err(InvalidTime::NotATime)),
            ("-3s", Err(InvalidTime::NotATime)),
            ("99999999999999h", Err(InvalidTime::NotATime)),
        ] {
            assert_eq!(whole_seconds(text).as_deref(), expected.as_deref(), "{text}");
        }
    }
}
