//! The picture as SVG, for light and dark: trunks at the top, each with a rail on the left that goes down to the VLANs
//! that it carries; below, a bus for each VLAN with its ports; at the bottom the ports that only take mirrored frames,
//! and those of sensors in wires.
//!
//! **How it works.** [`Drawing`] goes down the page: each part is written at the height reached so far. The rails are
//! written last, when the heights of the buses are known, and lie behind the rest.
//!
//! **Invariants.** All text goes through [`escaped`]. A text that is too long for its place is cut; the tooltip of the
//! port has it whole.

use std::fmt::Write;

use super::{Lane, MarkKind, Node, Picture};
use crate::api::{PortState, VlanMember};
use crate::ctl::rates::short;
use crate::ctl::table::{one_line, shortened};

const WIDTH: u32 = 1000;
const MARGIN: u32 = 24;
/// Distance of two rails.
const RAIL: u32 = 18;
/// With more trunks than that, rails would be a thicket: the trunks say in words what they carry.
const MOST_RAILS: usize = 10;
/// Least width of a port.
const CARD: u32 = 206;
const GAP: u32 = 14;
/// Height of a card with two lines; each further line adds [`LINE`].
const CARD_HEIGHT: u32 = 48;
const LINE: u32 = 17;
/// Mean width of a character in hundredths of the font's size, on the wide side.
const CHARACTER: u32 = 58;
/// Number of colours of VLANs.
const COLOURS: usize = 8;

const STYLE: &str = concat!(include_str!("colours.css"), include_str!("drawing.css"));

/// The picture as an SVG document.
pub(in crate::ctl) fn draw(picture: &Picture) -> String {
    let rails = if picture.trunks.len() <= MOST_RAILS { picture.trunks.len() } else { 0 };
    let mut drawing = Drawing { body: String::new(), rails: vec![Rail::default(); rails], y: MARGIN + 8 };
    drawing.text("title", MARGIN, &picture.summary());
    drawing.y += 22;
    drawing.trunks(&picture.trunks);
    for (number, lane) in picture.lanes.iter().enumerate() {
        drawing.lane(lane, number % COLOURS, &picture.trunks);
    }
    for (title, nodes) in [("Mirrors only", &picture.mirror_only), ("Sensors in wires", &picture.sensors)] {
        if !nodes.is_empty() {
            drawing.bus("mirrors", title, &[]);
            drawing.cards(nodes, false);
        }
    }
    if picture.lanes.iter().any(|lane| !lane.trunks.is_empty()) && rails > 0 {
        drawing.y += 8;
        drawing.text("small", drawing.left(), "● tagged · ○ untagged");
        drawing.y += 8;
    }
    let height = drawing.y + MARGIN;
    let (rails, stops, body) = (drawing.rail_lines(), drawing.stops(), drawing.body);
    let label = escaped(&picture.summary());
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{label}\">\n<style>\n{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\"/>\n{rails}{body}{stops}</svg>\n"
    )
}

/// A trunk's line: where it begins, and the buses that it carries.
#[derive(Clone, Debug, Default)]
struct Rail {
    top: u32,
    /// Height of the bus, and true if the VLAN is tagged.
    stops: Vec<(u32, bool)>,
}

struct Drawing {
    body: String,
    rails: Vec<Rail>,
    /// The height reached so far.
    y: u32,
}

impl Drawing {
    /// The left edge of cards.
    fn left(&self) -> u32 {
        MARGIN + RAIL * u32::try_from(self.rails.len()).unwrap_or(0) + if self.rails.is_empty() { 0 } else { 6 }
    }

    fn rail_x(number: usize) -> u32 {
        MARGIN + 6 + RAIL * u32::try_from(number).unwrap_or(0)
    }

    fn text(&mut self, class: &str, x: u32, text: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "<text class=\"{class}\" x=\"{x}\" y=\"{}\">{}</text>", self.y, escaped(text));
    }

    /// The trunks: one below the other, each at its rail, or as other ports if there are too many.
    fn trunks(&mut self, trunks: &[Node]) {
        if self.rails.is_empty() {
            if !trunks.is_empty() {
                self.bus("mirrors", "Trunks", &[]);
            }
            self.cards(trunks, true);
            return;
        }
        let left = self.left();
        for (number, node) in trunks.iter().enumerate() {
            let lines = card_lines(node, true);
            let height = card_height(&lines);
            let middle = self.y + height / 2;
            let x = Drawing::rail_x(number);
            let _ = writeln!(self.body, "<path class=\"rail\" d=\"M{x} {middle}H{left}\"/>");
            if let Some(rail) = self.rails.get_mut(number) {
                rail.top = middle;
            }
            self.card(node, &lines, (left, 2 * CARD + GAP, height));
            self.y += height + GAP;
        }
    }

    /// A VLAN: its bus with a stop at each rail that carries it, and its ports.
    fn lane(&mut self, lane: &Lane, colour: usize, trunks: &[Node]) {
        self.bus(&format!("vlan{colour}"), &format!("VLAN {}", lane.vlan), &lane.trunks);
        let y = self.y - 4;
        for (rail, trunk) in self.rails.iter_mut().zip(trunks) {
            if let Some(member) = lane.trunks.iter().find(|member| member.port == trunk.name) {
                rail.stops.push((y, member.tagged));
            }
        }
        self.cards(&lane.ports, false);
    }

    /// A heading and the line below it, which begins at the first rail if trunks carry the VLAN.
    fn bus(&mut self, class: &str, heading: &str, carried: &[VlanMember]) {
        self.y += 26;
        self.text(&format!("heading {class}"), self.left(), heading);
        self.y += 10;
        let from = if carried.is_empty() || self.rails.is_empty() { self.left() } else { Drawing::rail_x(0) };
        let (y, to) = (self.y, WIDTH - MARGIN);
        let _ = writeln!(self.body, "<path class=\"bus {class}\" d=\"M{from} {y}H{to}\"/>");
        self.y += 4;
    }

    /// Ports below a bus, as many beside each other as there is room for.
    fn cards(&mut self, nodes: &[Node], trunks: bool) {
        let left = self.left();
        let room = WIDTH - MARGIN - left + GAP;
        let columns = (room / (CARD + GAP)).max(1);
        let width = room / columns - GAP;
        self.y += 8;
        for (number, row) in nodes.chunks(usize::try_from(columns).unwrap_or(1)).enumerate() {
            let lines: Vec<_> = row.iter().map(|node| card_lines(node, trunks)).collect();
            let height = lines.iter().map(|lines| card_height(lines)).max().unwrap_or_default();
            for ((node, lines), column) in row.iter().zip(&lines).zip(0..) {
                let x = left + column * (width + GAP);
                if number == 0 {
                    let (middle, above) = (x + 20, self.y - 12);
                    let _ = writeln!(self.body, "<path class=\"stub\" d=\"M{middle} {above}V{}\"/>", self.y);
                }
                self.card(node, lines, (x, width, height));
            }
            self.y += height + GAP;
        }
    }

    /// A port, in a box with this left edge, width and height.
    fn card(&mut self, node: &Node, lines: &[(&'static str, String)], (x, width, height): (u32, u32, u32)) {
        let y = self.y;
        let state = node.class();
        let tooltip: Vec<String> = tooltip(node).iter().map(|line| escaped(line)).collect();
        let _ = writeln!(
            self.body,
            "<g class=\"card {state}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{width}\" \
             height=\"{height}\" rx=\"6\"/><circle cx=\"{}\" cy=\"{}\" r=\"4\"/>",
            tooltip.join("\n"),
            x + 14,
            y + 17
        );
        for ((class, text), number) in lines.iter().zip(0..) {
            let indent = if number == 0 { 26 } else { 12 };
            let size = if *class == "name" { 14 } else { 12 };
            let room = usize::try_from(100 * (width - indent - 8) / (CHARACTER * size)).unwrap_or_default();
            let (x, y) = (x + indent, y + 21 + LINE * number);
            let text = escaped(&shortened(&one_line(text), room));
            let _ = writeln!(self.body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{text}</text>");
        }
        self.body += "</g>\n";
    }

    /// The rails, from each trunk down to the last VLAN that it carries.
    fn rail_lines(&self) -> String {
        let mut out = String::new();
        for (number, Rail { top, stops }) in self.rails.iter().enumerate() {
            let x = Drawing::rail_x(number);
            let bottom = stops.last().map_or(*top, |(y, _)| *y);
            let _ = writeln!(out, "<path class=\"rail\" d=\"M{x} {top}V{bottom}\"/>");
        }
        out
    }

    /// The stops on the rails, above the buses.
    fn stops(&self) -> String {
        let mut out = String::new();
        for (number, rail) in self.rails.iter().enumerate() {
            for (y, tagged) in &rail.stops {
                let (x, class) = (Drawing::rail_x(number), if *tagged { "stop" } else { "stop untagged" });
                let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"5\"/>");
            }
        }
        out
    }
}

fn card_height(lines: &[(&'static str, String)]) -> u32 {
    CARD_HEIGHT + LINE * u32::try_from(lines.len().saturating_sub(2)).unwrap_or(0)
}

/// The lines of a card, each with its class.
fn card_lines(node: &Node, is_trunk: bool) -> Vec<(&'static str, String)> {
    let mut lines = vec![("name", node.name.clone())];
    let (port_type, state) = (node.port_type, node.state);
    match (&node.plugged, state) {
        (Some(plugged), PortState::Up) => lines.push(("small", format!("{port_type} · {plugged}"))),
        (None, PortState::Up) => lines.push(("small", port_type.to_string())),
        (_, state) => lines.push(("small", format!("{port_type}, {state}"))),
    }
    lines.extend(node.reason.iter().map(|reason| ("small", reason.clone())));
    lines.extend(is_trunk.then(|| ("small", node.vlan.clone())));
    lines.extend((node.stations > 0).then(|| ("small", node.stations_text())));
    lines.push(("small", format!("in {} · out {}", frames(node.rx_frames), frames(node.tx_frames))));
    lines.extend((node.dropped > 0).then(|| ("drops", format!("{} dropped", frames(node.dropped)))));
    let marks: Vec<String> = node.marks.iter().map(|mark| format!("{}{}", sign(mark.kind), mark.name)).collect();
    lines.extend((!marks.is_empty()).then(|| ("mark", marks.join(" · "))));
    lines
}

/// The sign of a mark.
fn sign(kind: MarkKind) -> &'static str {
    match kind {
        MarkKind::Mirrored => "◉ ",
        MarkKind::MirrorTo => "← ",
        MarkKind::Inline | MarkKind::Sensor => "⇄ ",
        MarkKind::Impaired => "≈ ",
        MarkKind::Flapping | MarkKind::Guarded | MarkKind::Rewind => "",
    }
}

/// A number of frames, short where it is large.
fn frames(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
    if count < 10_000 { count.to_string() } else { short(count as f64) }
}

/// All that is known of a port, a line each.
fn tooltip(node: &Node) -> Vec<String> {
    let mut lines = vec![format!("{}: {} {}, {}", node.name, node.port_type, node.state, node.vlan)];
    lines.extend(node.reason.clone());
    lines.extend(node.plugged.clone());
    lines.push(format!("{} frames in, {} out, {} dropped", node.rx_frames, node.tx_frames, node.dropped));
    lines.extend(node.marks.iter().map(|mark| mark.text.clone()));
    lines
}

/// Text for the content or an attribute of XML.
fn escaped(text: &str) -> String {
    let text = one_line(text).replace(['\u{fffe}', '\u{ffff}'], " ");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
