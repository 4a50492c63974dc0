//! The command line as a user meets it: output, exit status, and one clear error for each wrong use.
//!
//! Needs no rights and no other program.
#![expect(clippy::unwrap_used, reason = "helpers of tests panic on bad fixtures")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn owners_prints_the_order_of_each_address() {
    let output = garpike(&["owners", "--nodes", "node-a,node-b,node-c", "10.0.0.1", "2001:db8::1"]);

    assert_eq!(stdout(&output), "10.0.0.1 node-b node-a node-c\n2001:db8::1 node-b node-a node-c\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn owners_prints_json() {
    let output = garpike(&["owners", "--nodes", "node-a,node-b", "10.0.0.1", "-o", "json"]);

    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json, serde_json::json!([{ "ip": "10.0.0.1", "order": ["node-b", "node-a"] }]));
}

#[test]
fn owners_refuses_what_is_no_service_ip() {
    let output = garpike(&["owners", "--nodes", "a", "127.0.0.1"]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("127.0.0.1 is a loopback address"), "{}", stderr(&output));
}

#[test]
fn every_subcommand_has_help() {
    let chaos = [&["chaos", "run"][..], &["chaos", "list"], &["chaos", "simulate"]];
    let ours = [
        &["speaker"][..],
        &["allocate"],
        &["owners"],
        &["drain"],
        &["undrain"],
        &["move"],
        &["keys", "status"],
        &["demo"],
    ];
    for subcommand in ours.into_iter().chain(chaos) {
        let output = garpike(&[subcommand, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{subcommand:?}");
        assert!(stdout(&output).contains("Usage: garpike"), "{subcommand:?}");
    }
}

#[test]
fn a_simulation_gives_one_json_object_that_does_not_depend_on_the_number_of_jobs() {
    let simulate = |jobs| {
        let options = ["--nodes", "3", "--loss", "5", "--seeds", "0..3", "--json", "--jobs", jobs];
        garpike(&[&["chaos", "simulate", "crash"][..], &options].concat())
    };

    let (one, three) = (simulate("1"), simulate("3"));

    let summary: serde_json::Value = serde_json::from_str(stdout(&one)).unwrap();
    assert_eq!(summary["scenario"], "crash");
    assert_eq!(summary["seeds"], 3);
    assert_eq!(summary["false_downs"], 0);
    assert!(summary["all_know_ms"]["p50"].is_number(), "{summary}");
    assert_eq!(stdout(&one), stdout(&three));
}

#[test]
fn a_missed_invariant_is_printed_with_the_command_that_replays_it() {
    // Nobody can join while nine of ten packets are lost.
    let output = garpike(&["chaos", "simulate", "crash", "--loss", "90", "--seeds", "4..5", "--nodes", "4"]);

    assert_eq!(output.status.code(), Some(1));
    let replay = "replay: garpike chaos simulate crash --nodes 4 --loss 90 --addresses 12";
    assert!(stderr(&output).contains(replay), "{}", stderr(&output));
    assert!(stderr(&output).contains("--seeds 4..5"), "{}", stderr(&output));
}

#[test]
fn every_scenario_is_listed_with_what_happens() {
    let output = garpike(&["chaos", "list"]);
    let listed = stdout(&output);

    for scenario in ["crash-many", "blocked-7946", "vm-pause", "stand-in-drain", "racks"] {
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(scenario));
        assert!(line.is_some_and(|line| line.split_whitespace().count() > 4), "{scenario}: {listed}");
    }
}

#[test]
fn allocate_gives_each_service_an_address_and_never_rewrites_a_users_file() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "pools.yaml", FIRST_POOL);
    write(directory.path(), "web.yaml", &service("web", ""));

    let first = garpike(&["allocate", path(directory.path())]);
    let status = std::fs::read_to_string(directory.path().join("garpike-status.yaml")).unwrap();
    let second = garpike(&["allocate", path(directory.path())]);

    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(stdout(&first).contains("default/web") && stdout(&first).contains("192.168.10.0"), "{}", stdout(&first));
    assert!(status.contains("192.168.10.0"), "{status}");
    assert_eq!(second.status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(directory.path().join("garpike-status.yaml")).unwrap(), status);
    assert_eq!(std::fs::read_to_string(directory.path().join("pools.yaml")).unwrap(), FIRST_POOL);
}

#[test]
fn allocate_names_the_broken_object_and_serves_the_others() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "bad.yaml", "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n  metadata: {");
    write(directory.path(), "pools.yaml", FIRST_POOL);
    write(directory.path(), "outside.yaml", &service("outside", "metallb.io/loadBalancerIPs: 10.9.9.9"));
    write(directory.path(), "web.yaml", &service("web", ""));

    let output = garpike(&["allocate", path(directory.path())]);

    assert_eq!(output.status.code(), Some(1));
    let errors = stderr(&output);
    assert!(errors.lines().any(|line| line.contains("bad.yaml")), "{errors}");
    assert!(errors.lines().any(|line| line.contains("default/outside") && line.contains("10.9.9.9")), "{errors}");
    assert!(stdout(&output).contains("default/web"), "{}", stdout(&output));
}

#[test]
fn speaker_names_the_missing_key_file_and_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("secretkey");

    let output = speaker(directory.path(), &["--ml-secret-key-path", path(&missing)]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(path(&missing)), "{}", stderr(&output));
    assert!(stderr(&output).contains("openssl rand -base64 128"), "{}", stderr(&output));
}

#[test]
fn speaker_refuses_an_empty_key_file() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("secretkey");
    std::fs::write(&empty, " \n").unwrap();

    let output = speaker(directory.path(), &["--ml-secret-key-path", path(&empty)]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(path(&empty)) && stderr(&output).contains("empty"), "{}", stderr(&output));
}

#[test]
fn speaker_names_the_gossip_port_that_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let output = speaker(directory.path(), &["--insecure-plaintext", "--ml-bindport", &port]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&format!("127.0.0.1:{port}")), "{}", stderr(&output));
    assert!(stderr(&output).contains("--ml-bindport"), "{}", stderr(&output));
}

#[test]
fn speaker_names_the_manifests_directory_that_does_not_exist() {
    let directory = tempfile::tempdir().unwrap();

    let output = speaker(&directory.path().join("nowhere"), &["--insecure-plaintext"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("nowhere") && stderr(&output).contains("--manifests"), "{}", stderr(&output));
}

#[test]
fn speaker_without_a_key_asks_for_one() {
    let output = garpike(&["speaker", "--node-name", "n1", "--manifests", "."]);

    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--ml-secret-key-path"), "{}", stderr(&output));
}

#[test]
fn the_key_path_in_metallbs_variable_counts_as_given() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("secretkey");

    let output = Command::new(env!("CARGO_BIN_EXE_garpike"))
        .args(["speaker", "--node-name", "n1", "--manifests", path(directory.path())])
        .env("METALLB_ML_SECRET_KEY_PATH", &missing)
        .output()
        .unwrap();

    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(path(&missing)), "{}", stderr(&output));
}

#[test]
fn keys_generate_prints_a_new_secret_as_openssl_does() {
    let (first, second) = (garpike(&["keys", "generate"]), garpike(&["keys", "generate"]));

    assert_eq!(first.status.code(), Some(0));
    let lines: Vec<usize> = stdout(&first).lines().map(str::len).collect();
    assert_eq!(lines, [64, 64, 44]);
    assert_ne!(stdout(&first), stdout(&second));
}

#[test]
fn keys_rotate_keeps_the_old_key_in_a_directory_and_says_what_to_do_next() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "secretkey", "correct horse battery staple");

    let output = garpike(&["keys", "rotate", path(directory.path())]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.contains("keeps the old one in force: 3e237558"), "{told}");
    assert!(told.contains("rsync -a") && told.contains("garpike keys status"), "{told}");
    let new = std::fs::read_to_string(directory.path().join("secretkey")).unwrap();
    assert_eq!(new.lines().count(), 3);
    assert!(!told.contains(new.lines().next().unwrap()), "secrets are not printed");
    let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let old: Vec<_> = entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("old-")).collect();
    assert_eq!(std::fs::read_to_string(&old[0]).unwrap(), "correct horse battery staple");
}

#[test]
fn keys_rotate_of_a_file_warns_of_restarts() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "key", "old");

    let output = garpike(&["keys", "rotate", path(&directory.path().join("key"))]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("--key-cache"), "{}", stdout(&output));
}

#[test]
fn keys_rotate_prints_the_commands_for_kubernetes() {
    let output = garpike(&["keys", "rotate", "--kubernetes", "--namespace", "lb"]);

    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("kubectl -n lb patch secret memberlist"), "{}", stdout(&output));
    let bad = garpike(&["keys", "rotate", "--kubernetes", "--namespace", "$(rm -rf /)"]);
    assert_eq!(bad.status.code(), Some(2), "what is printed is run in a shell");
    assert_eq!(garpike(&["keys", "rotate"]).status.code(), Some(2));
    let missing = garpike(&["keys", "rotate", "/nowhere/secretkey"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nowhere/secretkey"), "{}", stderr(&missing));
}

#[test]
fn keys_status_shows_who_holds_which_key_and_fails_while_somebody_lacks_the_newest() {
    let member = |name: &str, keys: serde_json::Value| serde_json::json!({ "name": name, "keys": keys });
    let members = |b: serde_json::Value| [member("b", b), member("c", serde_json::json!(["22222222"]))];
    let lacking = keys_status(&state(&members(serde_json::json!(["11111111"])), &[]), &[]);
    let unknown = keys_status(&state(&members(serde_json::Value::Null), &[]), &[]);
    let done = keys_status(&state(&members(serde_json::json!(["22222222", "11111111"])), &[]), &[]);
    let spoilt = keys_status(&state(&[], &["the secret is empty"]), &[]);
    let stranger = |seconds_ago: f64| {
        let mut state: serde_json::Value = serde_json::from_str(&state(&[], &[])).unwrap();
        let mend = "give all nodes the same";
        let complaint = serde_json::json!({ "reason": "wrong_key", "source": "192.0.2.9:7946", "mend": mend, "seconds_ago": seconds_ago });
        state["membership"]["complaints"] = serde_json::json!([complaint]);
        keys_status(&state.to_string(), &[])
    };

    assert_eq!(
        stdout(&lacking),
        "NODE      KEYS                         SEALED WITH  NEWEST\n\
         a (this)  22222222 11111111 (retired)  -            yes\n\
         b         11111111                     11111111     no\n\
         c         22222222                     22222222     yes\n\
         \n1 of 2 members are not known to hold 22222222\n"
    );
    assert_eq!(lacking.status.code(), Some(1));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stdout(&unknown).contains("not known"), "{}", stdout(&unknown));
    assert_eq!(done.status.code(), Some(0), "{}", stdout(&done));
    assert_eq!(spoilt.status.code(), Some(1));
    assert!(stdout(&spoilt).contains("the secret is empty"), "{}", stdout(&spoilt));
    assert!(stdout(&stranger(2.0)).contains("192.0.2.9:7946: give all nodes the same"), "{}", stdout(&stranger(2.0)));
    assert_eq!(stranger(2.0).status.code(), Some(1));
    assert_eq!(stranger(600.0).status.code(), Some(0), "that is over");
}

#[test]
fn keys_status_prints_json() {
    let member = serde_json::json!({ "name": "b", "keys": ["11111111"] });

    let output = keys_status(&state(&[member], &[]), &["-o", "json"]);

    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["newest"], "22222222");
    assert_eq!(json["members"][0]["sealed_with"], "11111111");
    assert_eq!(json["members"][0]["holds_newest"], false);
}

#[test]
fn keys_status_names_the_speaker_that_does_not_answer() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();

    let output = garpike(&["keys", "status", "--state-url", &format!("http://{nobody}/state.json")]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&nobody.to_string()), "{}", stderr(&output));
    assert!(stderr(&output).contains("--health-probe-port"), "{}", stderr(&output));
}

#[test]
fn speaker_refuses_a_key_cache_without_a_key() {
    let directory = tempfile::tempdir().unwrap();

    let output = speaker(directory.path(), &["--insecure-plaintext", "--key-cache", path(directory.path())]);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--ml-secret-key-path"), "{}", stderr(&output));
}

#[test]
fn drain_writes_the_overrides_and_waits_until_the_speaker_shows_it() {
    let directory = two_services();
    let before = seen(&[("n1", "ready"), ("n2", "ready")], "n1");
    let after = seen(&[("n1", "draining"), ("n2", "ready")], "n2");

    let arguments = ["drain", "n1", "--manifests", path(directory.path()), "--wait", "20s"];
    let output = with_speaker(&[&before, &before, &after], &arguments);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let file = directory.path().join("garpike-overrides.yaml");
    let told = stdout(&output);
    assert!(told.contains(&format!("wrote {}", path(&file))), "{told}");
    assert!(told.contains("10.0.0.3 moves from n1 to n2\n10.0.0.5 moves from n1 to n2\n"), "{told}");
    assert!(!told.contains("copy"), "the node that is asked is the one that is drained: {told}");
    assert!(std::fs::read_to_string(&file).unwrap().contains("garpike.io/drain: \"true\""));

    let again = with_speaker(&[&after], &["drain", "n1", "--manifests", path(directory.path())]);
    assert!(stdout(&again).contains("nothing to write"), "{}", stdout(&again));
    let undrain = with_speaker(&[&after], &["undrain", "n1", "--manifests", path(directory.path()), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(stdout(&undrain)).unwrap();
    assert_eq!((&json["done"], &json["judged_by"], &json["written"]), (&true.into(), &"speaker".into(), &true.into()));
    assert_eq!(json["changes"][0], serde_json::json!({ "ip": "10.0.0.3", "from": "n2", "to": "n1" }));
    assert!(!std::fs::read_to_string(&file).unwrap().contains("n1"));
}

#[test]
fn a_drain_that_does_not_come_about_in_time_fails() {
    let directory = two_services();
    let state = seen(&[("n1", "ready"), ("n2", "ready")], "n2");

    let arguments = ["drain", "n2", "--manifests", path(directory.path()), "--wait", "0s"];
    let output = with_speaker(&[&state, &state], &arguments);

    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("do all of them read"), "{}", stderr(&output));
    assert!(stdout(&output).contains("n2 obeys its own files"), "{}", stdout(&output));
}

#[test]
fn a_drain_that_would_orphan_an_address_is_refused() {
    let directory = two_services();
    let state = seen(&[("n1", "ready")], "n1");

    let arguments = ["drain", "n1", "--manifests", path(directory.path())];
    let (text, json) =
        (with_speaker(&[&state], &arguments), with_speaker(&[&state], &[&arguments[..], &["-o", "json"]].concat()));

    assert_eq!((text.status.code(), json.status.code()), (Some(1), Some(1)));
    let refused = "error: 10.0.0.3 (Service default/a): n1 must keep it: n1 is the last living node; start the speaker";
    assert!(stderr(&text).contains(refused), "{}", stderr(&text));
    assert!(!directory.path().join("garpike-overrides.yaml").exists());
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!((&json["done"], &json["refusals"][1]["ip"]), (&false.into(), &"10.0.0.5".into()));
    assert_eq!(json["refusals"][1]["services"], serde_json::json!(["default/b"]));
}

#[test]
fn move_names_the_time_at_which_the_address_goes_back() {
    let directory = two_services();
    let state = seen(&[("n1", "ready"), ("n2", "ready")], "n1");
    let manifests = path(directory.path());

    let output = with_speaker(&[&state], &["move", "10.0.0.3", "n2", "--manifests", manifests, "--for", "2h"]);
    let refused = with_speaker(&[&state], &["move", "10.0.0.3", "n9", "--manifests", manifests]);
    let end = with_speaker(&[&state], &["move", "10.0.0.3", "--end", "--manifests", manifests]);

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stdout(&output);
    assert!(told.contains("10.0.0.3 moves from n1 to n2\n") && !told.contains("10.0.0.5"), "{told}");
    assert!(told.contains("10.0.0.3 stays with n2 until 2") && told.contains("Z\n"), "{told}");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("n9 is no living member of the cluster; the members are n1, n2"));
    assert_eq!(end.status.code(), Some(0), "{}", stderr(&end));
    assert!(stdout(&end).contains("10.0.0.3 moves from n2 to n1\n"), "{}", stdout(&end));
}

#[test]
fn status_and_explain_say_who_owns_what() {
    let state = seen(&[("n1", "ready"), ("n2", "ready")], "n1");

    let status = with_speaker(&[&state], &["status"]);
    let explained = with_speaker(&[&state], &["explain", "default/a"]);
    let unknown = with_speaker(&[&state], &["explain", "10.9.9.9"]);

    assert_eq!(status.status.code(), Some(0), "{}", stderr(&status));
    let told = stdout(&status);
    assert!(told.contains("NODE  STATE  SPEAKER  OWNS  HANDICAPS\nn1    ready  here     2     -\n"), "{told}");
    assert!(told.contains("10.0.0.3  default/a  n1     -         -\n"), "{told}");
    let told = stdout(&explained);
    assert!(
        told.contains("10.0.0.3 belongs to Service default/a\n  n1: owns it, ready\n  n2: may not own it, ready\n"),
        "{told}"
    );
    assert!(told.contains("2026-11-21T20:00:00.000Z  n2 -> n1: n2 is no member any more\n"), "{told}");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(stderr(&unknown).contains("no Service holds 10.9.9.9"), "{}", stderr(&unknown));
}

#[test]
fn without_a_speaker_a_drain_says_that_the_files_alone_judge() {
    let directory = two_services();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/state.json");
    let arguments = ["--manifests", path(directory.path()), "--state-url", &url];

    let output = garpike(&[&["drain", "n1"][..], &arguments].concat());
    let waiting = garpike(&[&["drain", "n2", "--wait", "1s"][..], &arguments].concat());

    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("judged by what is written alone"), "{}", stderr(&output));
    assert!(stdout(&output).contains("n1 obeys its own files"), "{}", stdout(&output));
    assert_eq!(waiting.status.code(), Some(1));
    assert!(stderr(&waiting).contains("--wait: no speaker answers"), "{}", stderr(&waiting));
    let written = std::fs::read_to_string(directory.path().join("garpike-overrides.yaml")).unwrap();
    assert!(written.contains("n1") && !written.contains("n2"), "{written}");
}

#[test]
fn a_move_is_used_rightly() {
    for (arguments, said) in [
        (&["10.0.0.3"][..], "<NODE>"),
        (&["10.0.0.3", "n2", "--end"], "--end"),
        (&["10.0.0.3", "n2", "--for", "soon"], "write 10s, 30m or 1h"),
        (&["10.0.0.3", "n2", "--for", "1s"], "between 10 s and 30 days"),
        (&["127.0.0.1", "n2"], "a loopback address"),
        (&["10.0.0.3", "N2"], "RFC 1123"),
    ] {
        let output = garpike(&[&["move", "--manifests", "."], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
}

/// A directory with two Services, whose first owner among n1, n2 and n3 is n1 and whose second is n2.
fn two_services() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "pool.yaml", &FIRST_POOL.replace("192.168.10.0/24", "10.0.0.0/24"));
    write(
        directory.path(),
        "all.yaml",
        "{apiVersion: metallb.io/v1beta1, kind: L2Advertisement, metadata: {name: all}}",
    );
    write(directory.path(), "a.yaml", &service("a", "metallb.io/loadBalancerIPs: 10.0.0.3"));
    write(directory.path(), "b.yaml", &service("b", "metallb.io/loadBalancerIPs: 10.0.0.5"));
    directory
}

/// The part of `/state.json` that is about members and owners: `owner` has both addresses. It is what n1 shows.
fn seen(members: &[(&str, &str)], owner: &str) -> String {
    let member = |(name, state): &(&str, &str)| {
        serde_json::json!({
            "name": name, "state": state, "presence": "here", "handicaps": [], "interfaces": ["eth0"],
        })
    };
    let members: Vec<_> = members.iter().map(member).collect();
    let owners = serde_json::json!({ "10.0.0.3": owner, "10.0.0.5": owner });
    let address = serde_json::json!({ "services": ["default/a"], "candidates": [owner], "stand_in": null, "unowned": null, "mend": null });
    let addresses = serde_json::json!({ "10.0.0.3": address });
    let state = serde_json::json!({
        "node": "n1", "members": members, "owners": owners, "addresses": addresses, "moves": [], "problems": [],
        "decisions": [{
            "at": "2026-11-21T20:00:00.000Z", "ip": "10.0.0.3", "from": "n2", "to": "n1", "cause": "n2 is no member any more",
        }],
    });
    state.to_string()
}

/// Runs `keys status` against a speaker that shows `state`.
fn keys_status(state: &str, more: &[&str]) -> Output {
    with_speaker(&[state], &[&["keys", "status"], more].concat())
}

/// Runs a command against a speaker that shows the `states`, one after the other.
fn with_speaker(states: &[&str], arguments: &[&str]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/state.json", listener.local_addr().unwrap());
    let answer = |state: &&str| format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{state}", state.len());
    let answers: Vec<String> = states.iter().map(answer).collect();
    let server = std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let request: Vec<String> =
                BufReader::new(&stream).lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            assert_eq!(request.first().unwrap(), "GET /state.json HTTP/1.0");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let output = garpike(&[arguments, &["--state-url", &url]].concat());
    server.join().unwrap();
    output
}

/// The part of `/state.json` that is about keys.
fn state(members: &[serde_json::Value], complaints: &[&str]) -> String {
    let key = |id: &str, standing: &str| serde_json::json!({ "id": id, "standing": standing });
    let membership = serde_json::json!({
        "local": "a",
        "sealing": "sealed",
        "keys": [key("22222222", "in_force"), key("11111111", "retired")],
        "members": members,
        "key_complaints": complaints,
        "complaints": [],
    });
    serde_json::json!({ "membership": membership }).to_string()
}

/// Runs a speaker that is expected to refuse to start, on ports that nobody else uses.
fn speaker(manifests: &Path, more: &[&str]) -> Output {
    let arguments = ["speaker", "--node-name", "n1", "--manifests", path(manifests), "--bind-service-ips", "none"];
    let ports = ["--ml-bindaddr", "127.0.0.1", "--port", "0", "--health-probe-port", "0"];
    garpike(&[&arguments[..], &ports[..], more].concat())
}

fn garpike(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_garpike")).args(arguments).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).unwrap();
}

fn service(name: &str, annotation: &str) -> String {
    let annotations = if annotation.is_empty() { "{}".to_owned() } else { format!("{{{annotation}}}") };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  annotations: {annotations}\nspec:\n  \
         type: LoadBalancer\n  ports:\n  - port: 80\n"
    )
}

const FIRST_POOL: &str = "\
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: first-pool
  namespace: metallb-system
spec:
  addresses:
  - 192.168.10.0/24
  - 192.168.9.1-192.168.9.5
  - fc00:f853:0ccd:e799::/124
";
