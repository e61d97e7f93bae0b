//! Proves that traffic passes between every kind of pair of ports, whole and right: TCP in both directions without a
//! stall and without a storm of retransmissions, a file that arrives unchanged, and UDP datagrams and ICMP messages of
//! every size from the smallest frame to the MTU, and beyond it in fragments. While they run, every frame that the
//! switch sends to a namespace, and every frame that a mirror sees of the pair's ports, is judged: lengths and
//! checksums are right, and none is longer than the MTU. At the end no station's kernel has counted a wrong checksum.
//!
//! The dimensions are IPv4 and IPv6, untagged and VLAN-tagged, MTU 1500 and 9000. Every kind of pair runs TCP in four
//! [`CELLS`] of the eight: any two values of two dimensions meet in one of them. The sweeps run in the same four, with
//! every size at MTU 1500, and at 9000 with a choice of them.
//!
//! What is captured at the host's own TAP interface may be unfinished, if the kernel knows that
//! (`labsw_tests::capture`). Inside guests nothing is captured: a guest may be handed unfinished frames.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Instant;

use labsw_tests::capture::{Capture, Place, Seen};
use labsw_tests::guest::{Guest, Nic};
use labsw_tests::iperf::Report;
use labsw_tests::netns::{Netns, wire};
use labsw_tests::process::CpuTime;
use labsw_tests::require::{self, Need};
use labsw_tests::station::{Program, Station, Way};
use labsw_tests::switch::{Labswd, Site};

/// One way to reach each other at one MTU.
#[derive(Clone, Copy, Debug)]
struct Cell {
    way: Way,
    mtu: usize,
}

const fn cell(v6: bool, tagged: bool, mtu: usize) -> Cell {
    Cell { way: Way { v6, tagged }, mtu }
}

const CELLS: [Cell; 4] =
    [cell(false, false, 1500), cell(true, true, 1500), cell(false, true, 9000), cell(true, false, 9000)];
/// Mbit/s that overload nothing, not even a guest whose CPU is emulated.
const CALM_MBIT: f64 = 20.0;
/// With less time to spare the machine is overloaded.
const IDLE_PERCENT: u64 = 10;
/// Runs of which one has to meet the bar for retransmissions.
const ATTEMPTS: usize = 3;
/// Mbit/s without a limit between namespaces: far below what a busy machine reaches; a stalled TCP gets near 0.
const FLOOR_MBIT: f64 = 50.0;
/// The guest's CPU is emulated.
const GUEST_FLOOR_MBIT: f64 = 5.0;
/// Sizes at MTU 9000: around the sizes where a frame goes over into the next buffer of packet memory, and a choice
/// between.
const JUMBO_SIZES: &str = "0-8900/97,3440-3520/3,3780-3860/3,4040-4110/3,7560-7640/3,8160-8200/3,8940-8970";

/// The switch with its stations, and where mirrors are captured.
struct Lab<'a> {
    switch: &'a Labswd<'a>,
    span: &'a Netns,
    program: Program,
}

/// VLAN 1 untagged, all others tagged.
const HYBRID: &str = "vlan = { mode = \"native-untagged\", tag = 1 }\n";

fn veth(name: &str, ns: &Netns) -> String {
    let ns = ns.name();
    format!(
        "[ports.{name}]\ntype = \"veth\"\npeer = \"ls-{name}\"\nnetns = \"{ns}\"\npeer_name = \"eth0\"\nmtu = 9000\n{HYBRID}"
    )
}

/// Every port but `host7` carries VLAN 1 untagged and all others tagged ([`HYBRID`]).
fn config(more: &[String]) -> String {
    let host = format!("[ports.host]\ntype = \"tap\"\ninterface = \"lab\"\nmtu = 9000\n{HYBRID}");
    let host7 = "\
        [ports.host7]\ntype = \"tap\"\ninterface = \"lab7\"\nmtu = 9000\nvlan = { mode = \"access\", tag = 7 }\n";
    let span = "[ports.span]\ntype = \"af_xdp\"\ndevice = \"name:s0\"\nmtu = 9000\nmirror_only = true\n";
    [&host, host7, span].map(str::to_owned).iter().chain(more).cloned().collect()
}

impl Lab<'_> {
    /// Runs `traffic` between `a` and `b` and judges every frame of it, as the stations and as a mirror see it. Gives
    /// what was seen at `a`, at `b`, and by the mirror.
    fn judged(
        &self,
        a: &Station<'_>,
        b: &Station<'_>,
        cell: Cell,
        what: &str,
        traffic: impl FnOnce(),
    ) -> [Option<Seen>; 3] {
        let what = format!("{} {} {cell:?} {what}", a.port, b.port);
        let at = |station: &Station<'_>| {
            station.interface(cell.way).map(|(ns, interface, place)| Capture::start(ns, interface, cell.mtu, place))
        };
        let span = Some(Capture::start(self.span, "s1", cell.mtu, Place::Wire));
        let captures = [at(a), at(b), span];
        let started = Instant::now();
        traffic();
        let took = started.elapsed();
        let seen = captures.map(|capture| capture.map(Capture::finish));
        let frames = seen.each_ref().map(|seen| seen.as_ref().map(|seen| seen.counts.frames + seen.unfinished));
        println!("{what}: {took:.1?}, frames {frames:?}");
        for (seen, place) in seen.iter().zip(["at the first", "at the second", "at the mirror"]) {
            if let Some(seen) = seen {
                seen.assert_right(&format!("{what}, {place}"));
            }
        }
        let mirrored = &seen[2].as_ref().unwrap().counts;
        assert_eq!(mirrored.udp_unchecked, 0, "{what}: a checksum that comes out as zero is sent as ones");
        assert!(mirrored.frames > 0 && (!cell.way.tagged || mirrored.tagged > 0), "{what}: {mirrored:?}");
        seen
    }

    /// One iperf3 connection from `a` to a server at `b`; `reverse`: the server sends.
    fn tcp(&self, a: &Station<'_>, b: &Station<'_>, way: Way, options: &str, reverse: bool) -> Report {
        let reverse = if reverse { "-R" } else { "" };
        let line = format!("iperf3 -c {} --connect-timeout 5000 -J {options} {reverse}", b.address(way));
        for _ in 0..20 {
            match Report::parse(&a.run(&line).1) {
                Ok(report) => return report,
                // It still counts up the connection before.
                Err(error) if error.contains("busy") => std::thread::sleep(std::time::Duration::from_millis(100)),
                Err(error) => panic!("{} {} {way:?} {line}: {error}", a.port, b.port),
            }
        }
        panic!("{}: the server at {} stays busy", a.port, b.port);
    }

    /// TCP at a rate that overloads nothing, both directions; one of [`ATTEMPTS`] runs has to meet the bar. What the
    /// wire must never see is judged in each.
    fn calm_tcp(&self, a: &Station<'_>, b: &Station<'_>, cell: Cell) {
        for reverse in [false, true] {
            let mut faults = Vec::new();
            while let Err(fault) = self.calm_run(a, b, cell, reverse) {
                faults.push(fault);
                assert!(faults.len() < ATTEMPTS, "{} {} {cell:?} TCP, reverse {reverse}: {faults:#?}", a.port, b.port);
            }
        }
    }

    fn calm_run(&self, a: &Station<'_>, b: &Station<'_>, cell: Cell, reverse: bool) -> Result<(), String> {
        let (sender, cpu) = (if reverse { b } else { a }, CpuTime::read());
        let (mut report, in_vain) = (None, sender.sent_in_vain());
        let (what, options) = (format!("TCP, reverse {reverse}"), format!("-t 1 -b {CALM_MBIT}M"));
        let seen = self.judged(a, b, cell, &what, || report = Some(self.tcp(a, b, cell.way, &options, reverse)));
        let report = report.unwrap();
        let what = format!("{} {} {cell:?} {what}", a.port, b.port);
        // Options of the TCP header and another 20 bytes of an IPv6 header are in what is missing.
        let largest = u64::try_from(cell.mtu - 20 - 20).unwrap();
        assert!((largest - 40..=largest).contains(&report.segment_size()), "{what}: {}", report.segment_size());
        // As many frames as the wire needs for those bytes: none was handed over uncut.
        let segments = report.segments();
        let [first, second, mirror] = seen;
        let (receiver, sink) = if reverse { (a, first) } else { (b, second) };
        if let (Some(sink), Some((_, _, Place::Wire))) = (sink, receiver.interface(cell.way)) {
            assert!(sink.counts.tcp_data >= segments, "{what}: {segments} segments, {:?}", sink.counts);
        }
        let mirrored = mirror.unwrap().counts;
        assert!(mirrored.tcp_data >= segments / 2, "{what}: {segments} segments, {mirrored:?}");
        let (rate, idle) = (report.mbit_received(), cpu.idle_percent_since());
        // If an acknowledgement is late, the sender tries again in vain. One such segment is not too many in a run of
        // few; on a machine without time to spare none of them counts, only what was lost.
        let (again, in_vain) = (report.retransmits(), sender.sent_in_vain() - in_vain);
        let lost = again.saturating_sub(in_vain);
        if lost * 1000 > segments || (idle >= IDLE_PERCENT && again * 1000 > segments.max(1000)) {
            return Err(format!("{lost} of {segments} segments lost, {in_vain} sent in vain, CPUs {idle} % idle"));
        }
        if rate < CALM_MBIT / 4.0 && idle >= IDLE_PERCENT {
            return Err(format!("{rate} of {CALM_MBIT} Mbit/s, CPUs {idle} % idle"));
        }
        Ok(())
    }

    /// TCP as fast as it gets, both directions: slow it may be, but it never stands still.
    fn fast_tcp(&self, a: &Station<'_>, b: &Station<'_>, way: Way) {
        let no_guest = a.interface(way).is_some() && b.interface(way).is_some();
        let floor = if no_guest { FLOOR_MBIT } else { GUEST_FLOOR_MBIT };
        for reverse in [false, true] {
            let report = self.tcp(a, b, way, "-t 1 -i 0.25", reverse);
            let (rate, intervals) = (report.mbit_received(), report.intervals());
            println!("{} {} {way:?} reverse {reverse}: {rate:.0} Mbit/s", a.port, b.port);
            assert!(intervals.len() >= 4 && intervals.iter().all(|bytes| *bytes > 0), "{intervals:?}");
            assert!(rate > floor, "{} {} {way:?} reverse {reverse}: {rate} Mbit/s", a.port, b.port);
        }
    }

    /// Datagrams of every size, and in fragments.
    fn sweeps(&self, a: &Station<'_>, b: &Station<'_>, cell: Cell) {
        let largest = cell.mtu - if cell.way.v6 { 48 } else { 28 };
        let fitting = if cell.mtu == 9000 { JUMBO_SIZES.to_owned() } else { format!("0-{largest}") };
        let twice = 2 * cell.mtu - 100;
        let sizes = format!("{fitting},{largest}-{}/3,{twice}-{}/7,20000,30000", largest + 60, twice + 100);
        for kind in ["udp", "icmp"] {
            let count = labsw_tests::sweep::sizes(&sizes).unwrap().len();
            let seen = self.judged(a, b, cell, kind, || {
                let printed = a.sweep(b, cell.way, kind, &sizes, &self.program);
                assert_eq!(printed.trim(), format!("{count} datagrams came back"));
            });
            let mirrored = &seen[2].as_ref().unwrap().counts;
            let datagrams = if kind == "udp" { mirrored.udp } else { mirrored.icmp };
            assert!(usize::try_from(datagrams).unwrap() >= 2 * count, "{count} datagrams, {mirrored:?}");
            assert!(mirrored.fragments > 0, "{mirrored:?}");
        }
    }

    /// All the traffic of the pairs.
    fn run(&self, pairs: &[[&Station<'_>; 2]]) {
        for mtu in [1500, 9000] {
            for station in pairs.iter().flatten() {
                station.set_mtu(mtu);
            }
            for [a, b] in pairs {
                let sources = [a, b].map(|station| if station.port == "host" { "host*" } else { station.port });
                self.mirror(&sources);
                for cell in CELLS.into_iter().filter(|cell| cell.mtu == mtu) {
                    a.wait_ping(b, cell.way);
                    self.calm_tcp(a, b, cell);
                    self.sweeps(a, b, cell);
                }
                if mtu == 1500 {
                    self.fast_tcp(a, b, CELLS[0].way);
                }
            }
        }
        for station in pairs.iter().flatten() {
            let errors = station.checksum_errors();
            assert!(errors.is_empty(), "wrong checksums at {}: {errors:#?}", station.port);
            for reason in ["bad_offload", "oversize", "malformed"] {
                assert_eq!(self.switch.drops(station.port, reason), 0, "{}", self.switch.port(station.port));
            }
        }
    }

    /// Copies of everything that these ports receive go to the capture.
    fn mirror(&self, ports: &[&str]) {
        let sources: Vec<String> = ports
            .iter()
            .flat_map(|port| if *port == "host*" { vec!["host", "host7"] } else { vec![*port] })
            .map(|port| format!("{port}:rx"))
            .collect();
        let words: Vec<&str> = sources.iter().flat_map(|source| ["--source", source]).collect();
        self.switch.ctl(&[&["mirror", "replace", "judged"], words.as_slice(), &["--to", "span"]].concat());
    }
}

const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Labswd,
    Need::Program("iperf3"),
    Need::Program("ethtool"),
    Need::Program("busybox"),
    Need::Program("strip"),
];

#[test]
fn containers_the_host_and_port_b() {
    if !require::all(&NEEDS) {
        return;
    }
    let (site, a, b, gateway, span) =
        (Site::new("mx"), Netns::new("a"), Netns::new("b"), Netns::new("gw"), Netns::new("span"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    wire((&site.ns, "s0"), (&span, "s1"));
    span.ip(&["link", "set", "s1", "mtu", "9000"]);
    let up = "[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\nmtu = 9000\n".to_owned();
    let switch = Labswd::start(&site, &config(&[veth("a", &a), veth("b", &b), up]));
    for port in ["a", "b", "up", "host", "host7", "span"] {
        switch.wait_port_up(port);
    }
    let lab = Lab { switch: &switch, span: &span, program: Program::new(site.dir()) };
    let stations = [
        Station::namespace("a", 1, &a, "eth0"),
        Station::namespace("b", 2, &b, "eth0"),
        Station::namespace("up", 3, &gateway, "g0"),
        Station::host("host", 4, &site.ns, ["lab", "lab7"]),
    ];
    stations.iter().for_each(|station| station.start_services(&lab.program));
    let [a, b, up, host] = &stations;
    let pairs = [[a, b], [a, up], [a, host]];
    for [from, to] in pairs {
        from.send_file(to, CELLS[0].way, &lab.program.sweep);
        to.send_file(from, CELLS[1].way, &lab.program.sweep);
    }
    lab.run(&pairs);
    stations.iter().for_each(Station::stop_services);
    switch.stop();
}

#[test]
fn guests_with_everyone() {
    if !require::all(&[NEEDS.as_slice(), &[Need::Guest, Need::GeneralGuest]].concat()) {
        return;
    }
    let (site, a, gateway, span) = (Site::new("mxg"), Netns::new("a"), Netns::new("gw"), Netns::new("span"));
    wire((&site.ns, "b0"), (&gateway, "g0"));
    wire((&site.ns, "s0"), (&span, "s1"));
    span.ip(&["link", "set", "s1", "mtu", "9000"]);
    let guests = [
        "[ports.g1]\ntype = \"vhost_user\"\n",
        "[ports.g2]\ntype = \"vhost_user\"\n",
        "[ports.vm]\ntype = \"tap\"\ninterface = \"vm0\"\nfor = \"guest\"\n",
        "[ports.nic]\ntype = \"tap\"\ninterface = \"nic0\"\nfor = \"guest\"\n",
    ];
    let guests = guests.map(|port| format!("{port}mtu = 9000\n{HYBRID}")).concat();
    let ports = format!("[ports.up]\ntype = \"af_xdp\"\ndevice = \"name:b0\"\nmtu = 9000\n{guests}");
    let switch = Labswd::start(&site, &config(&[veth("a", &a), ports]));
    let mut g1 = Guest::boot("g1", "none", &Nic::new(switch.vhost_socket("g1"), 11));
    let mut g2 = Guest::boot("g2", "none", &Nic::new(switch.vhost_socket("g2"), 12));
    let mut vm = Guest::boot_in(&site.ns, "vm", "none", &Nic::on_tap("vm0", 13));
    let mut nic = Guest::boot_in(&site.ns, "nic", "none", &Nic::e1000e("nic0", 14));
    let lab = Lab { switch: &switch, span: &span, program: Program::new(site.dir()) };
    let a = Station::namespace("a", 1, &a, "eth0");
    let up = Station::namespace("up", 3, &gateway, "g0");
    let host = Station::host("host", 4, &site.ns, ["lab", "lab7"]);
    [&mut g1, &mut g2, &mut vm, &mut nic].into_iter().for_each(Guest::ready);
    let g1 = Station::guest("g1", 11, g1);
    let g2 = Station::guest("g2", 12, g2);
    let vm = Station::guest("vm", 13, vm);
    let nic = Station::guest("nic", 14, nic);
    for (from, to) in [(&a, &g1), (&g1, &g2), (&a, &vm), (&up, &nic)] {
        to.wait_ping(from, CELLS[0].way);
        from.send_file(to, CELLS[0].way, &lab.program.library);
        from.send_file(to, CELLS[1].way, &lab.program.sweep);
    }
    for station in [&a, &up, &host, &g1, &g2, &vm, &nic] {
        station.start_services(&lab.program);
    }
    let pairs = [[&g1, &g2], [&a, &g1], [&host, &g1], [&up, &g1], [&vm, &g1], [&up, &nic]];
    for [from, to] in pairs {
        from.send_file(to, CELLS[0].way, &lab.program.sweep);
        to.send_file(from, CELLS[1].way, &lab.program.sweep);
    }
    lab.run(&pairs);
    for station in [&a, &up, &host] {
        station.stop_services();
    }
    drop((g1, g2, vm, nic));
    switch.stop();
}
