//! The picture as a flowchart of Mermaid: a box for each port, a frame around each VLAN, lines from trunks to the VLANs
//! that they carry, dotted arrows for mirrors, thick lines from a port through the sensor in its wire.
//!
//! **Invariants.** Identifiers are numbers of this file's own (`p0`, `vlan10`); every name is within quotes, where
//! [`label`] leaves nothing that Mermaid or HTML would read.
//!
//! Reference: <https://mermaid.js.org/syntax/flowchart.html>.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Lane, Node, Picture};
use crate::api::{Inline, Mirror};
use crate::ctl::table::one_line;

/// The classes of boxes, by state.
const CLASSES: &str = "  classDef up stroke:#2e8b57,stroke-width:2px
  classDef waiting stroke:#c08a1e,stroke-width:2px
  classDef failed stroke:#c0392b,stroke-width:2px
  classDef down stroke:#888888,stroke-dasharray:4 3
";

/// The picture as the text of a flowchart.
pub(in crate::ctl) fn draw(picture: &Picture) -> String {
    let ids: BTreeMap<&str, String> =
        picture.nodes().enumerate().map(|(number, node)| (node.name.as_str(), format!("p{number}"))).collect();
    let id = |name: &str| ids.get(name).cloned();
    let mut out = format!("%% {}\nflowchart LR\n", one_line(&picture.summary()));
    // Writing to a string does not fail.
    for node in &picture.trunks {
        let _ = writeln!(out, "  {}", shape(&ids, node));
    }
    for Lane { vlan, ports, .. } in &picture.lanes {
        let _ = writeln!(out, "  subgraph vlan{vlan}[\"VLAN {vlan}\"]");
        for node in ports {
            let _ = writeln!(out, "    {}", shape(&ids, node));
        }
        out += "  end\n";
    }
    for (frame, title, nodes) in
        [("mirrors", "Mirrors only", &picture.mirror_only), ("sensors", "Sensors in wires", &picture.sensors)]
    {
        if !nodes.is_empty() {
            let _ = writeln!(out, "  subgraph {frame}[\"{title}\"]");
            for node in nodes {
                let _ = writeln!(out, "    {}", shape(&ids, node));
            }
            out += "  end\n";
        }
    }
    for Lane { vlan, trunks, .. } in &picture.lanes {
        for member in trunks {
            let way = if member.tagged { "tagged" } else { "untagged" };
            let _ = writeln!(out, "  {} ---|{way}| vlan{vlan}", id(&member.port).unwrap_or_default());
        }
    }
    for (number, mirror) in picture.mirrors.iter().enumerate() {
        out += &arrows(picture, number, mirror, &id);
    }
    for Inline { name, state, of, through, .. } in &picture.inlines {
        let ends: Option<Vec<String>> = through.iter().map(|port| id(port)).collect();
        if let (Some(of), Some(ends)) = (id(of), ends) {
            let _ = writeln!(out, "  {of} == \"{} {state}\" === {}", label(name), ends.join(" === "));
        }
    }
    out + CLASSES
}

/// The box of a port.
fn shape(ids: &BTreeMap<&str, String>, node: &Node) -> String {
    let state = match &node.reason {
        Some(reason) => format!("{} {}: {reason}", node.port_type, node.state),
        None => format!("{} {}", node.port_type, node.state),
    };
    let dropped = if node.dropped > 0 { format!(", {} dropped", node.dropped) } else { String::new() };
    let frames = format!("in {}, out {}{dropped}", node.rx_frames, node.tx_frames);
    let lines = [Some(node.name.clone()), Some(state), node.plugged.clone(), Some(node.stations_text()), Some(frames)];
    let lines = lines.into_iter().flatten().chain(node.marks.iter().map(|mark| mark.text.clone()));
    let lines: Vec<String> = lines.filter(|line| !line.is_empty()).map(|line| label(&line)).collect();
    let class = node.class();
    let id = ids.get(node.name.as_str()).cloned().unwrap_or_default();
    format!("{id}[\"{}\"]:::{class}", lines.join("<br/>"))
}

/// The arrows of a mirror, from its sources to its destination.
fn arrows(picture: &Picture, number: usize, mirror: &Mirror, id: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let lane = mirror.to_vlan.filter(|vlan| picture.lanes.iter().any(|lane| lane.vlan == *vlan));
    let to = match (mirror.to.as_deref().and_then(id), lane) {
        (Some(port), _) => port,
        (None, Some(vlan)) => format!("vlan{vlan}"),
        (None, None) => {
            let _ = writeln!(out, "  to{number}[\"{}\"]", label(&mirror.destination()));
            format!("to{number}")
        }
    };
    for source in &mirror.sources {
        let from = match id(&source.port) {
            Some(port) => port,
            None => {
                let name = if source.port == "*" { "every port" } else { &source.port };
                let _ = writeln!(out, "  from{number}([\"{}\"])", label(name));
                format!("from{number}")
            }
        };
        let direction = source.direction.name();
        let _ = writeln!(out, "  {from} -. \"{} {direction}\" .-> {to}", label(&mirror.name));
    }
    out
}

/// Text within quotes: what Mermaid or HTML could read becomes an entity of Mermaid's own.
fn label(text: &str) -> String {
    let mut out = String::new();
    for character in one_line(text).chars() {
        match character {
            plain if plain.is_alphanumeric() || " _.,:;/+-".contains(plain) => out.push(plain),
            other => {
                let _ = write!(out, "#{};", u32::from(other));
            }
        }
    }
    out
}
