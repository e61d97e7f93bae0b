//! The daemon's side of the metrics: a listening socket, and an unprivileged program that serves it.
//!
//! **How it works.** The daemon listens at `metrics_listen` and reads nothing from the socket. Its helper process
//! starts `labsw-ctl metrics --serve` with the listening socket and a read-only connection to the server of the control
//! socket. The program ends when that connection closes; if it ends before, it is started again, after longer and
//! longer pauses.
//!
//! **Invariants.** No byte that a scraper sends is read by a process with capabilities. Dropping a [`MetricsSocket`]
//! ends its program.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::api::Peer;
use crate::varlink::Server;

/// Pause until a program that ended is started again: the first one, and the longest.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];
/// Time between two checks that the program lives.
const LOOK: Duration = Duration::from_secs(1);
/// Longest time that the program of a killed switch may still have the address in use.
const IN_USE: Duration = Duration::from_secs(1);

/// The listening socket, and the connection to the program.
#[derive(Debug)]
pub struct MetricsSocket {
    listener: TcpListener,
    /// The switch's end of the connection, which shows that the program lives.
    connection: Option<UnixStream>,
    /// Time of the next check or start of the program.
    due: Instant,
    pause: Duration,
}

impl MetricsSocket {
    /// Listens at `address`.
    ///
    /// # Errors
    /// Those of the system: the address is in use, or not of this machine.
    pub fn open(address: SocketAddr) -> io::Result<MetricsSocket> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(MetricsSocket { listener, connection: None, due: Instant::now(), pause: PAUSE[0] })
    }

    /// The same as [`MetricsSocket::open`], for the start of a switch: if the address is in use, waits for the program
    /// of a switch that was killed a moment ago to end.
    ///
    /// # Errors
    /// The same as for [`MetricsSocket::open`].
    pub fn open_patiently(address: SocketAddr) -> io::Result<MetricsSocket> {
        let begin = Instant::now();
        loop {
            match MetricsSocket::open(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && begin.elapsed() < IN_USE => {
                    std::thread::sleep(IN_USE / 20);
                }
                other => return other,
            }
        }
    }

    /// Takes over a listening socket of another process.
    ///
    /// # Errors
    /// It can't be made non-blocking.
    pub fn adopt(listener: OwnedFd) -> io::Result<MetricsSocket> {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        Ok(MetricsSocket { listener, connection: None, due: Instant::now(), pause: PAUSE[0] })
    }

    /// The listening socket.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Has the program started by `serve` if it does not run; returns the time until the next call. `serve` gets the
    /// program's listening socket and its connection to the server.
    pub fn tick(&mut self, now: Instant, server: &mut Server, serve: impl FnOnce(OwnedFd, OwnedFd)) -> Duration {
        if now < self.due {
            return self.due - now;
        }
        self.due = now + LOOK;
        match &self.connection {
            Some(connection) if is_open(connection) => self.pause = PAUSE[0],
            Some(_) => {
                tracing::warn!(again_in = ?self.pause, "the program that serves the metrics has ended");
                self.connection = None;
                self.due = now + self.pause;
                self.pause = (self.pause * 2).min(PAUSE[1]);
            }
            None => match self.start(server, serve) {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    tracing::warn!(%error, again_in = ?self.pause, "the metrics are not served");
                    self.due = now + self.pause;
                    self.pause = (self.pause * 2).min(PAUSE[1]);
                }
            },
        }
        self.due - now
    }

    fn start(&self, server: &mut Server, serve: impl FnOnce(OwnedFd, OwnedFd)) -> io::Result<UnixStream> {
        let (ours, theirs) = UnixStream::pair()?;
        let kept = ours.try_clone()?;
        // The scrapers are unknown; the program only reads the status.
        server.adopt(ours, Peer::new(u32::MAX, u32::MAX, 0, false))?;
        serve(self.listener.try_clone()?.into(), theirs.into());
        Ok(kept)
    }
}

impl Drop for MetricsSocket {
    fn drop(&mut self) {
        // The program has this socket, too; this call stops both from listening.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Read);
        if let Some(connection) = &self.connection {
            // The program and the server see the end of the connection; both may have ended already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// True if the other end of a connection is open.
pub fn is_open(connection: &UnixStream) -> bool {
    !matches!(recv(connection, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((0, _)) | Err(Errno::CONNRESET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_program_is_seen() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(is_open(&ours));
        drop(theirs);
        assert!(!is_open(&ours));
    }

    #[test]
    fn an_address_in_use_is_waited_for_at_the_start_only() {
        let first = MetricsSocket::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.listener.local_addr().unwrap();
        assert_eq!(MetricsSocket::open(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| MetricsSocket::open_patiently(address));
            std::thread::sleep(Duration::from_millis(100));
            drop(first);
            patient.join().unwrap().unwrap();
        });
    }
}
