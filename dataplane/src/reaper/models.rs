//! The reaper under controlled schedules ([`crate::sync`]): the real queue, threads and counts, with closings that a
//! model can hold up. A time-out may end any wait for work. `make models` plays them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};

use super::*;
use crate::sync::{pause, step};

const PLAYS: usize = 1000;
const MOST_STEPS: usize = 20_000;
const SEED: u64 = 11;

impl<F: Send> Reaper<F> {
    /// Waits for work, or gives up: the clock of a play stands still, so that chance decides.
    pub(super) fn wait<'a>(&'a self, state: MutexGuard<'a, State<F>>) -> (MutexGuard<'a, State<F>>, bool) {
        if is_over(&state) || thread_rng().gen_bool(0.3) {
            drop(state);
            step();
            return (self.lock(), true);
        }
        let state = self.changed.wait(state).unwrap();
        let is_over = is_over(&state);
        (state, is_over)
    }

    /// Ends a play, which all threads have to: none of them is the last one any more.
    fn end(&self) {
        self.lock().threads += 2 * MAX_THREADS;
        self.changed.notify_all();
    }
}

fn is_over<F>(state: &State<F>) -> bool {
    state.threads > MAX_THREADS
}

fn play(model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(MOST_STEPS);
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let model = Arc::new(model);
    let random = Arc::clone(&model);
    Runner::new(RandomScheduler::new_from_seed(SEED, PLAYS), config.clone()).run(move || random());
    Runner::new(PctScheduler::new_from_seed(SEED, 3, PLAYS), config).run(move || model());
}

/// A descriptor of a peer.
struct Held {
    peer: Arc<Peer>,
}

/// Who passed descriptors, and what became of them.
#[derive(Default)]
struct Peer {
    /// Closing one of them blocks.
    blocks: AtomicBool,
    /// One is being closed.
    closing: AtomicBool,
    closed: AtomicUsize,
}

impl Drop for Held {
    fn drop(&mut self) {
        assert!(!self.peer.closing.swap(true, Relaxed), "two of one account are closed at the same time");
        step();
        while self.peer.blocks.load(Relaxed) {
            pause();
        }
        self.peer.closing.store(false, Relaxed);
        self.peer.closed.fetch_add(1, Relaxed);
    }
}

fn reaper() -> &'static Reaper<Held> {
    Box::leak(Box::new(Reaper::new()))
}

/// One peer's closings block, another's do not, and both come from threads of their own: for a thread that waits behind
/// somebody else's descriptor, a wake-up that is lost, one closed twice or left, and two of one account at once.
#[test]
fn a_close_that_blocks_holds_up_its_own_account_only() {
    play(|| {
        let reaper = reaper();
        let (slow, quick) = (Arc::new(Peer::default()), Arc::new(Peer::default()));
        let accounts = [Account::new(), Account::new()];
        slow.blocks.store(true, Relaxed);
        let (peer, account) = (Arc::clone(&slow), accounts[0].clone());
        let other = thread::spawn(move || (0..2).for_each(|_| reaper.take(Held { peer: Arc::clone(&peer) }, &account)));
        for _ in 0..2 {
            reaper.take(Held { peer: Arc::clone(&quick) }, &accounts[1]);
        }
        while accounts[1].waiting() != 0 {
            pause();
        }
        other.join().unwrap();
        assert_eq!((quick.closed.load(Relaxed), slow.closed.load(Relaxed)), (2, 0));
        assert_eq!(accounts[0].waiting(), 2);
        slow.blocks.store(false, Relaxed);
        while accounts[0].waiting() != 0 {
            pause();
        }
        assert_eq!(slow.closed.load(Relaxed), 2);
        assert!(accounts.iter().all(|account| account.leaked() == 0 && !account.0.busy.load(Relaxed)));
        reaper.end();
    });
}

/// Descriptors come one at a time, each when the threads may be about to end for want of work: for a thread that ends
/// although something waits, and one that is counted though it has ended.
#[test]
fn a_thread_that_gives_up_leaves_nothing_behind() {
    play(|| {
        let reaper = reaper();
        let (peer, account) = (Arc::new(Peer::default()), Account::new());
        let accounts = [account.clone(), Account::new(), account];
        for (at, account) in accounts.iter().enumerate() {
            // The second peer is another one.
            let peer = if at == 1 { Arc::default() } else { Arc::clone(&peer) };
            reaper.take(Held { peer }, account);
            if at > 0 {
                while account.waiting() != 0 {
                    pause();
                }
            }
        }
        assert_eq!(peer.closed.load(Relaxed), 2);
        let state = reaper.lock();
        assert!(state.waiting.is_empty() && (1..=3).contains(&state.threads) && state.idle <= state.threads);
        drop(state);
        reaper.end();
    });
}
