//! How the announcer follows interfaces that come, go, change and flap.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv6Addr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use garpike_announcer::io::{Handles, NdpUnicast, Task};
use garpike_announcer::wire::{self, Ethernet, Message, NeighborSolicitation};
use garpike_announcer::{Config, Duties};
use garpike_chaos::lab::bench::{Bench, BenchError, Cord, Setting, SnoopingSwitch};
use garpike_chaos::lab::{Host, Init};
use garpike_election::{MacAddr, Selection, ServiceIp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::sockets::{SERVICE_IP, question, service_ip6, solicitation};
use super::{Check, Verdict, now, sleep, wait_until};

pub(crate) const CHECKS: &[Check] = &[
    Check("an interface is followed through loss, change, bondage, freedom and end", a_life),
    Check("a storm of flaps costs little and starves no answer", storm),
    Check("where option memory is small every address is answered all the same", small_option_memory),
    Check("ten thousand IPv6 addresses have their groups joined", ten_thousand_groups),
    Check("a solicitation reaches the owner of ten thousand addresses through a snooping switch", behind_snooping),
    Check(
        "without ears for unicast solicitations by multicast and probes for duplicates are answered",
        multicast_alone,
    ),
];

fn a_life(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let announcer = Announcer::start(|job| bench.spawn_on_host(job), [SERVICE_IP.into(), service_ip6(1).into()]);
    wait_until("eth0 announces", || announcer.interfaces() == names(&["eth0"]));
    let announced = || heard_about(&bench, |message| message.is_gratuitous());
    wait_until("the address is announced", announced);
    // After one change of a carrier the kernel lets a second pass before it tells of the next (linkwatch).
    sleep(1200);

    announced();
    let pulled = now();
    bench.set_cord(Cord::Out).unwrap();
    wait_until("the loss is told", || announcer.interfaces().is_empty());
    let took = pulled.elapsed();
    println!("a lost carrier is told within {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    announcer.shows_obstacle("eth0", Some("has no carrier"));

    bench.set_cord(Cord::In).unwrap();
    wait_until("it announces again", || announcer.interfaces() == names(&["eth0"]));
    wait_until("the address is announced again", announced);

    let mac = MacAddr([0x02, 0x77, 0, 0, 3, 3]);
    bench.change_card("lan7", mac).unwrap();
    wait_until("the new name is told", || announcer.interfaces() == names(&["lan7"]));
    let from_new = || heard_about(&bench, |message| message.claim().is_some_and(|claim| claim.mac == mac));
    wait_until("the new Ethernet address is announced", from_new);

    let bridge = bench.add_bridge("br7").unwrap();
    bench.set_master(Some(bridge)).unwrap();
    wait_until("the port leaves it to the bridge", || announcer.interfaces() == names(&["br7"]));
    announcer.shows_obstacle("lan7", Some("is a port of a bridge, bond or VRF"));
    bench.set_master(None).unwrap();
    wait_until("it is free again", || announcer.interfaces() == names(&["lan7"]));

    bench.remove_card().unwrap();
    wait_until("it is gone", || announcer.interfaces().is_empty());
    announcer.shows_obstacle("lan7", None);
    announcer.end();
    Verdict::Held
}

fn storm(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let flapper = bench.add_pair("flap0", "flap1").unwrap();
    let announcer = Announcer::start(|job| bench.spawn_on_host(job), [SERVICE_IP.into()]);
    wait_until("all announce", || announcer.interfaces() == names(&["eth0", "flap0", "flap1"]));
    sleep(1500);

    let (begun, spent_before) = (now(), announcer.cpu());
    let (flaps, waits) = thread::scope(|scope| {
        let flapping = scope.spawn(|| {
            let mut flaps = 0_u32;
            while begun.elapsed() < Duration::from_secs(4) {
                bench.set_end(flapper, Cord::Out).unwrap();
                bench.set_end(flapper, Cord::In).unwrap();
                flaps += 1;
                thread::sleep(Duration::from_micros(500));
            }
            flaps
        });
        let mut waits = Vec::new();
        while begun.elapsed() < Duration::from_secs(4) {
            let asked = now();
            let answered =
                |message: &Message| !message.is_gratuitous() && message.ethernet().source == Host::CLIENT.mac;
            // A question that waits for more than 100 ms is dropped, as after a stall; clients ask again.
            wait_until("an answer", || {
                bench.send(&question(SERVICE_IP)).unwrap();
                sleep(5);
                heard_about(&bench, answered)
            });
            waits.push(asked.elapsed());
        }
        (flapping.join().unwrap(), waits)
    });
    let share = (announcer.cpu() - spent_before).as_secs_f64() / begun.elapsed().as_secs_f64();
    let rate = f64::from(flaps) / begun.elapsed().as_secs_f64();
    let longest = waits.iter().max().unwrap();
    let load = fs::read_to_string("/proc/loadavg").unwrap();
    println!(
        "{rate:.0} flaps/s: {:.1} % of a core; {} answers, the slowest after {longest:?}; load {load}",
        share * 100.0,
        waits.len()
    );
    // The code is not optimised here and the machine may be busy.
    assert!(share < 0.4, "{share}");
    assert!(*longest < Duration::from_secs(2), "{longest:?}");
    wait_until("it is believed when it is calm", || announcer.interfaces() == names(&["eth0", "flap0", "flap1"]));
    announcer.end();
    Verdict::Held
}

fn small_option_memory(inside: &Init) -> Verdict {
    let bench = match Bench::new(inside, &[Setting("net/core/optmem_max", "20480")]) {
        Ok(bench) => bench,
        Err(error) => return Verdict::NotRun(error.to_string()),
    };
    // As unlike each other as addresses can be: the longest filters.
    let scattered = |i: u32| Ipv6Addr::from_bits(u128::from(i + 0x2000) << 112 | u128::from(i.reverse_bits()));
    let announcer = Announcer::start(|job| bench.spawn_on_host(job), (0..64).map(|i| scattered(i).into()));
    wait_until("eth0 announces", || announcer.interfaces() == names(&["eth0"]));
    announcer.owns((0..1000).map(|i| scattered(i).into()));
    for i in [0, 63, 64, 999] {
        let answers = |message: &Message| message.target() == scattered(i) && !message.is_gratuitous();
        wait_until("an answer", || {
            bench.send(&solicitation(scattered(i))).unwrap();
            sleep(20);
            let heard = bench.heard().unwrap();
            let mut heard = heard.iter().filter_map(|frame| wire::parse(frame).ok());
            heard.any(|message| message.ethernet().source == Host::CLIENT.mac && answers(&message))
        });
    }
    assert_eq!(announcer.troubles("eth0"), [""; 0]);
    announcer.end();
    Verdict::Held
}

fn ten_thousand_groups(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let announcer = Announcer::start(|job| bench.spawn_on_host(job), (0..10_000).map(|i| service_ip6(i).into()));
    let joined = || {
        let groups = bench.on_host(|| fs::read_to_string("/proc/thread-self/net/igmp6").unwrap()).unwrap();
        groups.lines().filter(|line| line.contains(" eth0 ") && line.contains("ff0200000000000000000001ff")).count()
    };
    // The host's own addresses are in groups too.
    wait_until("all groups are joined", || joined() >= 10_000);
    assert_eq!(announcer.troubles("eth0"), [""; 0]);
    announcer.owns([]);
    wait_until("all are left", || joined() < 10);
    announcer.end();
    Verdict::Held
}

fn behind_snooping(inside: &Init) -> Verdict {
    let switch = SnoopingSwitch::new(inside).unwrap();
    let solicits = |number| switch.reaches_node(&solicitation(service_ip6(number))).unwrap();
    wait_until("the switch snoops", || !solicits(1));
    let announcer = Announcer::start(|job| switch.spawn_on_node(job), (0..10_000).map(|i| service_ip6(i).into()));
    for number in [0, 1, 4095, 4096, 5000, 9999] {
        wait_until("a solicitation reaches the owner", || solicits(number));
    }
    announcer.end();
    Verdict::Held
}

fn multicast_alone(inside: &Init) -> Verdict {
    let bench = Bench::new(inside, &[]).unwrap();
    let ip = service_ip6(1);
    let Message::NeighborSolicitation(by_multicast) = wire::parse(&solicitation(ip)).unwrap() else { unreachable!() };
    let unicast = Ethernet { destination: Host::CLIENT.mac, ..by_multicast.ethernet };
    let by_unicast = NeighborSolicitation { ethernet: unicast, destination_ip: ip, ..by_multicast };
    let probe = NeighborSolicitation { source_ip: Ipv6Addr::UNSPECIFIED, source_mac: None, ..by_multicast };
    for (ndp_unicast, hears_unicast) in [(NdpUnicast::On, true), (NdpUnicast::Off, false)] {
        let announcer =
            Announcer::start_with(|job| bench.spawn_on_host(job), ndp_unicast, [SERVICE_IP.into(), ip.into()]);
        wait_until("eth0 announces", || announcer.interfaces() == names(&["eth0"]));
        let answers = |asked: NeighborSolicitation| {
            bench.send(&Message::NeighborSolicitation(asked).emit()).unwrap();
            sleep(50);
            let heard = bench.heard().unwrap();
            let mut heard = heard.iter().filter_map(|frame| wire::parse(frame).ok());
            heard.any(|message| match message {
                Message::NeighborAdvertisement(answer) if asked.source_ip.is_unspecified() => {
                    // By itself it announces the same: it is asked until the announcements are over.
                    answer.target == ip && !answer.flags.solicited
                }
                Message::NeighborAdvertisement(answer) => answer.target == ip && answer.flags.solicited,
                Message::Arp(_) | Message::NeighborSolicitation(_) => false,
            })
        };
        wait_until("a solicitation by multicast is answered", || answers(by_multicast));
        // The announcements are over.
        sleep(3500);
        let _ = bench.heard().unwrap();
        assert!(answers(probe), "a probe for duplicates, {ndp_unicast:?}");
        for _ in 0..3 {
            assert_eq!(answers(by_unicast), hears_unicast, "{ndp_unicast:?}");
        }
        assert!(answers(by_multicast), "{ndp_unicast:?}");
        assert_eq!(announcer.troubles("eth0"), [""; 0]);
        announcer.end();
    }
    Verdict::Held
}

/// The announcer's task on a host, in a thread of its own.
struct Announcer {
    duties: watch::Sender<Duties>,
    handles: Handles,
    stop: CancellationToken,
    thread: JoinHandle<()>,
    /// The directory of the thread in `/proc`.
    tid: String,
}

impl Announcer {
    fn start(
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, BenchError>,
        ips: impl IntoIterator<Item = std::net::IpAddr>,
    ) -> Self {
        Self::start_with(spawn, NdpUnicast::On, ips)
    }

    fn start_with(
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> Result<JoinHandle<()>, BenchError>,
        ndp_unicast: NdpUnicast,
        ips: impl IntoIterator<Item = std::net::IpAddr>,
    ) -> Self {
        let (duties, receiver) = watch::channel(owned(ips));
        let (ready, started) = mpsc::channel();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let job = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (task, handles) = Task::new(Config::default(), ndp_unicast, receiver).unwrap();
                let tid = fs::read_link("/proc/thread-self").unwrap().to_string_lossy().into_owned();
                ready.send((handles, tid)).unwrap();
                task.run(token).await.unwrap();
            });
        };
        let thread = spawn(Box::new(job)).unwrap();
        let (handles, tid) = started.recv().unwrap();
        Self { duties, handles, stop, thread, tid }
    }

    fn owns(&self, ips: impl IntoIterator<Item = std::net::IpAddr>) {
        self.duties.send_replace(owned(ips));
    }

    /// The interfaces that it says can announce.
    fn interfaces(&self) -> BTreeSet<String> {
        match &self.handles.surroundings.borrow().interfaces {
            Selection::All => panic!("an announcer knows its interfaces"),
            Selection::Only(names) => names.iter().map(ToString::to_string).collect(),
        }
    }

    fn shows_obstacle(&self, interface: &str, expected: Option<&str>) {
        let name = interface.parse().unwrap();
        wait_until("the status follows", || {
            self.handles.status.borrow().interfaces.get(&name).and_then(|interface| interface.obstacle) == expected
        });
    }

    fn troubles(&self, interface: &str) -> Vec<String> {
        let name = interface.parse().unwrap();
        wait_until("there is a status", || self.handles.status.borrow().interfaces.contains_key(&name));
        self.handles.status.borrow().interfaces[&name].troubles.clone()
    }

    /// How long it has computed so far.
    fn cpu(&self) -> Duration {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.tid)).unwrap();
        Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
    }

    fn end(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

fn owned(ips: impl IntoIterator<Item = std::net::IpAddr>) -> Duties {
    let owned = ips.into_iter().map(|ip| (ServiceIp::new(ip).unwrap(), Selection::All));
    Duties { owned: owned.collect(), ..Duties::default() }
}

/// Whether the host has sent such a message about the service IP since this was asked last.
fn heard_about(bench: &Bench, such: impl Fn(&Message) -> bool) -> bool {
    let frames = bench.heard().unwrap();
    let messages = frames.iter().filter_map(|frame| wire::parse(frame).ok());
    let about = |message: &Message| {
        let claims = message.claim().is_some_and(|claim| claim.ip == std::net::IpAddr::from(SERVICE_IP));
        claims && such(message)
    };
    messages.filter(about).count() > 0
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}
