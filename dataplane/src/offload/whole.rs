//! Requests resolved on frames that lie in one piece: the whole way of a frame through [`Cutter`] and
//! [`finish_checksum`] in one call. Tests, the test kit and benches use this module; the worker resolves requests with
//! [`Stage`](crate::worker), which reads payloads out of guest memory.

use super::{Cutter, Gso, GsoKind, Partial, Refused, Request, Sum, finish_checksum};

/// A request for a checksum from byte `start`, stored `offset` bytes behind `start`, and for segments if `segments`
/// says so: the `gso_type`, and payload bytes of a segment.
#[must_use]
pub fn request((start, offset): (u16, u16), segments: Option<(u8, u16)>) -> Request {
    let gso = segments.and_then(|(gso_type, size)| {
        let (kind, ecn) = GsoKind::of_type(gso_type)?;
        Some(Gso { kind, size, ecn })
    });
    Request { csum: Some(Partial { start, offset }), gso }
}

/// The frames that `request` makes of `frame`; headers are read from its first `shown` bytes only.
///
/// # Errors
/// [`Refused`]: the frame does not fit the request.
pub fn resolved(frame: &[u8], shown: usize, request: Request) -> Result<Vec<Vec<u8>>, Refused> {
    match request {
        Request { csum: None, .. } => Ok(vec![frame.to_vec()]),
        Request { csum: Some(partial), gso: None } => {
            let mut frame = frame.to_vec();
            finish_checksum(&mut frame, Sum::default(), partial)?;
            Ok(vec![frame])
        }
        _ => {
            let bytes = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            let mut cutter = Cutter::new(&frame[..shown.min(frame.len())], bytes, request)?;
            let mut segments = vec![];
            while let Some(cut) = cutter.next_cut() {
                let payload = cut.payload();
                let payload = &frame[payload.start as usize..payload.end as usize];
                segments.push([cut.finish(Sum::of(payload)), payload].concat());
            }
            Ok(segments)
        }
    }
}

/// The request that the test kit's `Packet::request` gives, as this build of the crate's type.
#[cfg(test)]
pub fn request_of(packet: &labsw_testkit::offload_frames::Packet, size: Option<u16>) -> Request {
    request(packet.checksum(), packet.segments(size))
}
