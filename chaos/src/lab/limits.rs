//! Which setting of the system forbids the lab its namespaces.
//!
//! The kernel says only `EPERM` or `ENOSPC`; a user needs the name of the setting and the value that would be right.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use nix::errno::Errno;

/// A setting of the system that forbids what the lab needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidding {
    /// Its name as `sysctl` writes it.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub wanted: String,
}

impl fmt::Display for Forbidding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, value, wanted } = self;
        write!(f, "{setting} is {value}; as root, `sysctl -w {setting}={wanted}`")
    }
}

/// The values of the settings that may forbid namespaces; those that this kernel lacks are left out.
#[derive(Debug)]
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Takes them from `/proc/sys`. To be called outside: a new user namespace shows limits of its own.
    pub(super) fn read() -> Self {
        Self::from_files(|path| fs::read_to_string(Path::new("/proc/sys").join(path)).ok())
    }

    /// Names the setting that explains `errno`.
    ///
    /// None when all are as they should be: then a container's seccomp filter or a chroot is the usual reason.
    pub(super) fn forbidding(&self, errno: Errno) -> Option<Forbidding> {
        let switched = SWITCHES.iter().find_map(|switch| {
            let value = self.0.get(switch.setting).filter(|value| *value != switch.wanted)?;
            Some(Forbidding { setting: switch.setting, value: value.clone(), wanted: switch.wanted.to_owned() })
        });
        // A limit may be used up without being zero; the kernel says ENOSPC then. The smallest is used up first.
        let smallest = || {
            let number = |setting| Some((self.0.get(setting)?.parse::<u64>().ok()?, setting));
            let (number, setting) = LIMITS.into_iter().filter_map(number).min()?;
            let explains = number == 0 || errno == Errno::ENOSPC;
            let wanted = number.max(PLENTY).saturating_mul(2);
            explains.then(|| Forbidding { setting, value: number.to_string(), wanted: wanted.to_string() })
        };
        switched.or_else(smallest)
    }

    fn from_files(read: impl Fn(&str) -> Option<String>) -> Self {
        let settings = SWITCHES.iter().map(|switch| switch.setting).chain(LIMITS);
        let value = |setting: &'static str| Some((setting, read(&setting.replace('.', "/"))?.trim().to_owned()));
        Self(settings.filter_map(value).collect())
    }
}

/// A setting with one right value.
struct Switch {
    setting: &'static str,
    wanted: &'static str,
}

/// The first is Ubuntu's (since 23.10), the second Debian's and Arch's patch; other kernels have neither.
const SWITCHES: [Switch; 2] = [
    Switch { setting: "kernel.apparmor_restrict_unprivileged_userns", wanted: "0" },
    Switch { setting: "kernel.unprivileged_userns_clone", wanted: "1" },
];
/// How many namespaces of each kind a user may have, namespaces(7).
const LIMITS: [&str; 4] =
    ["user.max_user_namespaces", "user.max_net_namespaces", "user.max_pid_namespaces", "user.max_mnt_namespaces"];
/// Chosen: a lab needs some ten, other programs of the user need theirs.
const PLENTY: u64 = 5000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_forbids_is_named_with_its_value_and_the_mend() {
        struct Case {
            errno: Errno,
            files: &'static [(&'static str, &'static str)],
            expected: Option<&'static str>,
        }
        let case = |errno, files, expected| Case { errno, files, expected };
        let cases = [
            case(
                Errno::EPERM,
                &[("kernel/apparmor_restrict_unprivileged_userns", "1\n"), ("user/max_user_namespaces", "9\n")],
                Some(
                    "kernel.apparmor_restrict_unprivileged_userns is 1; as root, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`",
                ),
            ),
            case(
                Errno::EPERM,
                &[("kernel/unprivileged_userns_clone", "0\n")],
                Some("kernel.unprivileged_userns_clone is 0; as root, `sysctl -w kernel.unprivileged_userns_clone=1`"),
            ),
            case(
                Errno::ENOSPC,
                &[("user/max_user_namespaces", "0\n")],
                Some("user.max_user_namespaces is 0; as root, `sysctl -w user.max_user_namespaces=10000`"),
            ),
            case(
                Errno::ENOSPC,
                &[("user/max_user_namespaces", "9000\n")],
                Some("user.max_user_namespaces is 9000; as root, `sysctl -w user.max_user_namespaces=18000`"),
            ),
            case(
                Errno::EPERM,
                &[("user/max_user_namespaces", "5\n"), ("kernel/unprivileged_userns_clone", "1\n")],
                None,
            ),
            case(Errno::EPERM, &[], None),
        ];

        for Case { errno, files, expected } in cases {
            let read = |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
            let found = Settings::from_files(read).forbidding(errno).map(|forbidding| forbidding.to_string());
            assert_eq!(found.as_deref(), expected, "{errno} {files:?}");
        }
    }
}
