//! Whether the kernel leaves ARP for service IPs to us.
//!
//! A host that holds a service IP on `lo` would by default answer ARP for it on every interface, owner or not
//! (`arp_ignore`), and name it as sender in its own requests (`arp_announce`). IPv6 needs nothing: there the kernel
//! answers only for addresses of the interface that is asked.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use garpike_election::InterfaceName;
use thiserror::Error;

/// A setting that makes the kernel speak for service IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The interface.
    pub interface: InterfaceName,
    /// `arp_ignore` or `arp_announce`.
    pub setting: &'static str,
    /// What counts: the larger one of the interface's value and that of `all`.
    pub value: u32,
    /// What it must be at least.
    pub wanted: u32,
    file: PathBuf,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, setting, value, wanted, file: _ } = self;
        let consequence = match *setting {
            ARP_IGNORE => "the kernel answers ARP for service IPs that another node owns",
            _ => "the kernel names service IPs that another node owns as sender of ARP requests",
        };
        write!(
            f,
            "{setting} of {interface} is {value}: {consequence}; set it with \
             sysctl -w net/ipv4/conf/{interface}/{setting}={wanted}"
        )
    }
}

/// A setting that cannot be changed.
#[derive(Debug, Error)]
#[error("cannot set {} to {wanted}: {source}", file.display())]
pub struct ApplyError {
    /// The file below `/proc/sys`.
    pub file: PathBuf,
    /// What should be in it.
    pub wanted: u32,
    /// What the kernel said.
    pub source: io::Error,
}

/// Looks at the given interfaces. One that is gone, or whose settings cannot be read, gives no finding.
pub fn check<'a>(interfaces: impl IntoIterator<Item = &'a InterfaceName>) -> Vec<Finding> {
    check_below(Path::new(CONF), interfaces)
}

/// Sets what was found, for this interface alone; the rest of the host stays as it is.
///
/// # Errors
///
/// When the process may not; in containers `/proc/sys` is often read-only.
pub fn apply(finding: &Finding) -> Result<(), ApplyError> {
    let Finding { file, wanted, .. } = finding;
    fs::write(file, wanted.to_string()).map_err(|source| ApplyError { file: file.clone(), wanted: *wanted, source })
}

fn check_below<'a>(conf: &Path, interfaces: impl IntoIterator<Item = &'a InterfaceName>) -> Vec<Finding> {
    let read = |file: &Path| fs::read_to_string(file).ok()?.trim().parse::<u32>().ok();
    let mut findings = Vec::new();
    for interface in interfaces {
        for (setting, wanted) in WANTED {
            let file = conf.join(interface.as_str()).join(setting);
            let Some(own) = read(&file) else { continue };
            //= https://docs.kernel.org/networking/ip-sysctl.html
            //# The max value from conf/{all,interface}/arp_ignore is used when ARP request is received
            let value = own.max(read(&conf.join("all").join(setting)).unwrap_or(0));
            if value < wanted {
                findings.push(Finding { interface: interface.clone(), setting, value, wanted, file });
            }
        }
    }
    findings
}

const CONF: &str = "/proc/sys/net/ipv4/conf";
const ARP_IGNORE: &str = "arp_ignore";
/// `arp_ignore` 1: answer only for addresses of the interface that is asked. `arp_announce` 2: name only addresses of
/// the interface that asks.
const WANTED: [(&str, u32); 2] = [(ARP_IGNORE, 1), ("arp_announce", 2)];

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_larger_value_of_interface_and_all_counts() {
        let conf = conf(&[("all", "1", "0"), ("eth0", "0", "2"), ("eth1", "2", "1")]);
        let interfaces = ["eth0", "eth1", "gone0"].map(|name| name.parse().unwrap());
        let findings = check_below(conf.path(), &interfaces);
        let text: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["arp_announce of eth1 is 1: the kernel names service IPs that another node owns as sender of ARP \
              requests; set it with sysctl -w net/ipv4/conf/eth1/arp_announce=2"]
        );
    }

    #[test]
    fn what_is_applied_is_found_no_more() {
        let conf = conf(&[("all", "0", "0"), ("eth0", "0\n", "0\n")]);
        let interfaces = ["eth0".parse().unwrap()];
        let findings = check_below(conf.path(), &interfaces);
        assert_eq!(findings.len(), 2);
        for finding in &findings {
            apply(finding).unwrap();
        }
        assert_eq!(check_below(conf.path(), &interfaces), []);
    }

    /// A directory like `/proc/sys/net/ipv4/conf`: name, `arp_ignore`, `arp_announce`.
    fn conf(interfaces: &[(&str, &str, &str)]) -> TempDir {
        let conf = tempfile::tempdir().unwrap();
        for (name, ignore, announce) in interfaces {
            let interface = conf.path().join(name);
            fs::create_dir(&interface).unwrap();
            fs::write(interface.join("arp_ignore"), ignore).unwrap();
            fs::write(interface.join("arp_announce"), announce).unwrap();
        }
        conf
    }
}
