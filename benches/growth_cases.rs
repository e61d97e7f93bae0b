//! The labs that `growth` and `instructions` compare: a small one and a large one, of which the large part has nothing
//! to do.
#![allow(clippy::panic, reason = "a bench")]

use crate::lab::{Around, Watched};

/// The two ends of each kind of growth.
#[allow(dead_code, reason = "instructions names its cases one by one")]
pub const GROWTH: [(&str, [&str; 2]); 5] = [
    ("ports", ["ports-2", "ports-32"]),
    ("macs", ["macs-1k", "macs-64k"]),
    ("vlans", ["vlans-1", "vlans-64"]),
    ("mirrors", ["mirrors-0", "mirrors-8"]),
    ("captures", ["captures-0", "captures-100"]),
];

/// The lab of a case.
pub fn around(case: &str) -> Around {
    let small = Around::default();
    match case {
        "ports-2" => small,
        "ports-32" => Around { idle_ports: 30, ..small },
        "macs-1k" => Around { idle_ports: 1, stations: 1000, ..small },
        "macs-64k" => Around { idle_ports: 1, stations: 64_000, ..small },
        "vlans-1" => Around { vlans: 1, ..small },
        "vlans-64" => Around { vlans: 64, ..small },
        "mirrors-0" => Around { idle_ports: 2, ..small },
        "mirrors-8" => Around { idle_ports: 2, mirrors: 8, ..small },
        "captures-0" => Around { idle_ports: 1, ..small },
        "captures-100" => Around { idle_ports: 1, captures: 100, ..small },
        "other-vlan" => Around { idle_ports: 1, watched: Some(Watched::OtherVlan), ..small },
        "filter" => Around { idle_ports: 1, watched: Some(Watched::Filter), ..small },
        "flows" => Around { idle_ports: 1, flows: 1000, ..small },
        "flows-other-vlan" => Around { idle_ports: 1, flows: 1000, watched: Some(Watched::OtherVlan), ..small },
        "flows-filter" => Around { idle_ports: 1, flows: 1000, watched: Some(Watched::Filter), ..small },
        "mirrored" => Around { idle_ports: 1, mirrored: true, ..small },
        "logged" => Around { logged: true, ..small },
        "delayed" => Around { delayed: true, ..small },
        _ => panic!("no case {case:?}"),
    }
}
