//! `labsw-ctl web`: the lab live on a page, for a browser; reads the control API and changes nothing.
//!
//! **How it works.** The page, its style and its script are in the program. The script asks for `/api/state` once a
//! second and draws it: the [`Picture`] and the last [`EVENTS`] events. Each state is asked for over a new connection,
//! since the switch may have restarted.
//!
//! **Invariants.** No route changes anything; there are only those of [`Lab::answer`]. The switch is asked once in
//! [`FRESH`], however many clients there are, and answers within [`PATIENCE`] or not at all. On loopback only requests
//! that name loopback get an answer, so that no page of another site reads the lab through a name that leads here. No
//! answer allows other origins. The page takes nothing from elsewhere, and the script writes names as text only.
//!
//! Reference: <https://www.w3.org/TR/CSP3/>.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clap::Args;
use mio::Poll;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::output::Output;
use super::picture::{Commands, Picture};
use super::session::{Failure, Session};
use super::table::one_line;
use crate::api::{Event, EventLevel, EventSubject, Reply, Request};
use crate::http::{self, Answer, Cached, Listener, Site};

/// Age up to which a state is sent again.
const FRESH: Duration = Duration::from_millis(400);
/// Timeout for each answer of the switch.
const PATIENCE: Duration = Duration::from_secs(2);
/// The events of a state.
const EVENTS: u64 = 100;

/// Headers of an answer of this type: nothing from elsewhere, for no other origin, never from a cache.
macro_rules! headers {
    ($type:literal) => {
        concat!(
            "Content-Type: ",
            $type,
            "\r\nContent-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n\
             X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n"
        )
    };
}

/// The files of the page: path, headers, content.
const FILES: [(&str, &str, &str); 5] = [
    ("/", headers!("text/html; charset=utf-8"), include_str!("page.html")),
    ("/colours.css", headers!("text/css; charset=utf-8"), include_str!("../picture/colours.css")),
    ("/page.css", headers!("text/css; charset=utf-8"), include_str!("page.css")),
    ("/page.js", headers!("text/javascript; charset=utf-8"), include_str!("page.js")),
    ("/icon.svg", headers!("image/svg+xml"), include_str!("icon.svg")),
];

/// The address to serve the page at.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Serve the page at this address; port 0: any that is free.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9480")]
    listen: SocketAddr,
}

/// Serves the page until interrupted.
///
/// # Errors
/// The switch can't be reached at the start, or the address can't be listened at.
pub(super) fn run(arguments: &Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 0, Arc::new(AtomicBool::new(true)))?;
    }
    Session::open(socket)?;
    let listening = |reason| Failure::Listen { address: arguments.listen, reason };
    let poll = Poll::new().map_err(listening)?;
    let listener = Listener::open(arguments.listen, poll.registry(), 0).map_err(listening)?;
    let address = listener.address().map_err(listening)?;
    let url = format!("http://{address}/");
    match output.is_json() {
        true => output.json_line(&serde_json::json!({"url": url}))?,
        false => output.bytes(format!("The lab is at {url} until you press Ctrl-C.\n").as_bytes())?,
    }
    http::serve(poll, listener, &mut Lab::new(socket, address), &mut || false).map_err(listening)
}

/// The site.
#[derive(Debug)]
struct Lab {
    socket: PathBuf,
    commands: Commands,
    /// True if only requests that name loopback get an answer.
    loopback_only: bool,
    state: Cached,
    files: Vec<(&'static str, Answer)>,
}

impl Lab {
    fn new(socket: &Path, address: SocketAddr) -> Lab {
        let file = |(path, headers, content): (&'static str, &'static str, &str)| {
            (path, Answer::ok(headers, content.as_bytes()))
        };
        Lab {
            socket: socket.to_owned(),
            commands: Commands::new(socket),
            loopback_only: address.ip().is_loopback(),
            state: Cached::new(FRESH),
            files: FILES.map(file).into(),
        }
    }
}

impl Site for Lab {
    fn answer(&mut self, request: &http::Request<'_>, now: Instant) -> Answer {
        if self.loopback_only && !request.is_for_loopback() {
            return Answer::of_status("421 Misdirected Request");
        }
        let Lab { socket, commands, state, files, .. } = self;
        if request.path == "/api/state" {
            return state.get(now, || match State::ask(socket, commands) {
                Ok(state) => Answer::ok(headers!("application/json"), state),
                Err(failure) => Answer::unavailable(&one_line(&failure.to_string())),
            });
        }
        let file = files.iter().find(|(path, _)| *path == request.path);
        file.map_or_else(|| Answer::of_status("404 Not Found"), |(_, answer)| answer.clone())
    }
}

/// All that the page draws.
#[derive(Debug, Serialize)]
struct State {
    #[serde(flatten)]
    picture: Picture,
    /// The last events, in their order.
    events: Vec<Told>,
}

/// An event, for a line of the page.
#[derive(Debug, PartialEq, Serialize)]
struct Told {
    number: u64,
    time_milliseconds: u64,
    level: EventLevel,
    /// The port that the event is about.
    port: Option<String>,
    text: String,
}

impl State {
    /// Asks the switch; the result is JSON.
    fn ask(socket: &Path, commands: &Commands) -> Result<Vec<u8>, Failure> {
        let mut session = Session::open(socket)?;
        session.wait_at_most(PATIENCE)?;
        let picture = Picture::ask(&mut session, commands)?;
        let mut events = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        session.stream_until(&Request::Monitor { last: Some(EVENTS) }, Some(deadline), |reply| {
            if let Reply::Events(told) = reply {
                events.extend(told.events.iter().map(Told::of));
            }
            Ok(true)
        })?;
        Ok(serde_json::to_vec(&State { picture, events }).map_err(std::io::Error::from)?)
    }
}

impl Told {
    fn of(event: &Event) -> Told {
        let of_port = matches!(event.subject, Some(EventSubject::Port | EventSubject::Impairment));
        Told {
            number: event.number,
            time_milliseconds: event.time_milliseconds,
            level: event.level,
            port: event.name.clone().filter(|_| of_port),
            text: one_line(&event.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::EventKind;

    fn lab(address: &str) -> Lab {
        Lab::new(Path::new("/nonexistent/control.sock"), address.parse().unwrap())
    }

    fn ask(lab: &mut Lab, path: &str, host: &str) -> Answer {
        lab.answer(&http::Request { path, host: Some(host) }, Instant::now())
    }

    #[test]
    fn the_page_is_whole_and_takes_nothing_from_elsewhere() {
        let mut lab = lab("127.0.0.1:9480");
        let Answer { status, headers, body } = ask(&mut lab, "/", "localhost:9480");
        let page = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, "200 OK");
        assert!(headers.contains("default-src 'none'") && !headers.contains("Access-Control"), "{headers}");
        let named = page.split(['"', '\'']).filter(|part| part.starts_with('/') && part.len() > 1);
        let named: Vec<&str> = named.collect();
        assert_eq!(named.len(), 4, "{named:?}");
        for path in named {
            assert_eq!(ask(&mut lab, path, "127.0.0.1").status, "200 OK", "{path}");
        }
        for (path, _, content) in FILES {
            let elsewhere = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://") && !elsewhere.contains("innerHTML"), "{path}");
        }
    }

    #[test]
    fn loopback_answers_only_to_its_names_and_other_addresses_to_any() {
        let mut own = lab("127.0.0.1:9480");
        for path in ["/", "/api/state", "/page.js", "/nothing"] {
            assert_eq!(ask(&mut own, path, "evil.example").status, "421 Misdirected Request", "{path}");
        }
        assert_eq!(ask(&mut lab("192.0.2.1:80"), "/", "lab.example").status, "200 OK");
    }

    #[test]
    fn without_the_switch_the_state_says_why_and_other_paths_are_nothing() {
        let mut lab = lab("[::1]:9480");
        let Answer { status, body, .. } = ask(&mut lab, "/api/state", "[::1]:9480");
        let reason = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(status, "503 Service Unavailable");
        assert!(reason.contains("can't be reached") && reason.lines().count() == 1, "{reason}");
        assert_eq!(ask(&mut lab, "/api/", "[::1]").status, "404 Not Found");
    }

    #[test]
    fn an_event_names_its_port_and_keeps_no_control_characters() {
        let event = Event {
            number: 7,
            reason: Some("a\u{1b}[2J".to_owned()),
            ..Event::about(EventKind::Fault, EventSubject::Port, "web")
        };
        let told = Told::of(&event);
        assert_eq!((told.port.as_deref(), told.text.as_str()), (Some("web"), "port web has a fault: a [2J"));
        assert_eq!(Told::of(&Event::about(EventKind::Added, EventSubject::Mirror, "m")).port, None);
    }
}
