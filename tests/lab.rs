//! The shipped binary in the lab: real kernels, a real client, judged from outside.
//!
//! Needs root or user namespaces. Bounds are generous: a busy machine must not fail a test; `garpike chaos run` gives
//! the distributions.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[test]
fn the_lab_measures_what_it_says() {
    let output = garpike(&["chaos", "selftest"]);

    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
}

#[test]
fn a_silent_death_moves_the_address_within_seconds() {
    let report = run("crash", &["--trials", "2"]);

    for trial in report["per_trial"].as_array().unwrap() {
        assert_ne!(trial["owner_before"], trial["owner_after"], "{trial}");
        for family in ["v4", "v6"] {
            assert!(trial["outage_ms"][family].as_f64().unwrap() < 3000.0, "{trial}");
            assert!(trial["detect_ms"][family].as_f64().unwrap() < 3000.0, "{trial}");
        }
    }
}

#[test]
fn a_speaker_keeps_up_with_a_closed_loop_of_requests() {
    let more = ["--addresses", "10", "--in-flight", "8", "--lasts", "200", "--rounds", "1", "--json"];
    let output = garpike(&[&["chaos", "run", "arp-rate"][..], &more].concat());

    assert!(output.status.success(), "{}", stderr(&output));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = figures["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "ARP and NDP by the speaker, the minimal responder and a kernel: {figures}");
    for row in rows {
        assert!(row["figures"]["answers_per_s"].as_f64().unwrap() > 500.0, "{row}");
    }
}

#[test]
fn a_speaker_of_thousands_of_addresses_shows_what_is_documented_in_few_series() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    let file = file.to_str().unwrap();
    let run = |per_ip: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_garpike"));
        command.args(["chaos", "run", "announce-10k", "--addresses", "10000", "--trials", "1", "--metrics-to", file]);
        // How fast they are announced is judged elsewhere, on a machine that does nothing else.
        let output = command.env("GARPIKE_PER_IP_METRICS", per_ip).stdin(Stdio::null()).output().unwrap();
        std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
    };
    let documents = include_str!("../docs/metrics.md");
    let text = run("true");

    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    for (name, kind) in kinds.filter_map(|line| line.split_once(' ')) {
        let row = documents.lines().find(|row| row.starts_with('|') && row.contains(&format!("`{name}`")));
        let row = row.unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
        assert!(row.contains(&format!("| {kind} |")), "{name} is a {kind}: {row}");
        for label in labels_of(&text, name) {
            assert!(row.split('|').nth(3).unwrap().contains(&label), "{name} has the label {label}: {row}");
        }
    }
    for always in
        ["garpike_speaker_address_seconds_total", "garpike_speaker_findings", "garpike_speaker_failover_seconds"]
    {
        assert!(text.contains(&format!("# TYPE {always} ")), "{always} is not shown");
    }
    // What has not happened is there too, or the first time that it does is missed by `increase`.
    for zero in [
        "garpike_speaker_failover_seconds_count{phase=\"total\",cause=\"drain\"} 0",
        "garpike_announcer_withheld_total{reason=\"foreign_speaker\"} 0",
        "garpike_membership_wire_vetoes_total 0",
    ] {
        assert!(text.lines().any(|line| line == zero), "{zero} is not shown");
    }
    let owned = text.lines().find_map(|line| line.strip_prefix("garpike_announcer_owned_addresses "));
    let owned: f64 = owned.unwrap().parse().unwrap();
    assert!(owned >= 3000.0, "{owned} of 10 000, of which an heir of two gets half");
    let [ours, of_metallb] = ["garpike_", "metallb_"].map(|start| series(&text, start));
    assert!(ours <= 500, "{ours} series of ours");
    assert!(of_metallb as f64 <= 4.0 * owned && of_metallb > 0, "{of_metallb} series for {owned} addresses");

    assert_eq!(series(&run("false"), "metallb_"), 0);
}

#[test]
fn a_pulled_cable_moves_the_address_within_seconds() {
    let report = run("link-down", &["--trials", "1"]);

    assert!(report["outage_ms"]["v4"]["max"].as_f64().unwrap() < 3000.0, "{report}");
    assert!(report["outage_ms"]["v6"]["max"].as_f64().unwrap() < 3000.0, "{report}");
}

#[test]
fn a_pulled_cable_to_the_clients_moves_the_address_at_once_where_gossip_has_another() {
    let report = run("link-down", &["--trials", "1", "--links", "2"]);

    assert!(report["outage_ms"]["v4"]["max"].as_f64().unwrap() < 3000.0, "{report}");
    assert_eq!(report["links"], 2);
}

#[test]
fn a_crash_is_survived_with_a_kubernetes_api_that_is_dead() {
    let report = run("crash", &["--trials", "1", "--source", "kubernetes", "--api-down"]);

    assert_eq!(report["source"], "kubernetes, API server killed");
    let trial = &report["per_trial"][0];
    assert_ne!(trial["owner_before"], trial["owner_after"], "{trial}");
    assert!(trial["outage_ms"]["v6"].as_f64().unwrap() < 3000.0, "{trial}");
}

#[test]
fn no_probe_is_lost_when_the_last_pod_of_the_owner_ends() {
    let report = run("local-terminates", &["--trials", "1"]);

    assert!(report["targets"].as_array().unwrap().iter().all(|target| target["met"] == true), "{report}");
}

#[test]
fn what_is_asked_for_needs_an_api_server_that_lives() {
    for (arguments, named) in [
        (&["crash", "--api-down"][..], "--source kubernetes"),
        (&["drain", "--api-down", "--source", "kubernetes"], "drain is asked for"),
    ] {
        let output = garpike(&[&["chaos", "run"], arguments].concat());
        assert!(!output.status.success());
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}

#[test]
fn a_host_that_dies_after_its_speaker_loses_its_addresses() {
    let report = run("kill-then-crash", &["--trials", "1"]);

    let trial = &report["per_trial"][0];
    assert_ne!(trial["owner_before"], trial["owner_after"], "{trial}");
    assert!(trial["outage_ms"]["v4"].as_f64().unwrap() < 3000.0, "{trial}");
}

#[test]
fn a_cut_heals_to_one_owner() {
    for scenario in ["partition", "heal"] {
        let report = run(scenario, &["--trials", "1"]);

        assert_eq!(report["violations"], serde_json::json!([]), "{report}");
        assert!(report["fresh_ms"]["v4"]["max"].is_number(), "{report}");
    }
}

#[test]
fn a_client_behind_an_uplink_that_is_back_is_served() {
    let report = run("uplink-down", &["--trials", "1", "--lasts", "2s"]);

    assert!(report["served_ms"]["v6"]["max"].is_number(), "{report}");
    assert_eq!(report["outage_ms"]["v4"], Value::Null);
}

#[test]
fn no_address_moves_and_no_connection_is_reset_when_a_speaker_ends_is_killed_or_hangs() {
    for scenario in ["term", "kill", "freeze", "rolling", "term-all"] {
        let report = run(scenario, &["--trials", "1"]);

        assert_eq!(report["invariants"]["no address moves while its host is alive"], "held", "{report}");
        assert_eq!(report["detect_ms"], serde_json::json!({"v4": null, "v6": null}), "{report}");
        let trial = &report["per_trial"][0];
        assert_eq!(trial["owner_before"], trial["owner_after"], "{trial}");
        assert_eq!((&trial["connections"]["established"], &trial["connections"]["resets"]), (&200.into(), &0.into()));
        for family in ["v4", "v6"] {
            // A client whose question was lost asks again after a second.
            assert!(trial["outage_ms"][family].as_f64().unwrap() < 3000.0, "{trial}");
            assert_eq!(trial["two_macs_ms"][family].as_f64(), Some(0.0), "{trial}");
        }
    }
}

#[test]
fn a_length_that_a_scenario_has_not_is_refused() {
    let output = garpike(&["chaos", "run", "crash", "--lasts", "3s"]);

    assert!(!output.status.success());
    assert!(stderr(&output).contains("uplink-down"), "{}", stderr(&output));
}

#[test]
fn one_family_is_reported_alone() {
    let report = run("term", &["--trials", "1", "--family", "v6"]);

    assert_eq!(report["outage_ms"]["v4"], Value::Null);
    assert!(report["outage_ms"]["v6"]["p50"].is_number());
}

#[test]
fn the_demo_shows_a_failover_in_plain_lines_of_80_columns() {
    let output = garpike(&["demo", "--kills", "1"]);

    let text = stdout(&output);
    assert!(output.status.success(), "{text}\n{}", stderr(&output));
    assert!(text.contains("first-pool") && text.contains("kill 1/1") && text.contains("summary"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }
}

#[test]
fn nothing_is_left_behind_by_a_runner_that_is_killed() {
    for signal in ["INT", "KILL"] {
        let marker = format!("left-behind-{}-{signal}", std::process::id());
        let mut runner = demo(&marker);
        wait_until("the lab runs", || processes_with(&marker) > 3);

        let killed = Command::new("kill").args([&format!("-{signal}"), &runner.id().to_string()]).status().unwrap();

        assert!(killed.success());
        runner.wait().unwrap();
        wait_until("all processes of the lab are gone", || processes_with(&marker) == 0);
    }
}

/// Starts a demo whose processes can be told from others by their environment.
fn demo(marker: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garpike"));
    command.args(["demo", "--kills", "100"]).env("GARPIKE_TEST_MARKER", marker);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// How many processes have the marker in their environment.
fn processes_with(marker: &str) -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc").unwrap() {
        let environment = std::fs::read(entry.unwrap().path().join("environ")).unwrap_or_default();
        count +=
            usize::from(environment.split(|byte| *byte == 0).any(|variable| variable.ends_with(marker.as_bytes())));
    }
    count
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    #[expect(clippy::disallowed_methods, reason = "a test waits in real time")]
    let now = Instant::now;
    let deadline = now() + Duration::from_secs(20);
    while !condition() {
        assert!(now() < deadline, "{what}: not after 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a scenario and gives its report. An invariant that is violated fails the test.
fn run(scenario: &str, more: &[&str]) -> Value {
    let output = garpike(&[&["chaos", "run", scenario, "--json"], more].concat());
    assert!(output.status.success(), "{scenario}: {}\n{}", stdout(&output), stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The names of the labels of a metric, but for the bucket of a histogram.
fn labels_of(text: &str, name: &str) -> BTreeSet<String> {
    let series = text.lines().filter_map(|line| line.strip_prefix(name)?.split_once('{')?.1.split_once('}'));
    let pairs = series.flat_map(|(labels, _)| labels.split(',').filter_map(|pair| pair.split_once('=')));
    pairs.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect()
}

/// How many series begin like this.
fn series(text: &str, start: &str) -> usize {
    text.lines().filter(|line| line.starts_with(start)).count()
}

fn garpike(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_garpike")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}
