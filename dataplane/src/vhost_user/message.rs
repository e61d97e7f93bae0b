//! Messages of the vhost-user protocol on a byte stream.
//!
//! **How it works.** A message is a 12-byte header (request, flags, payload size; native byte order) and a payload;
//! descriptors come as ancillary data with its first byte. [`receive`] never reads beyond the current message, so
//! descriptors cannot be mixed up between messages, and keeps the part of an unfinished one in an [`Inbox`].
//!
//! **Invariants.** Every received descriptor is owned before anything is parsed, so none leaks whatever the message
//! contains. At most 4 KiB and 32 descriptors are held for an unfinished message. No descriptor is closed by the
//! caller's thread, where the close might block ([`crate::reaper`]): the buffer has room for all descriptors that a
//! message can bring, so the kernel has none to discard.
//!
//! Reference: vhost-user.rst, "Message Specification"; unix(7), SCM_RIGHTS.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send};
use vhost::vhost_user::message::{MAX_ATTACHED_FD_ENTRIES, MAX_MSG_SIZE, VhostUserHeaderFlag};

use crate::handover::{Given, HandoverError, Slot, Taken};
use crate::reaper::{Account, PeerFd};

/// Size of a message header, bytes.
pub const HEADER_BYTES: usize = 12;
/// The only protocol version.
const VERSION: u32 = 1;
/// The most descriptors that the kernel passes with one message (SCM_MAX_FD).
const MAX_PASSED_FDS: usize = 253;

/// A stream that does not carry messages.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Wrong version, a reply, or reserved flags.
    #[error("request {code} has flags {flags:#x}; a request of version 1 has 0x1 or 0x9")]
    Flags {
        /// Request number.
        code: u32,
        /// The flags.
        flags: u32,
    },
    /// Larger than any message.
    #[error("request {code} has a payload of {size} bytes; at most {MAX_MSG_SIZE} are possible")]
    Size {
        /// Request number.
        code: u32,
        /// Payload size.
        size: u32,
    },
    /// Too many descriptors.
    #[error("more than {MAX_ATTACHED_FD_ENTRIES} descriptors with one message")]
    Descriptors,
    /// Descriptors in the middle of a message.
    #[error("descriptors in the middle of a message")]
    LateDescriptors,
    /// The socket fails.
    #[error("the connection broke: {0}")]
    Socket(Errno),
    /// The peer does not take its replies.
    #[error("the front end does not read its replies")]
    ReplyStuck,
}

/// A whole request of the front end.
#[derive(Debug)]
pub struct Request {
    /// Request number.
    pub code: u32,
    /// The front end asks for an acknowledgement.
    pub need_reply: bool,
    /// The bytes after the header.
    pub payload: Vec<u8>,
}

/// A reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Request number it answers.
    pub code: u32,
    /// The 8-byte payload that all replies of a network back end have.
    pub value: u64,
}

impl Reply {
    /// The message's bytes. Front ends insist on flags of exactly 5 (version 1, reply).
    pub fn encode(&self) -> [u8; HEADER_BYTES + 8] {
        let mut bytes = [0; HEADER_BYTES + 8];
        let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
        bytes[0..4].copy_from_slice(&self.code.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&8u32.to_ne_bytes());
        bytes[12..20].copy_from_slice(&self.value.to_ne_bytes());
        bytes
    }
}

/// The part of the current message that has arrived.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    fds: Vec<PeerFd>,
}

/// An unfinished message that is handed over to another process.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InboxHandover {
    bytes: Vec<u8>,
    descriptors: Vec<Slot>,
}

impl InboxHandover {
    /// The inbox in the other process.
    ///
    /// # Errors
    /// A descriptor is missing, or there is more than a message can have.
    pub fn adopt(self, taken: &mut Taken, account: &Account) -> Result<Inbox, HandoverError> {
        if self.bytes.len() > HEADER_BYTES + MAX_MSG_SIZE || self.descriptors.len() > MAX_ATTACHED_FD_ENTRIES {
            return Err(HandoverError::new("the front end's unfinished request is longer than any request"));
        }
        let fds = self.descriptors.into_iter().map(|slot| Ok(PeerFd::new(taken.take(slot)?, account)));
        Ok(Inbox { bytes: self.bytes, fds: fds.collect::<Result<_, _>>()? })
    }
}

/// The outcome of reading from the socket.
#[derive(Debug)]
pub enum Received {
    /// A whole message and its descriptors.
    Message(Request, Vec<PeerFd>),
    /// The socket has nothing more for now.
    Pending,
    /// The front end closed the connection.
    Closed,
}

/// A parsed header.
struct Header {
    code: u32,
    flags: u32,
    size: usize,
}

impl Inbox {
    /// True if a message has begun and not ended.
    pub fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The part that has arrived, with its descriptors in `given`.
    pub fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> InboxHandover {
        let descriptors = self.fds.iter().map(|fd| given.put(fd.as_fd())).collect();
        InboxHandover { bytes: self.bytes.clone(), descriptors }
    }

    /// The header, once all of it has arrived.
    fn header(&self) -> Result<Option<Header>, MessageError> {
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(self.bytes.get(at..at + 4)?.try_into().ok()?)) };
        let (Some(code), Some(flags), Some(size)) = (word(0), word(4), word(8)) else { return Ok(None) };
        if flags & !VhostUserHeaderFlag::NEED_REPLY.bits() != VERSION {
            return Err(MessageError::Flags { code, flags });
        }
        match usize::try_from(size) {
            Ok(size) if size <= MAX_MSG_SIZE => Ok(Some(Header { code, flags, size })),
            _ => Err(MessageError::Size { code, size }),
        }
    }

    /// Takes the message out if it is complete; otherwise returns the number of bytes that it lacks for now.
    fn take(&mut self) -> Result<Result<(Request, Vec<PeerFd>), usize>, MessageError> {
        let Some(header) = self.header()? else { return Ok(Err(HEADER_BYTES - self.bytes.len())) };
        let missing = (HEADER_BYTES + header.size).saturating_sub(self.bytes.len());
        if missing > 0 {
            return Ok(Err(missing));
        }
        let payload = self.bytes.split_off(HEADER_BYTES);
        self.bytes.clear();
        let need_reply = header.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0;
        Ok(Ok((Request { code: header.code, need_reply, payload }, std::mem::take(&mut self.fds))))
    }
}

/// Reads from a non-blocking socket until a message is complete or nothing more is there. Descriptors are charged to
/// `account`.
pub fn receive(socket: BorrowedFd<'_>, inbox: &mut Inbox, account: &Account) -> Result<Received, MessageError> {
    loop {
        let wanted = match inbox.take()? {
            Ok((request, fds)) => return Ok(Received::Message(request, fds)),
            Err(missing) => missing,
        };
        let mut buffer = [0u8; MAX_MSG_SIZE];
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let result = match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Ok(result) => result,
            Err(Errno::AGAIN) => return Ok(Received::Pending),
            Err(Errno::INTR) => continue,
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(error) => return Err(MessageError::Socket(error)),
        };
        let fds: Vec<PeerFd> = ancillary
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .map(|fd| PeerFd::new(fd, account))
            .collect();
        if fds.len() > MAX_ATTACHED_FD_ENTRIES || result.flags.contains(ReturnFlags::CTRUNC) {
            return Err(MessageError::Descriptors);
        }
        if result.bytes == 0 {
            return Ok(Received::Closed);
        }
        if !fds.is_empty() && inbox.is_partial() {
            return Err(MessageError::LateDescriptors);
        }
        inbox.fds.extend(fds);
        inbox.bytes.extend_from_slice(buffer.get(..result.bytes).unwrap_or_default());
    }
}

/// Sends a reply; it fits any socket buffer whose owner reads.
pub fn reply(socket: BorrowedFd<'_>, reply: &Reply) -> Result<(), MessageError> {
    let bytes = reply.encode();
    match send(socket, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(sent) if sent == bytes.len() => Ok(()),
        Ok(_) | Err(Errno::AGAIN) => Err(MessageError::ReplyStuck),
        Err(error) => Err(MessageError::Socket(error)),
    }
}
