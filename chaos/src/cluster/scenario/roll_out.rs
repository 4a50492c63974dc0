//! A new image on every node, with probes and connections through kube-proxy.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::Cluster;
use super::super::image::NEXT;
use super::super::install::{Exposed, IMAGE, NAMESPACE};
use super::super::site::{ECHO, outage_ms};
use super::{count, lost, reached_services, step};
use crate::lab::{Record, now};
use crate::load::figures::{Bound, Figures};

pub(super) fn run(cluster: &mut Cluster<'_>, trials: u32, figures: &mut Figures) -> Result<()> {
    cluster.serve("echo", None)?;
    cluster.install()?;
    let exposed = reached_services(cluster, SERVICES)?;
    let ips: Vec<IpAddr> = exposed.iter().flat_map(Exposed::both).collect();
    // The first announcements are repeated for some seconds.
    thread::sleep(SETTLING);
    let (mut probes_lost, mut resets, mut changes) = (0.0, 0.0, 0.0);
    for trial in 0..trials {
        let image = if trial % 2 == 0 { NEXT } else { IMAGE };
        step(&format!("rolling out {image}"));
        let (row, all) = one(cluster, &ips, image)?;
        figures.row(format!("roll-out {}", trial + 1), row);
        probes_lost += all.lost;
        resets += all.resets;
        changes += all.changes;
    }
    figures.target("probes lost".to_owned(), probes_lost, Bound::AtMost, 0.0);
    figures.target("connections reset".to_owned(), resets, Bound::AtMost, 0.0);
    figures.target("owner changes".to_owned(), changes, Bound::AtMost, 0.0);
    Ok(())
}

struct Seen {
    lost: f64,
    resets: f64,
    changes: f64,
}

fn one(cluster: &mut Cluster<'_>, ips: &[IpAddr], image: &str) -> Result<(Vec<(&'static str, f64)>, Seen)> {
    let before = cluster.owners(ips)?;
    let targets: Vec<SocketAddr> = ips.iter().map(|ip| SocketAddr::new(*ip, ECHO)).collect();
    let connections = cluster.lab.connect(&targets, CONNECTIONS)?;
    let tap = cluster.lab.tap()?;
    let mut probes = Vec::new();
    for (number, target) in targets.iter().enumerate() {
        // The first of either family; all of them at this pace would be most of the load.
        let each = if number < 2 { OFTEN } else { NOW_AND_THEN };
        probes.push(cluster.lab.probe(*target, each)?);
    }
    thread::sleep(Duration::from_secs(1));
    let begun = now();
    for (workload, container) in [("deployment/controller", "controller"), ("daemonset/speaker", "speaker")] {
        cluster.kubectl(&["-n", NAMESPACE, "set", "image", workload, &format!("{container}={image}")])?;
    }
    cluster.wait_for_pods()?;
    let rolled_out = begun.elapsed().as_secs_f64();
    thread::sleep(SETTLING);
    let end = now();
    let records: Vec<Record> = probes.into_iter().map(crate::lab::Probe::stop).collect();
    let kept = connections.stop().context("the connections could not be used")?;
    let tapped = tap.stop()?;
    let after = cluster.owners(ips)?;
    let mut changes = before.iter().filter(|(ip, node)| after.get(ip) != Some(node)).count();
    for (ip, node) in &before {
        let moves = tapped.moves(*ip, cluster.lab.host(node)?.mac, begun..=end);
        for (at, mac) in &moves {
            let after = at.saturating_duration_since(begun).as_millis();
            step(&format!("{ip} of {node} moved to {} after {after} ms", cluster.node_with(*mac)?));
        }
        changes += moves.len();
    }
    let sent: usize = records.iter().map(|record| record.samples.len()).sum();
    let lost: f64 = records.iter().map(lost).sum();
    let outage = records.iter().map(|record| outage_ms(record, begun, end)).fold(0.0, f64::max);
    let row = vec![
        ("rolled_out_s", rolled_out),
        ("probes", count(sent)),
        ("lost", lost),
        ("longest_outage_ms", outage),
        ("connections", count(kept.established)),
        ("resets", count(kept.resets)),
        ("longest_byte_ms", kept.longest.as_secs_f64() * 1000.0),
        ("owner_changes", count(changes)),
    ];
    Ok((row, Seen { lost, resets: count(kept.resets), changes: count(changes) }))
}

/// Dual-stack: twenty addresses.
const SERVICES: usize = 10;
const CONNECTIONS: usize = 500;
const OFTEN: Duration = Duration::from_millis(1);
const NOW_AND_THEN: Duration = Duration::from_millis(20);
/// Announcements are over after 3 s.
const SETTLING: Duration = Duration::from_millis(3500);
