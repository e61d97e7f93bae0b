//! The JSON schema takes every file that the reader takes, and refuses what one value shows to be wrong.

use std::sync::LazyLock;

use serde_json::Value;

use super::*;

static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::draft7::new(&Config::schema()).unwrap());

/// The file as the schema sees it; `None` if it is no TOML.
fn instance(text: &str) -> Option<Value> {
    serde_json::to_value(toml::from_str::<toml::Table>(text).ok()?).ok()
}

/// Why the schema refuses a file that the reader takes.
fn refusals(text: &str) -> Vec<String> {
    VALIDATOR.iter_errors(&instance(text).unwrap()).map(|error| error.to_string()).collect()
}

#[test]
fn every_example_is_valid() {
    let mut examples = 0;
    let files = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")).unwrap();
    let files =
        files.map(|entry| entry.unwrap().path()).filter(|file| file.extension().is_some_and(|kind| kind == "toml"));
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        assert_eq!(refusals(&text), Vec::<String>::new(), "{text}");
        examples += 1;
    }
    assert!(examples >= 2, "{examples} examples");
}

#[test]
fn every_way_to_write_a_value_is_valid() {
    for text in [
        "",
        "[switch]\nmac_ageing = '5min'\nmax_guest_memory = '1.5 GiB'\nmulticast_snooping = true\nsocket_mode = '600'",
        "[switch]\nmulticast_snooping = '10,20-29'\nmetrics_listen = '[::1]:9477'\nallow_mirror = 'declared'",
        "[ports.a]\ntype = 'veth'\npeer = 'p'\nmac = '02-00-00-00-00-01'\nvlan.trunks = '10, 20-29'",
        "[ports.a]\ntype = 'tap'\nvlan = { mode = 'dot1q-tunnel', tag = 5, cvlans = [0, '7-9'], ethertype = '0x8100' }",
        "[ports.a]\ntype = 'tap'\nstorm = { broadcast = '1.5 Kpps', multicast = 'off' }\nmac_limit = 'off'",
        "[ports.a]\ntype = 'tap'\n[impair.a]\ngemodel = '1% 25.5%'\n[profiles.p]\ndelay = '1s 30ms'\nrate = '10 Mbit'",
        "[ports.a]\ntype = 'tap'\n[impair.a]\nrate = '10 Mbit for 5s,1mbit for 1m 30s , 2mbit'\noutage = '5s after 10s'",
        "[ports.a]\ntype = 'tap'\n[impair.a]\noutage = '1m 5s'\nlose_segment = 3\nlose_retransmissions = 0",
        "[ports.a]\ntype = 'tap'\n[impair.a.rx]\nprofile = 'lossy'\n[impair.a.tx]\nloss = '0.25 %'\nseed = 1",
        "[ports.a]\ntype = 'tap'\n[ports.b]\ntype = 'tap'\n[mirrors.m]\nsources = ['*:rx', 'b']\nto = 'a'\n\
         vlans = ['1-9']\ninject = { as_port = 'b', rate = '1kpps', sources = ['02:00:00:00:00:01'] }",
    ] {
        Config::parse(text, "lab.toml").unwrap();
        assert_eq!(refusals(text), Vec::<String>::new(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_down_is_valid(port in written::ports()) {
        let text = written::around(port).to_toml().to_string();
        prop_assert_eq!(refusals(&text), Vec::<String>::new(), "{}", text);
    }
}

/// What the reader says of mistakes that no single value shows, so that no schema sees them.
const ONLY_THE_READER_SEES: [&str; 18] = [
    "is not a range of VLAN ids",
    "is named twice",
    "`tag` is missing",
    "has no trunks",
    "is a key of a tunnel port",
    "the port's name is no interface name",
    "is a key of for = ",
    "is a key of role = ",
    "it is not the address of one device",
    "is already used by port",
    "is protected (switch.protected_interfaces)",
    "there is no port",
    "\"127.0.0.1:0\"",
    "is not a time",
    "needs `netns`",
    "so it can't be",
    "its allow_mirror is false",
    "mirrors.m.to: \"a\" is also a source",
];

/// The messages of libpcap.
const OF_A_FILTER: &str = "filter: \"tcp prot\"";

#[test]
fn what_is_refused_is_not_valid() {
    let of_a_port = refusals::OF_A_PORT.iter().map(|(text, line)| (refusals::with_port(text), *line));
    let of_a_file = refusals::OF_A_FILE.iter().map(|(text, line)| ((*text).to_owned(), *line));
    let mut wrong = Vec::new();
    for (text, line) in of_a_port.chain(of_a_file) {
        let Some(instance) = instance(&text) else { continue };
        let unseen = ONLY_THE_READER_SEES.iter().chain([&OF_A_FILTER]).any(|part| line.contains(part));
        if VALIDATOR.is_valid(&instance) != unseen {
            wrong.push(format!("{text}: valid: {}, but: {line}", !unseen));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
