use std::time::Duration;

use super::*;
use crate::Profile;

const MS: Duration = Duration::from_millis(1);
const GIVEN: Light = Light::Dark(Permission::Given);
const WITHHELD: Light = Light::Dark(Permission::Withheld);

#[test]
fn silence_is_pinged_five_times_and_then_a_dead_host_until_it_speaks() {
    let (mut watch, start) = (Watch::begin(Presence::Here, start()), start());
    let mut acts = Vec::new();
    while acts.len() < 8 {
        let now = watch.next(&timing());
        acts.extend(watch.step(Light::Lit, &timing(), now).map(|act| (now - start, act)));
    }

    let overdue = timing().overdue;
    let pings = (0..5).map(|n| (overdue + 8 * MS * n, Act::Ping));
    let votes = (0..3).map(|n| (overdue + 40 * MS + 8 * MS * n, Act::Accuse(Charge::HostDead)));
    assert_eq!(acts, pings.chain(votes).collect::<Vec<_>>());
    assert_eq!(watch.speaker_heard(&timing(), start + overdue + 60 * MS), Vote::Retracted);
    assert_eq!(watch.charge(), None);
}

#[test]
fn a_host_that_answers_within_the_window_is_alive_at_its_end() {
    let mut watch = verifying(Presence::Here, Light::Lit);
    assert_eq!(watch.host_answered(&timing(), start()), Vote::AsBefore);

    assert_eq!(end_window(&mut watch, Light::Lit), Some(Act::Accuse(Charge::SpeakerGone)));
}

#[test]
fn what_was_pinged_in_the_dark_without_permission_never_counts() {
    let mut watch = verifying(Presence::Here, WITHHELD);
    for _ in 0..1000 {
        let now = watch.next(&timing());
        assert_eq!(watch.step(WITHHELD, &timing(), now), Some(Act::Ping));
    }

    // From here on it does: eight pings, all of them sent after the station has answered.
    watch.permit(watch.next(&timing()));
    let mut pings = 0;
    loop {
        let now = watch.next(&timing());
        match watch.step(GIVEN, &timing(), now) {
            Some(Act::Ping) => pings += 1,
            other => break assert_eq!(other, Some(Act::Accuse(Charge::HostDead))),
        }
    }
    assert_eq!(pings, timing().pings_alone);
}

#[test]
fn a_window_that_began_in_the_light_does_not_end_in_the_dark() {
    for after in [GIVEN, WITHHELD] {
        let mut watch = verifying(Presence::Here, Light::Lit);
        assert_eq!(end_window(&mut watch, after), Some(Act::Ping), "a new one begins");
    }
}

#[test]
fn a_vote_of_another_hastens_only_a_silence_that_may_soon_be_overdue() {
    let start = start();
    for (silence, hastened) in [(timing().suspicious - MS, false), (timing().suspicious, true)] {
        let mut watch = Watch::begin(Presence::Here, start);
        watch.hurry(Light::Lit, &timing(), start + silence);
        assert_eq!(watch.is_at_work(), hastened, "{silence:?}");
    }
}

#[test]
fn no_verdict_comes_sooner_than_160_ms_after_the_last_sign() {
    let window = timing().ping_every * timing().pings;
    assert!(timing().suspicious + window >= 160 * MS);
    assert!(timing().overdue + window >= 160 * MS);
}

#[test]
fn a_vote_that_the_host_is_alive_does_not_outlive_its_answers() {
    let (mut watch, start) = (accusing(Charge::SpeakerGone), start());
    let mut last = None;
    let until = start + SECOND;
    while watch.next(&timing()) < until {
        let now = watch.next(&timing());
        last = watch.step(Light::Lit, &timing(), now);
    }

    assert_eq!(last, Some(Act::Accuse(Charge::HostDead)));
}

/// Every state, every input: the table in `docs/membership.md` is made by this.
#[test]
#[expect(clippy::type_complexity, reason = "a name for these types would hide what a row is")]
fn the_table_in_the_documents_is_what_the_code_does() {
    let states: [(&str, fn() -> Watch); 8] = [
        ("here, listening", || Watch::begin(Presence::Here, start())),
        ("here, verifying", || verifying(Presence::Here, Light::Lit)),
        ("here, verifying in the dark", || verifying(Presence::Here, WITHHELD)),
        ("here, accusing: speaker gone", || accusing(Charge::SpeakerGone)),
        ("here, accusing: host dead", || accusing(Charge::HostDead)),
        ("away, checking", || Watch::begin(Presence::Away, start())),
        ("away, verifying", || verifying(Presence::Away, Light::Lit)),
        ("away, accusing: host dead", || {
            let mut watch = verifying(Presence::Away, Light::Lit);
            end_window(&mut watch, Light::Lit);
            watch
        }),
    ];
    let inputs: [(&str, fn(&mut Watch)); 11] = [
        ("speaker heard", |watch| {
            let _ = watch.speaker_heard(&timing(), start());
        }),
        ("host answered", |watch| {
            let _ = watch.host_answered(&timing(), start());
        }),
        ("another votes", |watch| watch.hurry(Light::Lit, &timing(), start() + timing().suspicious)),
        ("another finds the host dead", |watch| watch.contradict(Light::Lit, &timing(), start() + SECOND)),
        ("a datagram comes back", |watch| watch.doubt(Light::Lit, start())),
        ("speaker known to be gone", |watch| watch.set_presence(Presence::Away, start())),
        ("speaker known to be back", |watch| watch.set_presence(Presence::Here, start())),
        ("a member heard after the dark", |watch| {
            let _ = watch.light_returned(&timing(), start());
        }),
        ("a station answers in the dark", |watch| watch.permit(start())),
        ("its time is up", |watch| {
            let _ = run_out(watch, Light::Lit);
        }),
        ("its time is up in the dark", |watch| {
            let _ = run_out(watch, WITHHELD);
        }),
    ];
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut table = row([""].into_iter().chain(inputs.map(|(input, _)| input)).map(str::to_owned).collect());
    table += &row(vec!["---".to_owned(); inputs.len() + 1]);
    for (state, make) in states {
        let after = |(_, input): &(&str, fn(&mut Watch))| {
            let mut watch = make();
            let before = describe(&watch);
            input(&mut watch);
            let after = describe(&watch);
            if after == before { "–".to_owned() } else { after }
        };
        table += &row([format!("**{state}**")].into_iter().chain(inputs.iter().map(after)).collect());
    }

    let document = include_str!("../../../docs/membership.md");
    let (_, rest) = document.split_once("<!-- watch table -->\n").unwrap();
    let (documented, _) = rest.split_once("<!-- /watch table -->").unwrap();
    assert_eq!(documented.trim(), table.trim(), "docs/membership.md should hold:\n{table}");
}

const SECOND: Duration = Duration::from_secs(1);

fn describe(watch: &Watch) -> String {
    let presence = match watch.presence {
        Presence::Here => "here",
        Presence::Away => "away",
    };
    let phase = match &watch.phase {
        Phase::Listening => "listening",
        Phase::Checking { .. } => "checking",
        Phase::Verifying(Window { host: Host::Answered, .. }) => "verifying, host alive",
        Phase::Verifying(Window { began_in: GIVEN, .. }) => "verifying alone",
        Phase::Verifying(Window { began_in: WITHHELD, .. }) => "verifying in the dark",
        Phase::Verifying(_) => "verifying",
        Phase::Accusing(Accusation { charge: Charge::SpeakerGone, .. }) => "accusing: speaker gone",
        Phase::Accusing(Accusation { charge: Charge::HostDead, .. }) => "accusing: host dead",
    };
    format!("{presence}, {phase}")
}

fn verifying(presence: Presence, light: Light) -> Watch {
    Watch::begin_at_once(presence, light, start())
}

fn accusing(charge: Charge) -> Watch {
    let mut watch = verifying(Presence::Here, Light::Lit);
    if charge == Charge::SpeakerGone {
        watch.host_answered(&timing(), start());
    }
    end_window(&mut watch, Light::Lit);
    assert_eq!(watch.charge(), Some(charge));
    watch
}

/// Lets the window run out in that light; gives what follows its last ping.
fn end_window(watch: &mut Watch, light: Light) -> Option<Act> {
    loop {
        let Phase::Verifying(window) = watch.phase else { return None };
        let now = window.next;
        let act = watch.step(light, &timing(), now);
        let same = matches!(watch.phase, Phase::Verifying(next) if next.sent > window.sent);
        if !same {
            return act;
        }
    }
}

/// Lets the time of the state run out: the patience, the look at the host, the window, the pause between two votes.
fn run_out(watch: &mut Watch, light: Light) -> Option<Act> {
    match watch.phase {
        Phase::Verifying(_) => end_window(watch, light),
        Phase::Checking { .. } => {
            let now = watch.next(&timing());
            assert_eq!(watch.step(light, &timing(), now), Some(Act::Look));
            watch.step(light, &timing(), now + timing().check_patience)
        }
        Phase::Listening | Phase::Accusing(_) => {
            let now = watch.next(&timing());
            watch.step(light, &timing(), now)
        }
    }
}

fn timing() -> Timing {
    Timing::of(Profile::Default)
}

/// One instant for all tests of a run.
#[expect(clippy::disallowed_methods, reason = "tests make their own time from one reading")]
fn start() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now)
}
