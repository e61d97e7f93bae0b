//! Proves that a guest of a real libvirtd on a port of the switch can be saved and restored, put aside and started
//! again, and that a snapshot with its memory can be taken and reverted to: each time its shell and its network go on.

#![allow(clippy::unwrap_used, reason = "test helpers")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use labsw_tests::guest;
use labsw_tests::libvirt::Libvirt;
use labsw_tests::netns::Netns;
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SECOND: Duration = Duration::from_secs(1);
const BOOT: Duration = Duration::from_secs(180);
/// How soon the guest answers after it was restored.
const RESUME: Duration = Duration::from_secs(20);
const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Labswd,
    Need::Guest,
    Need::Program("libvirtd"),
    Need::Program("virsh"),
    Need::Program("qemu-img"),
];

fn domain(directory: &Path, socket: &Path) -> String {
    let (kernel, initramfs) = guest::image(guest::Image::Cloud).unwrap();
    format!(
        "<domain type='qemu'><name>lab</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>
        <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
        <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>
        <cmdline>console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on no_timer_check \
         lab.ip=10.1.0.1/24</cmdline></os>
        <features><acpi/></features>
        <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{directory}/disk.qcow2'/>
        <target dev='vda' bus='virtio'/></disk>
        <interface type='vhostuser'><mac address='52:54:00:00:00:01'/>
        <source type='unix' path='{}' mode='client'><reconnect enabled='yes' timeout='1'/></source>
        <model type='virtio'/></interface>
        <serial type='unix'><source mode='bind' path='{directory}/serial'/><target port='0'/></serial>
        <memballoon model='none'/></devices></domain>",
        kernel.display(),
        initramfs.display(),
        socket.display(),
        directory = directory.display(),
    )
}

/// Has the guest's shell run a line; waits until `text` is printed.
fn shell(serial: &Path, line: &str, text: &str) {
    let mut stream = wait_for("serial line", 10 * SECOND, || UnixStream::connect(serial).ok());
    stream.set_read_timeout(Some(SECOND)).unwrap();
    let mut printed = String::new();
    wait_for(&format!("{text} on the serial line"), 30 * SECOND, || {
        writeln!(stream, "{line}").unwrap();
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).unwrap_or(0);
        printed.push_str(&String::from_utf8_lossy(&bytes[..count]));
        printed.contains(text).then_some(())
    });
}

#[test]
fn save_restore_managedsave_and_snapshots() {
    if !require::all(&NEEDS) {
        return;
    }
    let (site, container) = (Site::new("virt"), Netns::new("box"));
    let config = format!(
        "socket_mode = \"0666\"\n[ports.a]\ntype = \"vhost_user\"\n[ports.box]\ntype = \"veth\"\npeer = \
         \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
        container.name()
    );
    let switch = Labswd::start(&site, &config);
    container.address("eth0", "10.1.0.9/24");
    let (saved, serial) = (site.dir().join("saved"), site.dir().join("serial"));
    let disk = site.dir().join("disk.qcow2");
    process::run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&disk).arg("1M"));
    let libvirt = Libvirt::start(&site.ns, site.dir());
    libvirt.define(&domain(site.dir(), &switch.vhost_socket("a")));
    libvirt.virsh(&["start", "lab"]);
    let answers = |timeout| {
        wait_for("answer of the guest", timeout, || {
            container.try_run(&["ping", "-q", "-c", "1", "-W", "1", "10.1.0.1"]).0.success().then_some(())
        });
    };
    answers(BOOT);
    // The quotes keep the text out of an echo of the line itself.
    shell(&serial, "echo SAME''-GUEST >/tmp/mark; cat /tmp/mark", "SAME-GUEST");
    let goes_on = || {
        answers(RESUME);
        shell(&serial, "cat /tmp/mark", "SAME-GUEST");
        assert_eq!(switch.port_state("a"), "up");
        let output = container.run(&["ping", "-q", "-f", "-c", "1000", "-w", "60", "10.1.0.1"]);
        assert!(output.contains(" 0% packet loss"), "{output}");
    };
    let saved = saved.to_string_lossy();
    libvirt.virsh(&["save", "lab", &saved]);
    libvirt.virsh(&["restore", &saved]);
    goes_on();
    libvirt.virsh(&["managedsave", "lab"]);
    libvirt.virsh(&["start", "lab"]);
    goes_on();
    libvirt.virsh(&["snapshot-create-as", "lab", "one"]);
    shell(&serial, "rm /tmp/mark; echo GO''NE", "GONE");
    libvirt.virsh(&["snapshot-revert", "lab", "one"]);
    goes_on();
    libvirt.virsh(&["destroy", "lab"]);
    drop(libvirt);
    switch.stop();
}
