//! The snippets word for word, and what is refused. `LABSW_WRITE_GOLDEN=1` writes the files of `golden/` again.

use labsw_switch::vlan::{PortVlan, VlanMode};
use std::path::Path;

use super::*;
use crate::api::Vlan;

fn port(name: &str, port_type: PortType) -> Port {
    Port::new(name, port_type, Vlan::shown(&PortVlan::new(VlanMode::Access, Some(10), &[]).unwrap()))
}

fn vhost() -> Port {
    Port {
        socket: Some("/run/labsw/vhost/dc01.sock".into()),
        role: Some(PortRole::Server),
        queue_pairs: Some(1),
        ..port("dc01", PortType::VhostUser)
    }
}

/// QEMU listens, two queue pairs, jumbo frames.
fn vhost_client() -> Port {
    Port {
        socket: Some("/tmp/a, b.sock".into()),
        role: Some(PortRole::Client),
        queue_pairs: Some(2),
        mtu: 9000,
        ..port("big", PortType::VhostUser)
    }
}

fn tap(role: PortRole) -> Port {
    Port { device: Some("win0".into()), role: Some(role), ..port("win", PortType::Tap) }
}

fn veth() -> Port {
    Port { peer: Some("ls-web".into()), ..port("web", PortType::Veth) }
}

#[test]
fn snippets_are_these() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/glue/golden");
    let machines = [("vhost", vhost()), ("vhost-client", vhost_client()), ("tap", tap(PortRole::Guest))];
    let mut cases: Vec<(String, Port, Target)> = Vec::new();
    for target in Target::ALL {
        match target.is_machine() {
            true => {
                cases.extend(machines.iter().map(|(case, port)| (format!("{target}-{case}"), port.clone(), target)))
            }
            false => {
                cases.push((target.to_string(), veth(), target));
                cases.push((format!("{target}-tap"), tap(PortRole::Container), target));
            }
        }
    }
    for (case, port, target) in cases {
        let text = snippet(&port, target, &Options::default()).unwrap();
        let file = directory.join(format!("{case}.txt"));
        if std::env::var_os("LABSW_WRITE_GOLDEN").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let wanted = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, wanted, "{}", file.display());
    }
}

#[test]
fn old_qemu_gets_the_old_spelling() {
    let options = Options { qemu_version: (9, 1), memory: "256M".to_owned() };
    let text = snippet(&vhost(), Target::Qemu, &options).unwrap();
    assert!(text.contains(",reconnect=1 ") && !text.contains("reconnect-ms"), "{text}");
    assert!(text.contains("-m 256M ") && text.contains("size=256M,share=on"), "{text}");
    let text = snippet(&vhost(), Target::Qemu, &Options { qemu_version: (9, 2), ..options }).unwrap();
    assert!(text.contains(",reconnect-ms=500 "), "{text}");
}

#[test]
fn what_does_not_fit_is_refused_in_one_line() {
    let refused = |port: &Port, target| {
        let error = snippet(port, target, &Options::default()).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    for target in Target::ALL {
        assert!(refused(&tap(PortRole::Host), target).contains("ip addr add … dev win0"));
        assert!(refused(&port("uplink", PortType::AfXdp), target).contains("plug guests into vhost_user"));
        let (fits, hint) = match target.is_machine() {
            true => (veth(), "use --for lxc, nspawn or netns"),
            false => (vhost(), "use --for qemu, libvirt"),
        };
        let error = refused(&fits, target);
        assert!(error.contains(hint) && error.contains(&format!("{:?}", fits.name)), "{error}");
    }
    assert!(refused(&tap(PortRole::Guest), Target::Lxc).contains("use --for qemu"));
    let moved = Port { netns: Some("web".into()), ..veth() };
    assert!(refused(&moved, Target::Lxc).contains("moves into the namespace \"web\" itself"));
    let silent = port("odd", PortType::VhostUser);
    assert!(refused(&silent, Target::Qemu).contains("does not report its socket"));
}

#[test]
fn odd_names_are_quoted() {
    assert_eq!(quote::shell("a b'c"), r"'a b'\''c'");
    assert_eq!(quote::shell("/run/a_1.sock,,x=y"), "/run/a_1.sock,,x=y");
    assert_eq!(quote::shell(""), "''");
    assert_eq!(quote::qemu("a,b"), "a,,b");
    assert_eq!(quote::cloud_hypervisor("a,b"), "\"a,b\"");
    assert_eq!(quote::xml("a&'<b>"), "'a&amp;&apos;&lt;b&gt;'");
    assert!(!quote::xml_comment("a---b----c").contains("--"));
    assert_eq!(quote::nix("a\"${b}\\"), r#""a\"\${b}\\""#);
}
