//! `labsw-sweep udp|icmp ADDRESS SIZES` sends a datagram of each size (`0-1472,2000-9000/97`: bytes behind the UDP or
//! ICMP header), compares what comes back, and fails if one does not; `labsw-sweep echo` sends UDP datagrams back.
//! [`labsw_tests::sweep`] says how.

use std::process::ExitCode;

use labsw_tests::sweep::{self, Kind};

const USAGE: &str = "usage: labsw-sweep udp|icmp ADDRESS SIZES, or labsw-sweep echo";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("labsw-sweep: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<String, String> {
    let (kind, address, sizes) = match words {
        ["echo"] => return sweep::echo().map(|()| String::new()).map_err(|e| e.to_string()),
        ["udp", address, sizes] => (Kind::Udp, address, sizes),
        ["icmp", address, sizes] => (Kind::Icmp, address, sizes),
        _ => return Err(USAGE.to_owned()),
    };
    let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
    let sizes = sweep::sizes(sizes)?;
    let failures = sweep::run(kind, address, &sizes).map_err(|e| e.to_string())?;
    if failures.is_empty() {
        return Ok(format!("{} datagrams came back", sizes.len()));
    }
    Err(failures.join("\n"))
}
