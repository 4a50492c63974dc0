//! From a running MetalLB to Garpike and back, each by one `kubectl apply`.
//!
//! MetalLB is the real one, built from its Go module, with its own manifest. Clients with and without a cache look on all the time.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use garpike_election::ServiceIp;

use super::super::Cluster;
use super::super::image::Images;
use super::super::install::{Exposed, MANIFEST, NAMESPACE};
use super::super::site::{ECHO, outage_ms};
use super::{SERVED_WITHIN, count, lost, reached_services, step};
use crate::lab::{Record, now};
use crate::load::figures::{Bound, Figures};
use crate::tools::{Program, file_of_metallb};

/// The images with those of MetalLB, under the names of its manifest.
pub(super) fn with_metallb(mut images: Images<'_>) -> Result<Images<'_>> {
    for program in [Program::MetallbController, Program::MetallbSpeaker] {
        images.programs.push((format!("quay.io/metallb/{}:{METALLB_TAG}", program.name()), program.path()?));
    }
    Ok(images)
}

/// The manifest that MetalLB's users apply. To be called outside of the lab's processes, which nobody else may wait for.
pub(super) fn manifest() -> Result<String> {
    let path = file_of_metallb(METALLB_MANIFEST)?;
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn run(cluster: &mut Cluster<'_>, metallb: &str, trials: u32, figures: &mut Figures) -> Result<()> {
    cluster.serve("echo", None)?;
    cluster.apply(metallb)?;
    cluster.wait_for_pods()?;
    let exposed = reached_services(cluster, SERVICES)?;
    thread::sleep(SETTLING);
    for trial in 1..=trials {
        for (way, manifest) in [("MetalLB to Garpike", MANIFEST), ("Garpike to MetalLB", metallb)] {
            step(way);
            let seen = cross(cluster, &exposed, manifest).with_context(|| way.to_owned())?;
            let row = [
                ("rolled_out_s", seen.rolled_out_s),
                ("cached_outage_ms", seen.cached_outage_ms),
                ("cached_lost", seen.cached_lost),
                ("fresh_longest_ms", seen.fresh_longest_ms),
                ("two_macs_ms", seen.two_macs_ms),
                ("moves", seen.moves),
                ("addresses_changed", seen.changed),
            ];
            figures.row(format!("{way} {trial}"), row);
            let target = |figures: &mut Figures, what: &str, reached, limit| {
                figures.target(format!("{way}: {what}"), reached, Bound::AtMost, limit);
            };
            target(figures, "addresses changed", seen.changed, 0.0);
            target(figures, "outage of a client with a cache, ms", seen.cached_outage_ms, CACHED_MS);
            target(figures, "a client without a cache waits, ms", seen.fresh_longest_ms, FRESH_MS);
            target(figures, "two stations answer, ms", seen.two_macs_ms, TWO_MACS_MS);
        }
    }
    Ok(())
}

struct Seen {
    rolled_out_s: f64,
    /// The longest, of all addresses.
    cached_outage_ms: f64,
    cached_lost: f64,
    fresh_longest_ms: f64,
    two_macs_ms: f64,
    moves: f64,
    changed: f64,
}

/// Applies the manifest of the other one while clients look on.
fn cross(cluster: &mut Cluster<'_>, exposed: &[Exposed], manifest: &str) -> Result<Seen> {
    let ips: Vec<IpAddr> = exposed.iter().flat_map(Exposed::both).collect();
    let asked: Vec<ServiceIp> =
        ips.iter().map(|ip| ServiceIp::new(*ip)).collect::<Result<_, _>>().context("no address of a Service")?;
    let owners = cluster.owners(&ips)?;
    let probes: Vec<_> =
        ips.iter().map(|ip| cluster.lab.probe(SocketAddr::new(*ip, ECHO), EACH)).collect::<Result<_, _>>()?;
    let asker = cluster.lab.ask(&asked, EACH)?;
    let tap = cluster.lab.tap()?;
    thread::sleep(Duration::from_secs(1));
    let begun = now();
    cluster.apply(manifest)?;
    cluster.wait_for_pods()?;
    // Of the one that is gone no pod may be left.
    cluster.wait_until("only pods of the new one are left", SERVED_WITHIN, |cluster| {
        let pods = cluster.get("pods", &["-n", NAMESPACE])?;
        Ok(super::super::items(&pods).all(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).then_some(()))
    })?;
    let rolled_out_s = begun.elapsed().as_secs_f64();
    thread::sleep(SETTLING);
    let end = now();
    let records: Vec<Record> = probes.into_iter().map(crate::lab::Probe::stop).collect();
    let fresh = asker.stop();
    let tapped = tap.stop()?;
    ensure!(tapped.missed == 0, "the tap lost {} frames: run it again on a calmer machine", tapped.missed);
    let waits = fresh.values().flat_map(|asked| asked.waits(begun..=end));
    let longest = waits.map(|wait| wait.map_or(f64::INFINITY, |wait| wait.as_secs_f64() * 1000.0)).fold(0.0, f64::max);
    let two_macs = fresh.values().map(|asked| asked.two_macs(begun..=end)).max().unwrap_or_default();
    let mut moves = 0;
    for (ip, node) in &owners {
        moves += tapped.moves(*ip, cluster.lab.host(node)?.mac, begun..=end).len();
    }
    let mut changed = 0;
    for before in exposed {
        let after = cluster.addresses(&before.service)?;
        changed += usize::from(after.is_none_or(|after| after.both() != before.both()));
    }
    Ok(Seen {
        rolled_out_s,
        cached_outage_ms: records.iter().map(|record| outage_ms(record, begun, end)).fold(0.0, f64::max),
        cached_lost: records.iter().map(lost).sum(),
        fresh_longest_ms: longest,
        two_macs_ms: two_macs.as_secs_f64() * 1000.0,
        moves: count(moves),
        changed: count(changed),
    })
}

const METALLB_MANIFEST: &str = "config/manifests/metallb-native.yaml";
/// The version of the module in tools/metallb.
const METALLB_TAG: &str = "v0.16.1";
/// Dual-stack: twenty addresses.
const SERVICES: usize = 10;
const EACH: Duration = Duration::from_millis(20);
/// MetalLB repeats its announcements for 5 s.
const SETTLING: Duration = Duration::from_secs(8);
const CACHED_MS: f64 = 1000.0;
const FRESH_MS: f64 = 3000.0;
/// Measured: 245 ms between two speakers of MetalLB when one is told to end, and 50 ms more.
const TWO_MACS_MS: f64 = 295.0;
