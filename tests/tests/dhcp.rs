//! Proves that a guest, a container and a second VLAN get their addresses by DHCP through port B, a trunk on which the
//! gateway speaks 802.1Q, and reach their gateway there; and that another VLAN's gateway stays out of reach.

use std::time::Duration;

use labsw_tests::gateway::Gateway;
use labsw_tests::guest::{Guest, Nic};
use labsw_tests::lxc::Container;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const LAB: &str = r#"
[ports.uplink]
type = "af_xdp"
device = "name:b0"
vlan = { mode = "trunk", trunks = [10, 20] }

[ports.vm]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }

[ports.web]
type = "veth"
peer = "ls-web"
vlan = { mode = "access", tag = 20 }
"#;

#[test]
fn guest_and_container_get_leases_in_their_vlans() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest, Need::Lxc, Need::Program("dnsmasq")]) {
        return;
    }
    let site = Site::new("dhcp");
    let _gateway = Gateway::start(&site, "b0", &[10, 20]);
    let switch = Labswd::start(&site, LAB);
    let mut guest = Guest::boot("vm", "none", &Nic::new(switch.vhost_socket("vm"), 1));
    {
        let container = Container::start(&site.ns, "web", "ls-web");
        let address = container.dhcp();
        assert!(address.starts_with("10.20.0."), "the container is in VLAN 20: {address}");
        container.ok("ping -c 2 -W 5 10.20.0.1");

        guest.ready();
        let address = guest.dhcp("eth0");
        assert!(address.starts_with("10.10.0."), "the guest is in VLAN 10: {address}");
        guest.wait_ping("10.10.0.1", Duration::from_secs(5));
        assert_eq!(switch.fdb_port(10, "52:54:00:00:00:01").as_deref(), Some("vm"), "the switch learned the guest");

        // The same addresses in the wrong VLAN: nobody answers.
        guest.ok("ip addr add 10.20.0.200/24 dev eth0");
        assert!(!guest.pings("10.20.0.1"), "VLAN 20's gateway answers in VLAN 10");
        assert!(switch.counter("vm", "rx_frames") > 0 && switch.counter("uplink", "tx_frames") > 0);
    }
    drop(guest);
    switch.stop();
}
