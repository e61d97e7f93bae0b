//! The vhost-user socket, from outside: real sockets, several front ends' own order of messages, reconnects.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers")]

mod places;

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use labsw_dataplane::frame::Burst;
use labsw_dataplane::port::{Fault, RxQueue};
use labsw_dataplane::stats::PortDelta;
use labsw_dataplane::vhost_user::{Endpoint, EndpointConfig, EndpointState, Role};
use labsw_switch::forward::{TagEdit, TxItem};
use labsw_testkit::frontend::{
    self, Front, GET_FEATURES, GET_MAX_MEM_SLOTS, GET_PROTOCOL_FEATURES, GET_QUEUE_NUM, GET_VRING_BASE, Harness,
    NET_SET_MTU, PATIENCE, PROTOCOL, Port, SET_FEATURES, SET_MEM_TABLE, SET_OWNER, SET_PROTOCOL_FEATURES,
    SET_VRING_ERR, config, socket_path,
};
use labsw_testkit::guest::{
    self, EVENT_IDX, Guest, IN_ORDER, INDIRECT, MOVES, MRG_RXBUF, MTU, RING_PACKED, VERSION_1, frame, frames_of,
};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

/// A frame from the guest reaches the port and comes back to it.
fn assert_frames_pass(harness: &Harness, guest: &mut Guest) {
    let mut port = harness.port.lock().unwrap();
    let sent = frame(300, 7);
    guest.transmit(1, &sent, &[]);
    guest.post(0, 1, 2000, None);
    let (mut burst, mut stats) = (Burst::new(), PortDelta::ZERO);
    port.receive(0, &mut burst, &mut stats).unwrap();
    assert_eq!(frames_of(&burst), std::slice::from_ref(&sent));
    let items = [TxItem::whole(0, TagEdit::KEEP)];
    assert_eq!(port.send(&mut burst, &items, &mut stats).unwrap(), 0);
    port.release(0, &mut burst).unwrap();
    assert_eq!((guest.received(0), guest.reap(1)), (vec![sent], 1));
}

/// QEMU 10: enables rings long before they exist, and not again.
fn qemu(harness: &mut Harness, front: &mut Front, guest: &Guest) {
    let offered = harness.ask(front, GET_FEATURES, &[]);
    let offloads = 0x3b83 | 7 << 54; // CSUM, TSO for IPv4, IPv6 and ECN, and USO, each way
    assert_eq!(
        offered,
        VERSION_1 | MRG_RXBUF | INDIRECT | EVENT_IDX | RING_PACKED | IN_ORDER | PROTOCOL | MTU | MOVES | offloads
    );
    let protocol = harness.ask(front, GET_PROTOCOL_FEATURES, &[]);
    assert_eq!(protocol, 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 15);
    front.send(SET_PROTOCOL_FEATURES, &[protocol], &[]);
    assert_eq!(harness.ask(front, GET_QUEUE_NUM, &[]), 1);
    assert!(harness.ask(front, GET_MAX_MEM_SLOTS, &[]) >= 32);
    front.send(SET_OWNER, &[], &[]);
    assert_eq!(harness.ask(front, GET_FEATURES, &[]), offered);
    for ring in [0, 1] {
        front.call(guest, ring);
        front.send(SET_VRING_ERR, &[ring as u64], &[guest.rings[ring].call.as_fd()]);
    }
    front.enable(0, 1);
    front.enable(1, 1);
    front.send(SET_FEATURES, &[guest.features | PROTOCOL], &[]);
    let words = [1, guest::GUEST_BASE, guest.bytes(), guest::USER_BASE, 0];
    front.send_flags(SET_MEM_TABLE, 9, &words, &[guest.memfd.as_fd()]);
    assert_eq!(harness.during(|| front.reply(SET_MEM_TABLE)), 0);
    for ring in [0, 1] {
        front.ring(guest, ring);
        front.call(guest, ring);
    }
    harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
}

#[test]
fn qemus_order_of_messages() {
    let mut harness = Harness::new("qemu", Role::Server);
    let mode = std::fs::metadata(&harness.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut guest = Guest::new(VERSION_1 | MRG_RXBUF | INDIRECT | EVENT_IDX, 256);
    let mut front = harness.connect();
    qemu(&mut harness, &mut front, &guest);
    assert_frames_pass(&harness, &mut guest);
    let status = harness.endpoint.status();
    assert_eq!(status.features_acknowledged.len(), 5);
    assert!(status.connected && status.reason.is_none() && status.rings.iter().all(|ring| ring.size == 256));
    // The guest reboots: stopped, then started again, never enabled again.
    for ring in [0, 1] {
        assert_eq!(harness.ask(&mut front, GET_VRING_BASE, &[ring]), ring | 1 << 32);
    }
    assert!(!harness.is_up());
    for ring in [0, 1] {
        front.ring(&guest, ring);
    }
    harness.until("up again", |endpoint| endpoint.status().state == EndpointState::Up);
    assert_frames_pass(&harness, &mut guest);
}

#[test]
fn an_mtu_that_is_too_large_is_refused_and_explained_to_a_front_end_that_stays() {
    let mut harness = Harness::new("mtu", Role::Server);
    let guest = Guest::new(VERSION_1 | MRG_RXBUF, 256);
    let mut front = harness.connect();
    let protocol = harness.ask(&mut front, GET_PROTOCOL_FEATURES, &[]);
    front.send(SET_PROTOCOL_FEATURES, &[protocol], &[]);
    let mut ask = |harness: &mut Harness, mtu| {
        front.send_flags(NET_SET_MTU, 9, &[mtu], &[]);
        harness.during(|| front.reply(NET_SET_MTU))
    };
    assert_eq!(ask(&mut harness, 9000), 1);
    let status = harness.endpoint.status();
    assert_eq!((status.state, status.connected), (EndpointState::Waiting, true));
    assert!(status.reason.unwrap().contains("an MTU of 9000 bytes, the port has 1500"));
    assert_eq!(ask(&mut harness, 1500), 0);
    assert_eq!(harness.endpoint.status().reason, None);
    // It starts as if nothing had been.
    qemu(&mut harness, &mut front, &guest);
    assert_eq!(harness.endpoint.status().reason, None);
}

#[test]
fn virtio_users_order_of_messages() {
    for offer_protocol in [true, false] {
        let mut harness = Harness::new(&format!("virtio-user-{offer_protocol}"), Role::Server);
        let mut guest = Guest::new(VERSION_1 | MRG_RXBUF, 1024);
        let mut front = harness.connect();
        front.send(SET_OWNER, &[], &[]);
        harness.ask(&mut front, GET_FEATURES, &[]);
        let mut features = guest.features;
        if offer_protocol {
            let protocol = harness.ask(&mut front, GET_PROTOCOL_FEATURES, &[]);
            front.send(SET_PROTOCOL_FEATURES, &[protocol & 0x1_0009], &[]);
            features |= PROTOCOL;
        }
        front.call(&guest, 0);
        front.call(&guest, 1);
        front.send(SET_FEATURES, &[features], &[]);
        front.memory_table(&guest);
        front.ring(&guest, 0);
        front.ring(&guest, 1);
        front.enable(0, 1);
        front.enable(1, 1);
        harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
        assert_frames_pass(&harness, &mut guest);
        front.enable(0, 0);
        for ring in [0, 1] {
            assert_eq!(harness.ask(&mut front, GET_VRING_BASE, &[ring]), ring | 1 << 32);
        }
        drop(front);
        harness.until("gone", |endpoint| !endpoint.status().connected);
        assert_eq!(harness.endpoint.status().state, EndpointState::Waiting);
    }
}

#[test]
fn without_protocol_features_a_legacy_guest_needs_no_enable() {
    let mut harness = Harness::new("legacy", Role::Server);
    let mut guest = Guest::new(0, 256);
    let mut front = harness.connect();
    harness.ask(&mut front, GET_FEATURES, &[]);
    front.send(SET_FEATURES, &[0], &[]);
    front.memory_table(&guest);
    front.ring(&guest, 0);
    front.ring(&guest, 1);
    harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
    assert_frames_pass(&harness, &mut guest);
}

#[test]
fn the_front_end_of_the_vhost_crate() {
    let mut harness = Harness::new("crate", Role::Server);
    let mut guest = Guest::new(VERSION_1 | MRG_RXBUF, 256);
    let path = harness.path.clone();
    let front = harness.during(|| {
        let mut front = Frontend::connect(&path, 2).unwrap();
        front.set_owner().unwrap();
        let offered = front.get_features().unwrap();
        front.set_features(offered & (guest.features | PROTOCOL)).unwrap();
        let protocol = front.get_protocol_features().unwrap();
        front.set_protocol_features(protocol).unwrap();
        assert!(protocol.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS));
        front.set_hdr_flags(vhost::vhost_user::message::VhostUserHeaderFlag::NEED_REPLY);
        // GET_QUEUE_NUM is left out: this front end takes the queue pairs of a network device for rings.
        assert!(front.get_max_mem_slots().unwrap() >= 32);
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: guest::GUEST_BASE,
            memory_size: guest.bytes(),
            userspace_addr: guest::USER_BASE,
            mmap_offset: 0,
            mmap_handle: guest.memfd.as_raw_fd(),
        };
        front.set_mem_table(&[region]).unwrap();
        for ring in [0, 1] {
            let addresses = guest.addresses(ring);
            front.set_vring_num(ring, 256).unwrap();
            let config = VringConfigData {
                queue_max_size: 256,
                queue_size: 256,
                flags: 0,
                desc_table_addr: addresses.descriptors,
                used_ring_addr: addresses.used,
                avail_ring_addr: addresses.available,
                log_addr: None,
            };
            front.set_vring_addr(ring, &config).unwrap();
            front.set_vring_base(ring, 0).unwrap();
            let event = || EventFd::new(0).unwrap();
            front.set_vring_call(ring, &event()).unwrap();
            front.set_vring_kick(ring, &event()).unwrap();
            front.set_vring_enable(ring, true).unwrap();
        }
        // Hot-plug while the rings run; the same file somewhere else will do.
        let more = VhostUserMemoryRegionInfo { guest_phys_addr: 1 << 40, userspace_addr: 1 << 44, ..region };
        front.add_mem_region(&more).unwrap();
        front.remove_mem_region(&more).unwrap();
        front
    });
    assert!(harness.is_up());
    assert_frames_pass(&harness, &mut guest);
    assert_eq!(harness.during(|| front.get_vring_base(1).unwrap()), 1);
}

fn qemu_without_features(harness: &mut Harness, front: &mut Front, guest: &Guest) {
    harness.ask(front, GET_FEATURES, &[]);
    front.send(SET_FEATURES, &[guest.features], &[]);
    front.memory_table(guest);
    front.ring(guest, 0);
    front.ring(guest, 1);
    harness.until("up", |endpoint| endpoint.status().state == EndpointState::Up);
}

/// Has the guest break its transmit ring, and returns the fault that a worker would report.
fn provoke(harness: &Harness, guest: &mut Guest) -> Fault {
    let next = guest.avail(1, 2);
    next.store(next.load(Ordering::Relaxed).wrapping_add(1000), Ordering::Release);
    let mut port = harness.port.lock().unwrap();
    port.receive(0, &mut Burst::new(), &mut PortDelta::ZERO.clone()).unwrap_err()
}

#[test]
fn a_fault_throws_the_front_end_out_and_the_next_is_served() {
    let mut harness = Harness::new("fault", Role::Server);
    let mut guest = Guest::new(VERSION_1, 64);
    let mut front = harness.connect();
    qemu_without_features(&mut harness, &mut front, &guest);
    let fault = provoke(&harness, &mut guest);
    assert!(harness.endpoint.fault(&fault, Instant::now()));
    assert!(front.is_closed());
    let status = harness.endpoint.status();
    assert_eq!((status.state, status.reason.as_ref()), (EndpointState::Failed, Some(&fault.reason)));
    assert!(harness.port.lock().unwrap().rx[0].wait_fd().is_none());
    let mut guest = Guest::new(VERSION_1, 64);
    let mut front = harness.connect();
    qemu_without_features(&mut harness, &mut front, &guest);
    assert_frames_pass(&harness, &mut guest);
}

#[test]
fn a_fault_that_comes_after_its_front_end_has_gone_leaves_the_next_one_alone() {
    let mut harness = Harness::new("late", Role::Server);
    let mut guest = Guest::new(VERSION_1, 64);
    let mut front = harness.connect();
    qemu_without_features(&mut harness, &mut front, &guest);
    let late = provoke(&harness, &mut guest);
    drop(front);
    harness.until("gone", |endpoint| !endpoint.status().connected);
    // Before the next one, the status may say why the last one's port broke.
    assert!(harness.endpoint.fault(&late, Instant::now()));
    assert_eq!(harness.endpoint.status().reason.as_ref(), Some(&late.reason));
    let mut guest = Guest::new(VERSION_1, 64);
    let mut front = harness.connect();
    qemu_without_features(&mut harness, &mut front, &guest);
    assert!(!harness.endpoint.fault(&late, Instant::now()));
    assert!(harness.is_up() && harness.endpoint.status().reason.is_none());
    assert_frames_pass(&harness, &mut guest);
}

#[test]
fn sockets_are_replaced_only_if_dead() {
    let port =
        || Box::new(Port(std::sync::Arc::new(std::sync::Mutex::new(labsw_dataplane::vhost_user::VhostPort::new(1)))));
    let open = |path| Endpoint::open(config(path, Role::Server), port());
    let path = socket_path("stale");
    // A dead run's: the file is there, nobody listens.
    drop(UnixListener::bind(&path).unwrap());
    let endpoint = open(&path).unwrap();
    // A live one, even our own.
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("guest1") && error.contains("listening") && error.contains("stale"), "{error}");
    assert!(path.exists(), "the live socket is still there");
    endpoint.close();
    assert!(!path.exists(), "our own socket is removed");
    // No socket at all.
    std::fs::write(&path, "precious").unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    // A file that somebody put in our socket's place is not ours to remove.
    let endpoint = open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "theirs").unwrap();
    endpoint.close();
    assert!(path.exists());
    std::fs::remove_file(&path).unwrap();
    let error = open(std::path::Path::new("/nonexistent/labsw.sock")).unwrap_err().to_string();
    assert!(error.contains("/nonexistent/labsw.sock"), "{error}");
}

#[test]
fn a_silent_front_end_is_thrown_out() {
    let mut harness = Harness::new("silent", Role::Server);
    // Half of its time is not all of it.
    let run_out = |harness: &mut Harness| {
        harness.skip(PATIENCE / 2);
        harness.turn();
        assert!(harness.endpoint.status().connected);
        harness.skip(PATIENCE / 2);
    };
    let mut front = harness.connect();
    run_out(&mut harness);
    assert!(harness.rejection().contains("sent nothing"));
    assert!(front.is_closed());
    let mut front = harness.connect();
    harness.ask(&mut front, GET_FEATURES, &[]);
    front.send_bytes(&[2, 0, 0, 0, 1], &[]);
    harness.turn();
    run_out(&mut harness);
    assert!(harness.rejection().contains("half a request"));
    // One that talks but shares no memory is told why there is no traffic, and stays.
    let mut front = harness.connect();
    harness.ask(&mut front, GET_FEATURES, &[]);
    run_out(&mut harness);
    harness.until("explained", |endpoint| endpoint.status().reason.is_some_and(|why| why.contains("share=on")));
    harness.ask(&mut front, GET_FEATURES, &[]);
    assert!(harness.endpoint.status().connected);
}

#[test]
fn a_client_keeps_trying_and_reconnects() {
    let path = socket_path("client");
    let mut harness = Harness::new("client", Role::Client);
    harness.turn();
    let status = harness.endpoint.status();
    assert!(status.reason.unwrap().contains("cannot connect"));
    for _ in 0..2 {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut stream: Option<UnixStream> = None;
        harness.until("connected", |_| {
            stream = stream.take().or_else(|| listener.accept().ok().map(|(stream, _)| stream));
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        let mut front = Front(stream);
        let mut guest = Guest::new(VERSION_1, 64);
        qemu_without_features(&mut harness, &mut front, &guest);
        assert_frames_pass(&harness, &mut guest);
        std::fs::remove_file(&path).unwrap();
        drop((front, listener));
        harness.until("gone", |endpoint| !endpoint.status().connected);
    }
}

#[test]
fn a_front_end_that_floods_starves_nobody() {
    let mut harness = Harness::new("flood", Role::Server);
    let front = harness.connect();
    for _ in 0..200 {
        front.send(SET_OWNER, &[], &[]);
    }
    harness.until("connected", |endpoint| endpoint.status().connected);
    harness.endpoint.ready(frontend::CONNECTION, Instant::now());
    // The turn ended before the socket was empty: more is due at once.
    assert_eq!(harness.endpoint.tick(Instant::now()), Some(Duration::ZERO));
    front.send(GET_FEATURES, &[], &[]);
    let mut front = front;
    assert_ne!(harness.during(|| front.reply(GET_FEATURES)), 0);
}
