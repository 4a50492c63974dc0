use std::fs;

use super::*;

#[test]
fn gives_addresses_once_and_leaves_the_users_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("all.yaml"), format!("{POOL}---\n{}---\n{}", service("web", ""), service("dns", "")))
        .unwrap();
    let before = fs::read_to_string(dir.path().join("all.yaml")).unwrap();

    let report = allocate(dir.path()).unwrap();
    assert_eq!(lines(&report), ["allocated default/dns 10.0.0.0", "allocated default/web 10.0.0.1"]);
    assert_eq!((report.written, report.problems), (Written::Changed, Vec::new()));

    let report = allocate(dir.path()).unwrap();
    assert_eq!(lines(&report), ["kept default/dns 10.0.0.0", "kept default/web 10.0.0.1"]);
    assert_eq!(report.written, Written::Unchanged);
    assert_eq!(fs::read_to_string(dir.path().join("all.yaml")).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn the_order_of_files_and_documents_does_not_matter() {
    let documents = [POOL.to_owned(), service("a", ""), service("b", ""), service("c", "loadBalancerIP: 10.0.0.0")];
    let mut texts = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let dir = tempfile::tempdir().unwrap();
        for (at, document) in order.iter().enumerate() {
            fs::write(dir.path().join(format!("{at}.yaml")), &documents[*document]).unwrap();
        }
        allocate(dir.path()).unwrap();
        texts.push(fs::read_to_string(dir.path().join(STATUS_FILE)).unwrap());
    }

    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:#?}");
}

#[test]
fn a_service_that_is_gone_gives_its_address_back_and_one_that_is_broken_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.yaml");
    fs::write(&file, format!("{POOL}---\n{}---\n{}", service("a", ""), service("b", ""))).unwrap();
    allocate(dir.path()).unwrap();

    fs::write(&file, format!("{POOL}---\n{}---\n{}", service("a", "ports: x"), service("c", ""))).unwrap();
    let report = allocate(dir.path()).unwrap();
    assert_eq!(lines(&report), ["allocated default/c 10.0.0.2"]);
    assert_eq!(
        report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["all.yaml:15: Service default/a: spec.ports: \"x\" is not a list; write one \"- item\" line for each item \
          below it"]
    );

    fs::write(&file, format!("{POOL}---\n{}---\n{}", service("a", ""), service("c", ""))).unwrap();
    let report = allocate(dir.path()).unwrap();
    assert_eq!(lines(&report), ["kept default/a 10.0.0.0", "kept default/c 10.0.0.2", "released default/b 10.0.0.1"]);
    assert!(!fs::read_to_string(dir.path().join(STATUS_FILE)).unwrap().contains("name: b"));
}

#[test]
fn a_broken_pool_moves_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let other = POOL.replace("name: one", "name: two").replace("10.0.0.0/30", "10.1.0.0/30");
    fs::write(dir.path().join("b.yaml"), service("a", "")).unwrap();
    fs::write(dir.path().join("one.yaml"), POOL).unwrap();
    fs::write(dir.path().join("two.yaml"), &other).unwrap();
    allocate(dir.path()).unwrap();

    fs::write(dir.path().join("one.yaml"), POOL.replace("10.0.0.0/30", "10.0.0.0/99")).unwrap();
    let report = allocate(dir.path()).unwrap();
    assert_eq!(
        lines(&report),
        ["failed default/a 10.0.0.0: 10.0.0.0 lies in no pool; the pools hold 10.1.0.0-10.1.0.3 of two"]
    );
    assert_eq!(report.written, Written::Unchanged);
}

#[test]
fn an_address_in_a_users_own_manifest_stays_out_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let own = format!("{}status: {{loadBalancer: {{ingress: [{{ip: 10.0.0.1}}]}}}}\n", service("own", ""));
    fs::write(
        dir.path().join("all.yaml"),
        format!("{POOL}---\n{own}---\n{}---\n{}", service("a", ""), service("b", "")),
    )
    .unwrap();

    let report = allocate(dir.path()).unwrap();
    assert_eq!(
        lines(&report),
        ["allocated default/a 10.0.0.0", "allocated default/b 10.0.0.2", "kept default/own 10.0.0.1"]
    );
    assert!(!fs::read_to_string(dir.path().join(STATUS_FILE)).unwrap().contains("own"));
}

#[test]
fn says_who_got_nothing_and_why() {
    let dir = tempfile::tempdir().unwrap();
    let services: Vec<String> = (0..5).map(|n| service(&format!("s{n}"), "")).collect();
    fs::write(dir.path().join("all.yaml"), format!("{POOL}---\n{}", services.join("---\n"))).unwrap();

    assert_eq!(
        lines(&allocate(dir.path()).unwrap()).last().unwrap(),
        "failed default/s4 : no free IPv4 address is left in the pool one; add a range to spec.addresses of one"
    );
}

#[test]
fn nothing_is_written_where_there_is_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let report = allocate(dir.path()).unwrap();

    assert_eq!(report.written, Written::Unchanged);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(allocate(&dir.path().join("nil")).unwrap_err().to_string().starts_with("cannot list the manifests in "));
}

const POOL: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: one}
spec:
  addresses:
  - 10.0.0.0/30
";

fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  type: LoadBalancer\n  # more:\n  {spec}\n"
    )
}

fn lines(report: &Report) -> Vec<String> {
    let text = |ips: &[ServiceIp]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let allocated = report.allocated.iter().map(|s| format!("allocated {} {}", s.service, text(&s.addresses)));
    let kept = report.kept.iter().map(|s| format!("kept {} {}", s.service, text(&s.addresses)));
    let failed = report.failed.iter().map(|s| format!("failed {} {}: {}", s.service, text(&s.addresses), s.refusal));
    let released = report.released.iter().map(|(service, ips)| format!("released {service} {}", text(ips)));
    allocated.chain(kept).chain(failed).chain(released).collect()
}
