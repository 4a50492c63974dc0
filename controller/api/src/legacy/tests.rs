use super::*;
use crate::manifests::parse_documents;
use crate::{Scope, validate};

#[test]
fn pools_and_protocols_become_pools_and_advertisements() {
    let (objects, said) = converted(
        "address-pools:
- name: default
  protocol: layer2
  addresses: [192.168.2.10-192.168.2.49]
- name: outer
  protocol: bgp
  addresses:
  - 198.51.100.0/24
  - fc00:f853:0ccd:e799::/124
  avoid-buggy-ips: true
  auto-assign: false
- name: second
  protocol: layer2
  addresses: [192.168.3.0/28]
  avoid-buggy-ips: false
",
    );

    assert_eq!(said, [""; 0]);
    assert_eq!(
        objects,
        [
            r#"IPAddressPool default {"addresses":["192.168.2.10-192.168.2.49"]}"#,
            r#"IPAddressPool outer {"addresses":["198.51.100.0/24","fc00:f853:0ccd:e799::/124"],"autoAssign":false,"avoidBuggyIPs":true}"#,
            r#"IPAddressPool second {"addresses":["192.168.3.0/28"]}"#,
            r#"BGPAdvertisement bgpadvertisement1 {"ipAddressPools":["outer"]}"#,
            r#"L2Advertisement l2advertisement1 {"ipAddressPools":["default"]}"#,
            r#"L2Advertisement l2advertisement2 {"ipAddressPools":["second"]}"#,
        ]
    );
}

#[test]
fn all_that_concerns_bgp_becomes_resources_too() {
    let (objects, said) = converted(
        "peers:
- {my-asn: 64500, peer-asn: 64501, peer-address: 10.0.0.1, peer-port: 1179, source-address: 10.0.0.2, hold-time: 120s,
   keepalive-time: 30s, router-id: 1.1.1.1, password: secret, bfd-profile: Fast_One, ebgp-multihop: true,
   node-selectors: [{match-labels: {a: b}, match-expressions: [{key: c, operator: In, values: [d]}]}]}
- {my-asn: 64500, peer-asn: 64502, peer-address: 10.0.0.3, ebgp-multihop: false}
address-pools:
- name: p
  protocol: bgp
  addresses: [10.1.0.0/24]
  bgp-advertisements:
  - {aggregation-length: 32, aggregation-length-v6: 64, localpref: 100, communities: ['64500:1', no-export]}
  - {aggregation-length: 24}
bgp-communities: {no-export: '65535:65281', b: '1:2'}
bfd-profiles:
- {name: Fast_One, receive-interval: 280, transmit-interval: 270, detect-multiplier: 5, echo-interval: 62, minimum-ttl: 254}
",
    );

    assert_eq!(
        objects,
        [
            r#"BGPPeer peer1 {"bfdProfile":"fast-one","ebgpMultiHop":true,"holdTime":"2m0s","keepaliveTime":"30s","myASN":64500,"nodeSelectors":[{"matchExpressions":[{"key":"c","operator":"In","values":["d"]}],"matchLabels":{"a":"b"}}],"password":"secret","peerASN":64501,"peerAddress":"10.0.0.1","peerPort":1179,"routerID":"1.1.1.1","sourceAddress":"10.0.0.2"}"#,
            r#"BGPPeer peer2 {"holdTime":"1m30s","myASN":64500,"peerASN":64502,"peerAddress":"10.0.0.3"}"#,
            r#"IPAddressPool p {"addresses":["10.1.0.0/24"]}"#,
            r#"BGPAdvertisement bgpadvertisement1 {"aggregationLength":32,"aggregationLengthV6":64,"communities":["64500:1","no-export"],"ipAddressPools":["p"],"localPref":100}"#,
            r#"BGPAdvertisement bgpadvertisement2 {"aggregationLength":24,"ipAddressPools":["p"]}"#,
            r#"BFDProfile fast-one {"detectMultiplier":5,"echoInterval":62,"echoMode":false,"minimumTtl":254,"passiveMode":false,"receiveInterval":280,"transmitInterval":270}"#,
            r#"Community communities {"communities":[{"name":"b","value":"1:2"},{"name":"no-export","value":"65535:65281"}]}"#,
        ]
    );
    assert_eq!(
        said,
        [
            "note: config.yaml:15: bfd-profiles[0].name: \"Fast_One\" is called fast-one from here on; write that name into the \
          annotations that name it"
        ]
    );
}

#[test]
fn every_line_that_is_not_carried_is_named_with_its_place_in_the_file() {
    let text = "apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: lb}
data:
  config: |
    address-pools:
    - name: one
      protocol: l2
      addresses: [10.0.0.0/24]
      auto-asign: true
    - name: '0815'
      protocol: layer2
      addresses: [10.1.0.0/24]
    - name: two
      protocol: layer2
      addresses: 10.2.0.0/24
    peers:
    - {my-asn: x, hold-time: 1s}
    bfd-profile: []
";
    let (objects, problems) = convert("config.yaml", text);

    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "config.yaml:19: bfd-profile: is not a field of the old configuration and is not carried over; did you mean \
             bfd-profiles?",
            "config.yaml:18: peers[0].my-asn: \"x\" is not a whole number and is not carried over",
            "config.yaml:18: peers[0].hold-time: \"1s\" is shorter than BGP allows; write 0s, or 3s or more",
            "config.yaml:10: address-pools[0].auto-asign: is not a field of the old configuration and is not carried over; \
             did you mean auto-assign?",
            "config.yaml:8: address-pools[0].protocol: \"l2\" is not a protocol, so the pool is announced by nobody; write \
             layer2 or bgp, or an L2Advertisement for the pool",
            "config.yaml:11: address-pools[1].name: \"0815\" is no name and cannot be made one; the object is left out; \
             write a name with a letter in it",
            "config.yaml:16: address-pools[2].addresses: \"10.2.0.0/24\" is not a list of texts and is not carried over",
        ]
    );
    assert!(objects.iter().all(|object| object["metadata"]["namespace"] == "lb"));
    assert_eq!(objects.len(), 4, "{objects:#?}");
}

#[test]
fn names_become_those_that_kubernetes_takes() {
    let long = "tooLongName01-tooLongName02-tooLongName03-tooLongName04-tooLongName05";
    for (written, expected) in [
        ("default", Some("default")),
        ("a", Some("a")),
        ("01-numbered", Some("numbered")),
        ("Capital_Pool", Some("capital-pool")),
        (long, Some("toolongname01-toolongname02-toolongname03-toolongname04-toolong")),
        ("0815", None),
        ("", None),
    ] {
        assert_eq!(kubernetes_name(written).as_deref(), expected, "{written}");
    }
    let (_, said) = converted("address-pools:\n- {name: A, protocol: layer2}\n- {name: a, protocol: layer2}\n");
    assert!(said.last().unwrap().ends_with("IPAddressPool a: is there twice; give one of the two another name"));
}

#[test]
fn what_is_written_reads_back_and_is_right() {
    let text = "address-pools:\n- {name: default, protocol: layer2, addresses: [192.168.2.10-192.168.2.49]}\n";
    let (objects, _) = convert("config", text);
    let yaml = render(&objects).unwrap();
    let (objects, problems) = parse_documents("out.yaml", &yaml);
    let (config, complaints) = validate(&objects, &Scope::default());

    assert_eq!((problems, complaints), (vec![], vec![]));
    assert_eq!((config.pools.iter().count(), config.advertisements.len()), (1, 1));
}

#[test]
fn other_files_are_refused() {
    for (text, complaint) in [
        ("kind: Service\n", "kind: \"Service\" is not a ConfigMap"),
        ("kind: ConfigMap\ndata: {other: x}\n", "data.config: is missing"),
        ("a: [", "is not YAML"),
        ("kind: ConfigMap\ndata:\n  config: |\n    a: [\n", "x.yaml:4: is not YAML"),
    ] {
        let (objects, problems) = convert("x.yaml", text);
        assert_eq!((objects.len(), problems.len()), (0, 1), "{text}");
        assert!(problems[0].to_string().contains(complaint), "{}", problems[0]);
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_converted_or_refused(text in "(address-pools:|peers:|- |name: |\\[|\\{|\\}|a|0|\\n|  |: ){0,40}") {
        let _ = convert("x", &text);
    }
}

fn converted(text: &str) -> (Vec<String>, Vec<String>) {
    let (objects, problems) = convert("config.yaml", text);
    let word = |object: &Value, pointer: &str| object.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let show =
        |object: &Value| format!("{} {} {}", word(object, "/kind"), word(object, "/metadata/name"), object["spec"]);
    let said = problems.iter().map(|problem| format!("{}: {problem}", problem.severity.as_str()));
    (objects.iter().map(show).collect(), said.collect())
}
