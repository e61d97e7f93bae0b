//! Proves that a guest's memory may grow and shrink while it talks: QEMU plugs a DIMM in (ADD_MEM_REG) and takes it out
//! again (REM_MEM_REG), the switch maps and unmaps the region, and the guest's rings go on.

use std::time::Duration;

use labsw_tests::guest::{Guest, Nic, monitor};
use labsw_tests::netns::Netns;
use labsw_tests::process::wait_for;
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_dimm_comes_and_goes() {
    if !require::all(&[Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let (site, container) = (Site::new("dimm"), Netns::new("box"));
    let switch = Labswd::start(
        &site,
        &format!(
            "[ports.a]\ntype = \"vhost_user\"\n[ports.box]\ntype = \"veth\"\npeer = \"ls-box\"\nnetns = \"{}\"\npeer_name = \"eth0\"\n",
            container.name()
        ),
    );
    container.address("eth0", "10.1.0.9/24");
    let socket = site.dir().join("monitor");
    let mut guest = Guest::boot_with_monitor("a", "10.1.0.1/24", &Nic::new(switch.vhost_socket("a"), 1), &socket);
    guest.ready();
    guest.wait_ping("10.1.0.9", 20 * SECOND);
    let regions = || switch.port("a")["memory_regions"].as_u64().expect("memory_regions");
    let before = regions();
    assert!(before > 0);

    let running = guest.begin("ping -q -i 0.02 -c 200 10.1.0.9");
    monitor(&socket, "object_add memory-backend-memfd,id=more,size=128M,share=on");
    let plugged = monitor(&socket, "device_add pc-dimm,id=dimm,memdev=more");
    assert!(!plugged.contains("Error"), "{plugged}");
    wait_for("another region", 10 * SECOND, || (regions() > before).then_some(()));
    let (status, output) = guest.finish(running, 60 * SECOND);
    assert!(status == 0 && output.contains(" 0% packet loss"), "while memory is plugged in: {output}");
    assert_eq!(switch.port_state("a"), "up");

    // What the guest has put online it must give back first; a guest without the driver never took it.
    guest.run(
        "for m in /sys/devices/system/memory/memory*; do [ $(cat $m/state) = offline ] || echo offline >$m/state; done",
    );
    let running = guest.begin("ping -q -i 0.02 -c 200 10.1.0.9");
    let unplugged = monitor(&socket, "device_del dimm");
    assert!(!unplugged.contains("Error"), "{unplugged}");
    wait_for("the region gone", 30 * SECOND, || (regions() == before).then_some(()));
    let (status, output) = guest.finish(running, 60 * SECOND);
    assert!(status == 0 && output.contains(" 0% packet loss"), "while memory is taken out: {output}");
    drop(guest);
    switch.stop();
}
