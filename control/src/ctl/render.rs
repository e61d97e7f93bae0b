//! Replies of the switch on standard output: one table per kind of reply, or JSON.

use super::output::Output;
use super::session::Failure;
use super::{
    capture, config, fdb, impair, inline, mcast, mirror, monitor, port, stats, status, table, trace, vlan, worker,
};
use crate::api::{
    Awaited, Captures, Changes, FdbEntries, Impairments, Inlines, Mirrors, OneInline, OneMirror, OnePort, Ports,
    Removed, Reply, Vlans, Workers,
};
use crate::metrics;

impl Output {
    /// Prints a reply: the bare list or object as JSON, a table for people, nothing for a change that was made.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn reply(&mut self, reply: &Reply) -> Result<(), Failure> {
        if self.is_json() {
            return match reply {
                Reply::Done(done) => self.pretty(done),
                Reply::Status(status) => self.pretty(status),
                Reply::Workers(Workers { workers }) => self.pretty(workers),
                Reply::Ports(Ports { ports }) => self.pretty(ports),
                Reply::Port(OnePort { port }) => self.pretty(port),
                Reply::Vlans(Vlans { vlans }) => self.pretty(vlans),
                Reply::Fdb(FdbEntries { entries }) => self.pretty(entries),
                Reply::Multicast(multicast) => self.pretty(multicast),
                Reply::Removed(removed) => self.pretty(removed),
                Reply::Mirrors(Mirrors { mirrors }) => self.pretty(mirrors),
                Reply::Mirror(OneMirror { mirror }) => self.pretty(mirror),
                Reply::Inlines(Inlines { inlines }) => self.pretty(inlines),
                Reply::Inline(OneInline { inline }) => self.pretty(inline),
                Reply::Impairments(Impairments { impairments }) => self.pretty(impairments),
                Reply::Injected(injected) => self.pretty(injected),
                Reply::Stats(stats) => self.pretty(&stats.ports),
                Reply::Trace(trace) => self.pretty(trace),
                Reply::Config(shown) => self.pretty(&shown.config),
                Reply::Awaited(awaited) => self.pretty(awaited),
                Reply::Changes(changes) => self.pretty(changes),
                Reply::CapturePiece(piece) => self.pretty(piece),
                Reply::Captures(Captures { captures }) => self.pretty(captures),
                Reply::Events(events) => self.pretty(events),
            };
        }
        let screen = self.screen();
        let text = match reply {
            Reply::Done(_) | Reply::CapturePiece(_) => return Ok(()),
            Reply::Status(status) => status::table(screen, status),
            Reply::Workers(Workers { workers }) => worker::table(screen, workers),
            Reply::Ports(Ports { ports }) => port::table(screen, ports),
            Reply::Port(OnePort { port }) => port::details(screen, port),
            Reply::Vlans(Vlans { vlans }) => vlan::table(screen, vlans),
            Reply::Fdb(FdbEntries { entries }) => fdb::table(screen, entries),
            Reply::Multicast(multicast) => mcast::table(screen, multicast),
            Reply::Removed(Removed { removed: 1 }) => "1 entry removed\n".to_owned(),
            Reply::Removed(Removed { removed }) => format!("{removed} entries removed\n"),
            Reply::Mirrors(Mirrors { mirrors }) => mirror::table(screen, mirrors),
            Reply::Mirror(OneMirror { mirror }) => mirror::details(screen, mirror),
            Reply::Inlines(Inlines { inlines }) => inline::table(screen, inlines),
            Reply::Inline(OneInline { inline }) => inline::details(screen, inline),
            Reply::Impairments(Impairments { impairments }) => impair::table(screen, impairments),
            Reply::Injected(injected) => format!("{} frames sent\n", injected.sent),
            Reply::Stats(stats) => stats::table(screen, stats),
            Reply::Trace(trace) => trace::lines(trace),
            Reply::Config(shown) => shown.text.clone(),
            Reply::Awaited(Awaited { awaited }) => {
                awaited.iter().map(|line| format!("{}\n", table::one_line(line))).collect()
            }
            Reply::Changes(Changes { changes }) => config::lines(changes),
            Reply::Captures(Captures { captures }) => capture::table(screen, captures),
            Reply::Events(told) => monitor::lines(told),
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
