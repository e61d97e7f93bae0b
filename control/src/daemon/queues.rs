//! The receive queues of ports, and a pure function that assigns them to workers.
//!
//! A pinned queue goes to the worker of its pin. The others go to the worker with the fewest queues, ties to the lowest
//! number. A queue that has a worker keeps it unless another worker has at least two queues fewer.

use labsw_dataplane::port::RxQueue;
use labsw_dataplane::workers::QueueAffinity;

/// The place of a queue, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed {
    /// The worker that has the queue.
    pub(super) home: Option<usize>,
    /// The worker that the queue is pinned to.
    pub(super) pinned: Option<usize>,
}

/// The worker for each of `queues`; there are `workers` workers, at least one.
pub(super) fn place(workers: usize, queues: &[Placed]) -> Vec<usize> {
    let mut homes: Vec<Option<usize>> = queues.iter().map(|queue| queue.pinned.or(queue.home)).collect();
    let mut counts = vec![0usize; workers];
    for home in homes.iter().flatten() {
        if let Some(count) = counts.get_mut(*home) {
            *count += 1;
        }
    }
    // min_by_key returns the first of equals: the lowest number.
    let fewest = |counts: &[usize]| counts.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(w, _)| w);
    for home in homes.iter_mut().filter(|home| home.is_none()) {
        let to = fewest(&counts);
        *home = Some(to);
        if let Some(count) = counts.get_mut(to) {
            *count += 1;
        }
    }
    let mut homes: Vec<usize> = homes.into_iter().flatten().collect();
    // Each move makes the counts more equal, so this ends.
    loop {
        let to = fewest(&counts);
        let least = counts.get(to).copied().unwrap_or(0);
        let movable = |(at, home): (usize, &usize)| {
            let count = counts.get(*home).copied().unwrap_or(0);
            let free = queues.get(at).is_some_and(|queue| queue.pinned.is_none());
            (free && count >= least + 2).then_some((count, at))
        };
        // The last queue of the fullest worker that can give one away.
        let Some((_, at)) = homes.iter().enumerate().filter_map(movable).max() else { return homes };
        if let Some(home) = homes.get_mut(at) {
            if let Some(count) = counts.get_mut(*home) {
                *count -= 1;
            }
            *home = to;
        }
        if let Some(count) = counts.get_mut(to) {
            *count += 1;
        }
    }
}

/// The receive queues of a port.
#[derive(Debug)]
pub(super) struct Queues {
    /// The place of each queue.
    pub(super) places: Vec<Placed>,
    /// The same places, as the port's rings see them.
    pub(super) affinity: QueueAffinity,
    /// The queues that no worker has yet.
    pub(super) waiting: Vec<Option<Box<dyn RxQueue>>>,
}

impl Queues {
    /// The given queues, none of them with a worker yet; `affinity` tells the port's rings which worker has which
    /// queue.
    pub(super) fn new(queues: Vec<Box<dyn RxQueue>>, affinity: QueueAffinity) -> Queues {
        Queues {
            places: vec![Placed::default(); queues.len()],
            affinity,
            waiting: queues.into_iter().map(Some).collect(),
        }
    }

    /// The queues of a port that has none now.
    pub(super) fn none() -> Queues {
        Queues::new(Vec::new(), QueueAffinity::new(std::iter::empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(home: usize) -> Placed {
        Placed { home: Some(home), pinned: None }
    }

    fn pinned(home: usize, to: usize) -> Placed {
        Placed { home: Some(home), pinned: Some(to) }
    }

    const NEW: Placed = Placed { home: None, pinned: None };

    #[test]
    fn new_queues_go_to_the_worker_with_fewest_ties_to_the_lowest() {
        assert_eq!(place(3, &[NEW; 7]), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(place(3, &[at(0), at(2), NEW]), [0, 2, 1]);
        assert_eq!(place(1, &[NEW, at(0)]), [0, 0]);
        assert_eq!(place(4, &[]), [] as [usize; 0]);
    }

    #[test]
    fn nothing_moves_that_need_not() {
        assert_eq!(place(2, &[at(1), at(1), at(0)]), [1, 1, 0]);
        assert_eq!(place(2, &[at(1), NEW, at(1)]), [1, 0, 1], "one more at a worker is even enough");
        assert_eq!(place(3, &[at(2)]), [2]);
    }

    #[test]
    fn after_ports_have_gone_the_others_even_out_with_the_fewest_moves() {
        assert_eq!(place(2, &[at(0), at(0), at(0), at(0)]), [0, 0, 1, 1]);
        assert_eq!(place(3, &[at(1), at(1), at(1)]), [1, 2, 0]);
    }

    #[test]
    fn pins_hold_whatever_the_others_do() {
        assert_eq!(place(2, &[pinned(0, 0), pinned(0, 0), pinned(0, 0), at(1)]), [0, 0, 0, 1]);
        assert_eq!(place(2, &[pinned(0, 1), at(1), at(0)]), [1, 1, 0]);
        assert_eq!(place(2, &[pinned(0, 1), at(1), at(1)]), [1, 1, 0], "an unpinned one moves away");
        assert_eq!(place(2, &[pinned(0, 1), pinned(0, 1), NEW, NEW]), [1, 1, 0, 0]);
    }

    #[test]
    fn every_outcome_is_even_among_the_unpinned_and_settled() {
        // All states of five queues and three workers: new, at a worker, pinned to a worker.
        let kinds = [NEW, at(0), at(1), at(2), pinned(0, 0), pinned(0, 1), pinned(0, 2)];
        for state in 0..kinds.len().pow(5) {
            let queues: Vec<Placed> = (0..5).map(|at| kinds[state / kinds.len().pow(at) % kinds.len()]).collect();
            let homes = place(3, &queues);
            let count = |worker: usize| homes.iter().filter(|home| **home == worker).count();
            let least = (0..3).map(count).min().unwrap_or(0);
            for (queue, &home) in queues.iter().zip(&homes) {
                match queue.pinned {
                    Some(pin) => assert_eq!(home, pin),
                    None => assert!(count(home) <= least + 1, "{queues:?}: {homes:?}"),
                }
            }
            let settled: Vec<Placed> =
                queues.iter().zip(&homes).map(|(queue, &home)| Placed { home: Some(home), ..*queue }).collect();
            assert_eq!(place(3, &settled), homes, "{queues:?}");
        }
    }
}
