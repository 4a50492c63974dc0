//! From `kubectl apply` to the first Service that is reached.

use anyhow::Result;

use super::super::Cluster;
use super::super::install::MANIFEST;
use super::{SERVED_WITHIN, step};
use crate::lab::now;
use crate::load::figures::{Bound, Figures};

pub(super) fn run(cluster: &mut Cluster<'_>, trial: u32, figures: &mut Figures) -> Result<()> {
    // The application is there already; its Service has waited for an address.
    cluster.serve("echo", None)?;
    let begun = now();
    let since = || begun.elapsed().as_secs_f64();
    cluster.apply(MANIFEST)?;
    let applied = since();
    cluster.wait_for_pods()?;
    let ready = since();
    step(&format!("all pods are ready after {ready:.1} s"));
    cluster.configure_pools()?;
    let configured = since();
    let exposed = cluster.expose("echo", 1)?;
    let given = since();
    for ip in exposed.iter().flat_map(super::super::install::Exposed::both) {
        cluster.wait_until_served(ip, SERVED_WITHIN)?;
    }
    let served = since();
    figures.row(
        format!("install {}", trial + 1),
        [
            ("applied_s", applied),
            ("pods_ready_s", ready),
            ("configured_s", configured),
            ("address_s", given),
            ("served_s", served),
        ],
    );
    figures.target("from apply to the first Service reached, s".to_owned(), served, Bound::AtMost, INSTALLED_S);
    Ok(())
}

/// Three nodes, image on all of them.
const INSTALLED_S: f64 = 20.0;
