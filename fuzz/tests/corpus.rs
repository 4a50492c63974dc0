//! Runs every target over its committed corpus: what a fuzzer found once stays found.

use std::collections::BTreeSet;
use std::path::Path;

use garpike_fuzz::{TARGETS, Target};

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
