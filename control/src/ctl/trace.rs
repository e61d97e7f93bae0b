//! `labsw-ctl trace`: how the switch would handle a frame, as numbered lines with explanations.

use clap::Args;
use labsw_switch::Mac;

use super::parse;
use super::table::one_line;
use crate::api::{Request, Trace, TraceOutcome, TraceStep, TraceVerdict, parse_frame};
use crate::trace::ETHERTYPES;

/// The shortest frame on a wire, without the check sequence (802.3 clause 4A.4.2).
const MIN_FRAME_BYTES: usize = 60;
/// A VLAN tag's TPID, 802.1Q.
const TPID: u16 = 0x8100;
/// IEEE's ethertype for local experiments: the default of a made-up frame.
const DEFAULT_ETHERTYPE: &str = "experimental";

/// The bytes of a frame. (clap would take a plain `Vec` for an argument that is given several times.)
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

/// The port and the frame.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["frame", "src"]))]
pub(super) struct Arguments {
    /// The port that the frame arrives at.
    #[arg(long = "in", value_name = "PORT", value_parser = parse::name)]
    port: String,
    /// The whole frame in hexadecimal, without the frame check sequence; blanks, colons, hyphens and dots may separate
    /// bytes.
    #[arg(long, value_name = "HEX", value_parser = hexadecimal)]
    frame: Option<Bytes>,
    /// The source address of a made-up frame.
    #[arg(long, value_name = "MAC", value_parser = parse::mac, requires = "dst")]
    src: Option<Mac>,
    /// The destination address of a made-up frame.
    #[arg(long, value_name = "MAC", value_parser = parse::mac, requires = "src", conflicts_with = "frame")]
    dst: Option<Mac>,
    /// The VLAN of its tag, 0 (a priority tag) to 4095; left out: untagged.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=4095), requires = "src",
        conflicts_with = "frame")]
    vlan: Option<u16>,
    /// Its ethertype: hexadecimal as in 0x0806, or arp, ipv4, ipv6, lldp, eapol, slow, experimental.
    #[arg(long, value_name = "T", default_value = DEFAULT_ETHERTYPE, value_parser = ethertype, conflicts_with = "frame")]
    ethertype: u16,
    /// Its length in bytes, without the frame check sequence.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(60..), requires = "src",
        conflicts_with = "frame")]
    bytes: Option<u16>,
}

fn hexadecimal(text: &str) -> Result<Bytes, String> {
    parse_frame(text).map(Bytes).map_err(|error| error.to_string())
}

fn ethertype(text: &str) -> Result<u16, String> {
    let named = ETHERTYPES.iter().find(|(_, name)| text.eq_ignore_ascii_case(name));
    let number = || u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let known = || ETHERTYPES.map(|(_, name)| name).join(", ");
    named
        .map(|(ethertype, _)| *ethertype)
        .or_else(number)
        .ok_or_else(|| format!("not an ethertype (hexadecimal as in 0x0806, or {})", known()))
}

impl Arguments {
    /// The request of this command.
    pub(super) fn request(self) -> Request {
        let Arguments { port, frame, src, dst, vlan, ethertype, bytes } = self;
        let made_up = || {
            let tag = vlan.map(|vlan| [TPID.to_be_bytes(), vlan.to_be_bytes()].concat()).unwrap_or_default();
            let addresses = [dst, src].map(|mac| mac.unwrap_or(Mac::BROADCAST).octets()).concat();
            let mut frame = [addresses, tag, ethertype.to_be_bytes().to_vec()].concat();
            frame.resize(bytes.map_or(MIN_FRAME_BYTES, usize::from), 0);
            frame
        };
        Request::TraceFrame { port, frame: frame.map_or_else(made_up, |Bytes(frame)| frame) }
    }
}

/// The numbered steps, and the verdict.
pub(super) fn lines(trace: &Trace) -> String {
    let indent = " ".repeat(15);
    let line = |(number, step): (usize, &TraceStep)| {
        let text = one_line(&step.text);
        let hint = step.hint.as_deref().map(|hint| format!("{indent}→ {}\n", one_line(hint))).unwrap_or_default();
        let mark = if step.outcome == TraceOutcome::Drop { '✗' } else { ' ' };
        format!("{number:2} {mark} {:<10} {text}\n{hint}", step.stage.name())
    };
    let steps: String = (1..).zip(&trace.steps).map(line).collect();
    let mark = if trace.verdict == TraceVerdict::Dropped { '✗' } else { '✓' };
    format!("{steps}\n{mark} {}\n", one_line(&trace.summary))
}
