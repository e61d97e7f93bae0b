//! Replies of the switch on standard output: one table per kind of reply, or JSON.

use super::output::Output;
use super::session::Failure;
use super::{capture, config, fdb, impair, mcast, mirror, monitor, port, stats, status, table, trace, vlan, worker};
use crate::api::Reply;
use crate::metrics;

impl Output {
    /// Prints a reply: the bare list or object as JSON, a table for people, nothing for a change that was made.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<(), Failure> {
        if self.is_json() {
            return match reply {
                Reply::Done | Reply::Removed(_) => self.pretty(reply),
                Reply::Status(status) => self.pretty(status),
                Reply::Workers(workers) => self.pretty(workers),
                Reply::Ports(ports) => self.pretty(ports),
                Reply::Port(port) => self.pretty(port),
                Reply::Vlans(vlans) => self.pretty(vlans),
                Reply::Fdb(entries) => self.pretty(entries),
                Reply::Multicast(multicast) => self.pretty(multicast),
                Reply::Mirrors(mirrors) => self.pretty(mirrors),
                Reply::Mirror(mirror) => self.pretty(mirror),
                Reply::Impairments(impairments) => self.pretty(impairments),
                Reply::Stats(stats) => self.pretty(&stats.ports),
                Reply::Trace(trace) => self.pretty(trace),
                Reply::Config(shown) => self.pretty(&shown.config),
                Reply::Captures(captures) => self.pretty(captures),
                Reply::Awaited(_)
                | Reply::Changes(_)
                | Reply::Injected(_)
                | Reply::CapturePiece(_)
                | Reply::Events(_) => self.pretty(reply),
            };
        }
        let text = match reply {
            Reply::Done => return Ok(()),
            Reply::Removed(1) => "1 entry removed\n".to_owned(),
            Reply::Removed(entries) => format!("{entries} entries removed\n"),
            Reply::Status(status) => status::table(status),
            Reply::Workers(workers) => worker::table(workers),
            Reply::Ports(ports) => port::table(ports),
            Reply::Port(port) => port::details(port),
            Reply::Vlans(vlans) => vlan::table(vlans),
            Reply::Fdb(entries) => fdb::table(entries),
            Reply::Multicast(multicast) => mcast::table(multicast),
            Reply::Mirrors(mirrors) => mirror::table(mirrors),
            Reply::Mirror(mirror) => mirror::details(mirror),
            Reply::Impairments(impairments) => impair::table(impairments),
            Reply::Stats(stats) => stats::table(stats),
            Reply::Trace(trace) => trace::lines(trace),
            Reply::Config(shown) => shown.text.clone(),
            Reply::Awaited(lines) => lines.iter().map(|line| format!("{}\n", table::one_line(line))).collect(),
            Reply::Changes(changes) => config::lines(changes),
            Reply::Injected(injected) => format!("{} frames sent\n", injected.sent),
            Reply::CapturePiece(_) => return Ok(()),
            Reply::Events(told) => monitor::lines(told),
            Reply::Captures(captures) => capture::table(captures),
        };
        self.bytes(text.as_bytes())
    }

    /// Prints a status as metrics.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn metrics(&mut self, reply: &Reply) -> Result<(), Failure> {
        let Reply::Status(status) = reply else { return self.reply(reply) };
        let families = metrics::families(status);
        if self.is_json() { self.pretty(&families) } else { self.bytes(metrics::text(&families).as_bytes()) }
    }
}
