//! Waiting until the kernel has let go of a closed port's queues.
//!
//! **Why.** The kernel releases an AF_XDP socket's queue on a work queue after the socket is closed, and in copy mode
//! not before the last frame that was sent through it is freed. A container that keeps frames delays that for as long
//! as it likes. Until then the queue is busy and the port's chunks may be read or written.
//!
//! **How it works.** The thread that closes a port waits for [`IN_LINE`], which nearly always is enough. What is not
//! released by then goes to one helper thread, which looks at all such ports again and again and ends when none is
//! left. A queue is free when a spare socket can be bound to it. The spare was made when the port was opened, because
//! the interface index means something else in another network namespace. Its own release takes a moment, too: so a
//! queue counts as [closing](is_closing) for [`AFTERMATH`] after the port was closed.
//!
//! A process that takes the switch over goes on with what is [`waiting`], with spares of its own ([`go_on`]).
//!
//! **Invariant.** A port's chunks go back to the pool, and its number becomes free, only when all its queues are
//! released.
//!
//! Reference: kernel `net/xdp/xsk_buff_pool.c`, `xp_put_pool`; `net/xdp/xsk.c`, `xsk_release`.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::socket;
use super::umem::PacketMemory;

/// How long the closing thread waits itself.
const IN_LINE: Duration = Duration::from_millis(100);
/// The time between two looks of the closing thread, and the first one of the helper's.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The longest time between two looks of the helper.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long after its closing a port's queues may be found busy because of it.
const AFTERMATH: Duration = Duration::from_secs(5);

static STATE: Mutex<State> =
    Mutex::new(State { waiting: Vec::new(), looked_at: Vec::new(), closed: Vec::new(), helper: false });

struct State {
    /// Ports whose queues are not released yet.
    waiting: Vec<Closing>,
    /// Those of them that the helper looks at now.
    looked_at: Vec<(Weak<PacketMemory>, ClosedPort)>,
    /// Interfaces whose ports were closed, and when.
    closed: Vec<(u32, Instant)>,
    /// The helper thread runs.
    helper: bool,
}

/// The remains of a closed port.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) ifindex: u32,
    /// Per queue that is not known to be released: its number, and an unbound socket.
    pub(super) spares: Vec<(u32, OwnedFd)>,
    pub(super) memory: Arc<PacketMemory>,
    /// The number under which the pool keeps the port's chunks.
    pub(super) owner: u16,
}

/// A closed port whose queues the kernel has not released yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct ClosedPort {
    ifindex: u32,
    queues: Vec<u32>,
    /// The number under which the pool keeps the port's chunks.
    pub(super) owner: u16,
}

impl Closing {
    fn port(&self) -> ClosedPort {
        let queues = self.spares.iter().map(|(queue, _)| *queue).collect();
        ClosedPort { ifindex: self.ifindex, queues, owner: self.owner }
    }

    /// Looks at the queues, and gives the chunks back if all are released.
    fn is_over(&mut self) -> bool {
        let ifindex = self.ifindex;
        self.spares.retain(|(queue, spare)| socket::is_busy(spare, ifindex, *queue));
        let over = self.spares.is_empty();
        if over {
            self.memory.pool().leave(self.owner);
        }
        over
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the release of a port's queues, here or in the helper. The port's sockets are closed and its rings
/// unmapped.
pub(super) fn finish(mut closing: Closing) {
    for (_, spare) in &closing.spares {
        socket::prepare_look(spare, &closing.memory.umem);
    }
    let begin = Instant::now();
    {
        let mut state = state();
        state.closed.retain(|(index, at)| at.elapsed() < AFTERMATH && *index != closing.ifindex);
        state.closed.push((closing.ifindex, begin));
    }
    while !closing.is_over() {
        if begin.elapsed() >= IN_LINE {
            return hand_over(closing);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn hand_over(closing: Closing) {
    let mut state = state();
    state.waiting.push(closing);
    if !state.helper {
        state.helper = std::thread::Builder::new().name("xdp-closer".to_owned()).spawn(help).is_ok();
    }
}

/// The helper's life.
fn help() {
    let mut pause = LOOK_AGAIN;
    loop {
        std::thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
        // Checked without the lock, so that no thread that closes a port waits for it.
        let mut waiting = {
            let mut state = state();
            let waiting = std::mem::take(&mut state.waiting);
            state.looked_at = waiting.iter().map(|closing| (Arc::downgrade(&closing.memory), closing.port())).collect();
            waiting
        };
        waiting.retain_mut(|closing| {
            let over = closing.is_over();
            if over {
                note_closed(closing.ifindex);
            }
            !over
        });
        let mut state = state();
        state.looked_at.clear();
        if !state.waiting.is_empty() {
            pause = LOOK_AGAIN;
        }
        state.waiting.append(&mut waiting);
        if state.waiting.is_empty() {
            state.helper = false;
            return;
        }
    }
}

/// The closed ports of this packet memory whose queues are not released yet.
pub(super) fn waiting(memory: &Arc<PacketMemory>) -> Vec<ClosedPort> {
    let state = state();
    let looked_at = state.looked_at.iter().filter(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(memory)));
    let waiting = state.waiting.iter().filter(|closing| Arc::ptr_eq(&closing.memory, memory));
    looked_at.map(|(_, port)| port.clone()).chain(waiting.map(Closing::port)).collect()
}

/// Waits for the release of queues whose ports another process has closed. A port whose spares can't be made keeps its
/// chunks and its number.
pub(super) fn go_on(ports: Vec<ClosedPort>, memory: &Arc<PacketMemory>) {
    for ClosedPort { ifindex, queues, owner } in ports {
        let spare = |queue| socket::unbound().ok().map(|spare| (queue, spare));
        let Some(spares) = queues.into_iter().map(spare).collect::<Option<Vec<_>>>() else { continue };
        spares.iter().for_each(|(_, spare)| socket::prepare_look(spare, &memory.umem));
        hand_over(Closing { ifindex, spares, memory: Arc::clone(memory), owner });
    }
}

fn note_closed(ifindex: u32) {
    let mut state = state();
    state.closed.retain(|(index, _)| *index != ifindex);
    state.closed.push((ifindex, Instant::now()));
}

/// True if a queue of the interface may be busy because of a port of this process that was closed.
pub(super) fn is_closing(ifindex: u32) -> bool {
    let state = state();
    let recent = state.closed.iter().any(|(index, at)| *index == ifindex && at.elapsed() < AFTERMATH);
    let looked_at = state.looked_at.iter().any(|(_, port)| port.ifindex == ifindex);
    recent || looked_at || state.waiting.iter().any(|closing| closing.ifindex == ifindex)
}
