//! Two switches get the same frames and the same changes, one with the fast path and one without.

use super::*;

/// A switch with stations, and all that they got.
struct Lab<'a> {
    switch: Labswd<'a>,
    stations: Vec<Station>,
    span: RawSocket,
    got: Vec<Vec<Vec<u8>>>,
}

const NAMES: [&str; 4] = ["a", "b", "c", "t"];
/// The one that is a trunk.
const TRUNK: usize = 3;

/// Sent behind every frame, from the same port: who has it has everything before it. As it looks at a station.
fn end_of(n: u32, from: usize, at: usize) -> Vec<u8> {
    let frame = Frame::new(BROADCAST, mac(100 + u8::try_from(from).unwrap())).number(n);
    if at == TRUNK { frame.vlan(10) } else { frame }.build()
}

impl<'a> Lab<'a> {
    fn new(site: &'a Site, settings: &str) -> Lab<'a> {
        let containers = containers(&NAMES);
        let span = "[ports.span]\ntype = \"tap\"\ninterface = \"span0\"\nmirror_only = true\n";
        let switch = Labswd::start(site, &(config(settings, &containers) + span));
        let stations = stations(&switch, containers);
        let span = RawSocket::open(&site.ns, "span0");
        Lab { switch, got: vec![Vec::new(); stations.len()], stations, span }
    }

    /// Sends a frame from a station and waits until every other one has what it gets of it. Two isolated stations do
    /// not hear each other.
    fn send(&mut self, n: u32, from: usize, frame: &[u8], isolated: [bool; 4]) {
        self.stations[from].socket.send(frame);
        self.stations[from].socket.send(&end_of(n, from, from));
        for (at, station) in self.stations.iter().enumerate() {
            if at == from || (isolated[at] && isolated[from]) {
                continue;
            }
            let end = end_of(n, from, at);
            loop {
                let got = station.socket.recv(SOON).unwrap_or_else(|| panic!("frame {n} at {}", station.name));
                if got == end {
                    break;
                }
                self.got[at].push(got);
            }
        }
    }

    fn counters(&self) -> Value {
        let mut stats = self.switch.ctl(&["stats"]);
        for port in stats.as_array_mut().unwrap() {
            port.as_object_mut().unwrap().remove("kernel");
        }
        stats
    }
}

/// A change that a person might make, as arguments of `labsw-ctl`.
fn random_change(pick: &mut impl FnMut(u64) -> u64, isolated: &mut [bool; 4]) -> Vec<String> {
    let at = usize::try_from(pick(4)).unwrap();
    let port = NAMES[at];
    let text = address(pick(6)).map(|byte| format!("{byte:02x}")).join(":");
    match pick(9) {
        0 => vec!["fdb".into(), "flush".into()],
        1 => ["fdb", "add", &text, "--vlan", "10", "--port", port].map(str::to_owned).into(),
        2 => ["mirror", "set", "m", "--source", port, "--to", "span"].map(str::to_owned).into(),
        3 | 4 => ["mirror", "del", "m"].map(str::to_owned).into(),
        5 | 6 => ["fdb", "del", &text, "--vlan", "10"].map(str::to_owned).into(),
        _ => {
            isolated[at] = !isolated[at] && pick(2) == 0;
            vec!["port".into(), "set".into(), port.into(), format!("isolated={}", isolated[at])]
        }
    }
}

fn address(n: u64) -> Mac {
    mac(u8::try_from(n).unwrap() + 1)
}

#[test]
fn random_frames_and_changes_end_the_same_with_and_without() {
    if !ready() {
        return;
    }
    let sites = [Site::new("fpw"), Site::new("fpo")];
    let mut labs = [Lab::new(&sites[0], ""), Lab::new(&sites[1], "accelerate = \"off\"")];
    for lab in &labs {
        lab.switch.ctl(&["port", "set", "b", "mtu=1000"]);
    }
    let mut random = 0x5eed_u64;
    let mut pick = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut isolated = [false; 4];
    let frames = if std::env::var_os("LABSW_LONG").is_some() { 200_000 } else { 1500 };
    for n in 0..frames {
        if pick(60) == 0 {
            let change = random_change(&mut pick, &mut isolated);
            let change: Vec<&str> = change.iter().map(String::as_str).collect();
            // What is not there can't be deleted; both say so.
            let answers = labs.each_ref().map(|lab| lab.switch.ctl_output(&change).0);
            assert_eq!(answers[0], answers[1], "{change:?}");
        }
        let from = usize::try_from(pick(4)).unwrap();
        // A station at a port sends no more than its MTU.
        let most = if from == 1 { 1000 } else { 1500 };
        let bytes = 46 + usize::try_from(pick(most - 45)).unwrap();
        // Mostly a station's own address; addresses that several have move.
        let src = if pick(16) == 0 { pick(6) } else { from as u64 };
        let frame = Frame::new(address(pick(6)), address(src)).payload(&vec![0; bytes]).number(n);
        let frame = match (pick(8), from == TRUNK) {
            (0, _) => frame.priority(3),
            (1, true) | (2.., false) => frame,
            (2, true) => frame.vlan(9),
            (3, true) => frame.tag(0x8100, 5 << 13 | 10),
            (1, false) | (_, true) => frame.vlan(10),
        };
        for lab in &mut labs {
            lab.send(n, from, &frame.build(), isolated);
        }
    }
    let [with, without] = labs;
    let around = [&with, &without].map(|lab| NAMES.map(|port| went_around(&lab.switch, port)));
    let [sum, of] = around.map(|ports| ports.iter().sum::<u64>());
    assert!(sum + u64::from(frames) / 20 < of, "a twentieth passes in the kernel: {around:?}");
    assert_eq!(with.counters(), without.counters());
    for (at, station) in with.stations.iter().enumerate() {
        assert_eq!(with.got[at].len(), without.got[at].len(), "{}", station.name);
        assert!(with.got[at] == without.got[at], "{}", station.name);
    }
    let copies = [&with, &without].map(|lab| lab.span.recv_all(QUIET));
    assert!(copies[0] == copies[1], "{} and {} copies", copies[0].len(), copies[1].len());
    with.switch.stop();
    without.switch.stop();
}
