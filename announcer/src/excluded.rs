//! Names of interfaces that never announce, because they belong to containers or tunnels of the node.
//!
//! They are given as in MetalLB's `excludel2.yaml`: regular expressions, of which any may match anywhere in the name.

use std::fmt;

use garpike_election::InterfaceName;
use regex::bytes::{RegexSet, RegexSetBuilder};

/// Patterns of names.
#[derive(Clone)]
pub struct Excluded {
    set: RegexSet,
}

/// Why patterns cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPattern {
    /// The first pattern that is wrong; `None` when only all of them together are too large.
    pub pattern: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

impl Excluded {
    /// Excludes what any of the patterns matches.
    ///
    /// # Errors
    ///
    /// When one is no regular expression, or they are too large.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, BadPattern> {
        // Names of interfaces are bytes to the kernel, and classes such as \d those of ASCII to MetalLB.
        let build =
            |patterns: &[&str]| RegexSetBuilder::new(patterns).unicode(false).size_limit(MAX_PROGRAM_BYTES).build();
        let patterns: Vec<S> = patterns.into_iter().collect();
        let patterns: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
        build(&patterns).map(|set| Self { set }).map_err(|error| {
            let alone = patterns.iter().find_map(|pattern| Some((*pattern, build(&[*pattern]).err()?)));
            match alone {
                Some((pattern, error)) => {
                    BadPattern { pattern: Some(pattern.to_owned()), reason: last_line(&error.to_string()) }
                }
                None => BadPattern { pattern: None, reason: last_line(&error.to_string()) },
            }
        })
    }

    /// Excludes nothing.
    pub fn nothing() -> Self {
        Self { set: RegexSet::empty() }
    }

    /// Whether the interface is excluded.
    pub fn contains(&self, name: &InterfaceName) -> bool {
        self.set.is_match(name.as_str().as_bytes())
    }

    /// The patterns.
    pub fn patterns(&self) -> &[String] {
        self.set.patterns()
    }
}

impl Default for Excluded {
    /// The list that MetalLB's manifests ship.
    fn default() -> Self {
        Self::new(DEFAULT_EXCLUDED).expect("the list is tested")
    }
}

impl PartialEq for Excluded {
    fn eq(&self, other: &Self) -> bool {
        self.patterns() == other.patterns()
    }
}

impl Eq for Excluded {}

impl fmt::Debug for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Excluded").field(&self.patterns()).finish()
    }
}

/// The errors of `regex` draw the pattern first and say what is wrong in the last line.
fn last_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or(error);
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

const DEFAULT_EXCLUDED: [&str; 14] = [
    "^docker.*",
    "^cbr.*",
    "^dummy.*",
    "^virbr.*",
    "^lxcbr.*",
    "^veth.*",
    "^lo$",
    "^cali.*",
    "^tunl.*",
    "^flannel.*",
    "^kube-ipvs.*",
    "^cni.*",
    "^nodelocaldns.*",
    "^lxc.*",
];
/// Chosen: a hundred times what the default list needs, and no threat to the memory of a node.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metallbs_list_excludes_container_interfaces_and_no_network_card() {
        let excluded = Excluded::default();
        for name in [
            "docker0",
            "cbr0",
            "dummy0",
            "virbr0-nic",
            "lxcbr0",
            "veth1a2b3c4d",
            "lo",
            "cali0123456789a",
            "tunl0",
            "flannel.1",
            "kube-ipvs0",
            "cni0",
            "nodelocaldns",
            "lxc_health",
        ] {
            assert!(excluded.contains(&name.parse().unwrap()), "{name}");
        }
        for name in ["eth0", "enp3s0f0np0", "bond0", "br0", "br0.100", "wlan0", "lo1", "mycali0", "ens18"] {
            assert!(!excluded.contains(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn a_pattern_may_match_anywhere_as_with_metallb() {
        let excluded = Excluded::new(["backup", "^ib[0-9]+$", "eth(1|2)$", r"^wg\d"]).unwrap();
        for (name, expected) in [
            ("eth0.backup", true),
            ("ib0", true),
            ("ib0.1", false),
            ("eth2", true),
            ("peth1", true),
            ("eth3", false),
            ("wg7", true),
            ("wgx", false),
        ] {
            assert_eq!(excluded.contains(&name.parse().unwrap()), expected, "{name}");
        }
        assert!(!Excluded::nothing().contains(&"docker0".parse().unwrap()));
    }

    #[test]
    fn a_pattern_that_is_none_is_named() {
        let error = Excluded::new(["^eth.*", "^(veth"]).unwrap_err();
        assert_eq!(error.pattern.as_deref(), Some("^(veth"));
        assert_eq!(error.reason, "unclosed group");
        let huge = Excluded::new(["(a{1000}){1000}"]).unwrap_err();
        assert!(huge.pattern.is_some() && huge.reason.contains("size limit"), "{huge:?}");
    }
}
