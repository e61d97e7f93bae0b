//! A cache of compiled expressions, and a time limit for compiling many.
//!
//! libpcap takes up to 0.1 s for one expression. A helper thread therefore compiles the expressions of a configuration
//! first, under [`with_budget`], and the control thread then finds every program in the cache. A configuration is read
//! again for each check, comparison and apply, so most of its expressions are in the cache already.
//!
//! Invariants: the cache holds at most [`MAX_CACHED_BYTES`] of expressions, and drops the oldest first. Nothing is
//! compiled under the lock.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use labsw_switch::filter::Filter;

use super::{CompileError, MAX_TOTAL_BYTES};

/// Bytes of expressions in the cache: those of a running configuration and of the next one.
const MAX_CACHED_BYTES: usize = 2 * MAX_TOTAL_BYTES;

static CACHE: Mutex<Cache> = Mutex::new(Cache { programs: BTreeMap::new(), order: VecDeque::new(), bytes: 0 });

struct Cache {
    programs: BTreeMap<String, Filter>,
    /// The expressions, oldest first.
    order: VecDeque<String>,
    /// The sum of their bytes.
    bytes: usize,
}

fn cache() -> MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The program of an expression, if it is in the cache.
pub(super) fn get(expression: &str) -> Option<Filter> {
    cache().programs.get(expression).cloned()
}

/// Puts a program in the cache.
pub(super) fn put(expression: &str, program: &Filter) {
    let mut cache = cache();
    if cache.programs.insert(expression.to_owned(), program.clone()).is_some() {
        return;
    }
    cache.order.push_back(expression.to_owned());
    cache.bytes += expression.len();
    while cache.bytes > MAX_CACHED_BYTES {
        let Some(oldest) = cache.order.pop_front() else { return };
        cache.bytes -= oldest.len();
        cache.programs.remove(&oldest);
    }
}

thread_local! {
    /// The deadline for compiling on this thread, and true if it has been exceeded.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
    static EXCEEDED: Cell<bool> = const { Cell::new(false) };
}

/// Compiling the filters of one configuration exceeds the time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filters take more than {} s to compile; use fewer or shorter ones", .0.as_secs())]
pub struct BudgetExceeded(Duration);

/// Runs `work`, in which expressions compile until `budget` is used up. An expression that is being compiled at that
/// moment is finished; the next one is refused.
///
/// # Errors
/// [`BudgetExceeded`].
pub fn with_budget<T>(budget: Duration, work: impl FnOnce() -> T) -> Result<T, BudgetExceeded> {
    DEADLINE.set(Some(Instant::now() + budget));
    EXCEEDED.set(false);
    let outcome = work();
    DEADLINE.set(None);
    if EXCEEDED.get() { Err(BudgetExceeded(budget)) } else { Ok(outcome) }
}

/// Refuses to compile if the thread's budget is used up.
pub(super) fn check_budget() -> Result<(), CompileError> {
    if DEADLINE.get().is_some_and(|deadline| Instant::now() >= deadline) {
        EXCEEDED.set(true);
        return Err(CompileError::Refused("compiling the filters takes too long".to_owned()));
    }
    Ok(())
}
