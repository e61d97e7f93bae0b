//! AF_XDP with our own rings against `xsk-rs` (libxdp): frames a second of a loop that sends each frame back by the
//! interface it came in on, chunk and all, in bursts of at most 64, on the same kind of veth.
//!
//! It needs root, makes network namespaces of its own, and takes half a minute, so it runs only when
//! `LABSW_BENCH_XSK=1`. A thread on CPU 1 sends 60-byte frames through an AF_PACKET socket at the far end as fast as
//! that goes; the loop is pinned to CPU 0. Most of the time is spent in the kernel, which copies into and out of packet
//! memory on a veth; so this shows whether the own rings cost or save anything that can be seen, not what the rings
//! cost.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a bench of small numbers")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::xdp::{Hugepages, PacketMemory, Queues, XdpMode};
use labsw_switch::BURST_FRAMES;
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::xdp_lab::{Lab, frame};
use rustix::thread::{CpuSet, sched_setaffinity};
use xsk_rs::FrameDesc;
use xsk_rs::config::{BindFlags, SocketConfig, UmemConfig};

const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_secs(2);
/// Frames the kernel sends per call in copy mode (`TX_BATCH_SIZE` in net/xdp/xsk.c).
const SENT_PER_CALL: usize = 32;
const CHUNKS: u32 = 4096;
/// Chunks that go round in the loop of xsk-rs. Somewhat fewer than its fill ring has entries: the kernel hands frames
/// over before it takes their entries off the fill ring.
const FILLED: usize = 1920;

fn main() {
    if std::env::var_os("LABSW_BENCH_XSK").is_none_or(|value| value != "1") {
        eprintln!("SKIPPED: the AF_XDP comparison needs root and makes network namespaces; LABSW_BENCH_XSK=1 runs it");
        return;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // The order alternates, so that the place in a round favours nobody.
        for turn in 0..2 {
            let Some(lab) = Lab::new() else { return };
            lab.veth(1, 1);
            if (round + turn) % 2 == 0 {
                ours.push(under_load(&lab, || echo_ours(&lab)));
            } else {
                theirs.push(under_load(&lab, || lab.in_switch(echo_theirs)));
            }
        }
    }
    println!("frames a second, echoed: median of {ROUNDS} rounds [least, most]");
    for (name, rates) in [("own rings", &mut ours), ("xsk-rs", &mut theirs)] {
        rates.sort_unstable();
        println!("{name:12} {:>9} [{}, {}]", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
    }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).unwrap();
}

/// Runs `work` while frames arrive as fast as they can.
fn under_load(lab: &Lab, work: impl FnOnce() -> u64) -> u64 {
    /// Stops the sender, also when `work` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let socket = lab.peer(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let frame = frame(1, 60);
            while !stop.load(Ordering::Relaxed) {
                socket.send(&frame);
            }
        });
        let _stop = Stop(&stop);
        work()
    })
}

/// Calls `turn`, which returns the frames it sent back, for the measured time; frames a second.
fn rate(mut turn: impl FnMut() -> u64) -> u64 {
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        turn();
    }
    let (start, mut frames) = (Instant::now(), 0);
    while start.elapsed() < MEASURED {
        frames += turn();
    }
    assert_ne!(frames, 0, "frames arrive");
    frames * 1000 / start.elapsed().as_millis() as u64
}

fn echo_ours(lab: &Lab) -> u64 {
    let memory = std::sync::Arc::new(PacketMemory::new(CHUNKS, Hugepages::Auto).unwrap());
    let mut port = lab.open(1, Queues::All, XdpMode::Auto, &memory).unwrap();
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    let items: Vec<_> = (0..BURST_FRAMES).map(|n| TxItem::whole(n as u8, TagEdit::KEEP)).collect();
    std::thread::scope(|scope| {
        let echo = || {
            pin(0);
            rate(|| {
                port.receive(0, &mut burst, &mut stats).unwrap();
                let frames = burst.len();
                let unsent = match items.get(..frames) {
                    Some(items) if frames > 0 => {
                        burst.set_exclusive(u64::MAX);
                        port.send(&mut burst, items, &mut stats).unwrap()
                    }
                    _ => 0,
                };
                port.release(0, &mut burst).unwrap();
                frames as u64 - u64::from(unsent.count_ones())
            })
        };
        scope.spawn(echo).join().unwrap()
    })
}

fn echo_theirs() -> u64 {
    pin(0);
    let (umem, descs) = xsk_rs::Umem::new(UmemConfig::default(), CHUNKS.try_into().unwrap(), false).unwrap();
    let config = SocketConfig::builder().bind_flags(BindFlags::XDP_USE_NEED_WAKEUP).build();
    // SAFETY: the UMEM outlives the socket's queues, and nothing else is bound to it.
    let socket = unsafe { xsk_rs::Socket::new(config, &umem, &"s1".parse().unwrap(), 0) };
    let (mut tx, mut rx, rings) = socket.unwrap();
    let (mut fill, mut completion) = rings.unwrap();
    // SAFETY: here and below, every descriptor is in one place at a time: fill ring, receive ring, `received`, transmit
    // ring, completion ring, `sent`, and back to the fill ring. What could not be sent goes back there straight away.
    assert_eq!(unsafe { fill.produce(&descs[..FILLED]) }, FILLED);
    let mut received: [FrameDesc; BURST_FRAMES] = [descs[0]; BURST_FRAMES];
    let mut sent = received;
    rate(|| {
        // SAFETY: as at the first use of the fill ring.
        let completed = unsafe { completion.consume(&mut sent) };
        // SAFETY: as at the first use of the fill ring.
        assert_eq!(unsafe { fill.produce(&sent[..completed]) }, completed);
        // SAFETY: as at the first use of the fill ring.
        let frames = unsafe { rx.consume(&mut received) };
        if frames == 0 {
            return 0;
        }
        // SAFETY: as at the first use of the fill ring.
        let posted = unsafe { tx.produce(&received[..frames]) };
        for _ in 0..posted.div_ceil(SENT_PER_CALL) {
            if tx.needs_wakeup() {
                tx.wakeup().unwrap();
            }
        }
        // SAFETY: as at the first use of the fill ring. All rings together hold no more than `FILLED` chunks.
        assert_eq!(unsafe { fill.produce(&received[posted..frames]) }, frames - posted);
        posted as u64
    })
}
