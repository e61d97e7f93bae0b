//! Proves that nothing a client does on the control socket harms the switch or another client: malformed, huge, half
//! and binary requests, a hundred clients at once, clients that never read. Each gets an error reply or a closed
//! connection; meanwhile numbered frames flow, none is lost, and a well-behaved client is answered promptly. And that a
//! user who is neither root nor in the admin group may look but not change.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, find_binary};
use labsw_tests::veth_lab::{Flow, Lab};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::Value;

/// How soon a well-behaved client has its answer, the start of `labsw-ctl` on a busy machine included.
const PROMPT: Duration = Duration::from_secs(2);
const PORTS: [(&str, &str); 2] = [("a", ""), ("b", "")];
const STATUS: &[u8] = b"{\"method\":\"org.labsw.Switch1.GetStatus\"}\0";

fn needs() -> bool {
    require::all(&[Need::Root, Need::Labswd])
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    client.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    client
}

/// The next reply; `None` when the switch has hung up.
fn reply(client: &mut UnixStream) -> Option<Value> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        match client.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) if byte[0] == 0 => return Some(serde_json::from_slice(&text).unwrap()),
            Ok(_) => text.push(byte[0]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
            Err(e) => panic!("no reply and no end of the connection: {e}"),
        }
    }
}

/// An error reply, or the end of the connection.
fn assert_refused(client: &mut UnixStream, what: &str) {
    if let Some(reply) = reply(client) {
        assert!(reply["error"].is_string(), "{what}: {reply}");
    }
}

/// Everybody else is served as if nothing had happened.
fn assert_unharmed(switch: &mut Labswd<'_>, flow: &Flow, after: &str) {
    let begin = Instant::now();
    assert_eq!(switch.ctl(&["port", "list"]).as_array().unwrap().len(), PORTS.len());
    assert!(begin.elapsed() < PROMPT, "an answer took {:?} after {after}", begin.elapsed());
    assert!(switch.is_running());
    flow.assert_flowing(after);
}

#[test]
fn clients_that_make_no_sense() {
    if !needs() {
        return;
    }
    let lab = Lab::new("csm");
    let mut switch = lab.start("", &PORTS, "");
    let socket = lab.site.control_socket();
    let flow = Flow::start(&lab, "a", "b");
    let huge = [b"{\"method\":\"".as_slice(), &vec![b'x'; 3 << 20], b"\"}\0"].concat();
    let deep = [&vec![b'['; 200_000][..], b"\0"].concat();
    let binary: Vec<u8> = (0..10_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).chain([0]).collect();
    let cases: [(&str, &[u8]); 15] = [
        ("nothing but an end", b"\0"),
        ("no JSON", b"hello\0"),
        ("half a value", b"{\"method\":\0"),
        ("no object", b"[1, 2]\0"),
        ("no method", b"{}\0"),
        ("a method that is no text", b"{\"method\":7}\0"),
        ("parameters that are no object", b"{\"method\":\"org.labsw.Switch1.ListPorts\",\"parameters\":7}\0"),
        ("an unknown interface", b"{\"method\":\"org.example.Ask\"}\0"),
        ("an unknown method", b"{\"method\":\"org.labsw.Switch1.Explode\"}\0"),
        ("an unknown parameter", b"{\"method\":\"org.labsw.Switch1.ListPorts\",\"parameters\":{\"x\":1}}\0"),
        ("a parameter of the wrong type", b"{\"method\":\"org.labsw.Switch1.ShowPort\",\"parameters\":{\"name\":7}}\0"),
        ("no UTF-8", b"{\"method\":\"\xff\xfe\"}\0"),
        ("more than a mebibyte", &huge),
        ("two hundred thousand brackets", &deep),
        ("binary rubbish", &binary),
    ];
    for (what, bytes) in cases {
        let mut client = connect(&socket);
        // The switch may hang up before it has read everything.
        let _ = client.write_all(bytes);
        assert_refused(&mut client, what);
        assert_unharmed(&mut switch, &flow, what);
    }
    // After an error that leaves no doubt where the next request begins, the next request is answered.
    let mut client = connect(&socket);
    client.write_all(b"{\"method\":\"org.labsw.Switch1.Explode\"}\0").unwrap();
    assert_eq!(reply(&mut client).unwrap()["error"], "org.varlink.service.MethodNotFound");
    client.write_all(STATUS).unwrap();
    assert!(reply(&mut client).unwrap()["parameters"]["version"].is_string());
    // A request that comes byte by byte is a request.
    for byte in STATUS {
        client.write_all(&[*byte]).unwrap();
    }
    assert!(reply(&mut client).unwrap()["parameters"]["version"].is_string());
    assert!(flow.finish() > 50);
    switch.stop();
}

#[test]
fn clients_that_are_too_many_or_too_slow() {
    if !needs() {
        return;
    }
    let lab = Lab::new("csl");
    let mut switch = lab.start("", &PORTS, "");
    let socket = lab.site.control_socket();
    let flow = Flow::start(&lab, "a", "b");
    let before = descriptors_of(switch.pid());

    // Half a request, and the client stays.
    let mut half = connect(&socket);
    half.write_all(&STATUS[..20]).unwrap();
    assert_unharmed(&mut switch, &flow, "half a request");
    // A hundred clients at once, each is answered.
    let mut clients: Vec<UnixStream> = (0..100).map(|_| connect(&socket)).collect();
    for client in &mut clients {
        client.write_all(STATUS).unwrap();
    }
    assert_unharmed(&mut switch, &flow, "a hundred requests");
    for client in &mut clients {
        assert!(reply(client).unwrap()["parameters"]["uptime_seconds"].is_u64());
    }
    drop(clients);
    half.write_all(&STATUS[20..]).unwrap();
    assert!(reply(&mut half).unwrap()["parameters"]["version"].is_string(), "the second half was waited for");

    clients_that_never_read(&mut switch, &flow, &socket);
    // A thousand that come and go.
    for n in 0..1000 {
        let mut client = connect(&socket);
        if n % 2 == 0 {
            let _ = client.write_all(&STATUS[..n % STATUS.len()]);
        }
    }
    assert_unharmed(&mut switch, &flow, "a thousand connections");
    drop(half);
    let deadline = Instant::now() + Duration::from_secs(3);
    while descriptors_of(switch.pid()) != before {
        assert!(Instant::now() < deadline, "{} descriptors, {before} before", descriptors_of(switch.pid()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(flow.finish() > 100);
    switch.stop();
}

/// Clients that ask and ask and never read.
fn clients_that_never_read(switch: &mut Labswd<'_>, flow: &Flow, socket: &Path) {
    let requests = STATUS.repeat(200);
    let deaf: Vec<UnixStream> = (0..4)
        .map(|_| {
            let mut client = connect(socket);
            client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
            // At last the switch takes no more, or hangs up.
            let held_up = (0..200).any(|_| client.write_all(&requests).is_err());
            assert!(held_up, "forty thousand requests were taken without one reply being read");
            client
        })
        .collect();
    assert_unharmed(switch, flow, "clients that never read");
    let memory = resident_mebibytes(switch.pid());
    assert!(memory < 400, "{memory} MiB resident with clients that never read");
    drop(deaf);
}

fn descriptors_of(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident_mebibytes(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn a_user_who_may_look_but_not_change() {
    const NOBODY: u32 = 65_534;
    const ADMINS: u32 = 64_321;
    if !needs() {
        return;
    }
    let lab = Lab::new("csp");
    let switch = lab.start("socket_mode = \"0666\"", &PORTS, "[ports.guest]\ntype = \"vhost_user\"\n");
    let program = lab.site.dir().join("labsw-ctl");
    std::fs::copy(find_binary("labsw-ctl").unwrap(), &program).unwrap();
    for path in [lab.site.dir(), program.as_path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let as_user = |uid: u32, gid: u32, arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--socket").arg(lab.site.control_socket()).args(arguments).uid(uid).gid(gid);
        let out = command.output().unwrap();
        (out.status.code().unwrap(), String::from_utf8_lossy(&out.stderr).trim().to_owned())
    };
    for arguments in [&["status"][..], &["port", "list"], &["fdb", "list"], &["mirror", "list"], &["stats"]] {
        assert_eq!(as_user(NOBODY, NOBODY, arguments), (0, String::new()), "{arguments:?} by a user");
    }
    let before = switch.ctl(&["port", "list"]);
    let changes: [&[&str]; 8] = [
        &["port", "add", "x", "--type", "vhost_user"],
        &["port", "set", "guest", "mirror_only=true"],
        &["port", "down", "guest"],
        &["port", "del", "guest"],
        &["fdb", "add", "02:00:00:00:00:01", "--vlan", "1", "--port", "a"],
        &["fdb", "flush"],
        &["mirror", "set", "m", "--source", "a", "--to", "guest"],
        &["mirror", "del", "m"],
    ];
    for arguments in changes {
        for gid in [NOBODY, ADMINS] {
            let (code, line) = as_user(NOBODY, gid, arguments);
            assert!(code == 1 && line.lines().count() == 1 && line.contains("root"), "{arguments:?}: {code} {line}");
        }
    }
    assert_eq!(switch.ctl(&["port", "list"]), before, "nothing was changed");
    assert_eq!(as_user(0, 0, &["fdb", "flush"]).0, 0, "root may");
    switch.stop();

    // Without the permission bits a user does not even get in.
    let switch = lab.start("", &PORTS, "");
    let (code, line) = as_user(NOBODY, NOBODY, &["status"]);
    assert!(code == 3 && line.lines().count() == 1, "{code} {line}");
    switch.stop();
}

/// Makes the control socket reachable for all users.
fn open_to_all(lab: &Lab) {
    std::fs::set_permissions(lab.site.dir(), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs `work` on a thread that has become another user; the rest of the process stays root.
fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: three integers; the raw system call changes the credentials of the calling thread only, which
            // ends with this closure.
            let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Users who may only look take places and streams, as many as they get. Each has its share, and root always has a
/// place.
#[test]
fn users_who_only_look_leave_places() {
    const STREAM: &[u8] =
        b"{\"method\":\"org.labsw.Switch1.GetStats\",\"parameters\":{\"interval_milliseconds\":100},\"more\":true}\0";
    if !needs() {
        return;
    }
    let lab = Lab::new("csr");
    let mut switch = lab.start("socket_mode = \"0666\"", &PORTS, "");
    open_to_all(&lab);
    let socket = lab.site.control_socket();
    let flow = Flow::start(&lab, "a", "b");
    let streams = |uid: u32, many: usize| {
        let open = || {
            let mut client = connect(&socket);
            let _ = client.write_all(STREAM);
            let first = reply(&mut client);
            (client, first)
        };
        as_user(uid, || (0..many).map(|_| open()).collect::<Vec<_>>())
    };
    let is_served = |(_, first): &&(UnixStream, Option<Value>)| {
        first.as_ref().is_some_and(|reply| reply["parameters"]["ports"].is_array())
    };
    let one_user = streams(65_530, 20);
    assert_eq!(one_user.iter().filter(is_served).count(), 16, "one user's share");
    let refused = one_user[16].1.as_ref().unwrap();
    assert_eq!(refused["error"], "org.labsw.Switch1.Refused");
    assert_eq!(refused["parameters"]["reason"], "user 65530 has 16 connections open already");
    let others: Vec<_> = (65_520..65_530).flat_map(|uid| streams(uid, 16)).collect();
    assert_eq!(others.iter().filter(is_served).count(), 80, "all users' share together is 96");
    for _ in 0..3 {
        assert_unharmed(&mut switch, &flow, "streams on all places of readers");
    }
    // More of root's own than there are places.
    let own: Vec<_> = (0..140).map(|_| connect(&socket)).collect();
    assert_unharmed(&mut switch, &flow, "connections on all places");
    drop((one_user, others, own));
    assert!(flow.finish() > 20);
    switch.stop();
}

/// A descriptor whose close takes 25 s, sent behind calls that keep the switch busy.
#[test]
fn a_descriptor_that_lingers_holds_nobody_up() {
    const NOBODY: u32 = 65_534;
    if !needs() {
        return;
    }
    let lab = Lab::new("csd");
    let mut switch = lab.start("socket_mode = \"0666\"", &PORTS, "");
    open_to_all(&lab);
    let socket = lab.site.control_socket();
    let flow = Flow::start(&lab, "a", "b");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut lingering = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _unread = listener.accept().unwrap();
    lingering.set_nonblocking(true).unwrap();
    while lingering.write(&[0; 65536]).is_ok() {}
    set_socket_linger(&lingering, Some(Duration::from_secs(25))).unwrap();
    let clients: Vec<UnixStream> = as_user(NOBODY, || {
        let send = || {
            let mut client = connect(&socket);
            client.write_all(&STATUS.repeat(100)).unwrap();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [lingering.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            // Kernels from 6.16 on refuse it to the sender.
            let sent = sendmsg(&client, &[IoSlice::new(b"{")], &mut control, SendFlags::empty());
            assert!(matches!(sent, Ok(_) | Err(Errno::PERM)), "{sent:?}");
            client
        };
        (0..8).map(|_| send()).collect()
    });
    drop(lingering);
    assert_unharmed(&mut switch, &flow, "a descriptor that lingers");
    drop(clients);
    assert_unharmed(&mut switch, &flow, "clients that sent descriptors and left");
    assert!(flow.finish() > 20);
    switch.stop();
}

/// Compiling filters is slow. Who may only look can't have it done, and root's configuration holds nobody up.
#[test]
fn filters_are_compiled_beside_the_control_thread() {
    const NOBODY: u32 = 65_534;
    if !needs() {
        return;
    }
    let lab = Lab::new("csf");
    let mut switch = lab.start("socket_mode = \"0666\"", &PORTS, "");
    open_to_all(&lab);
    let socket = lab.site.control_socket();
    let flow = Flow::start(&lab, "a", "b");
    let filter = |n: u32| {
        let host = |m: u32| format!("host 10.{}.{}.{}", n % 200, m % 250, m * 7 % 250);
        (0..100).map(host).collect::<Vec<_>>().join(" or ")
    };
    let config = |ports: u32| {
        let port = |n: u32| {
            let filter = filter(n);
            format!("[ports.p{n}]\ntype = \"vhost_user\"\n[impair.p{n}]\ndelay = \"1ms\"\nfilter = \"{filter}\"\n")
        };
        (0..ports).map(port).collect::<String>()
    };
    let check = |method: &str, text: String| {
        let parameters = serde_json::json!({"file": "lab.toml", "text": text});
        let call = serde_json::json!({"method": format!("org.labsw.Switch1.{method}"), "parameters": parameters});
        let mut client = connect(&socket);
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(format!("{call}\0").as_bytes()).unwrap();
        client
    };
    for method in ["CheckConfig", "DiffConfig"] {
        let mut client = as_user(NOBODY, || check(method, config(1)));
        assert_eq!(reply(&mut client).unwrap()["error"], "org.labsw.Switch1.PermissionDenied", "{method}");
    }
    let mut client = check("CheckConfig", config(100));
    assert_unharmed(&mut switch, &flow, "a configuration with a hundred filters");
    let compiled = reply(&mut client).unwrap();
    assert!(compiled["parameters"]["awaited"].is_array() || compiled["error"].is_string(), "{compiled}");
    // More than a configuration may have.
    let mut client = check("CheckConfig", config(200));
    let refused = reply(&mut client).unwrap()["parameters"]["reason"].clone();
    assert!(refused.as_str().is_some_and(|reason| reason.contains("at most 262144 are allowed")), "{refused}");
    assert_unharmed(&mut switch, &flow, "a configuration with too many filters");
    assert!(flow.finish() > 20);
    switch.stop();
}
