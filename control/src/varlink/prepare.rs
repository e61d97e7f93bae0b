//! Compiles the filters of a request before the control thread handles it.
//!
//! **Why.** A configuration may have filters that take libpcap seconds to compile, and the control thread must not
//! wait.
//!
//! **How it works.** A connection holds back a request with filters ([`is_needed`]). A helper thread compiles the
//! filters, which puts their programs in the cache of [`crate::filter`], and wakes the control thread. The request is
//! then answered like any other, and finds every filter compiled. Requests are prepared one at a time, in the order of
//! their arrival. The daemon has its own file prepared in the same way ([`Server::prepare`](super::Server::prepare)).
//!
//! **Bounds.** Each request has [`BUDGET`]; a request that needs more is refused. A connection has at most one request
//! here, and only peers that may change the switch get this far.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use serde_json::Value;

use super::deferred::Caller;
use crate::api::{AppliedConfig, Change, Error, Request, WantedConfig};
use crate::config::Config;
use crate::filter::{self, BudgetExceeded};

/// Time limit for compiling the filters of one request.
const BUDGET: Duration = Duration::from_secs(10);

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A connection.
    Client(Caller),
    /// The daemon, which reloads its own file.
    Daemon,
}

/// The outcome of compiling a request's filters. An expression that does not compile is left to the handler to report.
pub(super) type Outcome = Result<(), Error>;

/// The helper thread, as the control thread sees it.
#[derive(Debug)]
pub(super) struct Preparer {
    jobs: Sender<(From, Request)>,
    done: Receiver<(From, Outcome)>,
    /// Becomes readable when a request is prepared.
    woken: UnixStream,
}

impl Preparer {
    /// Starts the helper thread, which ends when this is dropped.
    ///
    /// # Errors
    /// Those of making a socket pair and a thread.
    pub(super) fn start() -> io::Result<Preparer> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let ((jobs, queue), (finished, done)) = (channel(), channel());
        std::thread::Builder::new().name("filters".to_owned()).spawn(move || run(&queue, &finished, &waker))?;
        Ok(Preparer { jobs, done, woken })
    }

    /// The descriptor to wait for.
    pub(super) fn descriptor(&self) -> &UnixStream {
        &self.woken
    }

    /// Submits a request whose filters are to be compiled.
    pub(super) fn submit(&self, from: From, request: Request) {
        // The thread lives as long as this object; without it, the control thread would compile.
        let _ = self.jobs.send((from, request));
    }

    /// Takes the prepared requests, after the descriptor became readable.
    pub(super) fn take_done(&mut self) -> Vec<(From, Outcome)> {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(count) if count == bytes.len()) {}
        self.done.try_iter().collect()
    }
}

fn run(queue: &Receiver<(From, Request)>, finished: &Sender<(From, Outcome)>, mut waker: &UnixStream) {
    for (from, request) in queue {
        if finished.send((from, prepare(&request, BUDGET))).is_err() {
            return;
        }
        // A full socket wakes the control thread as well.
        let _ = waker.write(&[0]);
    }
}

/// True if a request has filters to compile.
pub(super) fn is_needed(request: &Request) -> bool {
    match request {
        Request::CheckConfig(_) | Request::DiffConfig(_) | Request::Change(Change::ApplyConfig(_)) => true,
        Request::Capture(spec) => spec.filter.is_some(),
        Request::Change(Change::SetMirror(mirror)) => mirror.filter.is_some(),
        Request::Change(Change::SetImpairment { settings, .. }) => settings.contains_key("filter"),
        _ => false,
    }
}

/// Compiles the filters of a request.
fn prepare(request: &Request, budget: Duration) -> Outcome {
    let compiled = filter::with_budget(budget, || match request {
        Request::CheckConfig(config)
        | Request::DiffConfig(WantedConfig { config, .. })
        | Request::Change(Change::ApplyConfig(AppliedConfig { wanted: WantedConfig { config, .. }, .. })) => {
            drop(Config::parse(&config.text, &config.file))
        }
        Request::Capture(spec) => compile(spec.filter.as_deref()),
        Request::Change(Change::SetMirror(mirror)) => compile(mirror.filter.as_deref()),
        Request::Change(Change::SetImpairment { settings, .. }) => {
            compile(settings.get("filter").and_then(Value::as_str));
        }
        _ => {}
    });
    compiled.map_err(|exceeded: BudgetExceeded| Error::refused("filters", exceeded.to_string()))
}

fn compile(expression: Option<&str>) {
    drop(expression.map(filter::compile));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ConfigText;

    /// A configuration with filters that no other test compiles.
    fn check(filters: usize) -> Request {
        let impaired = |n: usize| {
            let hosts: Vec<String> = (0..40).map(|host| format!("host 10.213.{n}.{host}")).collect();
            format!(
                "[ports.p{n}]\ntype = \"vhost_user\"\n[impair.p{n}]\ndelay = \"1ms\"\nfilter = \"{}\"\n",
                hosts.join(" or ")
            )
        };
        let text = (0..filters).map(impaired).collect();
        Request::CheckConfig(ConfigText { file: "f".to_owned(), text })
    }

    #[test]
    fn a_request_beyond_its_budget_is_refused() {
        let refused = prepare(&check(3), Duration::ZERO).unwrap_err();
        let reason = "the filters take more than 0 s to compile; use fewer or shorter ones";
        assert_eq!(refused, Error::refused("filters", reason));
        assert_eq!(prepare(&check(3), BUDGET), Ok(()));
        // A compiled expression costs no time.
        assert_eq!(prepare(&check(3), Duration::ZERO), Ok(()));
    }

    #[test]
    fn requests_without_filters_are_not_held_back() {
        assert!(!is_needed(&Request::ListPorts));
        assert!(is_needed(&check(0)));
    }
}
