//! Proves the unit as it is installed, on a Debian system with systemd in a virtual machine: confinement, kills, the
//! watchdog, the directory in `/run`, and boots with the NICs in other PCI slots.
//!
//! With `LABHOST=all` the service is killed as well, and the system boots twice more: with the NICs in each other's
//! slots, and in their first ones. Without it, the NICs' order in the slots is not that of their addresses.

#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::time::Instant;

use labsw_tests::lab_host::{HostNic, LabHost, PATIENCE, assert_passes, system_image};
use labsw_tests::packet::{BROADCAST, Frame, mac};
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::TempDir;

/// The two ports of a dual-port NIC, named as the ports of the switch.
const UPLINK: HostNic = HostNic { model: "igb", driver: "igb", name: "uplink", mac: 1 };
const SPAN: HostNic = HostNic { model: "igb", driver: "igb", name: "span", mac: 2 };
const CONFIG: &str = r#"
[ports.uplink]
type = "af_xdp"
device = "mac:52:54:00:00:00:01"
vlan = { mode = "native-untagged", tag = 1 }

[ports.span]
type = "af_xdp"
device = "mac:52:54:00:00:00:02"
vlan = { mode = "native-untagged", tag = 1 }
"#;

#[test]
fn the_unit_on_a_debian_system() {
    if !require::all(&[Need::Labswd, Need::LabHost, Need::Program("udevadm")]) {
        return;
    }
    let all = std::env::var("LABHOST").is_ok_and(|which| which == "all");
    let mut since = Instant::now();
    let directory = TempDir::new();
    let image = system_image(directory.path(), CONFIG);
    let mut host = LabHost::boot_system(&[SPAN, UPLINK], &image);
    let names = in_service(&mut host, ["0000:02:00.0", "0000:01:00.0"]);
    done(&mut since, "boot");
    confined(&mut host);
    if all {
        restarted_after(&mut host, "systemctl kill --kill-who=main -s KILL labsw");
        done(&mut since, "kill");
    }
    restarted_after(&mut host, "systemctl kill --kill-who=main -s STOP labsw");
    let journal = host.ok("journalctl --no-pager -o cat -u labsw");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    done(&mut since, "watchdog");
    stopped(&mut host);
    done(&mut since, "stop");
    drop(host);
    if all {
        let mut host = LabHost::boot_system(&[UPLINK, SPAN], &image);
        let swapped = in_service(&mut host, ["0000:01:00.0", "0000:02:00.0"]);
        assert_eq!(swapped, [names[1].clone(), names[0].clone()], "udev names devices by their slots");
        done(&mut since, "boot with the NICs in each other's slots");
        drop(host);
        let mut host = LabHost::boot_system(&[SPAN, UPLINK], &image);
        assert_eq!(in_service(&mut host, ["0000:02:00.0", "0000:01:00.0"]), names);
        done(&mut since, "boot with the NICs in their first slots");
    }
}

/// Says on standard error how far the test is.
fn done(since: &mut Instant, check: &str) {
    eprintln!("lab service: {check}: {:.1} s", since.elapsed().as_secs_f32());
    *since = Instant::now();
}

/// The service is up, each port has its own NIC, in the PCI slots `slots`, and frames pass. Gives the interfaces.
fn in_service(host: &mut LabHost, slots: [&str; 2]) -> [String; 2] {
    wait_for("active service", PATIENCE, || (host.run("systemctl is-active labsw").0 == 0).then_some(()));
    let interfaces = [UPLINK, SPAN].map(|nic| {
        let port = host.wait_up(nic.name);
        let interface = port["interface"].as_str().unwrap_or_default().to_owned();
        let address = host.ok(&format!("cat /sys/class/net/{interface}/address"));
        assert_eq!(address.trim(), format!("52:54:00:00:00:{:02x}", nic.mac), "{port}");
        interface
    });
    for (interface, slot) in interfaces.iter().zip(slots) {
        let device = host.ok(&format!("readlink -f /sys/class/net/{interface}/device"));
        assert!(device.trim().ends_with(slot), "{interface}: {device}");
    }
    frames_pass(host);
    interfaces
}

fn frames_pass(host: &LabHost) {
    assert_passes(host, "uplink", "span", &Frame::new(BROADCAST, mac(101)).build());
    assert_passes(host, "span", "uplink", &Frame::new(BROADCAST, mac(102)).build());
}

fn main_pid(host: &mut LabHost) -> String {
    host.ok("systemctl show --value -p MainPID labsw").trim().to_owned()
}

/// The process is no root's, has no new privileges, a filter of system calls, and sees a read-only system.
fn confined(host: &mut LabHost) {
    let pid = main_pid(host);
    let status = host.ok(&format!("cat /proc/{pid}/status"));
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().unwrap_or_default().to_owned()
    };
    assert_ne!(field("Uid:"), "0", "{status}");
    assert_eq!((field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()), ("1", "2"), "{status}");
    let mounts = host.ok(&format!("cat /proc/{pid}/mountinfo"));
    let root = mounts.lines().rfind(|line| line.split_whitespace().nth(4) == Some("/")).unwrap_or_default().to_owned();
    assert!(root.split_whitespace().nth(5).is_some_and(|options| options.starts_with("ro")), "{mounts}");
}

/// After `command`, which ends the service's process or stops it, systemd starts another, and frames pass again.
fn restarted_after(host: &mut LabHost, command: &str) {
    let before = main_pid(host);
    host.ok(command);
    wait_for("another process", PATIENCE, || {
        let now = main_pid(host);
        (now != before && now != "0" && host.run("systemctl is-active labsw").0 == 0).then_some(())
    });
    for nic in [UPLINK, SPAN] {
        host.wait_up(nic.name);
    }
    frames_pass(host);
}

/// A service that is stopped leaves its directory in `/run`, which is its user's, and no program on the devices.
fn stopped(host: &mut LabHost) {
    host.ok("systemctl stop labsw");
    assert_eq!(host.ok("stat -c %U /run/labsw").trim(), "labsw");
    let links = host.ok("/usr/bin/ip -o link");
    assert!(!links.contains("xdp") && !links.contains("PROMISC"), "{links}");
    let failed = host.ok("systemctl --failed --no-legend --plain");
    assert!(!failed.contains("labsw"), "{failed}");
}
