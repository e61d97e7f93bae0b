//! A switch under attack: one vhost-user port that hostile front ends connect to, a port in its VLAN, and a numbered
//! flow between two others of which not a frame may be lost. [`Target`] plays attacks and checks what is left of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::hostile::{FrontEnd, Script, Wire};
use crate::packet::{BROADCAST, Frame, RawSocket, mac};
use crate::process::wait_for;
use crate::switch::Labswd;
use crate::veth_lab::{Flow, Lab};

const SECOND: Duration = Duration::from_secs(1);
/// The port under attack, and one in its VLAN.
pub const VICTIM: &str = "victim";
const PROBE: &str = "probe";

const PORTS: [(&str, &str); 3] = [
    (PROBE, r#"vlan = { mode = "access", tag = 10 }"#),
    ("left", r#"vlan = { mode = "access", tag = 99 }"#),
    ("right", r#"vlan = { mode = "access", tag = 99 }"#),
];
const VICTIM_PORT: &str = r#"
[ports.victim]
type = "vhost_user"
vlan = { mode = "access", tag = 10 }
"#;

/// The switch under attack, and a flow between two other ports that must not lose a frame.
#[derive(Debug)]
pub struct Target<'a> {
    /// The switch.
    pub switch: Labswd<'a>,
    /// The far end of the port in its VLAN.
    pub probe: RawSocket,
    flow: Flow,
    /// Descriptors of the process when nobody is connected.
    descriptors: usize,
}

impl<'a> Target<'a> {
    /// Starts the switch and shows that a good front end can use the port.
    pub fn new(lab: &'a Lab) -> Self {
        let switch = lab.start("", &PORTS, VICTIM_PORT);
        let flow = Flow::start(lab, "left", "right");
        let mut target = Self { switch, probe: lab.socket(PROBE), flow, descriptors: 0 };
        target.descriptors = target.count_descriptors();
        target.use_well("the start");
        target
    }

    /// The socket under attack.
    pub fn socket(&self) -> PathBuf {
        self.switch.vhost_socket(VICTIM)
    }

    /// File descriptors that the process has open.
    fn count_descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.switch.pid())).unwrap().count()
    }

    /// State and reason of the port under attack.
    pub fn state(&self) -> (String, String) {
        let port = self.switch.port(VICTIM);
        let text = |key: &str| port[key].as_str().unwrap_or_default().to_owned();
        (text("state"), text("reason"))
    }

    /// A well-behaved front end exchanges frames through the port and leaves; nothing of anybody is left.
    pub fn use_well(&mut self, after: &str) {
        self.forgive();
        let mut front = FrontEnd::start(&self.socket(), Script::default());
        wait_for(&format!("use of the port after {after}; it is {:?}", self.state()), 8 * SECOND, || {
            (self.state().0 == "up").then_some(())
        });
        let out = Frame::new(BROADCAST, mac(1)).number(11).build();
        front.send_frame(&out);
        let seen = self.probe.recv_matching(2 * SECOND, |frame| frame[6..12] == mac(1) && frame[17] == 11);
        assert_eq!(seen, Some(out), "frame from the guest after {after}");
        let back = Frame::new(mac(1), mac(2)).number(12).build();
        self.probe.send(&back);
        let seen = std::iter::from_fn(|| front.receive_frame(2 * SECOND)).find(|frame| frame[6..12] == mac(2));
        assert_eq!(seen, Some(back), "frame to the guest after {after}");
        drop(front);
        self.assert_clean(after);
    }

    /// The process holds no more descriptors than before, runs, and forwards.
    fn assert_clean(&mut self, after: &str) {
        wait_for(&format!("end of the connection after {after}"), 5 * SECOND, || {
            (self.switch.port(VICTIM)["connected"] == false).then_some(())
        });
        let deadline = Instant::now() + 3 * SECOND;
        while self.count_descriptors() > self.descriptors {
            let now = self.count_descriptors();
            assert!(Instant::now() < deadline, "{now} descriptors after {after}, {} before", self.descriptors);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.switch.is_running(), "labswd has died of {after}");
        self.flow.assert_flowing(after);
    }

    /// The switch hangs up on the front end and says why.
    pub fn assert_thrown_out(&mut self, mut wire: Wire, what: &str, reason: &str) {
        wire.wait_closed(3 * SECOND);
        let state = self.state();
        assert!(state.0 == "failed" && state.1.contains(reason), "{what}: {state:?} instead of {reason:?}");
        drop(wire);
        self.assert_clean(what);
        self.forgive();
    }

    /// Has the port serve the next front end without the wait that follows a fault.
    pub fn forgive(&self) {
        self.switch.ctl(&["port", "up", VICTIM]);
    }

    /// A front end plays a script that must be refused.
    pub fn refuses(&mut self, what: &str, reason: &str, change: impl FnOnce(&mut Script)) {
        let mut script = Script::default();
        change(&mut script);
        let front = FrontEnd::start(&self.socket(), script);
        self.assert_thrown_out(front.wire, what, reason);
    }

    /// A front end whose rings run does something to them that costs it the port.
    pub fn breaks(&mut self, what: &str, reason: &str, act: impl FnOnce(&mut FrontEnd, &RawSocket)) {
        let mut front = FrontEnd::start(&self.socket(), Script::default());
        wait_for("rings that run", 5 * SECOND, || (self.state().0 == "up").then_some(()));
        act(&mut front, &self.probe);
        let FrontEnd { wire, script, .. } = front;
        self.assert_thrown_out(wire, what, reason);
        drop(script);
    }

    /// A front end says one thing that costs it the connection.
    pub fn hangs_up(&mut self, what: &str, reason: &str, say: impl FnOnce(&Wire)) {
        let wire = Wire::connect(&self.socket());
        say(&wire);
        self.assert_thrown_out(wire, what, reason);
    }

    /// All frames of the flow arrived; the switch leaves nothing.
    pub fn finish(self) {
        assert!(self.flow.finish() > 100);
        self.switch.stop();
    }
}
