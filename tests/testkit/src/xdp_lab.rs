//! A lab for AF_XDP tests: network namespaces with veth pairs between them, and raw sockets at the far ends.
//!
//! Everything is in namespaces of the test's own (names with the process id), which are deleted on drop. Without root
//! the tests say so and skip; with `LABSW_TEST_REQUIRE=1` they fail instead.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use labsw_dataplane::frame::{Burst, Segment};
use labsw_dataplane::port::Fault;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{PacketMemory, Queues, XdpConfig, XdpError, XdpMode, XdpPort};
use labsw_switch::forward::{TagEdit, TxItem};

/// First bytes of the source MAC of every test frame: what else a kernel sends by itself is told apart by it.
pub const SOURCE: [u8; 6] = [0x02, 0x1a, 0xb5, 0x77, 0, 1];

static LABS: AtomicU32 = AtomicU32::new(0);

/// Two namespaces: `switch` with the ends the ports are on, `peer` with the far ends.
pub struct Lab {
    switch: String,
    peer: String,
}

impl Lab {
    /// The lab, or `None` (after saying so) if this process may not make one.
    pub fn new() -> Option<Lab> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            assert!(
                std::env::var_os("LABSW_TEST_REQUIRE").is_none_or(|v| v != "1"),
                "root is required for AF_XDP tests"
            );
            eprintln!("SKIPPED: AF_XDP tests need root");
            return None;
        }
        let id = format!("{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Lab { switch: format!("labsw-xs-{id}"), peer: format!("labsw-xp-{id}") };
        for netns in [&lab.switch, &lab.peer] {
            run(&["ip", "netns", "add", netns]);
            run(&["ip", "-n", netns, "link", "set", "lo", "up"]);
            // The kernel is to send nothing by itself.
            inside(netns, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
        }
        Some(lab)
    }

    /// Makes a veth pair `s{number}` (switch side) and `p{number}` (peer), both up.
    pub fn veth(&self, number: u32, queues: u32) {
        let (near, far, queues) = (format!("s{number}"), format!("p{number}"), queues.to_string());
        run(&[
            "ip",
            "-n",
            &self.switch,
            "link",
            "add",
            &near,
            "numrxqueues",
            &queues,
            "numtxqueues",
            &queues,
            "type",
            "veth",
            "peer",
            "name",
            &far,
            "netns",
            &self.peer,
            "numrxqueues",
            &queues,
            "numtxqueues",
            &queues,
        ]);
        run(&["ip", "netns", "exec", &self.peer, "ethtool", "-K", &far, "tx", "off", "txvlan", "off"]);
        run(&["ip", "-n", &self.switch, "link", "set", &near, "up"]);
        run(&["ip", "-n", &self.peer, "link", "set", &far, "up"]);
    }

    /// Runs ip(8) in the switch's namespace.
    pub fn ip(&self, arguments: &[&str]) {
        let mut all = vec!["ip", "-n", &self.switch];
        all.extend_from_slice(arguments);
        run(&all);
    }

    /// Runs ip(8) in the peer's namespace.
    pub fn peer_ip(&self, arguments: &[&str]) {
        let mut all = vec!["ip", "-n", &self.peer];
        all.extend_from_slice(arguments);
        run(&all);
    }

    /// The name of the switch's namespace.
    pub fn switch_name(&self) -> &str {
        &self.switch
    }

    /// Runs `work` on a thread that is in the switch's namespace.
    pub fn in_switch<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.switch, work)
    }

    /// Runs `work` on a thread that is in the peer's namespace.
    pub fn in_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.peer, work)
    }

    /// Has the far end of a port keep all frames: a queue lets go of one a minute. False, with a note, if the machine
    /// lacks what this needs.
    ///
    /// # Panics
    /// When `ip` or `tc` is missing.
    pub fn keep_frames(&self, number: u32) -> bool {
        let filter = format!(
            "tc filter add dev p{number} parent ffff: protocol all u32 match u32 0 0 \
             action mirred egress redirect dev ifb{number}"
        );
        let keep = [
            format!("ip link add ifb{number} type ifb"),
            format!("ip link set ifb{number} txqueuelen 100000 up"),
            format!("tc qdisc add dev ifb{number} root tbf rate 8bit burst 1540 limit 100000000"),
            format!("tc qdisc add dev p{number} ingress"),
            filter,
        ];
        for command in keep {
            let words: Vec<&str> = command.split(' ').collect();
            let done = self.in_peer(|| Command::new(words[0]).args(&words[1..]).output().unwrap());
            if !done.status.success() {
                println!("skipped: {command}: {}", String::from_utf8_lossy(&done.stderr));
                return false;
            }
        }
        true
    }

    /// Has the far end free the frames that it kept.
    pub fn free_frames(&self, number: u32) {
        self.peer_ip(&["link", "del", &format!("ifb{number}")]);
    }

    /// Opens a port on `s{number}`.
    pub fn open(
        &self,
        number: u32,
        queues: Queues,
        mode: XdpMode,
        memory: &Arc<PacketMemory>,
    ) -> Result<XdpPort, XdpError> {
        self.in_switch(|| {
            let interface = format!("s{number}");
            let ifindex = ifindex(&interface);
            XdpPort::open(XdpConfig { interface, ifindex, queues, mode, mtu: 9000, busy_poll: false }, memory)
        })
    }

    /// A raw socket on `p{number}`.
    pub fn peer(&self, number: u32) -> RawSocket {
        inside(&self.peer, || RawSocket::open(&format!("p{number}")))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for netns in [&self.switch, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", netns]).status();
        }
    }
}

fn run(command: &[&str]) {
    let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn inside<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{netns}")).unwrap();
            rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
                .unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

pub fn ifindex(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: a terminated string that lives across the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{interface}: {}", io::Error::last_os_error());
    index
}

/// An AF_PACKET socket that sees only test frames, VLAN tags put back where they were.
pub struct RawSocket {
    fd: OwnedFd,
}

impl RawSocket {
    /// On `interface` of the calling thread's namespace.
    pub fn open(interface: &str) -> RawSocket {
        const ETH_P_ALL: u16 = 3;
        // SAFETY: plain system calls with structures that live across them; the descriptor is new and ours.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(ETH_P_ALL.to_be()));
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = ETH_P_ALL.to_be();
            address.sll_ifindex = ifindex(interface) as i32;
            let bytes = size_of_val(&address) as u32;
            assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), bytes), 0);
            for (level, option, value) in [
                (libc::SOL_PACKET, libc::PACKET_AUXDATA, 1i32),
                (libc::SOL_PACKET, 23, 1), // PACKET_IGNORE_OUTGOING
                (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20),
            ] {
                let result = libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), 4);
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
            }
            RawSocket { fd }
        }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        loop {
            match rustix::net::send(&self.fd, frame, rustix::net::SendFlags::empty()) {
                Ok(sent) => return assert_eq!(sent, frame.len()),
                Err(rustix::io::Errno::NOBUFS) => std::thread::yield_now(),
                Err(error) => panic!("sending {} bytes: {error}", frame.len()),
            }
        }
    }

    /// Sends one frame, if the kernel lets it out.
    pub fn try_send(&self, frame: &[u8]) {
        let _ = rustix::net::send(&self.fd, frame, rustix::net::SendFlags::empty());
    }

    /// The next test frame, or `None` after `patience`.
    pub fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(frame) = self.receive_now() {
                if frame.get(6..10) == Some(&SOURCE[..4]) {
                    return Some(frame);
                }
                continue;
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn receive_now(&self) -> Option<Vec<u8>> {
        const STATUS_VLAN_VALID: u32 = 1 << 4;
        let mut frame = vec![0u8; 10_000];
        let mut control = [0u64; 16];
        // SAFETY: all pointers are to buffers that live across the call, with their true lengths; the control messages
        // are walked with libc's own functions.
        unsafe {
            let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            let len = libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT);
            if len < 0 {
                return None;
            }
            frame.truncate(len as usize);
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            if !header.is_null() && (*header).cmsg_type == libc::PACKET_AUXDATA {
                let aux = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                if aux.tp_status & STATUS_VLAN_VALID != 0 {
                    let mut tag = aux.tp_vlan_tpid.to_be_bytes().to_vec();
                    tag.extend(aux.tp_vlan_tci.to_be_bytes());
                    frame.splice(12..12, tag);
                }
            }
        }
        Some(frame)
    }
}

/// A test frame of `len` bytes: unicast, experimental EtherType, contents that depend on `seed`.
pub fn frame(seed: u32, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = [0x02, 0, 0, 0, 0, 9].into_iter().chain(SOURCE).chain([0x88, 0xb5]).collect();
    frame[10..12].copy_from_slice(&(seed as u16).to_be_bytes());
    frame.extend(seed.to_be_bytes());
    frame.extend((0..len).map(|i| (i as u32).wrapping_mul(31).wrapping_add(seed) as u8));
    frame.truncate(len);
    frame
}

/// Receives from `queue` until something comes, for at most two seconds.
pub fn receive(port: &mut XdpPort, queue: usize, burst: &mut Burst, stats: &mut PortDelta) -> Result<usize, Fault> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        port.receive(queue, burst, stats)?;
        if !burst.is_empty() || Instant::now() > deadline {
            return Ok(burst.len());
        }
        port.tick()?;
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The bytes of a frame of a burst as it leaves with `edit`.
pub fn bytes(burst: &Burst, index: usize, edit: TagEdit) -> Vec<u8> {
    let mut reader = burst.reader(&TxItem::whole(index as u8, edit)).unwrap();
    let mut bytes = vec![0; reader.remaining() as usize];
    let room = reader.remaining();
    // SAFETY: the vector has room for exactly that many bytes and is nobody else's.
    assert_eq!(unsafe { reader.read(bytes.as_mut_ptr(), room) }, room);
    bytes
}

/// A burst of frames in ordinary memory, as from a guest: not movable. `frames` must outlive the burst's use.
pub fn burst_of(frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    for frame in frames {
        // SAFETY: the caller keeps the frames until it is done with the burst.
        assert!(unsafe { burst.push(0, &[Segment { ptr: frame.as_ptr(), len: frame.len() as u32 }]) });
    }
    burst
}
