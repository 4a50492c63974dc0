use std::fs;

use proptest::prelude::*;

use super::*;
use crate::Severity;

#[test]
fn a_broken_document_does_not_stop_the_others() {
    let text = "# pools\n---\nkind: [\n---\n\u{1}\n...\nfoo\n---\n- a\n---\nkind: x\n kind: y\n---\n";
    let text = format!("{text}{POOL}\n--- # and a second one\n{}", POOL.replace("one", "two"));
    let (objects, problems) = parse_documents("pools.yaml", &text);

    assert_eq!(names(&objects), ["metallb-system/one", "metallb-system/two"]);
    assert!(problems.iter().all(|problem| problem.severity == Severity::Error));
    let lines: Vec<Option<u32>> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines.len(), 5, "{problems:#?}");
    assert_eq!(
        problems.last().unwrap().to_string(),
        "pools.yaml:12: is not YAML: mapping values are not allowed in this context"
    );
}

#[test]
fn reads_windows_files_comments_marks_and_lists() {
    let windows = format!("\u{feff}# mine\r\n{}", POOL.replace('\n', "\r\n"));
    assert_eq!(names(&parse_documents("a.yaml", &windows).0), ["metallb-system/one"]);

    let indented = POOL.replace('\n', "\n  ");
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {indented}\n- {}\n", indented.replace("one", "two"));
    let (objects, problems) = parse_documents("a.yaml", &list);
    assert_eq!(names(&objects), ["metallb-system/one", "metallb-system/two"]);
    assert_eq!(lines(&problems), [""; 0]);

    let json = r#"{"apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": {"name": "one"},
        "spec": {"addresses": ["10.0.0.0/24"]}}"#;
    assert_eq!(names(&parse_documents("a.json", json).0), ["metallb-system/one"]);

    let directive = format!("%YAML 1.2\n---\n{POOL}...\n# the end\n");
    assert_eq!(names(&parse_documents("a.yaml", &directive).0), ["metallb-system/one"]);
}

#[test]
fn wrong_types_and_slips_name_file_line_object_field_value_and_mend() {
    let text = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata:\n  name: one\nspec:\n  addresses:\n  \
                - 10.0.0.0/24\n  - 5\n  autoassign: true\n";
    let (objects, problems) = parse_documents("pools.yaml", text);

    assert!(objects.pools.is_empty());
    assert_eq!(
        lines(&problems),
        [
            "pools.yaml:8: IPAddressPool metallb-system/one: spec.addresses[1]: \"5\" is not a text; put it in quotes",
            "pools.yaml:9: IPAddressPool metallb-system/one: spec.autoassign: is not a field of this kind and has no \
             effect; did you mean autoAssign?",
        ]
    );
    assert_eq!(problems.iter().map(|p| p.severity).collect::<Vec<_>>(), [Severity::Error, Severity::Warning]);
}

#[test]
fn says_what_becomes_of_every_kind() {
    for (version, kind, name, expected) in [
        ("apps/v1", "Deployment", "a", Some("note: x.yaml:1: Deployment a: is not needed here and is ignored")),
        ("v1", "List", "a", Some("error: x.yaml:1: items: is not a list; write \"items: []\" for an empty one")),
        ("example.org/v1", "DenyList", "a", Some("note: x.yaml:1: DenyList a: is not needed here and is ignored")),
        ("v1", "Secret", "a", Some("note: x.yaml:1: Secret a: is not needed here and is ignored")),
        ("v1", "ConfigMap", "config", Some("note: x.yaml:1: ConfigMap config: is not needed here and is ignored")),
        ("metallb.io/v1beta2", "BGPPeer", "p", Some("warning: x.yaml:1: BGPPeer p: is accepted, BGP is not active")),
        (
            "metallb.io/v1beta1",
            "Community",
            "c",
            Some("warning: x.yaml:1: Community c: is accepted, BGP is not active"),
        ),
        (
            "metallb.io/v1beta1",
            "IPAdressPool",
            "a",
            Some("error: x.yaml:1: IPAdressPool a: is not a known kind; did you mean IPAddressPool?"),
        ),
        (
            "metallb.io/v1alpha1",
            "IPAddressPool",
            "a",
            Some(
                "error: x.yaml:1: IPAddressPool a: apiVersion: \"metallb.io/v1alpha1\" is not a version of this kind; \
                 write metallb.io/v1beta1",
            ),
        ),
        (
            "metallb.io/v1beta1",
            "AddressPool",
            "a",
            Some(
                "warning: x.yaml:1: AddressPool a: is a kind of MetalLB 0.13 and has no effect; write an IPAddressPool \
                 and an L2Advertisement",
            ),
        ),
        ("metallb.io/v1beta1", "L2Advertisement", "a", None),
        ("v1", "Service", "a", None),
        ("v1", "Node", "a", None),
        ("v1", "Namespace", "a", None),
        ("v1", "Service", "''", Some("error: x.yaml:1: Service default/without a name: metadata.name: is missing")),
    ] {
        let text = format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}}}");
        let (_, problems) = parse_documents("x.yaml", &text);
        let said: Vec<String> = problems.iter().map(|p| format!("{}: {p}", p.severity.as_str())).collect();
        assert_eq!(said, expected.into_iter().collect::<Vec<_>>(), "{text}");
    }
}

#[test]
fn of_two_objects_with_one_name_the_first_file_wins() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.yaml"), POOL).unwrap();
    fs::write(dir.path().join("a.yml"), POOL.replace("10.0.0.0", "10.9.0.0")).unwrap();
    fs::write(dir.path().join(".hidden.yaml"), POOL).unwrap();
    fs::write(dir.path().join("notes.txt"), "kind: [").unwrap();
    fs::create_dir(dir.path().join("dir.yaml")).unwrap();
    fs::write(dir.path().join("latin1.yaml"), b"# \xe9\n").unwrap();
    let (objects, problems) = read_dir(dir.path()).unwrap();

    assert_eq!(objects.pools.values().next().unwrap().object.spec.addresses, ["10.9.0.0/24"]);
    assert_eq!(
        lines(&problems),
        [
            "b.yaml:1: IPAddressPool metallb-system/one: is there already, in a.yml:1; rename or remove one of the \
             two; the first is used",
            "latin1.yaml: is not UTF-8 text: invalid utf-8 sequence of 1 bytes from index 2",
        ]
    );
}

#[test]
fn a_directory_that_is_not_there_is_an_error_with_its_name() {
    let error = read_dir(Path::new("/nonexistent/manifests")).unwrap_err();

    assert_eq!(error.to_string(), "cannot list the manifests in /nonexistent/manifests");
}

#[test]
fn a_status_that_somebody_left_in_a_pool_or_advertisement_is_of_any_shape() {
    let advertisement = "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: all}\n";
    for status in ["status: {}\n", "status: {assignedIPv4: many}\n", "status: gone\n"] {
        let (objects, problems) = parse_documents("a.yaml", &format!("{POOL}{status}---\n{advertisement}{status}"));
        assert_eq!((names(&objects).len(), objects.advertisements.len(), lines(&problems)), (1, 1, vec![]), "{status}");
    }
}

#[test]
fn the_status_file_gives_addresses_and_no_services() {
    let text =
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nstatus: {loadBalancer: {ingress: [{ip: 10.0.0.1}]}}\n";
    let (objects, problems) = parse_documents(STATUS_FILE, text);

    assert_eq!(lines(&problems), [""; 0]);
    assert_eq!((objects.services.len(), objects.statuses.len()), (0, 1));
}

#[test]
fn the_file_of_overrides_gives_annotations_and_no_objects() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, annotations: {a: b}}\n";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, annotations: {c: d}}\n";
    let foreign = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    let twice = node;
    let text = [service, node, POOL, foreign, twice].join("---\n");
    let (objects, problems) = parse_documents(OVERRIDES_FILE, &text);

    assert_eq!((objects.services.len(), objects.nodes.len(), objects.pools.len()), (0, 0, 0));
    let annotations: Vec<_> = objects.service_overrides.values().chain(objects.node_overrides.values()).collect();
    let annotations: Vec<_> =
        annotations.iter().flat_map(|sourced| sourced.object.annotations.clone().unwrap()).collect();
    assert_eq!(annotations, [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
    assert_eq!(
        lines(&problems),
        [
            "garpike-overrides.yaml:9: IPAddressPool one: has no effect in this file, which is rewritten by garpike drain \
             and move; move it to another file",
            "garpike-overrides.yaml:17: Secret s: has no effect in this file, which is rewritten by garpike drain and \
             move; move it to another file",
            "garpike-overrides.yaml:21: Node n1: is there already, in garpike-overrides.yaml:5; rename or remove one of \
             the two; the first is used",
        ]
    );
}

#[test]
fn bombs_are_refused_in_no_time() {
    let mut aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        aliases += &format!("a{level}: &a{level} [{items}]\n");
    }
    let nested = "[".repeat(100_000);
    let long = "a".repeat(MAX_FILE_BYTES + 1);
    let many = "---\na\n".repeat(MAX_DOCUMENTS + 5);
    for (text, count, last) in [
        (&aliases, 1, "is not YAML: alias replay limit exceeded: total_replayed_events=100001 > 100000"),
        (&nested, 1, "is not YAML: "),
        (&long, 1, "has 8388609 bytes, at most 8388608 are read; split the file"),
        (&many, MAX_DOCUMENTS + 1, "only 60000 documents of one file are read; split the file"),
    ] {
        let (_, problems) = parse_documents("x.yaml", text);
        let said = problems.last().unwrap().to_string();
        assert_eq!(problems.len(), count, "{said}");
        assert!(said.contains(last), "{said}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read(text in "(?s).{0,300}") {
        parse_documents("x.yaml", &text);
    }

    #[test]
    fn any_mutilated_manifest_is_read(cut in 0..LIST.len(), insert in "[-\\[\\]{}:,&*!|>'\"%@`#? \n\t\u{0}a0]{0,6}", skip in 0..8_usize) {
        let mut text = LIST.to_owned();
        let end = (cut + skip).min(text.len());
        text.replace_range(cut..end, &insert);
        let (objects, _) = parse_documents("x.yaml", &text);
        crate::validate(&objects, &crate::Scope::default());
    }

    #[test]
    fn the_documents_of_a_stream_do_not_depend_on_each_other(before in "[^\u{0}]{0,80}") {
        // A directive needs its own "---", so the text before must not begin with a percent sign on a line.
        let text = format!("{before}\n---\n{POOL}");
        let (objects, _) = parse_documents("x.yaml", &text);
        prop_assert!(!objects.pools.is_empty());
    }
}

fn names(objects: &Objects) -> Vec<String> {
    objects.pools.keys().map(ToString::to_string).collect()
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

const POOL: &str = "apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata:
  name: one
spec:
  addresses:
  - 10.0.0.0/24
";

const LIST: &str = "apiVersion: v1
kind: List
items:
- apiVersion: metallb.io/v1beta1
  kind: IPAddressPool
  metadata: {name: one, labels: {a: '1'}}
  spec:
    addresses: [10.0.0.0/24, fc00::-fc00::9]
    serviceAllocation: {priority: 1, namespaces: [a], namespaceSelectors: [{matchLabels: {a: b}}]}
- apiVersion: metallb.io/v1beta1
  kind: L2Advertisement
  metadata: {name: one}
  spec: {nodeSelectors: [{matchExpressions: [{key: a, operator: In, values: [b]}]}], interfaces: [eth0]}
- apiVersion: v1
  kind: Service
  metadata: {name: web, annotations: {metallb.io/loadBalancerIPs: '10.0.0.1, fc00::1'}}
  spec: {type: LoadBalancer, ports: [{port: 80}], ipFamilyPolicy: RequireDualStack}
";
