//! A small blocking client of the control socket.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::message::{self, Call, ReplyMessage};
use crate::api::{Error, INTERFACE, Reply, Request, UnexpectedReply};

/// Timeout for an answer of the switch.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a call got no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The switch answered with an error.
    #[error(transparent)]
    Switch(#[from] Error),
    /// The switch answered with an error that this client does not know.
    #[error("the switch answered {name} {}", Value::Object(parameters.clone()))]
    Unknown {
        /// Full name of the error.
        name: String,
        /// Its parameters.
        parameters: Map<String, Value>,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// No answer came in time.
    #[error("the switch did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The other end hung up without an answer.
    #[error("the switch hung up without an answer")]
    Closed,
    /// The message is no Varlink reply.
    #[error("the answer is no Varlink message: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The reply does not have the form of this method's.
    #[error(transparent)]
    Unexpected(#[from] UnexpectedReply),
}

/// A connection to the switch.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket.
    ///
    /// # Errors
    /// Those of connect(2).
    pub fn connect(path: &Path) -> io::Result<Client> {
        Client::adopt(UnixStream::connect(path)?, PATIENCE)
    }

    /// Adopts an open connection with the timeout `patience`.
    ///
    /// # Errors
    /// Those of setting a time limit.
    pub fn adopt(socket: UnixStream, patience: Duration) -> io::Result<Client> {
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Client { reader: BufReader::new(socket) })
    }

    /// Removes the timeout, for a stream whose next reply may take long. The returned socket can end the stream from
    /// another thread: shut down for writing, the switch finishes; shut down altogether, the stream is over.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn wait_for_ever(&self) -> io::Result<UnixStream> {
        self.wait_for(None)?;
        self.reader.get_ref().try_clone()
    }

    /// How long the next reply may take from now on; `None`: as long as it likes.
    ///
    /// # Errors
    /// Those of setting a time limit.
    pub fn wait_for(&self, patience: Option<Duration>) -> io::Result<()> {
        // No time at all would mean any time.
        self.reader.get_ref().set_read_timeout(patience.map(|patience| patience.max(Duration::from_millis(1))))
    }

    /// Calls a method and waits for its reply.
    ///
    /// # Errors
    /// [`CallError::Switch`] if the switch answers with an error; the others if there is no valid answer.
    pub fn call(&mut self, request: &Request) -> Result<Reply, CallError> {
        match self.send(request, false) {
            // A switch that refuses a client sends the reason before it hangs up.
            Err(CallError::Broken(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
            other => other?,
        }
        self.receive(request).map(|(reply, _)| reply)
    }

    /// Calls a method with `more`. The iterator ends after the last reply or the first error.
    ///
    /// # Errors
    /// The call could not be sent.
    pub fn stream<'a>(&'a mut self, request: &'a Request) -> Result<Replies<'a>, CallError> {
        self.send(request, true)?;
        Ok(Replies { client: self, request, continues: true })
    }

    fn send(&mut self, request: &Request, more: bool) -> Result<(), CallError> {
        let parameters = match request.to_parameters() {
            Value::Object(parameters) => parameters,
            _ => Map::new(),
        };
        let method = format!("{INTERFACE}.{}", request.method());
        let mut bytes = Vec::new();
        message::write(&Call { method, parameters, oneway: false, more, upgrade: false }, &mut bytes)?;
        Ok(self.reader.get_mut().write_all(&bytes)?)
    }

    fn receive(&mut self, request: &Request) -> Result<(Reply, bool), CallError> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(0, &mut bytes);
        // The socket's timeout (SO_RCVTIMEO of socket(7)).
        read.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => CallError::Silent,
            _ => CallError::Broken(error),
        })?;
        if bytes.pop() != Some(0) {
            return Err(CallError::Closed);
        }
        let message: ReplyMessage = serde_json::from_slice(&bytes)?;
        match message.error {
            None => Ok((Reply::parse(request.method(), message.parameters)?, message.continues)),
            Some(name) => Err(match Error::parse(&name, &message.parameters) {
                Some(error) => CallError::Switch(error),
                None => CallError::Unknown { name, parameters: message.parameters },
            }),
        }
    }
}

/// The replies to a call with `more`.
#[derive(Debug)]
pub struct Replies<'a> {
    client: &'a mut Client,
    request: &'a Request,
    continues: bool,
}

impl Replies<'_> {
    /// Sets the patience for the next reply, like [`Client::wait_for`].
    ///
    /// # Errors
    /// Those of setting a time limit.
    pub fn wait_for(&self, patience: Option<Duration>) -> io::Result<()> {
        self.client.wait_for(patience)
    }
}

impl Iterator for Replies<'_> {
    type Item = Result<Reply, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.continues {
            return None;
        }
        let result = self.client.receive(self.request);
        self.continues = matches!(result, Ok((_, true)));
        Some(result.map(|(reply, _)| reply))
    }
}
