//! The trace of a frame, as requests ask for it and replies show it.

use labsw_switch::drop_reason::Stage;
use serde::{Deserialize, Serialize};

/// The longest frame that can be traced, in bytes.
pub const MAX_TRACED_BYTES: usize = 65_535;

/// The outcome for the frame as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceVerdict {
    /// The frame leaves by the port of its destination address.
    Forwarded,
    /// The frame leaves by the ports of its VLAN, since its destination is a group or unknown.
    Flooded,
    /// The frame leaves by no port.
    Dropped,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceOutcome {
    /// The frame goes on.
    Pass,
    /// The frame, or its copy for one port, ends here and is counted.
    Drop,
    /// A port sends the frame.
    Send,
    /// A mirror copies the frame.
    Copy,
    /// An explanation that changes nothing.
    Note,
}

/// The part of the switch that takes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it, and labsw_switch::drop_reason::Stage explains most of them")]
pub enum TraceStage {
    Receive,
    Port,
    Injection,
    Header,
    Mtu,
    LinkLocal,
    Vlan,
    Guard,
    Learning,
    Lookup,
    Multicast,
    Impairment,
    FastPath,
    Egress,
    Send,
    Mirror,
}

impl TraceStage {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            TraceStage::Receive => Stage::Receive.name(),
            TraceStage::Port => Stage::Port.name(),
            TraceStage::Injection => Stage::Injection.name(),
            TraceStage::Header => Stage::Header.name(),
            TraceStage::Mtu => Stage::Mtu.name(),
            TraceStage::LinkLocal => Stage::LinkLocal.name(),
            TraceStage::Vlan => Stage::Vlan.name(),
            TraceStage::Guard => Stage::Guard.name(),
            TraceStage::Learning => "learning",
            TraceStage::Lookup => Stage::Lookup.name(),
            TraceStage::Multicast => Stage::Multicast.name(),
            TraceStage::Impairment => Stage::Impairment.name(),
            TraceStage::FastPath => "fast_path",
            TraceStage::Egress => "egress",
            TraceStage::Send => Stage::Send.name(),
            TraceStage::Mirror => "mirror",
        }
    }
}

impl From<Stage> for TraceStage {
    fn from(stage: Stage) -> TraceStage {
        match stage {
            Stage::Receive => TraceStage::Receive,
            Stage::Port => TraceStage::Port,
            Stage::Injection => TraceStage::Injection,
            Stage::Header => TraceStage::Header,
            Stage::Mtu => TraceStage::Mtu,
            Stage::LinkLocal => TraceStage::LinkLocal,
            Stage::Vlan => TraceStage::Vlan,
            Stage::Guard => TraceStage::Guard,
            Stage::Lookup => TraceStage::Lookup,
            Stage::Multicast => TraceStage::Multicast,
            Stage::Impairment => TraceStage::Impairment,
            Stage::Send => TraceStage::Send,
        }
    }
}

/// One step in the handling of a frame. Fields that do not apply are left out of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The subject of the step.
    pub stage: TraceStage,
    /// The outcome of the step.
    pub outcome: TraceOutcome,
    /// Name of the port that the step is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Name of the mirror that the step is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The VLAN that the frame is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The name under which the drop is counted, at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The frame, or its copy, as `port` sends it, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// One sentence that explains the step.
    pub text: String,
    /// The setting or action that would change the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The trace of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// The outcome for the frame as a whole.
    pub verdict: TraceVerdict,
    /// The outcome in words.
    pub summary: String,
    /// The steps, in order.
    pub steps: Vec<TraceStep>,
}

/// Why text is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// The text is empty.
    #[error("no frame: it has no bytes")]
    Empty,
    /// A character that is neither a hexadecimal digit nor a separator.
    #[error("{0:?} is no hexadecimal digit; blanks, colons, hyphens and dots may stand between bytes")]
    NotHexadecimal(char),
    /// The last byte has only one digit.
    #[error("an odd number of hexadecimal digits ({0}); a byte has two")]
    Odd(usize),
    /// More bytes than a frame can have.
    #[error("{0} bytes; a frame has at most {MAX_TRACED_BYTES}")]
    TooLong(usize),
}

/// Reads a frame from hexadecimal digits.
///
/// # Errors
/// [`InvalidFrame`].
pub fn parse_frame(text: &str) -> Result<Vec<u8>, InvalidFrame> {
    let text = text.trim();
    let digits = text.strip_prefix("0x").unwrap_or(text).chars();
    let digits = digits.filter(|character| !character.is_whitespace() && !matches!(character, ':' | '-' | '.'));
    let digit = |character: char| character.to_digit(16).ok_or(InvalidFrame::NotHexadecimal(character));
    let digits: Vec<u32> = digits.map(digit).collect::<Result<_, _>>()?;
    if digits.len() % 2 == 1 {
        return Err(InvalidFrame::Odd(digits.len()));
    }
    let byte = |pair: &[u32]| pair.iter().fold(0, |byte, digit| byte << 4 | u8::try_from(*digit).unwrap_or(0));
    let frame: Vec<u8> = digits.chunks(2).map(byte).collect();
    match frame.len() {
        0 => Err(InvalidFrame::Empty),
        bytes if bytes > MAX_TRACED_BYTES => Err(InvalidFrame::TooLong(bytes)),
        _ => Ok(frame),
    }
}

/// A frame as hexadecimal digits.
pub fn frame_text(frame: &[u8]) -> String {
    use std::fmt::Write;
    frame.iter().fold(String::with_capacity(2 * frame.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
