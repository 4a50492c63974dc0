//! From a running MetalLB to Garpike and back, each by one `kubectl apply`.
//!
//! MetalLB is the real one, built from its Go module, with its own manifest. Clients with and without a cache look on all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use garpike_election::{MacAddr, ServiceIp};
use serde_json::Value;

use super::super::image::Images;
use super::super::install::{Exposed, MANIFEST, NAMESPACE};
use super::super::site::{ECHO, outage_ms};
use super::super::{Cluster, items};
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
        for (way, direction, manifest) in
            [("MetalLB to Garpike", Direction::There, MANIFEST), ("Garpike to MetalLB", Direction::Back, metallb)]
        {
            step(way);
            let seen = cross(cluster, &exposed, direction, manifest).with_context(|| way.to_owned())?;
            let row = [
                ("rolled_out_s", seen.rolled_out_s),
                ("cached_outage_ms", seen.cached_outage_ms),
                ("cached_lost", seen.cached_lost),
                ("fresh_longest_ms", seen.fresh_longest_ms),
                ("two_macs_ms", seen.two_macs_ms),
                ("two_macs_all_ms", seen.two_macs_all_ms),
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
            target(figures, "two stations answer, one of them Garpike's, ms", seen.two_macs_ms, TWO_MACS_MS);
        }
    }
    Ok(())
}

/// From what to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    There,
    Back,
}

struct Seen {
    rolled_out_s: f64,
    /// The longest, of all addresses.
    cached_outage_ms: f64,
    cached_lost: f64,
    fresh_longest_ms: f64,
    /// Where Garpike is one of the two.
    two_macs_ms: f64,
    /// Those of two speakers of MetalLB too, which hand over to each other.
    two_macs_all_ms: f64,
    moves: f64,
    changed: f64,
}

/// Applies the manifest of the other one while clients look on.
fn cross(cluster: &mut Cluster<'_>, exposed: &[Exposed], direction: Direction, manifest: &str) -> Result<Seen> {
    let ips: Vec<IpAddr> = exposed.iter().flat_map(Exposed::both).collect();
    let asked: Vec<ServiceIp> =
        ips.iter().map(|ip| ServiceIp::new(*ip)).collect::<Result<_, _>>().context("no address of a Service")?;
    let owners = cluster.owners(&ips)?;
    let probes: Vec<_> =
        ips.iter().map(|ip| cluster.lab.probe(SocketAddr::new(*ip, ECHO), EACH)).collect::<Result<_, _>>()?;
    let asker = cluster.lab.ask(&asked, EACH)?;
    let tap = cluster.lab.tap()?;
    thread::sleep(Duration::from_secs(1));
    let before = speakers(cluster)?;
    let begun = now();
    cluster.apply(manifest)?;
    let replaced = follow(cluster, &before)?;
    cluster.wait_for_pods()?;
    // Of the one that is gone no pod may be left.
    cluster.wait_until("only pods of the new one are left", SERVED_WITHIN, |cluster| {
        let pods = cluster.get("pods", &["-n", NAMESPACE])?;
        Ok(items(&pods).all(|pod| pod.pointer("/metadata/deletionTimestamp").is_none()).then_some(()))
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
    let is_garpike = |mac: MacAddr, at: Instant| match (direction, replaced.get(&mac)) {
        (Direction::There, Some(replaced)) => at >= *replaced,
        (Direction::Back, Some(replaced)) => at < *replaced,
        (_, None) => true,
    };
    let two_macs = fresh.values().map(|asked| asked.two_macs_with(begun..=end, is_garpike)).max().unwrap_or_default();
    let two_macs_all = fresh.values().map(|asked| asked.two_macs(begun..=end)).max().unwrap_or_default();
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
        two_macs_all_ms: two_macs_all.as_secs_f64() * 1000.0,
        moves: count(moves),
        changed: count(changed),
    })
}

/// The uids of the speakers' pods, with the network card of each one's host.
fn speakers(cluster: &mut Cluster<'_>) -> Result<BTreeMap<String, MacAddr>> {
    let pods = cluster.get("pods", &["-n", NAMESPACE, "-l", "component=speaker"])?;
    let of_pod = |pod: &Value| -> Result<Option<(String, MacAddr)>> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let Some((uid, node)) = text("/metadata/uid").zip(text("/spec/nodeName")) else { return Ok(None) };
        Ok(Some((uid.to_owned(), cluster.lab.host(&node.parse()?)?.mac)))
    };
    items(&pods).filter_map(|pod| of_pod(pod).transpose()).collect()
}

/// Waits until every host has another pod than those of `before`, and tells when it was first seen: the one before it has
/// ended by then, and it does not speak yet.
fn follow(cluster: &mut Cluster<'_>, before: &BTreeMap<String, MacAddr>) -> Result<BTreeMap<MacAddr, Instant>> {
    let (begun, mut seen) = (now(), BTreeMap::new());
    while seen.len() < before.len() {
        ensure!(begun.elapsed() < SERVED_WITHIN, "after {SERVED_WITHIN:?} new speakers run on {seen:?} only");
        for (uid, mac) in speakers(cluster)? {
            if !before.contains_key(&uid) {
                seen.entry(mac).or_insert_with(now);
            }
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(seen)
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
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
