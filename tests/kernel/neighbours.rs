//! What a Linux neighbour cache does with each form of announcement.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::Duration;

use garpike_chaos::lab::Init;
use garpike_chaos::lab::bench::{Bench, Neighbour, Nud, Setting};

use super::frames::{Form, NEW, OLD, frame};
use super::{Check, Verdict, now, sleep};

pub(crate) const CHECKS: &[Check] = &[
    Check("a client with default sysctls does what the table says", default_client),
    Check("locktime holds back only what is no true announcement", locktime),
    Check("a client with arp_accept makes entries of announcements", arp_accept),
    Check("a router does what the table says, and makes entries with accept_untracked_na", router),
    Check("where broadcasts are dropped a directed question tells the client", broadcasts_dropped),
];

/// What an entry was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Reachable,
    Stale,
    Probe,
    Incomplete,
    Failed,
    Nothing,
    Permanent,
}

use Before::{Failed, Incomplete, Nothing, Permanent, Probe, Reachable, Stale};

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// It names the new owner, in this state.
    New(Nud),
    /// It names the old owner, and is not known to be reachable any more.
    Doubted,
    /// Nothing has happened.
    Same,
}

use After::{Doubted, New, Same};

/// The columns of the tables: an entry that names an owner, one that is being looked for, one that was not found, none.
const COLUMNS: [&[Before]; 4] = [&[Reachable, Stale, Probe], &[Incomplete], &[Failed], &[Nothing]];

/// The first table: an update within the locktime. Rows: forms. Columns: [`COLUMNS`].
#[rustfmt::skip]
const DEFAULT_CLIENT: &[(Form, [After; 4])] = &[
    (Form::Request,        [New(Nud::Stale),     New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::RequestFf,      [New(Nud::Stale),     New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::RequestUnicast, [New(Nud::Stale),     New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::Reply,          [New(Nud::Stale),     New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::ReplyFf,        [Same,                New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::ReplyZero,      [Same,                New(Nud::Delay),     New(Nud::Stale),     Same]),
    (Form::Answer,         [Same,                New(Nud::Reachable), New(Nud::Reachable), Same]),
    (Form::Directed,       [New(Nud::Stale),     New(Nud::Delay),     New(Nud::Stale),     New(Nud::Stale)]),
    (Form::Probe,          [Same,                Same,                Same,                Same]),
    (Form::Na,             [New(Nud::Stale),     New(Nud::Delay),     Same,                Same]),
    (Form::NaRouter,       [New(Nud::Stale),     New(Nud::Delay),     Same,                Same]),
    (Form::NaSolicited,    [New(Nud::Reachable), New(Nud::Reachable), Same,                Same]),
    (Form::NaNoOverride,   [Doubted,             New(Nud::Delay),     Same,                Same]),
    (Form::NaNoOption,     [Same,                Same,                Same,                Same]),
    (Form::NsDirected,     [New(Nud::Delay),     New(Nud::Delay),     New(Nud::Delay),     New(Nud::Delay)]),
];

/// The second table: which forms change an entry that was confirmed so many milliseconds ago. The locktime is 1 s.
#[rustfmt::skip]
const LOCKTIME: &[(Form, [(u64, bool); 5])] = &[
    (Form::Request,        [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::RequestFf,      [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::RequestUnicast, [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::Reply,          [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::Directed,       [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::ReplyFf,        [(0, false), (500, false), (900, false), (1100, true), (1500, true)]),
    (Form::ReplyZero,      [(0, false), (500, false), (900, false), (1100, true), (1500, true)]),
    (Form::Answer,         [(0, false), (500, false), (900, false), (1100, true), (1500, true)]),
    // IPv6 knows no locktime: the override flag alone decides.
    (Form::Na,             [(0, true),  (500, true),  (900, true),  (1100, true), (1500, true)]),
    (Form::NaNoOverride,   [(0, false), (500, false), (900, false), (1100, false), (1500, false)]),
];

fn default_client(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    judge(&bench, &cells(DEFAULT_CLIENT));
    let permanent = DEFAULT_CLIENT.iter().map(|(form, _)| (*form, Permanent, Same));
    judge(&bench, &permanent.collect::<Vec<_>>());
    Verdict::Held
}

fn arp_accept(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[Setting("net/ipv4/conf/all/arp_accept", "1")]).unwrap();
    let created = |form| {
        if form == Form::Answer {
            New(Nud::Reachable)
        } else if form == Form::Probe {
            Same
        } else {
            New(Nud::Stale)
        }
    };
    let arp = DEFAULT_CLIENT.iter().map(|(form, _)| *form).filter(|form| is_arp(*form));
    judge(&bench, &arp.map(|form| (form, Nothing, created(form))).collect::<Vec<_>>());
    Verdict::Held
}

fn router(inside: &Init) -> Verdict {
    let forwarding = [Setting("net/ipv4/ip_forward", "1"), Setting("net/ipv6/conf/all/forwarding", "1")];
    let bench = Bench::new(inside, &forwarding).unwrap();
    judge(&bench, &cells(DEFAULT_CLIENT));
    let untracked = [forwarding[1], Setting("net/ipv6/conf/eth0/accept_untracked_na", "1")];
    match Bench::new(inside, &untracked) {
        Ok(bench) => judge(&bench, &[(Form::Na, Nothing, New(Nud::Stale)), (Form::Na, Reachable, New(Nud::Stale))]),
        Err(error) => return Verdict::NotRun(error.to_string()),
    }
    Verdict::Held
}

fn broadcasts_dropped(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let rules =
        "table arp suppress {\n chain in {\n type filter hook input priority 0\n meta pkttype broadcast drop\n }\n }\n";
    let nft = bench.on_host(move || Command::new("nft").arg(rules).output()).unwrap();
    match nft {
        Ok(output) if output.status.success() => {}
        Ok(output) => return Verdict::NotRun(format!("nft: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => return Verdict::NotRun(format!("nft: {error}; `cargo xtask setup lab` installs it")),
    }
    let cells = [
        (Form::Request, Reachable, Same),
        (Form::Reply, Reachable, Same),
        (Form::RequestUnicast, Reachable, New(Nud::Stale)),
        (Form::Directed, Reachable, New(Nud::Stale)),
        (Form::Directed, Nothing, New(Nud::Stale)),
    ];
    judge(&bench, &cells);
    Verdict::Held
}

fn locktime(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    // A machine that stalls may carry a frame over the edge of the locktime: that is no fault of the kernel.
    for attempt in 1.. {
        match locktime_once(&bench, attempt) {
            Ok(differing) => {
                assert!(differing.is_empty(), "the kernel differs:\n{}", differing.join("\n"));
                return Verdict::Held;
            }
            Err(stall) => assert!(attempt < 5, "this machine stalls too long to tell: {stall:?}"),
        }
    }
    Verdict::Held
}

/// What differs from the table, or how far off its time a frame was.
fn locktime_once(bench: &Bench, attempt: u8) -> Result<Vec<String>, Duration> {
    let cells: Vec<(Form, u64, bool)> =
        LOCKTIME.iter().flat_map(|(form, times)| times.map(|(ms, changes)| (*form, ms, changes))).collect();
    let ips: Vec<IpAddr> = cells.iter().enumerate().map(|(i, (form, ..))| ip(*form, i, attempt)).collect();
    let begun = now();
    for ip in &ips {
        bench.set_neighbour(*ip, Neighbour { state: Nud::Reachable, mac: Some(OLD) }).unwrap();
    }
    let (mut set, mut worst) = (now(), Duration::ZERO);
    let took = set - begun;
    for step in [0, 500, 900, 1100, 1500] {
        let due = set + Duration::from_millis(step);
        std::thread::sleep(due.saturating_duration_since(now()));
        for ((form, ms, _), ip) in cells.iter().zip(&ips) {
            if *ms == step {
                bench.send(&frame(*form, *ip)).unwrap();
            }
        }
        worst = worst.max(now() - due);
        set = set.max(begun);
    }
    // Entries were set up to `took` earlier, and frames sent up to `worst` later, than the table says.
    if took + worst > Duration::from_millis(80) {
        return Err(took + worst);
    }
    sleep(100);
    let found = bench.neighbours().unwrap();
    let differing = cells.iter().zip(&ips).filter_map(|((form, ms, changes), ip)| {
        let mac = found.get(ip).and_then(|entry| entry.mac);
        (mac != Some(if *changes { NEW } else { OLD })).then(|| format!("{form:?} after {ms} ms: {mac:?}"))
    });
    Ok(differing.collect())
}

fn cells(table: &[(Form, [After; 4])]) -> Vec<(Form, Before, After)> {
    let row = |(form, row): &(Form, [After; 4])| {
        let form = *form;
        COLUMNS
            .into_iter()
            .zip(*row)
            .flat_map(move |(befores, after)| befores.iter().map(move |before| (form, *before, after)))
    };
    table.iter().flat_map(row).collect()
}

/// Brings an entry of its own into the state of each cell, sends the cell's frame, and compares.
fn judge(bench: &Bench, cells: &[(Form, Before, After)]) {
    for attempt in 1.. {
        match judge_once(bench, cells, attempt) {
            Ok(differing) => {
                return assert!(differing.is_empty(), "the kernel differs:\n{}", differing.join("\n"));
            }
            // The kernel collects its garbage, or a stall lets a state pass.
            Err(unprepared) => assert!(attempt < 5, "entries cannot be prepared: {unprepared}"),
        }
    }
}

fn judge_once(bench: &Bench, cells: &[(Form, Before, After)], attempt: u8) -> Result<Vec<String>, String> {
    let cells: Vec<(IpAddr, Form, Before, After)> = cells
        .iter()
        .enumerate()
        .map(|(i, (form, before, after))| (ip(*form, i, attempt), *form, *before, *after))
        .collect();
    let with = |wanted: Before| cells.iter().filter(move |cell| cell.2 == wanted).map(|cell| cell.0);
    let failing: Vec<IpAddr> = with(Failed).collect();
    if !failing.is_empty() {
        bench.look_for(failing).unwrap();
        // Three questions, a second apart.
        sleep(3500);
    }
    bench.look_for(with(Incomplete).collect()).unwrap();
    for (before, state) in
        [(Reachable, Nud::Reachable), (Stale, Nud::Stale), (Probe, Nud::Probe), (Permanent, Nud::Permanent)]
    {
        for ip in with(before) {
            bench.set_neighbour(ip, Neighbour { state, mac: Some(OLD) }).unwrap();
        }
    }
    let prepared = bench.neighbours().unwrap();
    let set = now();
    for (ip, form, before, _) in &cells {
        let found = prepared.get(ip).copied();
        if found != entry(*before) {
            return Err(format!("{form:?}, {before:?}: {found:?}"));
        }
        bench.send(&frame(*form, *ip)).unwrap();
    }
    let took = now() - set;
    sleep(100);
    let found = bench.neighbours().unwrap();
    if took > Duration::from_millis(500) {
        return Err(format!("a stall of {took:?}"));
    }
    Ok(differing(&cells, &prepared, &found))
}

fn differing(
    cells: &[(IpAddr, Form, Before, After)],
    prepared: &BTreeMap<IpAddr, Neighbour>,
    found: &BTreeMap<IpAddr, Neighbour>,
) -> Vec<String> {
    let differs = |(ip, form, before, after): &(IpAddr, Form, Before, After)| {
        let expected = match after {
            New(state) => Some(Neighbour { state: *state, mac: Some(NEW) }),
            Doubted if *before == Reachable => Some(Neighbour { state: Nud::Stale, mac: Some(OLD) }),
            // The kernel collects what it has not found when it likes.
            Same if *before == Failed && !found.contains_key(ip) => None,
            Doubted | Same => prepared.get(ip).copied(),
        };
        let found = found.get(ip).copied();
        (found != expected).then(|| format!("{form:?}, {before:?}: {found:?}, the table says {expected:?}"))
    };
    cells.iter().filter_map(differs).collect()
}

fn entry(before: Before) -> Option<Neighbour> {
    let of_old = |state| Some(Neighbour { state, mac: Some(OLD) });
    match before {
        Reachable => of_old(Nud::Reachable),
        Stale => of_old(Nud::Stale),
        Probe => of_old(Nud::Probe),
        Permanent => of_old(Nud::Permanent),
        Incomplete => Some(Neighbour { state: Nud::Incomplete, mac: None }),
        Failed => Some(Neighbour { state: Nud::Failed, mac: None }),
        Nothing => None,
    }
}

fn is_arp(form: Form) -> bool {
    match form {
        Form::Request
        | Form::RequestFf
        | Form::RequestUnicast
        | Form::Reply
        | Form::ReplyFf
        | Form::ReplyZero
        | Form::Answer
        | Form::Directed
        | Form::Probe => true,
        Form::Na | Form::NaRouter | Form::NaSolicited | Form::NaNoOverride | Form::NaNoOption | Form::NsDirected => {
            false
        }
    }
}

/// An address of the client's net that no other cell and no other attempt uses.
fn ip(form: Form, cell: usize, attempt: u8) -> IpAddr {
    let cell = u8::try_from(cell).unwrap();
    if is_arp(form) {
        // 192.168.10.0 is in 192.168.8.0/22, and attempts share it with room for their cells.
        Ipv4Addr::from_bits(
            Ipv4Addr::new(192, 168, 9, 0).to_bits() + u32::from(attempt - 1) * 110 + u32::from(cell) + 1,
        )
        .into()
    } else {
        let cell = u16::from(attempt) << 8 | u16::from(cell);
        Ipv6Addr::new(0xfc00, 0xf853, 0x0ccd, 0xe799, 0, 0, 2, cell).into()
    }
}
