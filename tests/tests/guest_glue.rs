//! Proves that what `labsw-ctl guest` prints works as it is printed: QEMU boots with the options, LXC and
//! systemd-nspawn start with the lines, a shell runs the commands, and each then talks to a neighbour through the
//! switch. Domain XML is held against libvirt's schema.

#![allow(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use labsw_tests::guest::{self, Guest};
use labsw_tests::lxc::Container;
use labsw_tests::netns::Netns;
use labsw_tests::nspawn::Nspawn;
use labsw_tests::process::{self, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SOON: Duration = Duration::from_secs(20);
/// The neighbour.
const NEIGHBOUR: &str = "10.1.0.9";

/// A container port whose end is `eth0` in `namespace`, and `ports`.
fn lab(namespace: &Netns, ports: &str) -> String {
    format!(
        "{ports}\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
        namespace.name()
    )
}

/// What is printed for people is the text of the JSON.
fn printed(switch: &Labswd<'_>, arguments: &[&str]) -> String {
    let answer = switch.ctl(&[&["guest"], arguments].concat());
    assert_eq!(answer["port"], arguments[0]);
    assert_eq!(answer["for"], arguments[2]);
    answer["text"].as_str().expect("a text").to_owned()
}

/// The MAC address among what was printed.
fn mac(printed: &str) -> String {
    let at = printed.find("52:54:00:").expect("a MAC address");
    printed[at..at + 17].to_owned()
}

#[test]
fn qemu_boots_with_the_printed_options() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new("glueqemu"), Netns::new("box"));
    let ports = "[ports.a]\ntype = \"vhost_user\"\nqueue_pairs = 2\n\
                 [ports.b]\ntype = \"vhost_user\"\nrole = \"client\"\n\
                 [ports.win]\ntype = \"tap\"\ninterface = \"win0\"\nfor = \"guest\"\n";
    let mut switch = Labswd::start(&site, &lab(&container, ports));
    container.address("eth0", &format!("{NEIGHBOUR}/24"));
    let (major, minor) = guest::version();
    let version = format!("{major}.{minor}");
    let options =
        |port: &str| printed(&switch, &[port, "--for", "qemu", "--memory", "192M", "--qemu-version", &version]);
    let texts = ["a", "b", "win"].map(options);
    let mut a = Guest::boot_printed(&site.ns, "a", "10.1.0.1/24", 2, &texts[0]);
    let mut b = Guest::boot_printed(&site.ns, "b", "10.1.0.2/24", 1, &texts[1]);
    // The test kernel has no driver for the emulated NIC: that QEMU opens the interface is what can be seen.
    switch.wait_port("win", "down", SOON);
    let win = Guest::boot_printed(&site.ns, "win", "none", 1, &texts[2]);
    switch.wait_port("win", "up", SOON);
    drop(win);
    for (guest, port, text) in [(&mut a, "a", &texts[0]), (&mut b, "b", &texts[1])] {
        guest.ready();
        guest.wait_ping(NEIGHBOUR, SOON);
        assert_eq!(guest.ok("cat /sys/class/net/eth0/address"), mac(text), "port {port}");
        assert_eq!(switch.fdb_port(1, &mac(text)).as_deref(), Some(port));
        assert!(switch.counter(port, "rx_frames") > 0, "frames went through the switch");
    }
    assert_eq!(a.ok("ls -d /sys/class/net/eth0/queues/rx-*").split_whitespace().count(), 2, "both queue pairs");
    // They come back to a switch that was killed.
    switch.kill9();
    switch.restart();
    a.wait_ping("10.1.0.2", SOON);
}

#[test]
fn a_guest_is_told_the_mtu_of_its_port_and_no_larger_one() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new("gluemtu"), Netns::new("box"));
    let ports = "[ports.a]\ntype = \"vhost_user\"\nmtu = 9000\n[ports.b]\ntype = \"vhost_user\"\n";
    let mut switch = Labswd::start(&site, &(lab(&container, ports) + "mtu = 9000\n"));
    container.address("eth0", &format!("{NEIGHBOUR}/24"));
    let (major, minor) = guest::version();
    let version = format!("{major}.{minor}");
    let [a_options, b_options] = ["a", "b"]
        .map(|port| printed(&switch, &[port, "--for", "qemu", "--memory", "192M", "--qemu-version", &version]));
    assert!(a_options.contains(",host_mtu=9000") && !b_options.contains("host_mtu"));
    // Somebody gave the other guest more than its port has.
    let b_options = b_options.replace(",tx_queue_size=1024", ",tx_queue_size=1024,host_mtu=9000");
    let mut a = Guest::boot_printed(&site.ns, "a", "10.1.0.1/24", 1, &a_options);
    let mut b = Guest::boot_printed(&site.ns, "b", "10.1.0.2/24", 1, &b_options);
    let large = format!("ping -c 3 -W 5 -s 8000 {NEIGHBOUR}");
    a.ready();
    assert!(a.ok("ip link show eth0").contains("mtu 9000"));
    a.wait_ping(NEIGHBOUR, SOON);
    a.ok(&large);
    let features = switch.port("a")["features"].clone();
    assert!(features.to_string().contains("\"MTU\""), "{features}");

    b.ready();
    switch.wait_port("b", "down", SOON);
    let reason = switch.port("b")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("an MTU of 9000 bytes, the port has 1500: set mtu = 9000"), "{reason}");
    assert!(switch.log().contains("MTU refused"));
    assert!(b.log().contains("MTU not supported by the backend"), "QEMU says it as well: {}", b.log());

    // With what the reason says, set at run time, the same guest is told its MTU.
    switch.ctl(&["port", "set", "b", "mtu=9000"]);
    drop(b);
    let mut b = Guest::boot_printed(&site.ns, "b2", "10.1.0.2/24", 1, &b_options);
    b.ready();
    b.wait_ping(NEIGHBOUR, SOON);
    b.ok(&large);
    drop(b);
    switch.ctl(&["port", "set", "b", "mtu=1500"]);

    // A switch that was killed offers the same: neither guest notices another device.
    switch.kill9();
    switch.restart();
    a.wait_ping(NEIGHBOUR, SOON);
    a.ok(&large);
    assert_eq!(switch.port("a")["features"], features);
}

#[test]
fn containers_start_with_the_printed_lines() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Lxc, Need::Program("systemd-nspawn")]) {
        return;
    }
    let (site, container) = (Site::new("gluebox"), Netns::new("box"));
    let web = Netns::new("web");
    let name = web.name();
    let ports = format!(
        "[ports.lxc]\ntype = \"veth\"\npeer = \"ls-lxc\"\n[ports.nsp]\ntype = \"veth\"\npeer = \"ls-nsp\"\n\
         [ports.box0]\ntype = \"tap\"\nfor = \"container\"\n\
         [ports.{name}]\ntype = \"veth\"\npeer = \"ls-net\"\ninterface = \"lsw-net\"\n"
    );
    let switch = Labswd::start(&site, &lab(&container, &ports));
    container.address("eth0", &format!("{NEIGHBOUR}/24"));

    let text = printed(&switch, &["lxc", "--for", "lxc"]);
    let lxc = Container::start_with(&site.ns, "lxc", &text);
    lxc.ok("ifconfig eth0 10.1.0.1 netmask 255.255.255.0");
    lxc.ok(&format!("ping -c 1 -W 5 {NEIGHBOUR}"));
    assert_eq!(switch.fdb_port(1, &mac(&text)).as_deref(), Some("lxc"));

    // On a TAP port the container keeps its offloads, and the interface comes back from it.
    let text = printed(&switch, &["box0", "--for", "lxc"]);
    let mut offloaded = Container::start_with(&site.ns, "box0", &text);
    let answers = |container: &Container<'_>| {
        container.ok("ifconfig eth0 10.1.0.4 netmask 255.255.255.0");
        container.ok(&format!("ping -c 1 -W 5 {NEIGHBOUR}"));
    };
    answers(&offloaded);
    assert_eq!(switch.fdb_port(1, &mac(&text)).as_deref(), Some("box0"));
    for end in [&["-t", "5"][..], &["-k"]] {
        offloaded.stop(end);
        wait_for("the interface back", SOON, || site.ns.link_names().contains(&"box0".to_owned()).then_some(()));
        switch.wait_port("box0", "down", SOON);
        offloaded.start_again();
        answers(&offloaded);
    }

    let text = printed(&switch, &["nsp", "--for", "nspawn"]);
    let mut nspawn = Nspawn::start(&site.ns, "nsp", &text);
    nspawn.ok("ip addr add 10.1.0.2/24 dev ls-nsp && ip link set ls-nsp up");
    nspawn.ok(&format!("ping -c 1 -W 5 {NEIGHBOUR}"));

    // The commands are for a namespace that is called as the port is.
    let text = printed(&switch, &[name, "--for", "netns"]);
    site.ns.run(&["sh", "-e", "-c", &text]);
    web.ip(&["addr", "add", "10.1.0.3/24", "dev", "eth0"]);
    web.run(&["ping", "-c", "1", "-W", "5", NEIGHBOUR]);
    assert_eq!(switch.fdb_port(1, &mac(&text)).as_deref(), Some(name));
}

#[test]
fn domain_xml_is_what_libvirt_takes() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Program("virt-xml-validate"), Need::Program("xmllint")]) {
        return;
    }
    let site = Site::new("gluexml");
    let ports = "[ports.a--a]\ntype = \"vhost_user\"\nsocket = \"/tmp/a<'&'>.sock\"\nrole = \"client\"\n\
                 [ports.b]\ntype = \"vhost_user\"\nqueue_pairs = 2\nmtu = 9000\n\
                 [ports.c]\ntype = \"tap\"\ninterface = \"c0\"\nfor = \"guest\"\n";
    let switch = Labswd::start(&site, ports);
    for port in ["a--a", "b", "c"] {
        let text = printed(&switch, &[port, "--for", "libvirt"]);
        // The comments say where each element goes.
        let at = text.find("<interface").expect("an interface");
        let devices = text[..at].rfind("<!--").expect("a comment before it");
        let (domain, devices) = text.split_at(devices);
        let xml = format!(
            "<domain type='kvm'><name>x</name><memory unit='MiB'>192</memory>{domain}<os><type>hvm</type></os>\
             <devices>{devices}</devices></domain>"
        );
        let file = site.dir().join("domain.xml");
        std::fs::write(&file, &xml).expect("written");
        let (status, said) = process::output(std::process::Command::new("virt-xml-validate").arg(&file).arg("domain"));
        assert!(status.success(), "{said}\n{xml}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let (site, container) = (Site::new("glueno"), Netns::new("box"));
    let ports = "[ports.a]\ntype = \"vhost_user\"\n[ports.host]\ntype = \"tap\"\ninterface = \"lab0\"\n";
    let switch = Labswd::start(&site, &lab(&container, ports));
    let refused = |port, target| switch.ctl_refused(&["guest", port, "--for", target]);
    assert!(refused("a", "lxc").contains("use --for qemu, libvirt, nixvirt, microvm or cloud-hypervisor"));
    assert!(refused("host", "qemu").contains("ip addr add … dev lab0"));
    assert!(refused("box", "nspawn").contains("itself"));
    assert!(refused("none", "qemu").contains("port \"none\" does not exist"));
    assert_eq!(switch.ctl_output(&["guest", "a", "--for", "vmware"]).0, 2, "wrong usage");
}
