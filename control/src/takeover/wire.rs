//! Frames on the take-over socket: a header that says which format follows, a body in JSON, descriptors.
//!
//! **How it works.** The header has 24 bytes: a magic number, the version of the format, the oldest version whose
//! reader can read the frame, the length of the body, and the number of descriptors; integers are little-endian. The
//! descriptors follow the body, in batches with one byte each.
//!
//! **Invariants.** A frame is read as a whole or not at all. A frame that is longer than any state, of an unknown
//! version, or malformed is an error before any of it is used. Every wait ends at the deadline of the channel.
//!
//! Reference: unix(7), SCM_RIGHTS, ETOOMANYREFS.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use labsw_dataplane::sys::socket::{self, Credentials};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};

use super::state::Message;
pub use super::state::OLDEST_READER;

/// The first bytes of a frame.
pub const MAGIC: [u8; 8] = *b"labswTKO";
/// The version of the format that this code writes.
///
/// 1: configuration, ports, forwarding database, mirrors, counters. 2: clients and captures as well. 3: multicast
/// snooping, injection by mirrors, flapping ports, a configuration on trial, and impairments with times of the
/// machine's clock (in format 2: of the old process's). 4: sensors in wires, and replays.
pub const FORMAT: u32 = 4;
/// The oldest version that this code reads.
pub const OLDEST_READ: u32 = 1;
/// Size of a header, bytes.
pub const HEADER_BYTES: usize = 24;
/// The longest body, bytes: a full forwarding database and 1024 ports take a quarter of it.
const MAX_BODY_BYTES: usize = 256 << 20;
/// The most descriptors of a frame.
const MAX_DESCRIPTORS: usize = 1 << 18;
/// Descriptors sent at once; the kernel takes 253 (SCM_MAX_FD).
const BATCH: usize = 128;
/// Timeout for a last message that refuses.
const LAST_WORD: Duration = Duration::from_millis(100);
/// Time between two tries when too many descriptors are in flight.
const AGAIN: Duration = Duration::from_millis(1);

/// Why a frame can't be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other process has hung up.
    #[error("the other labswd has hung up")]
    Closed,
    /// The deadline has passed.
    #[error("the other labswd did not answer in time")]
    TimedOut,
    /// The bytes are no frame, or the body can't be parsed.
    #[error("the other side's message is garbled: {0}")]
    Garbled(String),
    /// A newer version wrote the frame.
    #[error("the other labswd speaks take-over format {0}, which this version does not know yet (it knows {FORMAT})")]
    Newer(u32),
    /// A version that is too old wrote the frame.
    #[error("the other labswd speaks take-over format {0}, and this version needs at least {OLDEST_READ}")]
    Older(u32),
    /// A message other than the one that is due.
    #[error("the other side's message is garbled: {0} came, out of turn")]
    OutOfTurn(&'static str),
    /// The other process refuses.
    #[error("{0}")]
    Refused(String),
    /// Descriptors were lost.
    #[error("descriptors are missing: the limit of open files (LimitNOFILE=) is too low")]
    Descriptors,
    /// The socket fails.
    #[error("take-over socket: {0}")]
    System(#[from] io::Error),
}

/// A connection between the two processes.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    deadline: Instant,
}

impl Channel {
    /// A channel on this connection that ends after `patience`.
    ///
    /// # Errors
    /// It can't be made blocking.
    pub fn new(socket: UnixStream, patience: Duration) -> io::Result<Channel> {
        socket.set_nonblocking(false)?;
        Ok(Channel { socket, deadline: Instant::now() + patience })
    }

    /// Sets the deadline to `patience` from now.
    pub fn allow(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }

    /// The other process.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn peer(&self) -> io::Result<Credentials> {
        socket::credentials(self.socket.as_fd())
    }

    /// The connection.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// Sends a message.
    ///
    /// # Errors
    /// [`WireError`]; part of it may have been sent.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        let body = serde_json::to_vec(message).map_err(io::Error::from)?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        frame.extend(MAGIC);
        [FORMAT, message.oldest_reader(), size(body.len()), size(descriptors.len())]
            .iter()
            .for_each(|word| frame.extend(word.to_le_bytes()));
        frame.extend(body);
        self.socket.set_write_timeout(Some(self.left()?))?;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.last_word()),
                Err(error) => self.failed(error)?,
            }
        }
        descriptors.chunks(BATCH).try_for_each(|batch| self.send_descriptors(batch))
    }

    fn send_descriptors(&self, batch: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(BATCH))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(batch)) {
                return Err(WireError::Descriptors);
            }
            match sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                // The other side has yet to take some.
                Err(Errno::TOOMANYREFS) => {
                    self.left()?;
                    std::thread::sleep(AGAIN);
                }
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// Sends a refusal. If the other side is gone or hangs, the refusal is lost.
    pub fn refuse(&mut self, reason: &impl ToString) {
        self.allow(LAST_WORD);
        let _ = self.send(&Message::Refused { reason: reason.to_string() }, &[]);
    }

    /// Why the other side hung up: it may have sent a refusal before.
    fn last_word(&self) -> WireError {
        match self.receive() {
            Err(WireError::Refused(reason)) => WireError::Refused(reason),
            _ => WireError::Closed,
        }
    }

    /// Reads the next message and its descriptors.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn receive(&self) -> Result<(Message, Vec<OwnedFd>), WireError> {
        let mut header = [0; HEADER_BYTES];
        self.read(&mut header)?;
        let (body_bytes, descriptor_count) = check_header(&header)?;
        let mut body = vec![0; body_bytes];
        self.read(&mut body)?;
        let mut descriptors = Vec::with_capacity(descriptor_count);
        while descriptors.len() < descriptor_count {
            let before = descriptors.len();
            self.receive_batch(&mut [0], &mut descriptors)?;
            if descriptors.len() == before || descriptors.len() > descriptor_count {
                return Err(WireError::Descriptors);
            }
        }
        match serde_json::from_slice(&body) {
            Ok(Message::Refused { reason }) => Err(WireError::Refused(reason)),
            Ok(message) => Ok((message, descriptors)),
            Err(error) => Err(WireError::Garbled(error.to_string())),
        }
    }

    /// Reads a whole buffer; descriptors that come with it are an error.
    fn read(&self, buffer: &mut [u8]) -> Result<(), WireError> {
        let (mut done, mut unwanted) = (0, Vec::new());
        while done < buffer.len() {
            done += self.receive_batch(buffer.get_mut(done..).unwrap_or_default(), &mut unwanted)?;
            if !unwanted.is_empty() {
                return Err(WireError::Garbled("descriptors came where none belong".to_owned()));
            }
        }
        Ok(())
    }

    /// Reads some bytes, and the descriptors that come with them.
    fn receive_batch(&self, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Result<usize, WireError> {
        self.socket.set_read_timeout(Some(self.left()?))?;
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(self.socket.as_fd(), &mut [IoSliceMut::new(buffer)], &mut control, flags) {
                Ok(received) => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = message {
                            descriptors.extend(fds);
                        }
                    }
                    return match received.bytes {
                        _ if received.flags.contains(ReturnFlags::CTRUNC) => Err(WireError::Descriptors),
                        0 => Err(WireError::Closed),
                        bytes => Ok(bytes),
                    };
                }
                Err(error) => self.failed(error)?,
            }
        }
    }

    /// The time until the deadline.
    fn left(&self) -> Result<Duration, WireError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(WireError::TimedOut) } else { Ok(left) }
    }

    /// Handles the error of a call: `Ok` if the call is to be repeated.
    fn failed(&self, error: Errno) -> Result<(), WireError> {
        match error {
            Errno::INTR => self.left().map(drop),
            Errno::AGAIN => Err(WireError::TimedOut),
            Errno::PIPE | Errno::CONNRESET => Err(WireError::Closed),
            error => Err(WireError::System(error.into())),
        }
    }
}

/// The length of the body and the number of descriptors that a header announces.
fn check_header(header: &[u8; HEADER_BYTES]) -> Result<(usize, usize), WireError> {
    let (magic, words) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(WireError::Garbled("it does not begin as a labswd's take-over does".to_owned()));
    }
    let mut words = words.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word));
    let mut next = || words.next().unwrap_or(u32::MAX);
    let [format, oldest_reader, body, descriptors] = [next(), next(), next(), next()];
    if oldest_reader > FORMAT {
        return Err(WireError::Newer(format));
    }
    if format < OLDEST_READ {
        return Err(WireError::Older(format));
    }
    let within = |count: u32, most: usize, what| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count <= most {
            Ok(count)
        } else {
            Err(WireError::Garbled(format!("{count} {what} are more than any state has")))
        }
    };
    Ok((within(body, MAX_BODY_BYTES, "bytes")?, within(descriptors, MAX_DESCRIPTORS, "descriptors")?))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(10);
        (Channel::new(a, patience).unwrap(), Channel::new(b, patience).unwrap())
    }

    /// The reader's error for these bytes from a writer that then closed.
    fn refusal(bytes: &[u8]) -> String {
        let (a, b) = pair();
        (&a.socket).write_all(bytes).unwrap();
        drop(a);
        b.receive().unwrap_err().to_string()
    }

    fn header(words: [u32; 4]) -> Vec<u8> {
        MAGIC.into_iter().chain(words.into_iter().flat_map(u32::to_le_bytes)).collect()
    }

    #[test]
    fn messages_arrive_whole_with_all_their_descriptors() {
        let (a, b) = pair();
        let null = File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); 3 * BATCH + 1];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                a.send(&Message::Ready, &many).unwrap();
                a.send(&Message::Go, &[]).unwrap();
            });
            let (message, descriptors) = b.receive().unwrap();
            assert!(matches!(message, Message::Ready));
            assert_eq!(descriptors.len(), many.len());
            assert!(matches!(b.receive().unwrap(), (Message::Go, none) if none.is_empty()));
        });
    }

    #[test]
    fn whatever_is_no_message_of_a_known_version_is_refused_in_one_line() {
        let good = br#"{"word":"go"}"#;
        let size = u32::try_from(good.len()).unwrap();
        let newer = header([99, FORMAT + 1, size, 0]);
        let cases: [(&[u8], &str); 7] = [
            (b"GET / HTTP/1.1\r\nHost: labsw\r\n\r\n", "garbled"),
            (&header([FORMAT, OLDEST_READER, u32::MAX, 0]), "more than any state has"),
            (&header([FORMAT, OLDEST_READER, 2, u32::MAX]), "more than any state has"),
            (&[newer, good.to_vec()].concat(), "format 99, which this version does not know"),
            (&header([0, 0, size, 0]), "format 0, and this version needs at least 1"),
            (&[header([FORMAT, OLDEST_READER, 4, 0]), b"{}{}".to_vec()].concat(), "garbled"),
            (&header([FORMAT, OLDEST_READER, size, 0]), "hung up"),
        ];
        for (bytes, expected) in cases {
            let said = refusal(bytes);
            assert!(said.contains(expected) && said.lines().count() == 1, "{said:?} lacks {expected:?}");
        }
        // A later format that claims that this reader can read it, with an unknown field.
        let (a, b) = pair();
        let body = br#"{"word":"hello","program":"9","more":1}"#;
        let size = u32::try_from(body.len()).unwrap();
        (&a.socket).write_all(&[header([FORMAT + 1, FORMAT, size, 0]), body.to_vec()].concat()).unwrap();
        assert!(matches!(b.receive().unwrap().0, Message::Hello { program } if program == "9"));
    }

    #[test]
    fn a_silent_peer_is_waited_for_no_longer_than_allowed() {
        let (a, mut b) = pair();
        b.allow(Duration::from_millis(50));
        let begin = Instant::now();
        assert!(matches!(b.receive(), Err(WireError::TimedOut)));
        (&a.socket).write_all(&MAGIC).unwrap();
        assert!(matches!(b.receive(), Err(WireError::TimedOut)));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
