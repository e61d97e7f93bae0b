//! Proves that the switch answers from the first moment on, however many ports it has still to open, and says when all
//! of them have been tried.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use labsw_control::api::{PortState, Reply, Request};
use labsw_control::varlink::Client;
use labsw_tests::process::{Process, wait_for};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Site, find_binary};

const PORTS: usize = 64;
/// The slowest answer. Generous where the machine is busy and the build slow.
const ANSWER: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2000 } else { 200 });

#[test]
fn many_ports_do_not_keep_the_control_socket_silent() {
    if !require::all(&[Need::Root, Need::Labswd]) {
        return;
    }
    let site = Site::new("start");
    let port = |n: usize| format!("[ports.t{n}]\ntype = \"tap\"\ninterface = \"dmn{n}\"\n");
    let config = site.write_config(&(0..PORTS).map(port).collect::<String>());
    let told = site.dir().join("notify");
    let manager = UnixDatagram::bind(&told).expect("notify socket");
    manager.set_nonblocking(true).expect("a socket that does not wait");
    let mut command = site.ns.command(&find_binary("labswd").expect("labswd").to_string_lossy());
    let mut switch = Process::spawn("labswd", command.env("NOTIFY_SOCKET", &told).arg("--config").arg(config));
    let mut client =
        wait_for("the control socket", Duration::from_secs(20), || Client::connect(&site.control_socket()).ok());

    let (mut slowest, mut early, mut ready) = (Duration::ZERO, 0, false);
    let began = Instant::now();
    loop {
        ready |= manager.recv(&mut [0; 256]).is_ok();
        let asked = Instant::now();
        let reply = client.call(&Request::GetStatus).expect("an answer");
        slowest = slowest.max(asked.elapsed());
        let Reply::Status(status) = reply else { panic!("{reply:?}") };
        assert_eq!(status.ports.len(), PORTS, "every port is shown from the first moment");
        let opening = status.ports.iter().filter(|port| port.state == PortState::Opening).count();
        if opening == 0 {
            break assert!(ready || wait_ready(&manager), "the service manager is told when all have been tried");
        }
        assert!(!ready, "told with {opening} ports not tried yet");
        early += 1;
        assert!(began.elapsed() < Duration::from_secs(120), "{opening} ports are not open");
    }
    assert!(early > PORTS / 4, "{early} answers before all ports were open");
    assert!(slowest < ANSWER, "an answer took {slowest:?}");
    switch.signal(15);
    assert!(switch.wait(Duration::from_secs(60)).success());
}

fn wait_ready(manager: &UnixDatagram) -> bool {
    wait_for("READY=1", Duration::from_secs(20), || manager.recv(&mut [0; 256]).ok()) > 0
}
