//! Who may change the switch, and what happens to a socket file that is already there.

use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::json;

use super::super::connection::Next;
use super::super::credentials::{Policy, peer_of};
use super::super::shares::SHARE;
use labsw_dataplane::sys::socket::SocketError;

use super::super::Server;
use super::{Fake, call, replies, socket_path};
use crate::api::{Peer, Request};

#[test]
fn only_admins_may_change() {
    let group = Policy { own_uid: 990, admin_group: Some(36) };
    assert!(group.may_change(0, &[]));
    assert!(group.may_change(990, &[]));
    assert!(group.may_change(1000, &[100, 36]));
    assert!(!group.may_change(1000, &[100]));
    assert!(!Policy { own_uid: 0, admin_group: None }.may_change(1000, &[0, 36]));
}

#[test]
fn the_kernel_says_who_connected() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let peer = peer_of(&ours, &Policy { own_uid: uid, admin_group: None }).unwrap();
    assert_eq!((peer.uid, peer.gid, peer.pid), (uid, gid, i32::try_from(std::process::id()).unwrap()));
    assert!(peer.may_change());
    if uid != 0 {
        let stranger = Policy { own_uid: uid + 1, admin_group: None };
        assert!(!peer_of(&ours, &stranger).unwrap().may_change());
        let member = Policy { own_uid: uid + 1, admin_group: Some(gid) };
        assert!(peer_of(&ours, &member).unwrap().may_change());
    }
}

#[test]
fn a_peer_that_may_only_read_never_reaches_the_handler_with_a_change() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let peer = Peer::new(1000, 1000, 1, false);
    let socket = mio::net::UnixStream::from_std(ours);
    let mut connection = super::super::connection::Connection::new(socket, peer, "root only".into(), 1, Instant::now());
    let mut fake = Fake::default();
    theirs.write_all(&call("FlushFdb", json!({}))).unwrap();
    theirs.write_all(&call("CheckConfig", json!({"file": "f", "text": ""}))).unwrap();
    theirs.write_all(&call("DiffConfig", json!({"file": "f", "text": ""}))).unwrap();
    theirs.write_all(&call("ListPorts", json!({}))).unwrap();
    connection.turn(Instant::now(), SHARE, &mut fake);
    let got = replies(&mut theirs).0;
    let refused = json!({"error": "org.labsw.Switch1.PermissionDenied", "parameters": {"reason": "root only"}});
    assert_eq!(got, [refused.clone(), refused.clone(), refused, json!({"parameters": {"ports": []}})]);
    assert_eq!(fake.calls, [Request::ListPorts]);
}

/// A TCP socket whose last close takes `linger`, and the end that does not read.
fn lingering(linger: Duration) -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (unread, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[0; 65536]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&stream, Some(linger)).unwrap();
    (stream.into(), unread)
}

/// Sends bytes with descriptors.
fn send_descriptors(socket: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty())
}

/// As on kernels that can't refuse descriptors.
#[test]
fn descriptors_that_a_client_sends_are_closed_by_another_thread() {
    let linger = Duration::from_secs(3);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let socket = mio::net::UnixStream::from_std(ours);
    let peer = Peer::new(1000, 1000, 1, false);
    let mut connection = super::super::connection::Connection::new(socket, peer, String::new(), 1, Instant::now());
    let mut fake = Fake::default();
    let (fd, _unread) = lingering(linger);
    let begin = Instant::now();
    send_descriptors(&theirs, &call("ListPorts", json!({})), &[fd.as_fd()]).unwrap();
    drop(fd);
    assert_eq!(connection.turn(Instant::now(), SHARE, &mut fake), Next::Wait);
    assert!(begin.elapsed() < linger, "{:?}", begin.elapsed());
    assert_eq!(replies(&mut theirs).0, [json!({"parameters": {"ports": []}})]);

    // A client that sends and sends is thrown out.
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut next = Next::Wait;
    for _ in 0..20 {
        let _ = send_descriptors(&theirs, b" ", &[null.as_fd(); 16]);
        next = connection.turn(Instant::now(), SHARE, &mut fake);
    }
    assert_eq!(next, Next::Close);
    assert!(begin.elapsed() < linger, "{:?}", begin.elapsed());
}

#[test]
fn a_stale_socket_is_replaced_and_everything_else_left_alone() {
    let path = socket_path();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead run leaves its socket");
    let mut server = Server::bind(&path, 0o600, None, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let live = Server::bind(&path, 0o600, None, None).unwrap_err();
    assert!(matches!(live, SocketError::InUse { .. }));
    assert!(live.to_string().contains(path.to_str().unwrap()), "{live}");
    assert!(UnixStream::connect(&path).is_ok(), "the live one is still there");
    server.close();
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path, 0o600, None, None), Err(SocketError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_socket_whose_backlog_is_full_is_alive() {
    let path = socket_path();
    let _server = Server::bind(&path, 0o600, None, None).unwrap();
    let mut waiting = Vec::new();
    while let Ok(client) = mio::net::UnixStream::connect(&path) {
        waiting.push(client);
    }
    assert!(matches!(Server::bind(&path, 0o600, None, None), Err(SocketError::InUse { .. })));
}

#[test]
fn closing_leaves_a_successors_socket_alone() {
    let path = socket_path();
    let first = Server::bind(&path, 0o600, None, None).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Server::bind(&path, 0o600, None, None).unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    drop(first);
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    drop(second);
    assert!(!path.exists());
}
