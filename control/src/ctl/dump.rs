//! A capture as lines of text: the pcapng stream of the switch, one line a frame.
//!
//! **How it works.** The stream is the switch's own (`crate::pcapng`): little-endian, time stamps in nanoseconds. Its
//! blocks are collected until they are whole; interface descriptions give the names of ports, enhanced packet blocks
//! the frames, whose comments say the direction and the reason of a drop. [`crate::dissect`] puts a frame in words.

use std::collections::VecDeque;
use std::time::{Duration, UNIX_EPOCH};

use pcap_parser::OptionCode;
use pcap_parser::pcapng::{Block, EnhancedPacketBlock, parse_block_le};
use serde_json::json;

use super::table::{Screen, one_line};
use crate::dissect;

/// Longest block, bytes: more than the switch ever sends.
const MAX_BLOCK_BYTES: usize = 1 << 20;

/// The form of the lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// A JSON object for each frame.
    pub(super) json: bool,
    /// MAC addresses, too.
    pub(super) macs: bool,
    pub(super) screen: Screen,
}

/// Lines in the making.
#[derive(Debug)]
pub(super) struct Dump {
    style: Style,
    /// Bytes of the block that is not whole yet.
    rest: VecDeque<u8>,
    /// The port of each interface.
    ports: Vec<String>,
}

/// The stream is not one of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capture of the switch is damaged")]
pub(super) struct Damaged;

impl Dump {
    pub(super) fn new(style: Style) -> Dump {
        Dump { style, rest: VecDeque::new(), ports: Vec::new() }
    }

    /// The lines for the frames that are whole with these bytes.
    ///
    /// # Errors
    /// [`Damaged`].
    pub(super) fn lines(&mut self, bytes: &[u8]) -> Result<String, Damaged> {
        self.rest.extend(bytes);
        let mut lines = String::new();
        while let Some(length) = self.block_bytes()? {
            let block: Vec<u8> = self.rest.drain(..length).collect();
            let (_, block) = parse_block_le(&block).map_err(|_| Damaged)?;
            match block {
                Block::InterfaceDescription(port) => {
                    self.ports.push(port.if_name().and_then(Result::ok).unwrap_or_default().to_owned());
                }
                Block::EnhancedPacket(frame) => lines += &self.line(&frame)?,
                _ => {}
            }
        }
        Ok(lines)
    }

    /// The length of the next block, if it is whole.
    fn block_bytes(&self) -> Result<Option<usize>, Damaged> {
        let mut head = self.rest.iter().skip(4).copied();
        let (Some(a), Some(b), Some(c), Some(d)) = (head.next(), head.next(), head.next(), head.next()) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        if !(12..=MAX_BLOCK_BYTES).contains(&length) {
            return Err(Damaged);
        }
        Ok((self.rest.len() >= length).then_some(length))
    }

    /// `12:00:00.123456Z web rx IP 10.0.0.1 > 10.0.0.2: …`
    fn line(&self, block: &EnhancedPacketBlock<'_>) -> Result<String, Damaged> {
        let frame = block.data.get(..block.caplen as usize).ok_or(Damaged)?;
        let port = self.ports.get(block.if_id as usize).ok_or(Damaged)?;
        let comment = block.options.iter().find(|option| option.code == OptionCode::Comment);
        let comment = comment.and_then(|comment| comment.as_str().ok()).unwrap_or_default();
        let (way, dropped) = match comment.split_once(' ') {
            Some((way, dropped)) => (way, dropped.rsplit(": ").next()),
            None => (comment, None),
        };
        let ns = u64::from(block.ts_high) << 32 | u64::from(block.ts_low);
        let stamp = humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(ns)).to_string();
        let text = one_line(&dissect::line(frame, block.origlen as usize, self.style.macs));
        if self.style.json {
            let frame = json!({"time": stamp, "port": port, "direction": way, "dropped": dropped,
                "bytes": block.origlen, "text": text});
            return Ok(format!("{frame}\n"));
        }
        let screen = self.style.screen;
        // The time of the day, down to microseconds; as everywhere in labsw-ctl, that of UTC.
        let time = stamp.get(11..26).unwrap_or_default();
        let dropped = dropped.map(|reason| screen.red(&format!(" dropped ({})", one_line(reason)))).unwrap_or_default();
        Ok(format!("{} {} {way:2}{dropped} {text}\n", screen.grey(&format!("{time}Z")), one_line(port)))
    }
}
