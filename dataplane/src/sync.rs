//! The channels, threads and locks between control thread, workers and closing threads: crossbeam's and the standard
//! library's. In models (`--cfg shuttle`, `make models`) they are replaced by ones at which a controlled scheduler may
//! stop a thread and let another one run.
//!
//! **How the models see a program.** Only one thread runs at a time, until it comes to one of the operations in this
//! file. The channels stay crossbeam's and the waker stays mio's: only the code around a call is replaced. Waiting
//! means looking again after other threads have run, so a lost wake-up is a model that never ends, which is a failure.
//! A wait with a time-out lasts for ever in a channel, and ends at once in a sleep.
//!
//! Reference: <https://docs.rs/shuttle>.

#[cfg(not(all(shuttle, test)))]
pub(crate) use plain::*;
#[cfg(all(shuttle, test))]
pub(crate) use scheduled::*;

#[cfg(not(all(shuttle, test)))]
mod plain {
    use std::io;
    use std::time::Duration;

    pub(crate) use crossbeam::channel;
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread;

    /// An adaptive worker sleeps after this long without a frame.
    pub(crate) const SPIN: Duration = Duration::from_micros(50);
    /// Queues and transmit sides are ticked at least this often while there is traffic.
    pub(crate) const TICK: Duration = Duration::from_millis(5);

    /// Blocks until a descriptor of `poll` has an event, or for `longest` (`None`: for ever).
    #[inline]
    pub(crate) fn sleep(poll: &mut mio::Poll, events: &mut mio::Events, longest: Option<Duration>) -> io::Result<()> {
        poll.poll(events, longest)
    }
}

#[cfg(all(shuttle, test))]
mod scheduled {
    use std::io;
    use std::time::Duration;

    use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use shuttle::thread;

    /// No look at a clock decides anything.
    pub(crate) const SPIN: Duration = Duration::ZERO;
    pub(crate) const TICK: Duration = Duration::ZERO;

    /// Has the method of the standard library's threads; the scheduler's threads do not tell.
    pub(crate) trait IsFinished {
        fn is_finished(&self) -> bool {
            false
        }
    }

    impl<T> IsFinished for thread::JoinHandle<T> {}

    /// A place where another thread may run.
    pub(crate) fn step() {
        AtomicBool::new(false).load(Ordering::SeqCst);
    }

    /// A place where another thread should run, since this one has nothing to do.
    pub(crate) fn pause() {
        thread::yield_now();
    }

    pub(crate) fn sleep(poll: &mut mio::Poll, events: &mut mio::Events, longest: Option<Duration>) -> io::Result<()> {
        loop {
            step();
            poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
            pause();
            if longest.is_some() {
                return Ok(());
            }
        }
    }

    pub(crate) mod channel {
        use std::time::Duration;

        use super::{pause, step};
        pub(crate) use crossbeam::channel::{RecvError, RecvTimeoutError, SendError, TryRecvError};

        #[derive(Debug)]
        pub struct Sender<T>(crossbeam::channel::Sender<T>);

        #[derive(Debug)]
        pub struct Receiver<T>(Option<crossbeam::channel::Receiver<T>>);

        pub(crate) fn bounded<T>(room: usize) -> (Sender<T>, Receiver<T>) {
            let (sender, receiver) = crossbeam::channel::bounded(room);
            (Sender(sender), Receiver(Some(receiver)))
        }

        pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
            let (sender, receiver) = crossbeam::channel::unbounded();
            (Sender(sender), Receiver(Some(receiver)))
        }

        impl<T> Clone for Sender<T> {
            fn clone(&self) -> Self {
                Sender(self.0.clone())
            }
        }

        impl<T> Clone for Receiver<T> {
            fn clone(&self) -> Self {
                Receiver(self.0.clone())
            }
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
                step();
                let outcome = self.0.send(value);
                step();
                outcome
            }
        }

        impl<T> Receiver<T> {
            fn inner(&self) -> &crossbeam::channel::Receiver<T> {
                self.0.as_ref().expect("taken when it is dropped only")
            }

            pub(crate) fn is_empty(&self) -> bool {
                let is_empty = self.inner().is_empty();
                if is_empty {
                    pause()
                } else {
                    step()
                }
                is_empty
            }

            pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
                step();
                self.inner().try_recv()
            }

            pub(crate) fn recv(&self) -> Result<T, RecvError> {
                loop {
                    match self.try_recv() {
                        Ok(value) => return Ok(value),
                        Err(TryRecvError::Disconnected) => return Err(RecvError),
                        Err(TryRecvError::Empty) => pause(),
                    }
                }
            }

            pub(crate) fn recv_timeout(&self, _: Duration) -> Result<T, RecvTimeoutError> {
                self.recv().map_err(|_| RecvTimeoutError::Disconnected)
            }
        }

        /// A sender may find the receiver present or gone at this moment.
        impl<T> Drop for Receiver<T> {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    step();
                }
                self.0 = None;
            }
        }
    }
}
