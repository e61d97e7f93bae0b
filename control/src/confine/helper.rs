//! The helper process: carries out the few operations that need more rights than the daemon keeps.
//!
//! **How it works.** [`start`] runs this program again, as `labswd` with [`ARGUMENT`], with a socket pair as its
//! standard input. The daemon sends one typed request at a time and waits for the reply, at most [`PATIENCE`], and
//! never beyond the time that [`answer_by`] sets at the end of the switch. Descriptors go with the messages. The helper
//! ends when the daemon's end of the pair is closed, so it never outlives the daemon.
//!
//! | request | required right |
//! |---|---|
//! | [`open_raw`]: an AF_XDP or packet socket | CAP_NET_RAW |
//! | [`open_in`]: a socket in a named network namespace | CAP_SYS_ADMIN |
//! | [`bpf`]: the switch's programs in the kernel | CAP_BPF, and bpf(2), which the daemon may not call |
//! | [`give`]: another owner or group for a socket file | CAP_CHOWN |
//! | [`serve_metrics`]: an unprivileged `labsw-ctl` at a listening socket | the right to start a program |
//!
//! **Invariants.** The helper reads only its daemon's requests. It enters only namespaces that root has named
//! (`/run/netns`), changes the owner of sockets and of no other file, loads programs of its own and no others, and
//! starts one program, with arguments that the daemon can't choose. It keeps no descriptor: when the daemon has a
//! reply, the helper has closed its copies of all that came and went, so that a file that the daemon closes is
//! closed. Without a helper, in tests, [`give`] acts with the rights of the caller.
//!
//! References: setns(2), unix(7) `SCM_RIGHTS`, ip-netns(8).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use labsw_dataplane::sys::programs::{self, Call, Made};
use labsw_dataplane::sys::raw::{self, RawSocket};
use labsw_dataplane::sys::socket;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with, socketpair,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{ConfineError, calls, capabilities};

/// The argument that makes `labswd` the helper.
pub const ARGUMENT: &str = "--privileged-helper";
/// The daemon's timeout for a reply.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether the time for a reply is over: [`answer_by`] may have made it shorter.
const LOOK: Duration = Duration::from_millis(100);
/// Longest message, bytes.
const MESSAGE_BYTES: usize = 4096;
/// Most descriptors of a message.
const DESCRIPTORS: usize = 2;
/// User and group id of the program that serves metrics, if the helper may set them: nobody.
const NOBODY: u32 = 65_534;

/// Kinds of sockets that the helper opens in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SocketKind {
    /// Links and addresses (rtnetlink(7)).
    Route,
    /// Requests about one device (netdevice(7)).
    Device,
}

/// A request with its number, which the reply repeats.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Numbered {
    number: u64,
    request: Request,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Request {
    /// Opens a packet socket or an AF_XDP socket.
    OpenRaw { packet: bool },
    /// Opens a socket in the namespace of this name.
    Open { netns: String, kind: SocketKind },
    /// Loads or attaches a program of the switch in the kernel.
    Bpf(Call),
    /// Gives the socket file of the descriptor another owner and group.
    Give { owner: Option<u32>, group: Option<u32> },
    /// Starts a program that serves metrics. The first descriptor is its listening socket, the second its connection to
    /// the daemon.
    ServeMetrics,
}

/// A reply. Descriptors that belong to it go ahead in a message of their own.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Reply {
    /// The number of the request.
    number: u64,
    /// The `errno` of a failure.
    error: Option<i32>,
    /// The name of a program.
    name: Option<String>,
}

/// The message that carries descriptors.
const DESCRIPTORS_AHEAD: &[u8] = b"descriptors";

/// The daemon's end of the socket pair.
#[derive(Debug)]
struct DaemonsEnd {
    socket: OwnedFd,
    /// The number of the last request.
    number: u64,
}

static HELPER: OnceLock<Mutex<DaemonsEnd>> = OnceLock::new();
/// No request is waited for after this.
static LAST: OnceLock<Instant> = OnceLock::new();

/// Starts the helper with the rights that the daemon has now.
///
/// # Errors
/// Those of making a socket pair and of starting a program.
pub(super) fn start() -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    set_socket_timeout(&ours, Timeout::Recv, Some(LOOK))?;
    set_socket_timeout(&ours, Timeout::Send, Some(LOOK))?;
    let program = std::env::current_exe()?;
    // The daemon never waits for this process: it ends after the daemon, or the daemon goes on without it.
    Command::new(program).arg(ARGUMENT).stdin(Stdio::from(theirs)).spawn()?;
    // The helper is started once; a second one would find that `HELPER` is set, and end.
    let _ = HELPER.set(Mutex::new(DaemonsEnd { socket: ours, number: 0 }));
    Ok(())
}

/// True if this process has a helper.
pub fn is_running() -> bool {
    HELPER.get().is_some()
}

/// Has no request be waited for after this time, the one under way included: the switch ends. The first time counts.
pub fn answer_by(time: Instant) {
    let _ = LAST.set(time);
}

/// Opens an AF_XDP or packet socket.
///
/// # Errors
/// Those of socket(2).
pub(super) fn open_raw(kind: RawSocket) -> io::Result<OwnedFd> {
    socket_of(ask(Request::OpenRaw { packet: kind == RawSocket::Packet }, &[])?)
}

fn socket_of(made: Made) -> io::Result<OwnedFd> {
    let socket = made.descriptors.into_iter().next();
    socket.ok_or_else(|| io::Error::other("the helper process sent no socket"))
}

/// Loads or attaches a program of the switch in the kernel.
///
/// # Errors
/// Those of bpf(2).
pub(super) fn bpf(call: Call, descriptors: &[BorrowedFd<'_>]) -> io::Result<Made> {
    ask(Request::Bpf(call), descriptors)
}

/// Opens a socket in the network namespace called `netns`.
///
/// # Errors
/// There is no such namespace, or it may not be entered.
pub fn open_in(netns: &str, kind: SocketKind) -> io::Result<OwnedFd> {
    socket_of(ask(Request::Open { netns: netns.to_owned(), kind }, &[])?)
}

/// Gives a socket file another owner or group; `file` is a handle of it.
///
/// # Errors
/// The file is no socket, or may not be given away.
pub fn give(file: BorrowedFd<'_>, owner: Option<u32>, group: Option<u32>) -> io::Result<()> {
    if HELPER.get().is_none() {
        return socket::give_here(file, owner, group);
    }
    ask(Request::Give { owner, group }, &[file]).map(drop)
}

/// Starts a program without privileges that serves metrics at `listener`, and reads them from the switch at
/// `connection`.
///
/// # Errors
/// There is no helper, or the program can't be started.
pub fn serve_metrics(listener: BorrowedFd<'_>, connection: BorrowedFd<'_>) -> io::Result<()> {
    ask(Request::ServeMetrics, &[listener, connection]).map(drop)
}

/// Sends a request and waits for the reply.
fn ask(request: Request, descriptors: &[BorrowedFd<'_>]) -> io::Result<Made> {
    let Some(helper) = HELPER.get() else { return Err(io::Error::other("there is no helper process")) };
    let mut daemons = helper.lock().unwrap_or_else(PoisonError::into_inner);
    daemons.number += 1;
    let (socket, number, wait) = (&daemons.socket, daemons.number, Wait::begin());
    let message = serde_json::to_vec(&Numbered { number, request })?;
    wait.until(&LAST, || send(socket, &message, descriptors))?;
    receive_reply(number, || wait.until(&LAST, || receive(socket, RecvFlags::empty())))
}

/// The wait for the helper during one request.
struct Wait(Instant);

impl Wait {
    fn begin() -> Wait {
        Wait(Instant::now())
    }

    /// Tries again and again what gives up after [`LOOK`], until the request is [`PATIENCE`] old or the `last` time has
    /// come.
    fn until<T>(&self, last: &OnceLock<Instant>, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match attempt() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            let is_last = last.get().is_some_and(|last| Instant::now() >= *last);
            if is_last || self.0.elapsed() >= PATIENCE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the helper process does not answer"));
            }
        }
    }
}

/// Waits for the reply to the request of this number, and for the descriptors ahead of it. Late replies to earlier
/// requests are left out.
fn receive_reply(number: u64, receive: impl Fn() -> io::Result<(Vec<u8>, Vec<OwnedFd>)>) -> io::Result<Made> {
    loop {
        let (mut bytes, descriptors) = receive()?;
        if !descriptors.is_empty() {
            (bytes, _) = receive()?;
        }
        if bytes.is_empty() {
            return Err(io::Error::other("the helper process has ended; restart the switch"));
        }
        let reply: Reply = serde_json::from_slice(&bytes)?;
        match reply {
            Reply { number: of, .. } if of != number => {}
            Reply { error: Some(errno), .. } => return Err(io::Error::from_raw_os_error(errno)),
            Reply { name, .. } => return Ok(Made { descriptors, name }),
        }
    }
}

/// Sends a reply, after the descriptors that belong to it are sent and closed here.
fn send_reply(helpers: impl AsFd, number: u64, done: io::Result<Made>) -> io::Result<()> {
    let reply = match done {
        Ok(Made { descriptors, name }) => {
            if !descriptors.is_empty() {
                let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
                send(&helpers, DESCRIPTORS_AHEAD, &borrowed)?;
            }
            Reply { number, error: None, name }
        }
        Err(error) => Reply { number, error: Some(errno_of(&error)), name: None },
    };
    send(&helpers, &serde_json::to_vec(&reply)?, &[])
}

fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message and its descriptors; an empty message means that the other end is closed.
fn receive(socket: impl AsFd, flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            descriptors.extend(fds);
        }
    }
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

/// The main loop of the helper, whose standard input is the socket pair.
///
/// # Errors
/// The helper can't be confined, or its input is no socket.
pub fn main() -> Result<(), ConfineError> {
    // A terminal sends signals to both the daemon and the helper; the helper ends only when the daemon has ended.
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|error| ConfineError::new("signals of the helper process", error))?;
    }
    super::limits()?;
    capabilities::keep(&capabilities::OF_THE_HELPER)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| ConfineError::new("no new privileges", error))?;
    if let Err(error) = calls::restrict(calls::Kind::Helper) {
        // The daemon logs the same failure.
        tracing::debug!("{error}");
    }
    let input = io::stdin();
    let daemon = input.as_fd();
    let program = File::open(beside_this_program("labsw-ctl"));
    loop {
        let Ok((bytes, descriptors)) = receive(daemon, RecvFlags::empty()) else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        // The daemon sends nothing else.
        let Ok(Numbered { number, request }) = serde_json::from_slice(&bytes) else { return Ok(()) };
        let done = carry_out(&request, &descriptors, program.as_ref());
        // Before the reply, so that a file that the daemon closes then is closed.
        drop(descriptors);
        if send_reply(daemon, number, done).is_err() {
            return Ok(());
        }
    }
}

fn carry_out(request: &Request, descriptors: &[OwnedFd], program: Result<&File, &io::Error>) -> io::Result<Made> {
    let socket = |socket| Made { descriptors: vec![socket], name: None };
    match (request, descriptors) {
        (Request::OpenRaw { packet: true }, []) => raw::open_here(RawSocket::Packet).map(socket),
        (Request::OpenRaw { packet: false }, []) => raw::open_here(RawSocket::Xdp).map(socket),
        (Request::Open { netns, kind }, []) => open_here(netns, *kind).map(socket),
        (Request::Bpf(call), _) => {
            let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            programs::do_here(*call, &descriptors)
        }
        (Request::Give { owner, group }, [file]) => {
            socket::give_here(file.as_fd(), *owner, *group).map(|()| Made::default())
        }
        (Request::ServeMetrics, [listener, connection]) => {
            let program = program.map_err(|error| io::Error::from(error.kind()))?;
            serve_here(program, listener, connection).map(|()| Made::default())
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// The error number that describes an error best.
fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        _ => libc::EINVAL,
    })
}

/// Opens a socket in a namespace, from a thread that enters the namespace and ends.
fn open_here(netns: &str, kind: SocketKind) -> io::Result<OwnedFd> {
    if netns.is_empty() || netns.starts_with('.') || netns.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // A file that is no namespace is refused on entry; a pipe does not block until then.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(Path::new("/run/netns").join(netns))?;
    let open = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let cloexec = SocketFlags::CLOEXEC;
        Ok(match kind {
            // NETLINK_ROUTE is protocol 0.
            SocketKind::Route => socket_with(AddressFamily::NETLINK, SocketType::RAW, cloexec, None)?,
            SocketKind::Device => socket_with(AddressFamily::INET, SocketType::DGRAM, cloexec, None)?,
        })
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, open)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread ended early")))
    })
}

/// Starts the program by its descriptor, since the user it runs as may have no access to its directory. A thread waits
/// for its end.
fn serve_here(program: &File, listener: &OwnedFd, connection: &OwnedFd) -> io::Result<()> {
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0("labsw-ctl").args(["metrics", "--serve"]).env_clear();
    command.stdin(Stdio::from(listener.try_clone()?)).stdout(Stdio::from(connection.try_clone()?));
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut child = command.spawn()?;
    std::thread::Builder::new().name("metrics".to_owned()).spawn(move || child.wait())?;
    Ok(())
}

/// The path of a program in the same directory as this one.
fn beside_this_program(name: &str) -> PathBuf {
    std::env::current_exe().map_or_else(|_| PathBuf::from(name), |own| own.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_are_no_namespaces() {
        for name in ["", ".", "..", "../x", "a/b", "/proc/1/ns/net"] {
            let refused = open_here(name, SocketKind::Route).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        let missing = open_here("labsw-no-such-namespace", SocketKind::Device).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_sockets_are_given_away() {
        let file = File::open("/etc/passwd").unwrap();
        assert!(socket::give_here(file.as_fd(), Some(1), None).is_err());
        let (mine, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        socket::give_here(mine.as_fd(), None, Some(rustix::process::getegid().as_raw())).unwrap();
    }

    #[test]
    fn requests_and_their_descriptors_arrive_whole() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let request = Request::Give { owner: Some(3), group: None };
        let file = File::open("/dev/null").unwrap();
        send(&a, &serde_json::to_vec(&request).unwrap(), &[file.as_fd()]).unwrap();
        let (bytes, descriptors) = receive(&b, RecvFlags::empty()).unwrap();
        assert_eq!(serde_json::from_slice::<Request>(&bytes).unwrap(), request);
        assert_eq!(descriptors.len(), 1);
        // A request with the wrong number of descriptors is refused.
        assert!(carry_out(&request, &[], Ok(&file)).is_err());
        // Calls of bpf(2) are, too.
        assert!(carry_out(&Request::Bpf(Call::Direct { queue: 0 }), &[], Ok(&file)).is_err());
        drop(a);
        assert!(receive(&b, RecvFlags::empty()).unwrap().0.is_empty());
    }

    /// The other end of a pair is closed when every descriptor of it is: the helper must not be the one that keeps it.
    #[test]
    fn only_the_receiver_of_a_reply_has_its_descriptors() {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let (sent, watched) = std::os::unix::net::UnixStream::pair().unwrap();
        let name = Some("labsw_to_socket".to_owned());
        // A late reply, with a descriptor of its own.
        send_reply(&a, 6, Ok(Made { descriptors: vec![File::open("/dev/null").unwrap().into()], name: None })).unwrap();
        send_reply(&a, 7, Ok(Made { descriptors: vec![sent.into()], name: name.clone() })).unwrap();
        let next = || receive(&b, RecvFlags::empty());
        let made = receive_reply(7, next).unwrap();
        assert_eq!((made.descriptors.len(), &made.name), (1, &name));
        drop(made);
        assert_eq!(io::Read::read(&mut &watched, &mut [0]).unwrap(), 0);
        send_reply(&a, 8, Err(io::Error::from_raw_os_error(libc::EBUSY))).unwrap();
        assert_eq!(receive_reply(8, next).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        drop(a);
        assert!(receive_reply(9, next).unwrap_err().to_string().contains("has ended"));
    }

    #[test]
    fn a_request_is_not_waited_for_once_the_switch_ends() {
        let (a, _b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        set_socket_timeout(&a, Timeout::Recv, Some(Duration::from_millis(1))).unwrap();
        let last = OnceLock::new();
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| Wait::begin().until(&last, || receive(&a, RecvFlags::empty())));
            std::thread::sleep(Duration::from_millis(20));
            assert!(!wait.is_finished());
            last.set(Instant::now()).unwrap();
            let begin = Instant::now();
            assert_eq!(wait.join().unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() < PATIENCE / 2);
        });
    }
}
