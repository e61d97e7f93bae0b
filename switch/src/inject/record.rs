//! The state of a gate that goes on in another process: how much of the rate is used up, and the copies that may still
//! come back.

use super::Injection;

/// The state of a gate, without its copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GateRecord {
    used: u64,
    seed: u64,
    /// Says which hash function the copies were noted with.
    hash: u64,
}

/// Bytes of a copy: its place, and the word there.
const COPY_BYTES: usize = 12;

/// Copies that no gate has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the copies that a mirror's injection knows are garbled")]
pub struct GarbledGate;

impl Injection {
    /// The state of the gate, and the copies that may still come back, packed. The workers stand still.
    pub fn record(&self, now_ns: u64) -> (GateRecord, Vec<u8>) {
        let (seed, hash) = self.echoes.hashing();
        let mut copies = Vec::new();
        for (place, word) in self.echoes.young(now_ns) {
            copies.extend(u32::try_from(place).unwrap_or(u32::MAX).to_le_bytes());
            copies.extend(word.to_le_bytes());
        }
        (GateRecord { used: self.allowance.used(), seed, hash }, copies)
    }

    /// Goes on where the gate of another process stood. No worker uses this one yet.
    ///
    /// # Errors
    /// The copies are garbled.
    pub fn go_on(&self, record: &GateRecord, copies: &[u8]) -> Result<(), GarbledGate> {
        let (copies, rest) = copies.as_chunks::<COPY_BYTES>();
        if !rest.is_empty() {
            return Err(GarbledGate);
        }
        self.allowance.go_on(record.used);
        let own = self.echoes.hashing().0;
        self.echoes.reseed(record.seed);
        if self.echoes.hashing().1 != record.hash {
            self.echoes.reseed(own);
            return Ok(());
        }
        for copy in copies {
            let [a, b, c, d, word @ ..] = *copy;
            let place = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            if !self.echoes.put(place, u64::from_le_bytes(word)) {
                return Err(GarbledGate);
            }
        }
        Ok(())
    }
}
