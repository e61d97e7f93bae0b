//! The Linux kernel as the oracle of the offload module.
//!
//! A TAP device with a vnet header takes a frame with its request, as a guest's network card would; a bridge forwards
//! it to a TAP device without any offload, for which the kernel finishes checksums and cuts segments in software. What
//! comes out there is compared byte for byte with what the module makes of the same frame and request. Everything is in
//! a namespace of the test's own.
//!
//! Where IPv4 leaves a choice (identification: RFC 6864 would allow any for frames with DF), the module counts up like
//! the kernel does, so that nothing has to be left out of the comparison. Three requests the kernel does not take:
//! - a segment size of 65535, which has a meaning of its own inside the kernel, is refused;
//! - a payload of at most one segment that is longer than a segment together with the TCP options is lost: on entry
//!   the kernel counts the options as payload and notes a frame to cut, on exit there is nothing to cut. The module
//!   finishes the checksum, as it does (and the kernel, too) for every other frame of at most one segment;
//! - UDP of more than 128 datagrams (64 before Linux 6.9) is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths of frames and C structures")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use labsw_dataplane::offload::{MAX_UDP_SEGMENTS_PASSED, Partial, Request};
use labsw_testkit::offload_frames::arbitrary::{any_packet, size};
use labsw_testkit::offload_frames::{ACK, CWR, FIN, PSH, Packet, SOURCE, noise, resolved};
use labsw_testkit::xdp_lab::Lab;
use proptest::prop_assume;
use proptest::test_runner::{Config, TestRunner};

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing more has to come.
const SILENCE: Duration = Duration::from_millis(20);
/// The largest MTU of a TAP device.
const MTU: &str = "65521";
const C_TAG: (u16, u16) = (0x8100, 0x6123);
const S_TAG: (u16, u16) = (0x88a8, 0x0456);

/// The frame goes into one device and comes out of the other.
struct Oracle {
    _lab: Lab,
    entry: File,
    exit: File,
}

impl Oracle {
    fn new() -> Option<Oracle> {
        let lab = Lab::new()?;
        lab.ip(&["link", "add", "bridge", "type", "bridge", "mcast_snooping", "0"]);
        // The bridge is not to judge IP options; absent where it can't.
        lab.in_switch(|| {
            for of in ["iptables", "ip6tables", "arptables"] {
                drop(std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{of}"), "0"));
            }
        });
        let (entry, exit) = lab.in_switch(|| (tap("entry", libc::IFF_VNET_HDR), tap("exit", 0)));
        for port in ["entry", "exit"] {
            lab.ip(&["link", "set", port, "mtu", MTU, "txqueuelen", "10000", "master", "bridge", "up"]);
        }
        lab.ip(&["link", "set", "bridge", "up"]);
        Some(Oracle { _lab: lab, entry, exit })
    }

    /// The frames that the kernel makes of a frame: as many as are `expected`, or fewer, or one more.
    fn resolve(&mut self, frame: &[u8], header: &[u8], expected: usize) -> Vec<Vec<u8>> {
        let whole = [header, frame].concat();
        let taken = self.entry.write(&whole).unwrap_or_else(|why| panic!("the kernel refuses {header:?}: {why}"));
        assert_eq!(taken, whole.len());
        let mut frames = vec![];
        let until = Instant::now() + PATIENCE;
        while frames.len() < expected && Instant::now() < until {
            frames.extend(self.next(until - Instant::now()));
        }
        frames.extend(self.next(SILENCE));
        frames
    }

    /// The next frame of ours to come out.
    fn next(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        let until = Instant::now() + patience;
        loop {
            match self.exit.read(&mut buffer) {
                Ok(len) if buffer[6..12] == SOURCE => return Some(buffer[..len].to_vec()),
                Ok(_) => {}
                Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        return None;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
                Err(why) => panic!("reading the device: {why}"),
            }
        }
    }

    /// Compares for a packet and a request.
    fn compare(&mut self, packet: &Packet, request: Request) -> Vec<Vec<u8>> {
        let frame = packet.partial();
        let ours = resolved(&frame, packet.header_bytes(), request).unwrap();
        let header = request.encode(packet.header_bytes() as u16);
        let kernels = self.resolve(&frame, &header, ours.len());
        assert_eq!(kernels.len(), ours.len(), "number of frames, {request:?}");
        for (number, (ours, kernels)) in ours.iter().zip(&kernels).enumerate() {
            let differs = ours.iter().zip(kernels).position(|(a, b)| a != b);
            assert_eq!((differs, ours.len()), (None, kernels.len()), "frame {number}, {request:?}, {packet:?}");
        }
        kernels
    }
}

/// A TAP device in this thread's namespace.
fn tap(name: &str, flags: i32) -> File {
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | flags) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    assert_eq!(result, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    file
}

/// Whether the kernel loses this packet when it is to be cut into segments of `size` bytes (see the file's head).
fn kernel_loses(packet: &Packet, size: u16) -> bool {
    let (payload, size) = (packet.payload.len(), usize::from(size));
    !packet.udp && payload <= size && payload + packet.tcp_options.len() > size
}

/// Packets of every form that can be cut.
fn forms(payload: &[u8]) -> Vec<Packet> {
    // Two NOPs and a time stamp, as Linux and Windows send it.
    let timestamps = [&[1, 1, 8, 10][..], &noise(8, 3)].concat();
    let mut forms = vec![];
    for v6 in [false, true] {
        let plain = Packet::tcp(v6, payload.to_vec());
        let stamped = Packet { tcp_options: timestamps.clone(), ..plain.clone() };
        for tags in [vec![C_TAG], vec![S_TAG], vec![S_TAG, C_TAG], vec![C_TAG, C_TAG], vec![(0x8100, 0xe000)]] {
            forms.push(Packet { tags, ..stamped.clone() });
        }
        for flags in [ACK | PSH, ACK | FIN, ACK | FIN | PSH | CWR, ACK | CWR, ACK | 0x40, ACK | 0x20, 2] {
            forms.push(Packet { flags, ..stamped.clone() });
        }
        for sequence in [0, u32::MAX, u32::MAX - 2000] {
            forms.push(Packet { sequence, ..plain.clone() });
        }
        forms.push(Packet { tcp_options: [&timestamps[..], &[1; 28]].concat(), ..plain.clone() });
        forms.push(plain);
        forms.push(stamped);
    }
    // NOPs, and a record-route option that nobody fills in.
    for ip_options in [vec![1; 4], vec![1; 40], [&[7, 39, 4][..], &[0; 36], &[0]].concat()] {
        forms.push(Packet { ip_options, ..Packet::tcp(false, payload.to_vec()) });
    }
    for identification in [0, 0xffff, 0x8000] {
        forms.push(Packet { identification, ..Packet::tcp(false, payload.to_vec()) });
    }
    let padding = |bytes: usize| {
        let mut body = vec![0, (bytes / 8 - 1) as u8, 1, (bytes - 4) as u8];
        body.resize(bytes, 0);
        body
    };
    // A routing header of an unknown type with no segments left is skipped by everybody (RFC 8200, 4.4).
    let routing = [0, 2, 253, 0].into_iter().chain([0; 20]).collect::<Vec<u8>>();
    for extensions in [
        vec![(0, padding(8))],
        vec![(60, padding(16))],
        vec![(43, routing.clone())],
        vec![(0, padding(24)), (60, padding(8)), (43, routing), (60, padding(32))],
    ] {
        forms.push(Packet { extensions: extensions.clone(), ..Packet::tcp(true, payload.to_vec()) });
        forms.push(Packet { extensions, tags: vec![C_TAG], ..Packet::tcp(true, payload.to_vec()) });
    }
    forms
}

#[test]
fn segments_of_every_form() {
    let Some(mut oracle) = Oracle::new() else { return };
    let mut segments = 0;
    for (bytes, size) in [(4000, 1448), (2896, 1448), (1449, 1448), (2801, 1399)] {
        for packet in forms(&noise(bytes, 1)) {
            segments += oracle.compare(&packet, packet.request(Some(size))).len();
        }
    }
    eprintln!("{segments} segments, each as the kernel makes it");
}

#[test]
fn segments_of_every_size() {
    let Some(mut oracle) = Oracle::new() else { return };
    for v6 in [false, true] {
        for (bytes, size) in [
            (65_000, 1448),
            (65_000, 8960),
            // 65535 has a meaning of its own inside the kernel, and is refused.
            (65_000, 65_534),
            (65_000, 64_999),
            (64_999, 32_500),
            (60_001, 61),
            (4095, 8),
            (4095, 9),
            (101, 100),
            (100, 100),
            (99, 100),
            (9, 8),
            (1, 8),
            (0, 1448),
        ] {
            let packet = Packet::tcp(v6, noise(bytes, bytes as u32));
            let seen = oracle.compare(&packet, packet.request(Some(size)));
            assert_eq!(seen.len(), bytes.div_ceil(usize::from(size)).max(1));
        }
    }
}

#[test]
fn datagrams_of_every_form_and_size() {
    let Some(mut oracle) = Oracle::new() else { return };
    let mut datagrams = 0;
    for (bytes, size) in [(4000, 1448), (2896, 1448), (1449, 1448), (2801, 1399), (64, 1)] {
        for packet in forms(&noise(bytes, 1)) {
            let packet = Packet { udp: true, ..packet };
            datagrams += oracle.compare(&packet, packet.request(Some(size))).len();
        }
    }
    for v6 in [false, true] {
        for (bytes, size) in [
            (65_000, 1448),
            (65_000, 64_999),
            (64_999, 32_500),
            (6400, 100),
            (6399, 100),
            (101, 100),
            (100, 100),
            (99, 100),
            (1, 1),
            (0, 1448),
        ] {
            let packet = Packet::udp(v6, noise(bytes, bytes as u32));
            let seen = oracle.compare(&packet, packet.request(Some(size)));
            assert_eq!(seen.len(), bytes.div_ceil(usize::from(size)).max(1));
            assert!(seen.len() <= MAX_UDP_SEGMENTS_PASSED as usize);
        }
    }
    eprintln!("{datagrams} datagrams, each as the kernel makes it");
}

#[test]
fn datagrams_with_extreme_sums() {
    let Some(mut oracle) = Oracle::new() else { return };
    for v6 in [false, true] {
        for fill in [0, 0xff] {
            let packet = Packet::udp(v6, vec![fill; 10_001]);
            oracle.compare(&packet, packet.request(Some(1001)));
        }
        // A datagram whose checksum comes out as zero.
        let mut packet = Packet::udp(v6, vec![0; 2000]);
        let at = packet.l4() + 6;
        let first = &resolved(&packet.partial(), 200, packet.request(Some(1000))).unwrap()[0];
        packet.payload[..2].copy_from_slice(&first[at..at + 2]);
        let seen = oracle.compare(&packet, packet.request(Some(1000)));
        assert_eq!(seen[0][at..at + 2], [0xff, 0xff]);
        // A sum and a length left wrong.
        for wrong in [[0, 0], [0xff, 0xff], [0xde, 0xad]] {
            for field in [packet.l4() + 4, packet.l4() + 6] {
                let mut frame = packet.partial();
                frame[field..field + 2].copy_from_slice(&wrong);
                let request = packet.request(Some(1000));
                let ours = resolved(&frame, packet.header_bytes(), request).unwrap();
                let header = request.encode(packet.header_bytes() as u16);
                assert_eq!(oracle.resolve(&frame, &header, ours.len()), ours, "{wrong:?} at {field}");
            }
        }
    }
}

#[test]
fn payloads_with_extreme_sums() {
    let Some(mut oracle) = Oracle::new() else { return };
    for v6 in [false, true] {
        for fill in [0, 0xff] {
            let packet = Packet::tcp(v6, vec![fill; 10_001]);
            oracle.compare(&packet, packet.request(Some(1001)));
            oracle.compare(&packet, packet.request(None));
        }
        // A segment, and then a whole packet, whose checksum comes out as zero.
        for size in [Some(1000), None] {
            let mut packet = Packet::tcp(v6, vec![0; 2000]);
            let at = packet.l4() + 16;
            let first = &resolved(&packet.partial(), 200, packet.request(size)).unwrap()[0];
            packet.payload[..2].copy_from_slice(&first[at..at + 2]);
            let seen = oracle.compare(&packet, packet.request(size));
            assert_eq!(seen[0][at..at + 2], if size.is_some() { [0, 0] } else { [0xff, 0xff] });
        }
    }
}

#[test]
fn unfinished_checksums() {
    let Some(mut oracle) = Oracle::new() else { return };
    let mut compared = 0;
    for bytes in [0, 1, 2, 3, 63, 64, 65, 500, 1400, 9000, 65_400] {
        for udp in [false, true] {
            for packet in forms(&noise(bytes, 7)) {
                if bytes > 1400 && packet.header_bytes() > 54 {
                    continue;
                }
                let packet = Packet { udp, ..packet };
                oracle.compare(&packet, packet.request(None));
                compared += 1;
            }
        }
    }
    // A UDP checksum that comes out as zero is sent as 0xffff.
    for v6 in [false, true] {
        let mut packet = Packet { udp: true, ..Packet::tcp(v6, vec![0; 100]) };
        let at = packet.l4() + 6;
        let finished = &resolved(&packet.partial(), 200, packet.request(None)).unwrap()[0];
        packet.payload[..2].copy_from_slice(&finished[at..at + 2]);
        assert_eq!(oracle.compare(&packet, packet.request(None))[0][at..at + 2], [0xff, 0xff]);
    }
    // Neither the protocol nor an even place matters (but the kernel refuses to begin inside an IP header).
    let packet = Packet::tcp(false, noise(601, 9));
    for (start, offset) in [(34, 1), (35, 0), (35, 100), (52, 0), (653, 0), (600, 53), (34, 619)] {
        oracle.compare(&packet, Request { csum: Some(Partial { start, offset }), gso: None });
    }
    eprintln!("{compared} checksums, each as the kernel makes it");
}

#[test]
fn a_sum_left_wrong_stays_wrong_in_the_same_way() {
    let Some(mut oracle) = Oracle::new() else { return };
    for v6 in [false, true] {
        let packet = Packet::tcp(v6, noise(5000, 11));
        for size in [Some(1448), Some(6000), None] {
            let request = packet.request(size);
            let mut frame = packet.partial();
            let field = packet.l4() + 16;
            for wrong in [[0, 0], [0xff, 0xff], [0xde, 0xad]] {
                frame[field..field + 2].copy_from_slice(&wrong);
                let ours = resolved(&frame, packet.header_bytes(), request).unwrap();
                let header = request.encode(packet.header_bytes() as u16);
                assert_eq!(oracle.resolve(&frame, &header, ours.len()), ours, "{wrong:?}, {request:?}");
            }
        }
    }
}

#[test]
fn lengths_around_one_segment() {
    let Some(mut oracle) = Oracle::new() else { return };
    for options in [0, 4, 12, 40] {
        for bytes in 55..=104 {
            let packet = Packet { tcp_options: vec![1; options], ..Packet::tcp(false, noise(bytes, 13)) };
            let request = packet.request(Some(100));
            if kernel_loses(&packet, 100) {
                assert_eq!(resolved(&packet.partial(), packet.header_bytes(), request).unwrap().len(), 1);
                let header = request.encode(packet.header_bytes() as u16);
                assert_eq!(oracle.resolve(&packet.partial(), &header, 0), Vec::<Vec<u8>>::new(), "{bytes}, {options}");
            } else {
                oracle.compare(&packet, request);
            }
        }
    }
}

#[test]
fn arbitrary_packets() {
    let Some(oracle) = Oracle::new() else { return };
    let oracle = std::sync::Mutex::new(oracle);
    let config = Config { cases: 400, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
    let outcome = TestRunner::new(config).run(&(any_packet(), size(), proptest::bool::ANY), |(packet, size, cut)| {
        // No more segments than the device's queue holds, or the kernel takes.
        let most = if packet.udp { MAX_UDP_SEGMENTS_PASSED as usize } else { 900 };
        let cut = cut && packet.payload.len().div_ceil(usize::from(size)) <= most;
        prop_assume!(!cut || !kernel_loses(&packet, size));
        let mut oracle = oracle.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        oracle.compare(&packet, packet.request(cut.then_some(size)));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
