//! Finds out whether ports with busy polling really receive frames by it.
//!
//! **How it works.** Once a second the kernel is asked for two things. The first is the receive loop (NAPI) behind each
//! socket: without one there is nothing to poll, whatever options the kernel accepted, and drivers, modes and kernels
//! differ. Once the NAPI is known, the device is told to defer its interrupts. The second is the number of frames in
//! this network namespace that were received by polling (`BusyPollRxPackets`). Compared with the number of frames that
//! the polling ports received, it gives the share that polling brought. The kernel has one counter for the namespace,
//! so the share is that of all polling ports together.

use labsw_dataplane::xdp::BusyPoll;

use super::attach::Sockets;

pub(super) const NETSTAT: &str = "/proc/thread-self/net/netstat";

/// The findings about all ports that poll.
#[derive(Debug, Default)]
pub(super) struct BusyPolls {
    /// Frames received by those ports, and frames received by polling, at the previous look.
    before: Option<(u64, u64)>,
    /// Frames received between the last two looks that differ, and how many of them by polling.
    share: Option<(u64, u64)>,
}

impl BusyPolls {
    /// Compares the frames of all ports that poll, and all frames received by polling, with those of the last look.
    pub(super) fn look(&mut self, frames: u64, polled: u64) {
        if let Some((frames_before, polled_before)) = self.before.replace((frames, polled)) {
            // The frames of a removed port leave the sum, so the difference may be negative.
            let added = frames.saturating_sub(frames_before);
            if added > 0 {
                self.share = Some((added, polled.saturating_sub(polled_before)));
            }
        }
    }

    /// The verdict for people: `off`, `effective`, or `ineffective: ` and the reason.
    pub(super) fn verdict(&self, device: &Sockets, received: bool) -> String {
        let driven = device.statistics.iter().all(|socket| socket.napi_id().is_some());
        let why = match &device.status.busy_poll {
            BusyPoll::Off => return "off".to_owned(),
            BusyPoll::Refused(error) => format!("the kernel refused it: {error}"),
            BusyPoll::Ended(why) => format!("it was ended: {why}"),
            BusyPoll::Asked if !driven && !received => "no frame was received yet".to_owned(),
            BusyPoll::Asked if !driven => {
                let mode = device.status.mode.name();
                format!("the kernel knows no receive loop (NAPI) to poll for this device in mode {mode}")
            }
            BusyPoll::Asked => match (&device.interrupts_deferred, self.share) {
                (Err(error), _) => format!("interrupts can't be deferred: {error}"),
                (Ok(_), None) => "no frame was received yet".to_owned(),
                (Ok(_), Some((frames, polled))) if polled < frames.div_ceil(2) => {
                    format!("of the last {frames} frames only {polled} were received by polling")
                }
                (Ok(_), Some(_)) => return "effective".to_owned(),
            },
        };
        format!("ineffective: {why}")
    }
}

/// `BusyPollRxPackets` from the text of `/proc/net/netstat`: a line of names, then a line of values.
pub(super) fn polled(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:")).map(str::split_whitespace);
    let (names, mut values) = (lines.next()?, lines.next()?);
    values.nth(names.into_iter().position(|name| name == "BusyPollRxPackets")?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kernels_counter_is_found_by_its_name() {
        let text = "TcpExt: A BusyPollRxPackets C\nTcpExt: 1 77 3\nIpExt: A B\nIpExt: 5 6\n";
        assert_eq!(polled(text), Some(77));
        assert_eq!(polled("TcpExt: A B\nTcpExt: 1 2\n"), None);
        assert_eq!(polled("TcpExt: A BusyPollRxPackets\nTcpExt: 1\n"), None);
        assert_eq!(polled(""), None);
        assert!(fs::read_to_string(NETSTAT).is_ok_and(|text| polled(&text).is_some()), "this kernel has it");
    }

    #[test]
    fn the_share_is_that_of_the_last_look_with_frames() {
        let mut polls = BusyPolls::default();
        polls.look(100, 1000);
        assert_eq!(polls.share, None, "what was before nobody knows");
        polls.look(200, 1090);
        assert_eq!(polls.share, Some((100, 90)));
        polls.look(200, 1090);
        assert_eq!(polls.share, Some((100, 90)), "silence says nothing");
        polls.look(50, 1090);
        assert_eq!(polls.share, Some((100, 90)), "a port has gone");
        polls.look(150, 1091);
        assert_eq!(polls.share, Some((100, 1)));
    }
}
