//! `labsw-ctl top`: ports, mirrors and workers live, on the whole screen.
//!
//! **How it works.** A thread asks the switch once an interval and sends the answers through a channel. The main thread
//! reads keys, keeps the state of the view ([`View`]: pure), and draws it ([`draw`]: pure, tested on a screen in
//! memory). A switch that does not answer therefore delays neither keys nor the end.
//!
//! **Invariants.** The terminal is restored at the end, on a panic (ratatui's hook) and on SIGTERM, SIGINT and SIGHUP.

mod draw;
mod view;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use crossbeam::channel::{Receiver, Sender, bounded};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::parse;
use super::session::{Failure, Session};
use crate::api::{Reply, Request, Status};
use view::{Flow, View};

/// Longest time between two checks for keys and signals.
const LOOK: Duration = Duration::from_millis(100);
/// Time from the first answer to the second, so that rates appear soon.
const FIRST_RATES: Duration = Duration::from_millis(300);

/// The interval of the view.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Time between two readings, as in 500ms or 2s; at least 100ms.
    #[arg(long, value_name = "T", default_value = "1s", value_parser = parse::interval)]
    interval: Duration,
}

/// The status of the switch, or why there is none.
type Answer = Result<Box<Status>, String>;

/// Shows the view until a key or a signal ends it.
pub(super) fn run(arguments: &Arguments, socket: &Path, json: bool) -> Result<(), Failure> {
    if json {
        return Err(Failure::Usage("top has no JSON; `status --json` and `stats --watch --json` have"));
    }
    if !std::io::stdout().is_terminal() {
        return Err(Failure::Usage("top needs a terminal; `stats --watch` is for pipes and files"));
    }
    let session = Session::open(socket)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let answers = ask(socket.to_owned(), session, arguments.interval);
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, &answers, View::new(arguments.interval), &ended);
    let restored = ratatui::try_restore();
    outcome.and(Ok(restored?))
}

/// Asks the switch again and again, on a thread of its own, which ends when the receiver is dropped.
fn ask(socket: PathBuf, session: Session, interval: Duration) -> Receiver<Answer> {
    let (sender, receiver) = bounded(1);
    std::thread::spawn(move || ask_on(&socket, session, interval, &sender));
    receiver
}

fn ask_on(socket: &Path, session: Session, interval: Duration, answers: &Sender<Answer>) {
    let mut session = Some(session);
    let mut wait = FIRST_RATES.min(interval);
    loop {
        let mut connected = match session.take() {
            Some(session) => Ok(session),
            None => Session::open(socket),
        };
        let answer = connected.as_mut().map_err(|failure| failure.to_string()).and_then(|session| {
            match session.call(&Request::GetStatus) {
                Ok(Reply::Status(status)) => Ok(Box::new(status)),
                Ok(_) => Err(Failure::OtherAnswer.to_string()),
                Err(failure) => Err(failure.to_string()),
            }
        });
        session = connected.ok().filter(|_| answer.is_ok());
        if answers.send(answer).is_err() {
            return;
        }
        std::thread::sleep(wait);
        wait = interval;
    }
}

fn watch(
    terminal: &mut DefaultTerminal,
    answers: &Receiver<Answer>,
    mut view: View,
    ended: &AtomicBool,
) -> Result<(), Failure> {
    let mut changed = true;
    while !ended.load(Ordering::Relaxed) {
        while let Ok(answer) = answers.try_recv() {
            view.hear(answer);
            changed = true;
        }
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| draw::draw(frame, &mut view))?;
        }
        if !event::poll(LOOK)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match view.key(key) {
                Flow::Quit => return Ok(()),
                Flow::Go => changed = true,
            },
            Event::Resize(..) => changed = true,
            _ => {}
        }
    }
    Ok(())
}
