//! The oracle: every ARP and NDP frame on the client's cable, and who sent the answers to its probes.
//!
//! What it says comes from frames alone. Memory is bounded: beyond it the oldest frames are forgotten and counted.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use garpike_announcer::wire::{self, Claim, Message};
use garpike_election::MacAddr;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::arrival::Arrivals;
use super::{Host, Lab, LabError};

impl Lab<'_> {
    /// Begins to listen on the client's cable.
    ///
    /// # Errors
    ///
    /// When the client has no packet socket.
    pub fn tap(&self) -> Result<Tap, TapError> {
        // Not bound to an interface: the client has no other than its network card and lo.
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let open = move || Arrivals::new(Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?);
        let arrivals = self.client.run(move |_| open()).map_err(LabError::from)?.map_err(TapError::Socket)?;
        let (requests, asked) = mpsc::sync_channel(1);
        let listener = Listener { arrivals, tapped: Tapped::default() };
        let listen = move || listener.run(&asked);
        let worker = thread::Builder::new().name("tap".to_owned()).spawn(listen).map_err(TapError::Socket)?;
        Ok(Tap { requests: Some(requests), worker: Some(worker) })
    }
}

/// A running tap. Dropping it stops it.
#[derive(Debug)]
pub struct Tap {
    requests: Option<SyncSender<SyncSender<Tapped>>>,
    worker: Option<JoinHandle<Result<Tapped, TapError>>>,
}

impl Tap {
    /// What it has seen so far.
    ///
    /// # Errors
    ///
    /// When the socket failed meanwhile.
    pub fn so_far(&self) -> Result<Tapped, TapError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let requests = self.requests.as_ref().expect("only stop and drop take the sender");
        requests.send(answer).map_err(|_| TapError::Ended)?;
        answered.recv().map_err(|_| TapError::Ended)
    }

    /// Stops and returns what it has seen.
    ///
    /// # Errors
    ///
    /// When the socket failed meanwhile.
    pub fn stop(mut self) -> Result<Tapped, TapError> {
        drop(self.requests.take());
        let worker = self.worker.take().expect("only stop and drop take the worker");
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// Why the tap sees nothing.
#[derive(Debug, Error)]
pub enum TapError {
    /// The client is gone.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The packet socket could not be opened, or failed.
    #[error("the tap on the client's cable: {0}")]
    Socket(#[source] io::Error),
    /// Its thread has ended because the socket failed.
    #[error("the tap on the client's cable has ended")]
    Ended,
}

/// What a tap has seen, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Tapped {
    /// ARP and NDP frames, those of the client included.
    pub announcements: VecDeque<Announcement>,
    /// UDP frames to the client.
    pub answers: VecDeque<Answer>,
    /// How many of either were forgotten for lack of room.
    pub forgotten: u64,
    /// How many frames the kernel dropped because this machine was too busy: a judgement on them is not safe.
    pub missed: u32,
}

/// A frame that tells or asks where an address is.
#[derive(Clone, Copy, Debug)]
pub struct Announcement {
    /// When it arrived.
    pub at: Instant,
    /// What it says.
    pub message: Message,
}

/// A UDP frame to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it arrived.
    pub at: Instant,
    /// The address that it comes from.
    pub ip: IpAddr,
    /// The network card that sent it.
    pub mac: MacAddr,
}

impl Tapped {
    /// The first frame after `after` that claims `ip` for another network card than `owner`'s.
    pub fn first_claim(&self, ip: IpAddr, owner: MacAddr, after: Instant) -> Option<(Instant, MacAddr)> {
        self.claims(ip).find(|(at, mac)| *at > after && *mac != owner)
    }

    /// The network cards that claimed `ip` in a window.
    pub fn claimants(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> BTreeSet<MacAddr> {
        self.claims(ip).filter(|(at, _)| window.contains(at)).map(|(_, mac)| mac).collect()
    }

    /// The network cards that answered probes to `ip` in a window.
    pub fn answering(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> BTreeSet<MacAddr> {
        let answers = self.answers.iter().filter(|answer| answer.ip == ip && window.contains(&answer.at));
        answers.map(|answer| answer.mac).collect()
    }

    /// How many frames announced `ip` in a window without being asked.
    pub fn announced(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> usize {
        let unasked = |seen: &&Announcement| {
            window.contains(&seen.at) && seen.message.is_gratuitous() && seen.message.target() == ip
        };
        self.announcements.iter().filter(unasked).count()
    }

    /// When `mac` announced `ip` in a window without being asked.
    pub fn announced_by(&self, ip: IpAddr, mac: MacAddr, window: RangeInclusive<Instant>) -> Vec<Instant> {
        self.unasked(ip, window).filter(|(_, by)| *by == mac).map(|(at, _)| at).collect()
    }

    /// Where `ip` was said to be, unasked, in a window.
    pub fn announcers(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> BTreeSet<MacAddr> {
        self.unasked(ip, window).map(|(_, mac)| mac).collect()
    }

    /// Who announced `ip` last in a window without being asked.
    pub fn last_announcer(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> Option<MacAddr> {
        self.unasked(ip, window).last().map(|(_, mac)| mac)
    }

    /// How `ip` moved in a window as a switch sees it: when another network card than the one before, at first `from`, announced it
    /// without being asked.
    pub fn moves(&self, ip: IpAddr, from: MacAddr, window: RangeInclusive<Instant>) -> Vec<(Instant, MacAddr)> {
        let mut at = from;
        self.unasked(ip, window).filter(|(_, mac)| std::mem::replace(&mut at, *mac) != *mac).collect()
    }

    fn unasked(&self, ip: IpAddr, window: RangeInclusive<Instant>) -> impl Iterator<Item = (Instant, MacAddr)> {
        let unasked = move |seen: &&Announcement| window.contains(&seen.at) && seen.message.is_gratuitous();
        let announced = self.announcements.iter().filter(unasked);
        announced.filter_map(move |seen| {
            seen.message.claim().filter(|claim| claim.ip == ip).map(|claim| (seen.at, claim.mac))
        })
    }

    fn claims(&self, ip: IpAddr) -> impl Iterator<Item = (Instant, MacAddr)> {
        self.announcements.iter().filter_map(move |seen| match seen.message.claim() {
            Some(Claim { ip: claimed, mac }) if claimed == ip => Some((seen.at, mac)),
            Some(_) | None => None,
        })
    }

    fn note(&mut self, frame: &[u8], at: Instant) {
        if let Ok(message) = wire::parse(frame) {
            push(&mut self.announcements, Announcement { at, message }, &mut self.forgotten);
        } else if let Some((ip, mac)) = udp_to_client(frame) {
            push(&mut self.answers, Answer { at, ip, mac }, &mut self.forgotten);
        }
    }
}

struct Listener {
    arrivals: Arrivals,
    tapped: Tapped,
}

impl Listener {
    fn run(mut self, asked: &Receiver<SyncSender<Tapped>>) -> Result<Tapped, TapError> {
        let mut frame = [0; FRAME_LEN];
        loop {
            self.drain(&mut frame).map_err(TapError::Socket)?;
            match asked.try_recv() {
                Ok(answer) => drop(answer.send(self.tapped.clone())),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(self.tapped),
            }
            self.arrivals.wait(POLL).map_err(TapError::Socket)?;
        }
    }

    fn drain(&mut self, frame: &mut [u8]) -> io::Result<()> {
        while let Some((len, at)) = self.arrivals.next(frame)? {
            if let Some(bytes) = frame.get(..len) {
                self.tapped.note(bytes, at);
            }
        }
        self.tapped.missed = self.arrivals.missed();
        Ok(())
    }
}

fn push<T>(seen: &mut VecDeque<T>, item: T, forgotten: &mut u64) {
    if seen.len() == MAX_FRAMES {
        seen.pop_front();
        *forgotten += 1;
    }
    seen.push_back(item);
}

/// The sender of a frame, if it carries UDP to the client's network card.
fn udp_to_client(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    let (destination, rest) = frame.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<6>()?;
    let (ether_type, packet) = rest.split_first_chunk::<2>()?;
    if MacAddr(*destination) != Host::CLIENT.mac {
        return None;
    }
    let (protocol, ip) = match *ether_type {
        IPV4 => (*packet.get(9)?, IpAddr::from(Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?))),
        IPV6 => (*packet.get(6)?, IpAddr::from(Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?))),
        _ => return None,
    };
    (protocol == UDP).then_some((ip, MacAddr(*source)))
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const UDP: u8 = 17;
/// packet(7): every protocol, and what this host sends too.
pub(super) const ETH_P_ALL: u16 = 3;
/// Enough of every frame to see who it is from; ARP and NDP have at most 86 bytes.
pub(super) const FRAME_LEN: usize = 128;
/// Some 10 MB each; at 5 ms and two families a quarter of an hour of answers.
const MAX_FRAMES: usize = 400_000;
/// How long a caller of `so_far` or `stop` may have to wait; chosen.
const POLL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0b]);
    const NEW: MacAddr = MacAddr([0x02, 0x77, 0, 0, 0, 0x0c]);

    #[test]
    fn a_gratuitous_request_is_a_claim_and_an_announcement() {
        let (mut seen, start) = (Tapped::default(), start());
        seen.note(&arp_request(OLD, [192, 168, 10, 1], [192, 168, 10, 1]), start);
        seen.note(&arp_request(NEW, [192, 168, 10, 1], [192, 168, 10, 1]), start + ms(90));
        let ip = IpAddr::from([192, 168, 10, 1]);

        assert_eq!(seen.first_claim(ip, OLD, start), Some((start + ms(90), NEW)));
        assert_eq!(seen.first_claim(ip, OLD, start + ms(90)), None);
        assert_eq!(seen.claimants(ip, start..=start + ms(90)), BTreeSet::from([OLD, NEW]));
        assert_eq!(seen.announced(ip, start..=start + ms(89)), 1);
        assert_eq!(seen.announced_by(ip, NEW, start..=start + ms(90)), [start + ms(90)]);
        assert_eq!(seen.last_announcer(ip, start..=start + ms(89)), Some(OLD));
        assert_eq!(seen.moves(ip, OLD, start..=start + ms(90)).len(), 1);
        assert_eq!(seen.moves(ip, NEW, start..=start + ms(90)).len(), 2);
        assert_eq!(seen.announced(IpAddr::from([192, 168, 10, 2]), start..=start + ms(90)), 0);
    }

    #[test]
    fn a_question_for_an_address_is_no_claim_of_it() {
        let (mut seen, start) = (Tapped::default(), start());
        seen.note(&arp_request(Host::CLIENT.mac, [192, 168, 8, 200], [192, 168, 10, 1]), start);
        let ip = IpAddr::from([192, 168, 10, 1]);

        assert_eq!(seen.first_claim(ip, OLD, start - ms(1)), None);
        assert_eq!(seen.announced(ip, start..=start), 0);
        assert_eq!(seen.announcements.len(), 1);
    }

    #[test]
    fn only_udp_to_the_client_is_an_answer() {
        let (mut seen, start) = (Tapped::default(), start());
        let v4 = udp_v4(NEW, Host::CLIENT.mac, [192, 168, 10, 1]);
        seen.note(&v4, start);
        seen.note(&udp_v4(Host::CLIENT.mac, NEW, [192, 168, 8, 200]), start);
        for len in 0..v4.len() {
            seen.note(v4.get(..len).unwrap(), start);
        }
        let ip = IpAddr::from([192, 168, 10, 1]);

        assert_eq!(seen.answering(ip, start..=start), BTreeSet::from([NEW]));
        assert_eq!(seen.answering(ip, start + ms(1)..=start + ms(2)), BTreeSet::new());
        assert!(seen.answers.iter().all(|answer| answer.ip == ip && answer.mac == NEW));
    }

    #[test]
    fn the_oldest_frames_are_forgotten_first() {
        let (mut seen, mut forgotten) = (VecDeque::from(vec![0; MAX_FRAMES]), 0);

        push(&mut seen, 1, &mut forgotten);

        assert_eq!((seen.len(), seen.back(), forgotten), (MAX_FRAMES, Some(&1), 1));
    }

    fn arp_request(sender: MacAddr, sender_ip: [u8; 4], target_ip: [u8; 4]) -> Vec<u8> {
        let header = [&[0xff; 6][..], &sender.0, &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]].concat();
        [&header, &sender.0[..], &sender_ip, &[0; 6], &target_ip].concat()
    }

    fn udp_v4(source: MacAddr, destination: MacAddr, source_ip: [u8; 4]) -> Vec<u8> {
        let ip = [&[0x45, 0, 0, 36, 0, 0, 0, 0, 64, UDP, 0, 0][..], &source_ip, &[192, 168, 8, 200]].concat();
        [&destination.0[..], &source.0, &IPV4, &ip, &[0; 16]].concat()
    }

    #[expect(clippy::disallowed_methods, reason = "tests need some instant to start from")]
    fn start() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }
}
