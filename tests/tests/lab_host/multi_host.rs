//! Two hosts of one lab over VXLAN, with the example's configuration and the commands that `docs/multi-host.md` prints.
//! Each host is a namespace of the machine, with an address and a labswd of its own.

use std::path::Path;
use std::time::Instant;

use labsw_tests::lab_host::{LabHost, PATIENCE};

/// A shell whose `ip` is iproute2's, not busybox's.
const SHELL: &str = "ip() { /bin/ip \"$@\"; }";

/// Containers of the same VLAN on two hosts reach each other, with the largest packets too, and with `kill` also after
/// a host's switch was killed and started again; containers of different VLANs don't.
pub fn two_hosts(host: &mut LabHost, kill: bool) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let (page, example) = (read("docs/multi-host.md"), read("control/examples/multi-host.toml"));
    let trunk = &example[example.find("[ports.trunk]").unwrap()..example.find("[ports.dc01]").unwrap()];
    assert!(page.contains(trunk.trim_end()), "the page has another trunk than the example");
    let (commands, undo) = (commands(&page, "ip tuntap add"), commands(&page, "labsw-ctl port del"));
    host.ok(&format!(
        "{SHELL}; for n in 1 2; do ip netns add h$n; ip netns add g$n; ip -n h$n link set lo up; done
         ip -n h1 link add under type veth peer name under netns h2
         for n in 1 2; do ip -n h$n addr add 192.0.2.$n/24 dev under; ip -n h$n link set under up; done"
    ));
    for n in [1, 2] {
        let switch = format!("[switch]\ncontrol_socket = \"/run/h{n}.sock\"\nvhost_user_dir = \"/run/h{n}\"\n");
        write(host, &format!("/tmp/h{n}.toml"), &(switch + &example.replace("web", &format!("web{n}"))));
        let here = if n == 1 { commands.clone() } else { exchanged(&commands, "192.0.2.1", "192.0.2.2") };
        run(host, n, &here);
        start(host, n);
    }
    for n in [1, 2] {
        wait_ready(host, n);
        host.ok(&format!(
            "{SHELL}; ip -n h{n} link set ls-web{n} netns g{n} name eth0; ip -n g{n} link set eth0 up
             ip -n g{n} addr add 10.30.0.{n}/24 dev eth0"
        ));
    }
    reaches(host);
    host.ok(&ping("-c 3 -s 1422 -W 5"));
    let learned = host.ok("labsw-ctl --socket /run/h1.sock fdb list --vlan 30 --port trunk");
    assert_eq!(learned.matches("trunk").count(), 1, "{learned}");
    if kill {
        // A process that is killed still holds its socket for a moment.
        host.ok("kill -KILL $(cat /tmp/h2.pid); while kill -0 $(cat /tmp/h2.pid) 2>/dev/null; do sleep 0.1; done");
        start(host, 2);
        wait_ready(host, 2);
        reaches(host);
    }
    host.ok("labsw-ctl --socket /run/h2.sock port set web2 vlan.tag=20");
    assert_ne!(host.run(&ping("-c 1 -W 2")).0, 0, "VLAN 30 reaches VLAN 20");
    run(host, 1, &undo.replace("labsw-ctl", "labsw-ctl --socket /run/h1.sock"));
    host.ok("for n in 1 2; do kill $(cat /tmp/h$n.pid); done");
}

fn ping(options: &str) -> String {
    format!("/bin/ip netns exec g1 ping {options} 10.30.0.2")
}

/// Waits until the container of the second host answers.
fn reaches(host: &mut LabHost) {
    host.ok(&format!("(for n in $(seq 30); do {} && exit; done; exit 1)", ping("-c 1 -W 1")));
}

/// Starts the switch of host `n`.
fn start(host: &mut LabHost, n: u8) {
    host.ok(&format!(
        "(/bin/ip netns exec h{n} labswd --config /tmp/h{n}.toml >/tmp/h{n}.log 2>&1 & echo $! >/tmp/h{n}.pid)"
    ));
}

/// Waits until the switch of host `n` has tried all its ports.
fn wait_ready(host: &mut LabHost, n: u8) {
    let deadline = Instant::now() + PATIENCE;
    while host.run(&format!("grep -q 'INFO ready' /tmp/h{n}.log")).0 != 0 {
        assert!(Instant::now() < deadline, "host {n} is not ready:\n{}", host.run(&format!("cat /tmp/h{n}.log")).1);
    }
}

/// Runs commands on host `n`, until one fails.
fn run(host: &mut LabHost, n: u8, commands: &str) {
    write(host, "/tmp/commands", &format!("{SHELL}\nset -e\n{commands}"));
    host.ok(&format!("/bin/ip netns exec h{n} sh /tmp/commands"));
}

fn write(host: &mut LabHost, file: &str, text: &str) {
    host.ok(&format!("cat >{file} <<'EOF'\n{text}\nEOF"));
}

/// The text with two addresses in each other's place.
fn exchanged(text: &str, one: &str, other: &str) -> String {
    text.replace(one, "@").replace(other, one).replace('@', other)
}

/// The commands of the page's block that begins with this one.
fn commands(page: &str, first: &str) -> String {
    let (_, block) = page.split_once(&format!("```\n$ {first}")).unwrap();
    let (block, _) = block.split_once("\n```").unwrap();
    format!("$ {first}{block}").lines().map(|line| line.strip_prefix("$ ").unwrap_or(line).to_owned() + "\n").collect()
}
