//! Checks the programs that run guests and containers: present, and new enough for their ports.

use super::gather::QEMU;
use super::host::Program;
use super::{Finding, Host};
use crate::config::PortKind;

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    vec![qemu(host), libvirt(host), lxc(host)]
}

fn evidence(program: &Program) -> String {
    format!("{}: {}", program.path.display(), if program.says.is_empty() { "says no version" } else { &program.says })
}

fn qemu(host: &Host) -> Finding {
    const CHECK: &str = "qemu";
    let guests = !host.ports(|kind| matches!(kind, PortKind::VhostUser(_))).is_empty();
    let Some(program) = host.facts.programs.get(QEMU) else {
        let other = host.facts.programs.get("cloud-hypervisor");
        let evidence = format!("{QEMU}: not found");
        return match other {
            Some(other) => Finding::ok(
                CHECK,
                "guests are run by another hypervisor",
                format!("{evidence}; {}", self::evidence(other)),
            ),
            None if guests => Finding::advice(CHECK, "there are ports for guests, and no QEMU to run them", evidence)
                .command("apt install qemu-system-x86")
                .nixos("services.labsw.guests, or virtualisation.libvirtd.enable = true"),
            None => Finding::ok(CHECK, "not installed; only guests need it", evidence),
        };
    };
    let evidence = evidence(program);
    match program.version() {
        Some(version) if version >= (9, 2) => Finding::ok(CHECK, "guests reconnect with reconnect-ms=500", evidence),
        // The option is older than this version, and so is mergeable memory of memfd.
        Some(version) if version >= (4, 0) => {
            Finding::ok(CHECK, "guests reconnect with reconnect=1 (reconnect-ms is of QEMU 9.2)", evidence)
        }
        Some(_) => Finding::advice(CHECK, "too old to have been tried with the switch: 7.2 and 10 have", evidence)
            .command("apt install qemu-system-x86")
            .nixos("virtualisation.libvirtd.qemu.package = pkgs.qemu_kvm"),
        None => Finding::advice(CHECK, "its version can't be read", evidence),
    }
}

fn libvirt(host: &Host) -> Finding {
    const CHECK: &str = "libvirt";
    let programs = &host.facts.programs;
    let daemon = ["virtqemud", "libvirtd"].iter().find_map(|name| programs.get(name));
    let Some(program) = daemon.or_else(|| programs.get("virsh")) else {
        return Finding::ok(CHECK, "not installed; guests can do without", "virtqemud, libvirtd, virsh: not found");
    };
    let evidence = evidence(program);
    if daemon.is_none() {
        return Finding::ok(CHECK, "only its tools are installed; guests can do without", evidence);
    }
    let qemu = programs.get(QEMU).and_then(Program::version);
    match (program.version(), qemu) {
        (Some(version), _) if version < (4, 1) => {
            Finding::advice(CHECK, "knows no <reconnect>: guests lose the switch when it restarts", evidence)
                .command("apt install -t CODENAME-backports libvirt-daemon-system")
                .nixos("virtualisation.libvirtd.package = pkgs.libvirt")
        }
        (Some(version), Some(qemu)) if version <= (9, 0) && qemu >= (9, 0) => {
            let summary =
                "says -no-acpi, which this QEMU does not know, unless the domain has <features><acpi/></features>";
            Finding::advice(CHECK, summary, evidence)
                .command("virsh edit DOMAIN   # add <acpi/> to <features>")
                .nixos("virtualisation.libvirtd.package = pkgs.libvirt")
        }
        _ => Finding::ok(CHECK, "guests reconnect with <reconnect enabled='yes' timeout='1'/>", evidence),
    }
}

fn lxc(host: &Host) -> Finding {
    const CHECK: &str = "lxc";
    match host.facts.programs.get("lxc-start") {
        None => Finding::ok(CHECK, "not installed; only containers of LXC need it", "lxc-start: not found"),
        Some(program) => {
            let evidence = evidence(program);
            if host.is_there("/sys/fs/cgroup") {
                return Finding::ok(CHECK, "containers can be attached", evidence);
            }
            Finding::advice(CHECK, "no control groups are mounted; containers of LXC do not start", evidence)
                .command("mount -t cgroup2 none /sys/fs/cgroup")
        }
    }
}
