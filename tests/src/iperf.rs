//! iperf3 as the source of TCP traffic: its server, and what its report (`-J`) says.

use std::time::Duration;

use serde_json::Value;

use crate::netns::Netns;
use crate::process::Process;

const START_TIMEOUT: Duration = Duration::from_secs(20);
/// iperf3 looks at its clock now and then: an interval can be split off at the end that is shorter than this.
const SHORTEST_INTERVAL_SECONDS: f64 = 0.1;

/// A server in `ns` that takes one client after the other.
///
/// # Panics
/// When it does not start.
pub fn serve(ns: &Netns) -> Process {
    let mut server = Process::spawn("iperf3 server", ns.command("iperf3").args(["-s", "--forceflush"]));
    server.wait_for_text(0, "Server listening", START_TIMEOUT);
    server
}

/// Runs clients against `address`, where a server in `server` is, forth and back, three seconds each; `more` are
/// further options. `client` runs a shell line and gives what it printed.
///
/// # Panics
/// When a run does not come to its end.
pub fn forth_and_back(
    server: &Netns,
    address: &str,
    more: &str,
    mut client: impl FnMut(&str) -> String,
) -> [Report; 2] {
    ["", "--reverse"].map(|direction| {
        let _server = serve(server);
        let line = format!("iperf3 -c {address} -t 3 --connect-timeout 5000 -J {more} {direction}");
        Report::parse(&client(&line)).unwrap_or_else(|e| panic!("{line}: {e}"))
    })
}

/// A client's report on its TCP connections.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    /// Reads what `iperf3 -J` printed.
    ///
    /// # Errors
    /// What was printed, if it is no report of a run that came to its end.
    pub fn parse(printed: &str) -> Result<Self, String> {
        let json = printed.get(printed.find('{').unwrap_or(0)..).unwrap_or_default();
        let report: Value = serde_json::from_str(json).map_err(|e| format!("{e}: {printed}"))?;
        if let Some(error) = report["error"].as_str() {
            return Err(error.to_owned());
        }
        Ok(Self(report))
    }

    /// Mbit/s that the receiver counted.
    pub fn mbit_received(&self) -> f64 {
        self.0["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
    }

    /// Segments the sender's kernel sent again.
    ///
    /// # Panics
    /// When the report does not say.
    pub fn retransmits(&self) -> u64 {
        let retransmits = self.0["end"]["sum_sent"]["retransmits"].as_u64();
        retransmits.unwrap_or_else(|| panic!("no retransmits in {}", self.0))
    }

    /// Largest segment in bytes, without headers.
    pub fn segment_size(&self) -> u64 {
        self.0["start"]["tcp_mss_default"].as_u64().unwrap_or(0)
    }

    /// Segments that the bytes received were at least.
    pub fn segments(&self) -> u64 {
        self.0["end"]["sum_received"]["bytes"].as_u64().unwrap_or(0) / self.segment_size().max(1)
    }

    /// Bytes of every interval.
    pub fn intervals(&self) -> Vec<u64> {
        let intervals = self.0["intervals"].as_array().into_iter().flatten().map(|interval| &interval["sum"]);
        let whole = intervals.filter(|sum| sum["seconds"].as_f64().unwrap_or(0.0) >= SHORTEST_INTERVAL_SECONDS);
        whole.map(|sum| sum["bytes"].as_u64().unwrap_or(0)).collect()
    }
}
