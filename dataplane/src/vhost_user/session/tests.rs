//! Every transition of the session, against rings that only write down what they are asked.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vhost::vhost_user::message::FrontendReq as Req;

use super::super::features::{FEATURE_NAMES, feature_names};
use super::super::operation::VhostReply;
use super::*;
use crate::virtio::features::{F_MRG_RXBUF, F_MTU, F_RING_PACKED, F_VERSION_1};
use crate::virtio::{LayoutError, MAX_RING_SIZE};

const USER: u64 = 0x10_0000;
const MEMORY_BYTES: u64 = 0x10_0000;
const REPLY_ACK: u64 = VhostUserProtocolFeatures::REPLY_ACK.bits();

/// Writes down every operation; rings stop at base 7.
#[derive(Default)]
struct Log(Vec<String>);

impl Rings for Log {
    fn operate(&mut self, op: VhostOp) -> Result<VhostReply, RingsError> {
        let (line, reply) = match op {
            VhostOp::StartRing { index, setup, enabled, .. } => {
                let kick = if setup.kick.is_some() { "kick" } else { "polled" };
                let call = if setup.call.is_some() { "call" } else { "silent" };
                let state = if enabled { "enabled" } else { "disabled" };
                let logged = if setup.log.is_some() { " logged" } else { "" };
                (format!("start {index} {state} {kick} {call} {:#x}{logged}", setup.features), VhostReply::Done)
            }
            VhostOp::StopRing { index } => (format!("stop {index}"), VhostReply::Stopped { base: Some(7) }),
            VhostOp::EnableRing { index, enabled } => (format!("enable {index} {enabled}"), VhostReply::Done),
            VhostOp::SetCall { index, call } => (format!("call {index} {}", call.is_some()), VhostReply::Done),
            VhostOp::SetLog { index, log } => (format!("log {index} {}", log.is_some()), VhostReply::Done),
            VhostOp::Interrupt { index } => (format!("interrupt {index}"), VhostReply::Done),
            VhostOp::Announce { index, mac } => (format!("announce {index} {mac:02x?}"), VhostReply::Done),
            VhostOp::Reset => ("reset".to_owned(), VhostReply::Done),
        };
        self.0.push(line);
        Ok(reply)
    }
}

struct Front {
    session: Session,
    log: Log,
    memory: OwnedFd,
}

impl Front {
    fn new(queue_pairs: u16) -> Front {
        let memory = memfd_create("session", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&memory, MEMORY_BYTES).unwrap();
        Front { session: Session::new(queue_pairs, 1500, true), log: Log::default(), memory }
    }

    fn try_send(&mut self, code: Req, words: &[u64], fds: Vec<OwnedFd>) -> Result<Option<u64>, SessionError> {
        self.try_send_flags(code, words, fds, false)
    }

    fn try_send_flags(
        &mut self,
        code: Req,
        words: &[u64],
        fds: Vec<OwnedFd>,
        need_reply: bool,
    ) -> Result<Option<u64>, SessionError> {
        let payload = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let request = Request { code: code.into(), need_reply, payload };
        let reply = self.session.handle(&request, fds.into_iter().map(PeerFd::from).collect(), &mut self.log)?;
        Ok(reply.map(|reply| {
            assert_eq!(reply.code, request.code);
            reply.value
        }))
    }

    fn send(&mut self, code: Req, words: &[u64]) -> Option<u64> {
        self.try_send(code, words, vec![]).unwrap()
    }

    fn table(&mut self) {
        let fd = self.memory.try_clone().unwrap();
        self.try_send(Req::SET_MEM_TABLE, &[1, 0, MEMORY_BYTES, USER, 0], vec![fd]).unwrap();
    }

    fn event(&mut self, code: Req, index: u64) {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        self.try_send(code, &[index], vec![fd]).unwrap();
    }

    /// NUM, BASE, ADDR: everything but the doorbell.
    fn describe(&mut self, index: u64) {
        let at = USER + index * 0x4000;
        self.send(Req::SET_VRING_NUM, &[index | 256 << 32]);
        self.send(Req::SET_VRING_BASE, &[index]);
        self.send(Req::SET_VRING_ADDR, &[index, at, at + 0x2000, at + 0x1000, 0]);
    }

    fn took(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.0)
    }

    /// Features, memory and one ring, running.
    fn running(features: u64) -> Front {
        let mut front = Front::new(1);
        front.send(Req::SET_FEATURES, &[features]);
        front.table();
        front.describe(0);
        front.event(Req::SET_VRING_KICK, 0);
        front.took();
        front
    }
}

mod handover;
mod log;

#[test]
fn offers() {
    let mut one = Front::new(1);
    assert_eq!(one.send(Req::GET_FEATURES, &[]), Some(0x01c0_000d_7420_bb8b));
    assert_eq!(Session::new(1, 1500, false).offered(), 0xd_7420_8008);
    assert_eq!(one.send(Req::GET_QUEUE_NUM, &[]), Some(1));
    let mut several = Front::new(4);
    assert_eq!(several.send(Req::GET_FEATURES, &[]), Some(0x01c0_000d_7460_bb8b));
    assert_eq!(several.send(Req::GET_QUEUE_NUM, &[]), Some(4));
    assert_eq!(several.send(Req::GET_MAX_MEM_SLOTS, &[]), Some(64));
    assert_eq!(several.send(Req::GET_PROTOCOL_FEATURES, &[]), Some(0x801f));
    assert_eq!(feature_names(several.session.offered()).len(), FEATURE_NAMES.len());
    // No feature of today can go without front ends of yesterday noticing.
    assert!(several.try_send(Req::SET_FEATURES, &[1 << 2], vec![]).is_err());
}

#[test]
fn a_ring_starts_when_all_is_known_in_whatever_order() {
    let mut front = Front::new(1);
    front.send(Req::SET_FEATURES, &[F_VERSION_1]);
    front.event(Req::SET_VRING_KICK, 0);
    front.describe(0);
    assert!(front.took().is_empty());
    front.table();
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x100000000"]);
    assert!(!front.session.is_up(), "half a pair is not up");
    front.describe(1);
    assert!(front.took().is_empty());
    // Polled: a doorbell message without descriptor starts a ring, too.
    front.send(Req::SET_VRING_KICK, &[1 | 0x100]);
    assert_eq!(front.took(), ["start 1 enabled polled silent 0x100000000"]);
    assert!(front.session.is_up());
}

#[test]
fn enabling_is_remembered_and_needed_only_with_protocol_features() {
    let mut front = Front::new(1);
    // QEMU: long before anything exists.
    front.send(Req::SET_VRING_ENABLE, &[1 << 32]);
    front.send(Req::SET_FEATURES, &[F_PROTOCOL]);
    front.table();
    for index in [0, 1] {
        front.describe(index);
        front.event(Req::SET_VRING_KICK, index);
    }
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x40000000", "start 1 disabled kick silent 0x40000000"]);
    assert!(!front.session.is_up());
    front.send(Req::SET_VRING_ENABLE, &[1 | 1 << 32]);
    assert!(front.session.is_up());
    front.send(Req::SET_VRING_ENABLE, &[1]);
    assert_eq!(front.took(), ["enable 1 true", "enable 1 false"]);
    // It outlives a stop.
    front.send(Req::GET_VRING_BASE, &[0]);
    front.event(Req::SET_VRING_KICK, 0);
    assert_eq!(front.took(), ["stop 0", "start 0 enabled kick silent 0x40000000"]);
}

#[test]
fn queue_pairs_start_and_are_enabled_each_for_itself() {
    let mut front = Front::new(3);
    front.send(Req::SET_FEATURES, &[F_PROTOCOL | F_MQ]);
    front.table();
    // As QEMU does for a guest that uses two of three pairs.
    for index in 0..4 {
        front.send(Req::SET_VRING_ENABLE, &[index | u64::from(index < 2) << 32]);
        front.describe(index);
        front.event(Req::SET_VRING_KICK, index);
    }
    let state = |index| if index < 2 { "enabled" } else { "disabled" };
    let started = (0..4).map(|index| format!("start {index} {} kick silent 0x40400000", state(index)));
    assert_eq!(front.took(), started.collect::<Vec<_>>());
    assert!(front.session.is_up());
    // Turned on and off while running.
    for (index, on) in [(2, 1), (3, 1), (0, 0), (1, 0)] {
        front.send(Req::SET_VRING_ENABLE, &[index | on << 32]);
    }
    assert_eq!(front.took(), ["enable 2 true", "enable 3 true", "enable 0 false", "enable 1 false"]);
    assert!(front.session.is_up(), "one pair is enough");
    assert_eq!(front.send(Req::GET_VRING_BASE, &[2]), Some(2 | 7 << 32));
    assert!(!front.session.is_up());
    assert!(front.try_send(Req::SET_VRING_NUM, &[6 | 256 << 32], vec![]).is_err(), "six rings, 0 to 5");
}

#[test]
fn a_packed_ring_has_a_layout_and_a_base_of_its_own() {
    let mut front = Front::running(F_VERSION_1 | F_RING_PACKED);
    // 100 entries are impossible for a split ring only.
    front.send(Req::SET_VRING_NUM, &[100 << 32]);
    assert_eq!(front.took(), ["stop 0", "start 0 enabled kick silent 0x500000000"]);
    front.send(Req::SET_VRING_BASE, &[1 | 0x8005_8006 << 32]);
    assert_eq!(front.send(Req::GET_VRING_BASE, &[1]), Some(1 | 0x8005_8006 << 32), "all 32 bits");
    let payload = (F_VERSION_1).to_ne_bytes().to_vec();
    let request = Request { code: Req::SET_FEATURES.into(), need_reply: false, payload };
    let error = front.session.handle(&request, vec![], &mut front.log).unwrap_err();
    assert!(error.to_string().contains("power of two"), "{error}");
}

#[test]
fn a_stopped_ring_reports_its_base_and_waits_for_a_new_doorbell() {
    let mut front = Front::running(0);
    assert_eq!(front.send(Req::GET_VRING_BASE, &[0]), Some(7 << 32));
    assert_eq!(front.took(), ["stop 0"]);
    // Again: nothing to stop, the same answer.
    assert_eq!(front.send(Req::GET_VRING_BASE, &[0]), Some(7 << 32));
    front.describe(0);
    assert!(front.took().is_empty());
    front.event(Req::SET_VRING_KICK, 0);
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x0"]);
    // A ring that never ran answers with the base it was given.
    front.send(Req::SET_VRING_BASE, &[1 | 42 << 32]);
    assert_eq!(front.send(Req::GET_VRING_BASE, &[1]), Some(1 | 42 << 32));
}

#[test]
fn what_changes_under_a_running_ring_restarts_it() {
    let again = ["stop 0", "start 0 enabled kick silent 0x100000000"];
    let mut front = Front::running(F_VERSION_1);
    front.table();
    assert_eq!(front.took(), again);
    front.send(Req::SET_VRING_NUM, &[128 << 32]);
    assert_eq!(front.took(), again);
    front.send(Req::SET_VRING_ADDR, &[0, USER + 0x8000, USER + 0xa000, USER + 0x9000, 0]);
    assert_eq!(front.took(), again);
    front.event(Req::SET_VRING_KICK, 0);
    assert_eq!(front.took(), again);
    front.send(Req::SET_FEATURES, &[F_VERSION_1]);
    assert!(front.took().is_empty(), "the same features change nothing");
    front.send(Req::SET_FEATURES, &[F_MRG_RXBUF]);
    assert_eq!(front.took(), ["stop 0", "start 0 enabled kick silent 0x8000"]);
    front.event(Req::SET_VRING_CALL, 0);
    assert_eq!(front.took(), ["call 0 true"]);
    front.send(Req::SET_VRING_CALL, &[0x100]);
    assert_eq!(front.took(), ["call 0 false"]);
    front.event(Req::SET_VRING_CALL, 0);
    front.event(Req::SET_VRING_CALL, 1);
    front.event(Req::SET_VRING_ERR, 0);
    assert_eq!(front.took(), ["call 0 true"], "ring 1 does not run");
}

#[test]
fn memory_comes_and_goes_under_running_rings() {
    let again = ["stop 0", "start 0 enabled kick silent 0x0"];
    let mut front = Front::running(0);
    let more = [0, MEMORY_BYTES, 0x1000, 1 << 40, 0];
    let fd = front.memory.try_clone().unwrap();
    front.try_send(Req::ADD_MEM_REG, &more, vec![fd]).unwrap();
    assert_eq!(front.took(), again);
    assert_eq!(front.session.memory.region_count(), 2);
    // The same one again overlaps; nothing is stopped for it.
    let fd = front.memory.try_clone().unwrap();
    assert!(front.try_send(Req::ADD_MEM_REG, &more, vec![fd]).is_err());
    assert!(front.took().is_empty());
    // Removal, with the descriptor that older QEMU attaches.
    let fd = front.memory.try_clone().unwrap();
    front.try_send(Req::REM_MEM_REG, &more, vec![fd]).unwrap();
    assert_eq!(front.took(), again);
    assert!(front.try_send(Req::REM_MEM_REG, &more, vec![]).is_err());
    // The region under the ring itself: the ring cannot go on.
    let error = front.try_send(Req::REM_MEM_REG, &[0, 0, MEMORY_BYTES, USER, 0], vec![]);
    assert!(error.is_ok(), "no memory at all: the ring waits for some");
    assert_eq!(front.took(), ["stop 0"]);
    front.table();
    assert_eq!(front.took(), ["start 0 enabled kick silent 0x0"]);
    let fd = front.memory.try_clone().unwrap();
    let error = front.try_send(Req::SET_MEM_TABLE, &[1, 0, MEMORY_BYTES, 1 << 40, 0], vec![fd]).unwrap_err();
    assert!(matches!(error, SessionError::Ring { index: 0, source: LayoutError::OutsideMemory { .. } }));
}

#[test]
fn acknowledgements_are_given_only_when_negotiated_and_asked_for() {
    let mut front = Front::new(1);
    assert_eq!(front.try_send_flags(Req::SET_OWNER, &[], vec![], true).unwrap(), None);
    front.send(Req::SET_PROTOCOL_FEATURES, &[REPLY_ACK]);
    assert_eq!(front.send(Req::SET_OWNER, &[]), None);
    assert_eq!(front.try_send_flags(Req::SET_OWNER, &[], vec![], true).unwrap(), Some(0));
    assert_ne!(front.try_send_flags(Req::GET_FEATURES, &[], vec![], true).unwrap(), Some(0));
}

#[test]
fn an_mtu_above_the_ports_is_refused_and_ends_nothing() {
    let mut front = Front::running(F_VERSION_1 | F_MTU | F_PROTOCOL);
    front.send(Req::SET_PROTOCOL_FEATURES, &[REPLY_ACK | VhostUserProtocolFeatures::MTU.bits()]);
    let ask = |front: &mut Front, mtu| front.try_send_flags(Req::NET_SET_MTU, &[mtu], vec![], true).unwrap();
    for mtu in [68, 1400, 1500] {
        assert_eq!((ask(&mut front, mtu), front.session.mtu_refused()), (Some(0), None), "{mtu}");
    }
    for mtu in [1501, 9000, 65536, 0x1_0000_05dc, u64::MAX, 67, 0] {
        assert_eq!(ask(&mut front, mtu), Some(1), "{mtu}");
        let reason = front.session.mtu_refused().unwrap();
        assert!(reason.contains(&format!("an MTU of {mtu} bytes")) && reason.lines().count() == 1, "{reason}");
    }
    assert!(front.took().is_empty(), "rings run on");
    assert_eq!(front.send(Req::NET_SET_MTU, &[9000]), None, "nobody asked for an answer");
    assert!(front.session.mtu_refused().unwrap().contains("the port has 1500: set mtu = 9000"));
    // The next request is answered for itself.
    assert_eq!(front.try_send_flags(Req::SET_OWNER, &[], vec![], true).unwrap(), Some(0));
    assert_eq!((ask(&mut front, 1500), front.session.mtu_refused()), (Some(0), None));
    // Malformed ones end the session, as any request does.
    for words in [&[][..], &[1500, 0]] {
        let error = front.try_send(Req::NET_SET_MTU, words, vec![]).unwrap_err();
        assert!(matches!(error, SessionError::PayloadSize { request: Req::NET_SET_MTU, .. }), "{error}");
    }
    let fd = front.memory.try_clone().unwrap();
    assert!(matches!(
        front.try_send(Req::NET_SET_MTU, &[1500], vec![fd]),
        Err(SessionError::Descriptors { request: Req::NET_SET_MTU, .. })
    ));
    // What was refused is in order once the port has more, and the other way round.
    ask(&mut front, 9000);
    front.session.set_mtu(9000);
    assert_eq!((front.session.mtu_refused(), ask(&mut front, 9000)), (None, Some(0)));
    front.session.set_mtu(1500);
    assert!(front.session.mtu_refused().unwrap().contains("the port has 1500"));
    assert_eq!(ask(&mut front, 9000), Some(1));
    front.session.reset(&mut front.log).unwrap();
    assert_eq!(front.session.mtu_refused(), None, "the next front end is another one");
    front.send(Req::SET_PROTOCOL_FEATURES, &[REPLY_ACK]);
    assert_eq!(ask(&mut front, 1501), Some(1), "and the port's MTU is the same");
}

#[test]
fn a_reset_forgets_everything() {
    let mut front = Front::running(F_VERSION_1);
    front.session.reset(&mut front.log).unwrap();
    assert_eq!(front.took(), ["reset"]);
    assert!(!front.session.has_memory() && front.session.acknowledged() == 0);
    assert!(front.session.ring_status().iter().all(|ring| !ring.started && ring.size == 0));
    assert_eq!(front.session.queue_pairs(), 1);
    front.event(Req::SET_VRING_KICK, 0);
    assert!(front.took().is_empty());
}

#[test]
fn impossible_sizes_are_refused_at_the_start() {
    for size in [0, 100, u64::from(MAX_RING_SIZE) * 2] {
        let mut front = Front::new(1);
        front.table();
        front.describe(0);
        front.send(Req::SET_VRING_NUM, &[size << 32]);
        let kick = eventfd(0, EventfdFlags::empty()).unwrap();
        let error = front.try_send(Req::SET_VRING_KICK, &[0], vec![kick]).unwrap_err();
        assert!(error.to_string().contains("power of two"), "{error}");
        assert!(front.took().is_empty());
    }
}

#[test]
fn doorbells_never_block() {
    let mut front = Front::running(0);
    let call = eventfd(0, EventfdFlags::empty()).unwrap();
    let copy = call.as_fd().try_clone_to_owned().unwrap();
    front.try_send(Req::SET_VRING_CALL, &[0], vec![copy]).unwrap();
    assert!(rustix::fs::fcntl_getfl(&call).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[test]
fn a_dead_worker_ends_the_session() {
    struct Dead;
    impl Rings for Dead {
        fn operate(&mut self, _op: VhostOp) -> Result<VhostReply, RingsError> {
            Err(RingsError { reason: "gone".to_owned() })
        }
    }
    let mut front = Front::running(0);
    let payload = 0u64.to_ne_bytes().to_vec();
    let request = Request { code: Req::GET_VRING_BASE.into(), need_reply: false, payload };
    assert!(matches!(front.session.handle(&request, vec![], &mut Dead), Err(SessionError::Rings(_))));
    assert!(front.session.reset(&mut Dead).is_err());
    assert!(!front.session.has_memory());
}
