//! What speakers write to the API when a thousand addresses move, and when two nodes both take themselves for the owner.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use garpike_election::{ServiceIp, order};

use super::rig::{Clocks, Rig, addresses, whole};
use crate::kube::Request;
use crate::lab::{Init, now};
use crate::load::Output;
use crate::load::figures::{Bound, Figures};

/// Writes to the API, by the API server's audit log, while the host of a thousand addresses dies, at rest, and while two
/// nodes are owners because the clients' segment is cut in two
///
/// Exit status 0 only if nothing is written before the addresses have moved, then at most 50 requests a second and node, and
/// none at rest; and if two owners do not fight.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many addresses, one for each Service
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    addresses: u32,
    /// For how long rest and partition are watched, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lasts: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

pub(super) fn run(init: &mut Init, args: &Args) -> Result<Figures> {
    let mut figures = Figures::begin("status-writes");
    let clocks = Clocks::read();
    let mut rig = Rig::build(init, NODES)?;
    let nodes = rig.nodes();
    let victim = nodes.first().context("the lab has no node")?.clone();
    // Whose election has the victim first.
    let of_victim = addresses().filter(|ip| order(&nodes, *ip).first().is_some_and(|first| **first == victim));
    let ips: Vec<ServiceIp> = of_victim.take(usize::try_from(args.addresses)?).collect();
    let names = (0..).map(|number: u32| format!("service-{number:05}"));
    rig.make(names.zip(&ips).map(|(name, ip)| rig.everywhere(name, Some(*ip))).collect())?;
    rig.start_speakers()?;
    rig.wait_until_owned(ips.len())?;
    rig.wait_until_quiet(WRITTEN_WITHIN)?;
    let lasts = Duration::from_secs(args.lasts);

    let before = rig.writes()?.len();
    thread::sleep(lasts);
    let at_rest = count(rig.writes()?.len() - before);

    let mac = rig.lab.host(&victim)?.mac;
    let tap = rig.lab.tap()?;
    let died = rig.lab.crash(&victim)?;
    rig.wait_until_quiet(WRITTEN_WITHIN)?;
    let seen = tap.stop()?;
    whole(&seen)?;
    let claims: Option<Vec<_>> = ips.iter().map(|ip| Some(seen.first_claim(ip.addr(), mac, died)?.0)).collect();
    let Some((first, last)) = claims.as_ref().and_then(|all| all.iter().min().zip(all.iter().max())) else {
        bail!("not every address moved");
    };
    let writes = since(rig.writes()?, clocks.wall(died));
    let early = writes.iter().filter(|write| write.at.is_some_and(|at| at < clocks.wall(*last))).count();
    let busiest = busiest(&writes);
    figures.row(
        format!("{} addresses move", ips.len()),
        [
            ("first_frame_ms", (*first - died).as_secs_f64() * 1000.0),
            ("last_frame_ms", (*last - died).as_secs_f64() * 1000.0),
            ("writes", count(writes.len())),
            ("writes_before_the_switch", count(early)),
            ("writes_per_s_and_node_max", count(busiest)),
        ],
    );
    let before = rig.writes()?.len();
    thread::sleep(lasts);
    let afterwards = count(rig.writes()?.len() - before);

    // Back again; whoever owns them is cut off from the others, but not from the API.
    rig.lab.reboot(&victim)?;
    rig.start_speaker(&victim)?;
    rig.wait_until_owned(ips.len())?;
    rig.wait_until_quiet(WRITTEN_WITHIN)?;
    let owner = |node: &&_| rig.metric(node, OWNED).is_ok_and(|owned| owned > 0.0);
    let owner = nodes.iter().find(owner).context("nobody owns an address")?.clone();
    let cut = rig.lab.partition_with_api(&owner)?;
    let wall = clocks.wall(cut);
    thread::sleep(lasts);
    let middle = clocks.wall(now());
    thread::sleep(lasts);
    let war = since(rig.writes()?, wall);
    let late = war.iter().filter(|write| write.at.is_some_and(|at| at >= middle)).count();
    let busiest_in_war = self::busiest(&war);
    figures.row(
        "two owners".to_owned(),
        [
            ("writes", count(war.len())),
            ("writes_in_the_second_half", count(late)),
            ("writes_per_s_and_node_max", count(busiest_in_war)),
        ],
    );
    figures.target("writes before the last address has moved".to_owned(), count(early), Bound::AtMost, 0.0);
    figures.target(
        "writes in any second of a node".to_owned(),
        count(busiest.max(busiest_in_war)),
        Bound::AtMost,
        RATE,
    );
    figures.target("writes at rest".to_owned(), at_rest + afterwards, Bound::AtMost, 0.0);
    let per_service = count(war.len()) / count(ips.len());
    figures.target("writes of two owners for each Service".to_owned(), per_service, Bound::AtMost, WRITES_IN_A_DISPUTE);
    rig.lab.heal()?;
    Ok(figures.end())
}

fn since(writes: Vec<Request>, at: SystemTime) -> Vec<Request> {
    writes.into_iter().filter(|write| write.at.is_some_and(|written| written >= at)).collect()
}

/// The most writes of a node within any second.
fn busiest(writes: &[Request]) -> usize {
    let mut of_node: BTreeMap<Option<IpAddr>, Vec<SystemTime>> = BTreeMap::new();
    for write in writes {
        of_node.entry(write.from).or_default().extend(write.at);
    }
    let mut most = 0;
    for times in of_node.values_mut() {
        times.sort_unstable();
        let mut from = 0;
        for (to, at) in times.iter().enumerate() {
            while times.get(from).is_some_and(|first| *first + Duration::from_secs(1) <= *at) {
                from += 1;
            }
            most = most.max(to + 1 - from);
        }
    }
    most
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(n: usize) -> f64 {
    n as f64
}

const NODES: usize = 3;
const OWNED: &str = "garpike_announcer_owned_addresses";
/// Chosen: twice the time that the statuses of 20 000 Services take.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1800);
const RATE: f64 = 50.0;
/// Chosen: each of two nodes makes an object, writes its status and tells an event, and repeats it a few times at growing
/// intervals.
const WRITES_IN_A_DISPUTE: f64 = 12.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_second_of_any_node_counts() {
        let write = |from: u8, millis: u64| Request {
            user: String::new(),
            verb: "create".to_owned(),
            resource: String::new(),
            namespace: String::new(),
            name: String::new(),
            code: 201,
            from: Some(IpAddr::from([10, 0, 0, from])),
            at: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)),
        };

        let writes = [write(1, 0), write(1, 999), write(2, 500), write(1, 1000), write(1, 1998), write(1, 1999)];

        assert_eq!(busiest(&writes), 3);
        assert_eq!(busiest(&[]), 0);
        assert_eq!(since(writes.into(), SystemTime::UNIX_EPOCH + Duration::from_secs(1)).len(), 3);
    }
}
