//! One request to the kernel by netlink, and its whole answer: for links and routes (rtnetlink(7)), or for a generic
//! family (`NETLINK_GENERIC`).
//!
//! The socket blocks. Each request carries a sequence number and asks for an acknowledgement, so that every answer
//! ends in an ack, an error, or the end of a dump; messages of other sequence numbers are skipped.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};

use super::{DeviceError, netns};
use crate::confine::helper::SocketKind;

/// Times that a dump is repeated because the tables changed during it.
const DUMP_ATTEMPTS: usize = 8;

/// The answer to a request.
pub(crate) struct Answer<M> {
    /// The messages, in order.
    pub messages: Vec<M>,
    /// The error of a message that could not be decoded and is missing from `messages`.
    pub undecoded: Option<String>,
    /// The tables changed while they were dumped.
    interrupted: bool,
}

/// A netlink socket that another process opened.
#[allow(unsafe_code, reason = "the library takes a socket of others by number only")]
fn adopted(socket: OwnedFd) -> Socket {
    // SAFETY: the descriptor is open and ours, and nobody else closes it: `into_raw_fd` gives it up.
    unsafe { Socket::from_raw_fd(socket.into_raw_fd()) }
}

/// A socket to the kernel's links and routes: in the namespace of [`netns::Netns::run`] if the thread works there,
/// otherwise in the thread's own.
pub(crate) struct Netlink<M = RouteNetlinkMessage> {
    socket: Socket,
    messages: PhantomData<M>,
    sequence: u32,
    /// Requests sent so far.
    pub requests: u64,
}

impl Netlink {
    /// A socket for links and routes.
    pub fn open() -> io::Result<Netlink> {
        let socket = match netns::socket_within(SocketKind::Route) {
            Some(elsewhere) => adopted(elsewhere?),
            None => Socket::new(NETLINK_ROUTE)?,
        };
        Netlink::connected(socket)
    }
}

impl<F> Netlink<GenlMessage<F>>
where
    GenlMessage<F>: Message,
{
    /// A socket for the generic families, in the thread's own namespace.
    pub fn open_generic() -> Result<Netlink<GenlMessage<F>>, DeviceError> {
        let opened = Socket::new(NETLINK_GENERIC).and_then(Netlink::connected);
        opened.map_err(|error| DeviceError::refused("open a netlink socket", error))
    }
}

/// A message that can be sent and received.
pub(crate) trait Message: NetlinkSerializable + NetlinkDeserializable + Clone {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Clone> Message for M {}

impl<M: Message> Netlink<M> {
    fn connected(mut socket: Socket) -> io::Result<Netlink<M>> {
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Netlink { socket, messages: PhantomData, sequence: 0, requests: 0 })
    }

    /// Requests one object or one change; `what` names the request in an error.
    pub fn request(&mut self, message: M, flags: u16, what: &str) -> Result<Answer<M>, DeviceError> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).map_err(|error| DeviceError::refused(what, error))
    }

    /// Requests all objects of a kind.
    pub fn dump(&mut self, message: &M, what: &str) -> Result<Answer<M>, DeviceError> {
        for _ in 0..DUMP_ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP);
            let answer = answer.map_err(|error| DeviceError::refused(what, error))?;
            if !answer.interrupted {
                return Ok(answer);
            }
        }
        Err(DeviceError::refused(what, io::Error::from(io::ErrorKind::ResourceBusy)))
    }

    fn exchange(&mut self, message: M, flags: u16) -> io::Result<Answer<M>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.requests += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answer = Answer { messages: Vec::new(), undecoded: None, interrupted: false };
        loop {
            let (datagram, sender) = self.socket.recv_from_full()?;
            // Port 0 is the kernel; other processes can send to a netlink socket, too.
            if sender.port_number() == 0 && self.take_datagram(&datagram, &mut answer)? {
                return Ok(answer);
            }
        }
    }

    /// Adds the messages of one datagram to `answer`; returns true if the answer is complete.
    fn take_datagram(&self, datagram: &[u8], answer: &mut Answer<M>) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let frame = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            let length = usize::try_from(frame.length()).map_err(io::Error::other)?;
            let (own, flags) = (frame.sequence_number() == self.sequence, frame.flags());
            if own {
                answer.interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match NetlinkMessage::<M>::deserialize(rest).map(|message| message.payload) {
                    Ok(NetlinkPayload::Done(_)) => return Ok(true),
                    Ok(NetlinkPayload::Error(error)) if error.code.is_some() => return Err(error.to_io()),
                    Ok(NetlinkPayload::Error(_)) => return Ok(true),
                    Ok(NetlinkPayload::InnerMessage(message)) => answer.messages.push(message),
                    Ok(_) => {}
                    Err(error) => answer.undecoded = Some(error.to_string()),
                }
            }
            // Messages are aligned to four bytes (NLMSG_ALIGN).
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
    }
}
