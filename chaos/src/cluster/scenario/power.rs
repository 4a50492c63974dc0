//! A node loses its power and gets it back; the endpoint is on another one.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use garpike_election::NodeName;

use super::super::Cluster;
use super::super::install::Exposed;
use super::super::site::{ECHO, outage_ms};
use super::{count, reached_services, restarts, step, wait_for_restart};
use crate::lab::now;
use crate::load::figures::{Bound, Figures, median};

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// The cut.
    Cut,
    /// The return.
    Return,
}

pub(super) fn run(cluster: &mut Cluster<'_>, trials: u32, judged: Judged, figures: &mut Figures) -> Result<()> {
    let server = cluster.nodes().first().context("a cluster has a node")?.clone();
    cluster.serve("echo", Some(&server))?;
    cluster.install()?;
    let exposed = reached_services(cluster, SERVICES)?;
    thread::sleep(SETTLING);
    let mut all = Vec::new();
    for trial in 0..trials {
        let (victim, service) = victim(cluster, &exposed, &server)?;
        let seen = one(cluster, &victim, &service).with_context(|| format!("trial {}", trial + 1))?;
        step(&format!(
            "{} of {victim}: outage {:.0} / {:.0} ms, on its return {:.0} / {:.0} ms",
            service.service, seen.cut.0, seen.cut.1, seen.back.0, seen.back.1
        ));
        figures.row(
            format!("{victim} {}", trial + 1),
            [
                ("outage_v4_ms", seen.cut.0),
                ("outage_v6_ms", seen.cut.1),
                ("return_v4_ms", seen.back.0),
                ("return_v6_ms", seen.back.1),
                ("ready_again_s", seen.ready_s),
                ("moves_on_return", seen.moves),
            ],
        );
        all.push(seen);
    }
    match judged {
        Judged::Cut => {
            let worse = median(all.iter().map(|seen| seen.cut.0)).max(median(all.iter().map(|seen| seen.cut.1)));
            figures.target("outage, median of the worse family, ms".to_owned(), worse, Bound::AtMost, OUTAGE_MS);
        }
        Judged::Return => {
            let worst = all.iter().map(|seen| seen.back.0.max(seen.back.1)).fold(0.0, f64::max);
            figures.target("outage on the return, longest, ms".to_owned(), worst, Bound::AtMost, SECOND_OUTAGE_MS);
        }
    }
    Ok(())
}

/// Outages by v4 and by v6, in milliseconds.
pub(super) struct Seen {
    pub(super) cut: (f64, f64),
    back: (f64, f64),
    /// From the return of the power until the node is ready and its speaker runs.
    ready_s: f64,
    /// How often the addresses moved then.
    moves: f64,
}

/// A node that owns both addresses of a Service and serves none.
pub(super) fn victim(cluster: &mut Cluster<'_>, exposed: &[Exposed], server: &NodeName) -> Result<(NodeName, Exposed)> {
    cluster.wait_until("a node that does not serve owns a Service", OWNED_WITHIN, |cluster| {
        for service in exposed {
            let owner = cluster.owner_of(service.v4)?;
            if owner != *server && cluster.owner_of(service.v6)? == owner {
                return Ok(Some((owner, service.clone())));
            }
        }
        Ok(None)
    })
}

/// Cuts the power of a node, and gives it back.
pub(super) fn one(cluster: &mut Cluster<'_>, victim: &NodeName, service: &Exposed) -> Result<Seen> {
    let probe = |cluster: &Cluster<'_>, ip: IpAddr| cluster.lab.probe(SocketAddr::new(ip, ECHO), EACH);
    let (v4, v6) = (probe(cluster, service.v4)?, probe(cluster, service.v6)?);
    thread::sleep(Duration::from_secs(1));
    let before = restarts(cluster, victim)?;
    let cut = cluster.power_off(victim)?;
    thread::sleep(WATCHED);
    let cut_until = now();

    let tap = cluster.lab.tap()?;
    let heirs = [cluster.owner_of(service.v4)?, cluster.owner_of(service.v6)?];
    let back = cluster.power_on(victim)?;
    wait_for_restart(cluster, victim, before)?;
    let ready_s = back.elapsed().as_secs_f64();
    thread::sleep(SETTLING);
    let end = now();
    let (v4, v6) = (v4.stop(), v6.stop());
    let tapped = tap.stop()?;
    let mut moves = 0;
    for (ip, heir) in service.both().iter().zip(&heirs) {
        moves += tapped.moves(*ip, cluster.lab.host(heir)?.mac, back..=end).len();
    }
    Ok(Seen {
        cut: (outage_ms(&v4, cut, cut_until), outage_ms(&v6, cut, cut_until)),
        back: (outage_ms(&v4, back, end), outage_ms(&v6, back, end)),
        ready_s,
        moves: count(moves),
    })
}

/// Enough that a node without endpoint owns one of them.
pub(super) const SERVICES: usize = 6;
const EACH: Duration = Duration::from_millis(5);
/// Chosen: many times the outage.
const WATCHED: Duration = Duration::from_secs(4);
const SETTLING: Duration = Duration::from_millis(3500);
const OWNED_WITHIN: Duration = Duration::from_secs(60);
const OUTAGE_MS: f64 = 250.0;
/// Chosen: what a client notices; a few probes of 5 ms may be late on a busy machine.
const SECOND_OUTAGE_MS: f64 = 50.0;
