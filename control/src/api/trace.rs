//! What would become of a frame, as it is asked and told.

use serde::{Deserialize, Serialize};

/// The longest frame that can be asked about, bytes.
pub const MAX_TRACED_BYTES: usize = 65_535;

/// What would become of the frame as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceVerdict {
    /// It leaves by the port its destination is at.
    Forwarded,
    /// It leaves by ports of its VLAN, since its destination is a group or not known.
    Flooded,
    /// It leaves by no port.
    Dropped,
}

/// What one step comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceOutcome {
    /// The frame goes on.
    Pass,
    /// The frame, or its copy for one port, ends here and is counted.
    Drop,
    /// A port sends it.
    Send,
    /// A mirror copies it.
    Copy,
    /// Something that changes nothing, but explains.
    Note,
}

/// One step of the way of a frame. Fields that do not apply are left out of the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// What is looked at: `port`, `impairment`, `injection`, `header`, `mtu`, `link_local`, `vlan`, `guard`,
    /// `learning`, `lookup`, `multicast`, `egress`, `mirror`.
    pub stage: String,
    /// What it comes to.
    pub outcome: TraceOutcome,
    /// Name of the port it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Name of the mirror it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// The VLAN the frame is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The name under which the drop is counted, at `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The frame, or its copy, as `port` sends it, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// One sentence.
    pub text: String,
    /// What would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// As a whole.
    pub verdict: TraceVerdict,
    /// The same in words.
    pub summary: String,
    /// The steps, in order.
    pub steps: Vec<TraceStep>,
}

/// Text that is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFrame {
    /// Nothing in it.
    #[error("no frame: it has no bytes")]
    Empty,
    /// Something that is neither a digit nor stands between bytes.
    #[error("{0:?} is no hexadecimal digit; blanks, colons, hyphens and dots may stand between bytes")]
    NotHexadecimal(char),
    /// Half a byte is left.
    #[error("an odd number of hexadecimal digits ({0}); a byte has two")]
    Odd(usize),
    /// More than any frame has.
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
