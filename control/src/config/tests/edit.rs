//! A configuration written into a file that people keep.

use super::*;

const LAB: &str = r#"# The lab of room 3.

[switch]
mac_ageing = "5m"   # longer than usual
rewind = "64MiB"

# The server.
[ports.web]
peer = "ls-web"     # its end
type = "veth"
vlan = { tag = 20 }   # accounting

# A guest.
[ports.dc01]
type = "vhost_user"

# What the sensor sees.
[mirrors.detect]
sources = ["web"]
to = "dc01"

[impair.web]
delay = "5ms"
# at the end
"#;

/// [`LAB`] with a text replaced, as a configuration, written into [`LAB`].
fn written(from: &str, to: &str) -> String {
    assert!(LAB.contains(from));
    let config = Config::parse(&LAB.replace(from, to), "x").unwrap();
    let text = config.written_into(LAB, "lab.toml").unwrap();
    assert_eq!(Config::parse(&text, "x").unwrap().normalised(), config.normalised(), "{text}");
    text
}

#[test]
fn only_what_differs_is_touched() {
    assert_eq!(written("5ms", "5ms"), LAB);
    assert_eq!(written("\"5ms\"", "\"0.005s\""), LAB, "another spelling of the same");
    for (from, to) in [
        ("tag = 20", "tag = 30"),
        ("\"5m\"", "\"60s\""),
        ("delay = \"5ms\"", "delay = \"7ms\""),
        ("sources = [\"web\"]", "sources = [\"web:rx\"]"),
        ("peer = \"ls-web\"", "peer = \"other\""),
    ] {
        assert_eq!(written(from, to), LAB.replace(from, to));
    }
    let text = written("[ports.dc01]\n", "[ports.dc01]\nmtu = 9000\n");
    assert_eq!(text, LAB.replace("type = \"vhost_user\"\n", "type = \"vhost_user\"\nmtu = 9000\n"));
}

#[test]
fn what_is_gone_goes_with_its_comment_and_what_is_new_follows_its_kind() {
    let gone = "# What the sensor sees.\n[mirrors.detect]\nsources = [\"web\"]\nto = \"dc01\"\n\n";
    assert_eq!(written(gone, ""), LAB.replace(gone, ""));
    let text = written("# A guest.", "[ports.new]\ntype = \"tap\"\n\n# A guest.");
    let [guest, new, mirror] = ["[ports.dc01]", "[ports.new]", "[mirrors.detect]"].map(|part| text.find(part).unwrap());
    assert!(guest < new && new < mirror, "{text}");
    assert!(text.contains("# A guest.") && text.ends_with("# at the end\n"), "{text}");
}

#[test]
fn forms_that_do_not_go_together_are_written_anew() {
    let text =
        written("[impair.web]\ndelay = \"5ms\"", "[impair.web.rx]\nloss = \"1%\"\n[impair.web.tx]\nloss = \"2%\"");
    assert!(text.contains("longer than usual") && !text.contains("5ms"), "{text}");
    let apart = LAB.replace("[impair.web]\n", "[impair.web.rx]\nloss = \"1%\"\n[impair.web.tx]\n");
    let config = Config::parse(LAB, "x").unwrap();
    let text = config.written_into(&apart, "x").unwrap();
    assert_eq!(Config::parse(&text, "x").unwrap().normalised(), config.normalised(), "{text}");
    let inline = "ports = { web = { type = 'veth', peer = 'ls-web' } }\n";
    let text = config.written_into(inline, "x").unwrap();
    assert_eq!(Config::parse(&text, "x").unwrap().normalised(), config.normalised(), "{text}");
    assert!(
        config.written_into("[switch]\nworker = 1\n", "lab.toml").unwrap_err().to_string().contains("lab.toml:2:1")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_written_into_whatever_reads_back_the_same(ports in [written::ports(), written::ports()]) {
        let [from, to] = ports.map(written::around);
        let text = from.to_toml().to_string();
        let changed = to.written_into(&text, "x").unwrap();
        prop_assert_eq!(Config::parse(&changed, "x").unwrap().normalised(), to.normalised(), "{}", changed);
    }
}
