//! `labsw-ctl metrics`: prints metrics as text or JSON, or serves them over HTTP (`--listen`) without any privileges.
//!
//! labswd starts this program with `--serve` for `metrics_listen`: standard input is the listening socket, standard
//! output a connection to the switch. The program then makes no further connection, opens no file, and ends when the
//! connection to the switch closes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use super::output::Output;
use super::session::{Failure, Session};
use crate::api::{Reply, Request};
use crate::confine;
use crate::http::{self, Listener};
use crate::metrics::{self, Scrapes, is_open};
use crate::varlink::Client;

/// Timeout for the status of the switch.
const PATIENCE: Duration = Duration::from_secs(5);
/// The token of the connection to the switch; the listener's tokens follow.
const SWITCH: Token = Token(0);
const LISTENER: usize = 1;

/// The target of the metrics.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Serve the metrics to Prometheus at this address, until interrupted.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Serve the metrics at the socket that is standard input, for the switch at standard output.
    #[arg(long, hide = true, conflicts_with = "listen")]
    serve: bool,
}

/// Runs the command.
///
/// # Errors
/// Those of the switch, of listening, and of writing.
pub(super) fn run(arguments: &Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    if arguments.serve {
        return serve_for_the_switch();
    }
    let Some(address) = arguments.listen else {
        let reply = Session::open(socket)?.call(&Request::GetStatus)?;
        return output.metrics(&reply);
    };
    let listening = |error: io::Error| Failure::Listen { address, reason: error };
    let poll = Poll::new().map_err(listening)?;
    let listener = Listener::open(address, poll.registry(), LISTENER).map_err(listening)?;
    // Each scrape opens a new connection, since the switch may have restarted.
    let text = || Session::open(socket)?.call(&Request::GetStatus).and_then(|reply| text(&reply));
    let mut scrapes = Scrapes::new(|| text().map_err(|failure| failure.to_string()));
    http::serve(poll, listener, &mut scrapes, &mut || false).map_err(listening)
}

fn serve_for_the_switch() -> Result<(), Failure> {
    let adopt = || -> io::Result<_> {
        let listener = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
        let switch = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
        let poll = Poll::new()?;
        let descriptor = switch.as_raw_fd();
        poll.registry().register(&mut SourceFd(&descriptor), SWITCH, Interest::READABLE)?;
        let listener = Listener::adopt(listener, poll.registry(), LISTENER)?;
        let client = Client::adopt(switch.try_clone()?, PATIENCE)?;
        Ok((poll, listener, client, switch))
    };
    let (poll, listener, mut client, switch) = adopt().map_err(Failure::Output)?;
    confine::enter_metrics();
    let mut scrapes = Scrapes::new(|| {
        let reply = client.call(&Request::GetStatus).map_err(|error| error.to_string())?;
        text(&reply).map_err(|failure| failure.to_string())
    });
    http::serve(poll, listener, &mut scrapes, &mut || !is_open(&switch)).map_err(Failure::Output)
}

fn text(reply: &Reply) -> Result<String, Failure> {
    match reply {
        Reply::Status(status) => Ok(metrics::text(&metrics::families(status))),
        _ => Err(Failure::OtherAnswer),
    }
}
