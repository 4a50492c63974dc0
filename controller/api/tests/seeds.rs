//! The documents that users of MetalLB published, word for word: each must be read as it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use garpike_controller_api::config::Config;
use garpike_controller_api::manifests::{parse_documents, read_dir};
use garpike_controller_api::{Objects, Problem, Scope, Severity, validate};

#[test]
fn first_pool_has_its_three_ranges() {
    let (config, problems) = config("001-first-pool.yaml");

    assert_eq!(problems, [""; 0]);
    assert_eq!(
        ranges(&config),
        [
            "first-pool 192.168.10.0-192.168.10.255",
            "first-pool 192.168.9.1-192.168.9.5",
            "first-pool fc00:f853:ccd:e799::-fc00:f853:ccd:e799::f",
        ]
    );
}

#[test]
fn three_pools_and_their_advertisement() {
    let (config, problems) = config("003-pools-and-advertisement.yaml");

    assert_eq!(problems, [""; 0]);
    assert_eq!(
        ranges(&config),
        ["default-pool 10.10.1.33-10.10.1.63", "dns 10.10.1.65-10.10.1.65", "web 10.10.1.64-10.10.1.64"]
    );
    assert_eq!(config.advertisements.len(), 1);
}

#[test]
fn a_pool_alone_and_a_pool_with_its_advertisement() {
    let (alone, problems) = config("000-pool.yaml");
    assert_eq!(problems, [""; 0]);
    assert_eq!(ranges(&alone), ["metallb-ip-pool 192.168.178.240-192.168.178.250"]);

    let (both, problems) = config("000-pool-and-advertisement.yaml");
    assert_eq!(problems, [""; 0]);
    assert_eq!(ranges(&both), ranges(&alone));
    assert_eq!(both.advertisements.len(), 1);
}

#[test]
fn a_service_without_a_namespace_is_in_default() {
    let (config, problems) = config("004-service.yaml");

    assert_eq!(problems, [""; 0]);
    let keys: Vec<String> = config.services.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["default/load-balancer-service"]);
}

#[test]
fn the_config_map_of_old_releases_gets_a_warning_that_says_what_to_write() {
    let (_, problems) = read("004-configmap.yaml");

    assert_eq!(
        lines(&problems),
        [
            "004-configmap.yaml:1: ConfigMap metallb-system/config: is the configuration of MetalLB 0.12 and older and has \
          no effect; write an IPAddressPool and an L2Advertisement: \"garpike convert configmap FILE\" does it"
        ]
    );
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn the_configuration_of_kube_proxy_is_left_alone_with_a_note() {
    for file in ["000-kube-proxy.yaml", "002-kube-proxy.yaml"] {
        let (_, problems) = read(file);

        assert_eq!(
            lines(&problems),
            [format!("{file}:1: KubeProxyConfiguration without a name: is not needed here and is ignored")]
        );
        assert!(problems.iter().all(|problem| problem.severity == Severity::Note));
    }
}

#[test]
fn all_of_them_in_one_directory_give_one_error_for_the_pool_that_is_there_twice() {
    let (objects, problems) = read_dir(&seeds()).unwrap();

    assert_eq!((objects.pools.len(), objects.advertisements.len(), objects.services.len()), (5, 2, 1));
    let errors: Vec<&Problem> = problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["000-pool.yaml:1: IPAddressPool metallb-system/metallb-ip-pool: is there already, in \
          000-pool-and-advertisement.yaml:1; rename or remove one of the two; the first is used"]
    );
}

fn seeds() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds")
}

fn read(file: &str) -> (Objects, Vec<Problem>) {
    parse_documents(file, &std::fs::read_to_string(seeds().join(file)).unwrap())
}

fn config(file: &str) -> (Config, Vec<String>) {
    let (objects, mut problems) = read(file);
    let (config, complaints) = validate(&objects, &Scope::default());
    problems.extend(complaints);
    (config, lines(&problems))
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn ranges(config: &Config) -> Vec<String> {
    let of_pool = |pool: &garpike_controller_api::config::Pool| {
        pool.ranges.iter().map(|range| format!("{} {range}", pool.name)).collect::<Vec<_>>()
    };
    config.pools.iter().flat_map(of_pool).collect()
}
