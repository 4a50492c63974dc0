//! Runs every target over its committed corpus: what a fuzzer found once stays found.

use std::alloc::System;
use std::collections::BTreeSet;
use std::path::Path;

use cap::Cap;
use garpike_fuzz::{TARGETS, Target};

/// Ends the process when it is asked for more than it may give: an input that claims a length must not get it.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, ALLOCATED_MAX);

/// Chosen: several times what the longest input needs.
const ALLOCATED_MAX: usize = 64 * 1024 * 1024;

#[test]
fn every_target_survives_its_corpus() {
    for Target { name, run } in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            // Shown when the test fails: the last one is to blame.
            println!("{}", path.display());
            run(&std::fs::read(path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 5, "{} holds {inputs} inputs", directory.display());
    }
}

#[test]
fn every_target_has_a_libfuzzer_binary_and_the_other_way_round() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
    let binaries: BTreeSet<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();

    assert_eq!(binaries, names);
}
