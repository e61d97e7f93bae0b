//! The connection to the switch, and the errors of a command as messages and exit statuses.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::{Reply, Request, Unconfirmed};
use crate::config::{ConfigError, ConfigErrors};
use crate::glue::GlueError;
use crate::varlink::{CallError, Client};

/// Why a command failed. The text is one line, or one line for each mistake of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The switch refused, or broke the protocol.
    #[error("{0}")]
    Refused(CallError),
    /// The switch's answer belongs to another request.
    #[error("the switch answered something else")]
    OtherAnswer,
    /// A configuration file has mistakes.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The port does not fit the requested target.
    #[error("{0}")]
    Unfit(#[from] GlueError),
    /// The switch can't be reached.
    #[error("{}: the switch can't be reached: {reason}", socket.display())]
    Unreachable {
        /// The socket that was tried.
        socket: PathBuf,
        /// The reason.
        reason: String,
        /// No switch has this socket, maybe not yet.
        is_absent: bool,
    },
    /// The doctor found a problem.
    #[error("{}", if *.0 == 1 { "there is 1 problem".to_owned() } else { format!("there are {} problems", .0) })]
    Problems(usize),
    /// A capture can't be replayed.
    #[error("{0}")]
    Capture(String),
    /// A file can't be written.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The system's error.
        reason: io::Error,
    },
    /// Nothing can be served at an address.
    #[error("{address}: {reason}; name another address or port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        reason: io::Error,
    },
    /// A file differs from the running configuration, which is printed already.
    #[error("the running configuration differs")]
    Different,
    /// The running configuration may be taken back, so it is not saved.
    #[error("{0}; `labsw-ctl config confirm` keeps it")]
    OnTrial(Unconfirmed),
    /// A port has not reached the state that was waited for.
    #[error("port {name:?} {reason}")]
    NotReached {
        /// The port.
        name: String,
        /// The port's state, or the obstacle.
        reason: String,
    },
    /// The combination of arguments has no meaning.
    #[error("{0}")]
    Usage(&'static str),
    /// The output can't be written.
    #[error("writing the output: {0}")]
    Output(io::Error),
    /// The reader of the output has closed the pipe.
    #[error("the reader of the output is gone")]
    ReaderGone,
}

impl Failure {
    /// The exit status for this error.
    pub(super) fn exit_status(&self) -> ExitCode {
        match self {
            Failure::Refused(_)
            | Failure::OtherAnswer
            | Failure::Config(_)
            | Failure::Unfit(_)
            | Failure::Problems(_)
            | Failure::Capture(_)
            | Failure::File { .. }
            | Failure::Listen { .. }
            | Failure::NotReached { .. }
            | Failure::Different
            | Failure::OnTrial(_)
            | Failure::Output(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Unreachable { .. } => ExitCode::from(3),
            Failure::ReaderGone => ExitCode::SUCCESS,
        }
    }

    /// The error as a JSON object: `error`, a name that stays; `message`, the text for people; and, where there are
    /// any, the error's `parameters` as the switch sent them, or the `mistakes` of a file.
    pub(super) fn to_json(&self) -> Value {
        let (name, more) = match self {
            Failure::Refused(CallError::Switch(error)) => {
                let wire = serde_json::to_value(error).unwrap_or_default();
                let name = wire.get("error").and_then(Value::as_str).unwrap_or_default().to_owned();
                (name, wire.get("parameters").map(|parameters| ("parameters", parameters.clone())))
            }
            Failure::Refused(CallError::Unknown { name, parameters }) => {
                (name.clone(), Some(("parameters", Value::Object(parameters.clone()))))
            }
            Failure::Config(mistakes) => {
                ("mistakes".to_owned(), Some(("mistakes", mistakes.0.iter().map(mistake).collect())))
            }
            Failure::Refused(_) | Failure::OtherAnswer => ("protocol".to_owned(), None),
            Failure::Unreachable { .. } => ("unreachable".to_owned(), None),
            Failure::Unfit(_) => ("unfit".to_owned(), None),
            Failure::Problems(_) => ("problems".to_owned(), None),
            Failure::Capture(_) => ("capture".to_owned(), None),
            Failure::File { .. } => ("file".to_owned(), None),
            Failure::Listen { .. } => ("listen".to_owned(), None),
            Failure::Different => ("different".to_owned(), None),
            Failure::OnTrial(_) => ("on_trial".to_owned(), None),
            Failure::NotReached { .. } => ("not_reached".to_owned(), None),
            Failure::Usage(_) => ("usage".to_owned(), None),
            Failure::Output(_) | Failure::ReaderGone => ("output".to_owned(), None),
        };
        let mut object = json!({"error": name, "message": self.to_string()});
        if let (Value::Object(fields), Some((key, value))) = (&mut object, more) {
            fields.insert(key.to_owned(), value);
        }
        object
    }
}

/// One mistake of a configuration as a JSON object.
fn mistake(mistake: &ConfigError) -> Value {
    let place = mistake.place();
    json!({
        "file": place.map(|place| &place.file),
        "line": place.map(|place| place.line),
        "column": place.map(|place| place.column),
        "key": mistake.key(),
        "message": mistake.message(),
    })
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::Config(error.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Output(error),
        }
    }
}

/// A connection to the switch.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    socket: PathBuf,
}

impl Session {
    /// Connects to the switch.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub(super) fn open(socket: &Path) -> Result<Session, Failure> {
        match Client::connect(socket) {
            Ok(client) => Ok(Session { client, socket: socket.to_owned() }),
            Err(error) => Err(Failure::Unreachable {
                socket: socket.to_owned(),
                reason: explain(&error),
                is_absent: matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
            }),
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`Failure::Refused`], [`Failure::Unreachable`].
    pub(super) fn call(&mut self, request: &Request) -> Result<Reply, Failure> {
        self.client.call(request).map_err(|error| failure(&self.socket, error))
    }

    /// Removes the timeout; see [`Client::wait_for_ever`].
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub(super) fn wait_for_ever(&self) -> Result<UnixStream, Failure> {
        self.client.wait_for_ever().map_err(|error| failure(&self.socket, error.into()))
    }

    /// Sets the timeout for each answer.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub(super) fn wait_at_most(&self, patience: Duration) -> Result<(), Failure> {
        self.client.wait_for(Some(patience)).map_err(|error| failure(&self.socket, error.into()))
    }

    /// Calls a method that answers with a stream, until `each` says that it is enough, the time is up, or the stream
    /// ends. Says whether it was enough.
    ///
    /// # Errors
    /// Those of [`Session::call`], and those of `each`.
    pub(super) fn stream_until(
        &mut self,
        request: &Request,
        deadline: Option<Instant>,
        mut each: impl FnMut(Reply) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let broken = |error: CallError| failure(&self.socket, error);
        self.client.wait_for(left()).map_err(|error| broken(error.into()))?;
        let mut replies = self.client.stream(request).map_err(broken)?;
        while left().is_none_or(|left| !left.is_zero()) {
            match replies.next() {
                Some(Err(CallError::Silent)) | None => return Ok(false),
                Some(reply) => match each(reply.map_err(broken)?)? {
                    true => return Ok(true),
                    false => replies.wait_for(left()).map_err(|error| broken(error.into()))?,
                },
            }
        }
        Ok(false)
    }

    /// Calls a method that answers with a stream, until the stream ends or `each` fails.
    ///
    /// # Errors
    /// Those of [`Session::call`] and of `each`.
    pub(super) fn stream(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Reply) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let replies = self.client.stream(request).map_err(|error| failure(&self.socket, error))?;
        for reply in replies {
            each(reply.map_err(|error| failure(&self.socket, error))?)?;
        }
        Ok(())
    }
}

fn failure(socket: &Path, error: CallError) -> Failure {
    match error {
        CallError::Broken(_) | CallError::Closed => {
            Failure::Unreachable { socket: socket.to_owned(), reason: error.to_string(), is_absent: false }
        }
        said => Failure::Refused(said),
    }
}

/// Adds advice to an error of the connection.
fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!("{error}; is labswd running?"),
        io::ErrorKind::PermissionDenied => format!("{error}; it needs root or the group of the socket"),
        _ => error.to_string(),
    }
}
