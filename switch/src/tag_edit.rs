//! The difference between a frame as it was received and as it leaves by one port: at most one VLAN tag out, one in.

/// How the outgoing frame differs from the received one: at most one VLAN tag removed and one inserted, both right
/// behind the MAC addresses (offset 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagEdit {
    /// Bytes removed at offset 12: 0 or 4.
    pub strip_bytes: u8,
    /// Tag inserted at offset 12: TPID and TCI in network order.
    pub insert: Option<[u8; 4]>,
}

impl TagEdit {
    /// The frame leaves as it came.
    pub const KEEP: TagEdit = TagEdit { strip_bytes: 0, insert: None };

    /// True if the frame leaves as it came.
    #[inline]
    pub fn keeps(self) -> bool {
        self.strip_bytes == 0 && self.insert.is_none()
    }

    /// Change in frame length, bytes.
    #[inline]
    pub fn growth_bytes(self) -> i32 {
        (if self.insert.is_some() { 4 } else { 0 }) - i32::from(self.strip_bytes)
    }
}

/// One frame for one egress port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxItem {
    /// Index of the frame in the burst.
    pub frame: u8,
    /// The change on the way out.
    pub edit: TagEdit,
    /// Only this many bytes leave (the copy of a mirror with a snap length); 0: the whole frame.
    pub snap_bytes: u16,
}

impl TxItem {
    /// The whole frame.
    #[inline(always)]
    pub fn whole(frame: u8, edit: TagEdit) -> TxItem {
        TxItem { frame, edit, snap_bytes: 0 }
    }
}
