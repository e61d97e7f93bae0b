//! `labsw-ctl wait`: until a port has a state.
//!
//! **How it works.** It listens to events first and then looks at the port once, on a connection of its own, so that no
//! change falls between the two; afterwards it only listens. Where events were lost it looks again. With a time limit
//! the switch itself is waited for, too: a script may start both at once.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::output::Output;
use super::parse;
use super::session::{Failure, Session};
use crate::api::{self, Event, EventKind, OnePort, Reply, Request};
use crate::varlink::CallError;

/// Which port, and what for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Name of the port.
    #[arg(value_parser = parse::name)]
    port: String,
    /// The state to wait for; gone: the port is removed.
    #[arg(long = "for", value_name = "STATE", value_parser = ["up", "down", "waiting", "failed", "gone"])]
    wanted: String,
    /// Give up after this time (as in 30s). Until then a switch that does not run yet is waited for, too.
    #[arg(long, value_name = "T", value_parser = parse::some_milliseconds)]
    timeout: Option<u64>,
}

/// The time between two attempts to reach the switch.
const AGAIN: Duration = Duration::from_millis(50);

/// The state of a port, and the reason.
type Seen = (String, Option<String>);

/// Waits.
///
/// # Errors
/// The port is not there, goes, or has another state when the time is up.
pub(super) fn run(arguments: Arguments, socket: &Path, _: &mut Output) -> Result<(), Failure> {
    let Arguments { port, wanted, timeout } = arguments;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(Duration::from_millis(timeout)));
    let mut last = None;
    let reached = open(socket, deadline)?.stream_until(&Request::Monitor { last: None }, deadline, |reply| {
        let Reply::Events(told) = reply else { return Ok(false) };
        if last.is_none() || told.lost > 0 {
            let seen = look(&port, socket)?;
            let there = has(&seen, &wanted);
            last = Some(seen);
            if there {
                return Ok(true);
            }
        }
        for seen in told.events.iter().filter(|event| event.is_of_port(&port)).filter_map(seen_in) {
            let there = has(&seen, &wanted);
            last = Some(seen);
            if there {
                return Ok(true);
            }
        }
        // It may come again, but nobody has asked for that.
        let gone = last.as_ref().is_some_and(|seen| has(seen, "gone"));
        if gone {
            Err(Failure::NotReached { name: port.clone(), reason: "does not exist".to_owned() })
        } else {
            Ok(false)
        }
    })?;
    if reached {
        return Ok(());
    }
    let is = match last {
        Some((state, Some(reason))) => format!("is {state}: {reason}"),
        Some((state, None)) => format!("is {state}"),
        None => "is not known".to_owned(),
    };
    Err(Failure::NotReached { name: port, reason: format!("{is}; the time is up") })
}

/// Connects to the switch, again and again until the deadline, if there is one.
fn open(socket: &Path, deadline: Option<Instant>) -> Result<Session, Failure> {
    loop {
        match Session::open(socket) {
            Err(Failure::Unreachable { is_absent: true, .. })
                if deadline.is_some_and(|deadline| Instant::now() + AGAIN < deadline) =>
            {
                thread::sleep(AGAIN);
            }
            done => return done,
        }
    }
}

fn has((state, _): &Seen, wanted: &str) -> bool {
    state == wanted
}

/// Asks for the state that the port has now.
fn look(port: &str, socket: &Path) -> Result<Seen, Failure> {
    let request = Request::ShowPort { name: port.to_owned() };
    match Session::open(socket)?.call(&request) {
        Ok(Reply::Port(OnePort { port })) => Ok((port.state.to_string(), port.reason)),
        Ok(_) => Ok((String::new(), None)),
        Err(Failure::Refused(CallError::Switch(api::Error::NotFound { .. }))) => Ok(("gone".to_owned(), None)),
        Err(other) => Err(other),
    }
}

/// The state that an event of a port reports.
fn seen_in(event: &Event) -> Option<Seen> {
    match event.kind {
        EventKind::State => Some((event.state.clone()?, event.reason.clone())),
        EventKind::Removed => Some(("gone".to_owned(), None)),
        _ => None,
    }
}
