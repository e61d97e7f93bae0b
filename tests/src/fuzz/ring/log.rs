//! The log of pages against the model: every page that the device wrote is marked, and no other.
//!
//! The bitmap lies somewhere inside its file; what lies around it is never touched. A page of the file may be seen at
//! several guest addresses: it is enough that one of them is marked.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use labsw_dataplane::virtio::dirty_log::{DirtyLog, LOG_PAGE, RingLog};
use labsw_dataplane::virtio::memory::GuestMemory;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::model::{BIG, REGIONS, Written};

/// Bytes of the bitmap, which covers the last region.
const LOG_BYTES: u64 = (BIG.guest_start + BIG.bytes).div_ceil(8 * LOG_PAGE);
/// Where it begins in its file.
const OFFSET: u64 = 0x1023;
/// Size of the file.
const FILE_BYTES: u64 = OFFSET + LOG_BYTES + 0x2000;

/// A log shared by all rings of the guest, and its file.
pub struct SharedLog {
    log: Arc<DirtyLog>,
    file: File,
}

impl SharedLog {
    pub fn new() -> Self {
        let file = memfd_create("log", MemfdFlags::CLOEXEC).expect("a memfd");
        ftruncate(&file, FILE_BYTES).expect("its size");
        let copy = file.try_clone().expect("a descriptor");
        let log = DirtyLog::map(&Arc::default(), 0, LOG_BYTES, OFFSET, copy).unwrap_or_else(|e| panic!("{e}"));
        Self { log: Arc::new(log), file: File::from(file) }
    }

    /// The log for a ring whose used ring or device event suppression lies at this front-end address.
    pub fn of_ring(&self, memory: &Arc<GuestMemory>, used: u64) -> Option<RingLog> {
        let inside = REGIONS.iter().find(|region| used.wrapping_sub(region.user_start) < region.bytes)?;
        let address = used - inside.user_start + inside.guest_start;
        Some(RingLog::new(Arc::clone(&self.log), Arc::clone(memory), Some(address)))
    }

    /// Takes the pages out that are marked.
    fn take(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        for region in &REGIONS {
            let bytes = region.guest_start / LOG_PAGE / 8..=(region.guest_start + region.bytes - 1) / LOG_PAGE / 8;
            for at in bytes {
                let mut byte = [0];
                self.file.read_exact_at(&mut byte, OFFSET + at).expect("a memfd gives it");
                if byte[0] != 0 {
                    self.file.write_all_at(&[0], OFFSET + at).expect("a memfd takes it");
                    pages.extend((0..8).filter(|bit| byte[0] >> bit & 1 == 1).map(|bit| at * 8 + bit));
                }
            }
        }
        pages
    }

    /// Holds the pages marked since the last call against what was written since then.
    ///
    /// # Panics
    /// When a page is marked that nobody wrote, or a byte was written on a page that is not marked.
    pub fn check(&self, written: &Written) {
        let mut marked = Vec::new();
        for page in self.take() {
            let here = places(page);
            let touches =
                |range: &Range<usize>| here.iter().any(|part| part.start < range.end && range.start < part.end);
            let known = written.surely.iter().chain(&written.perhaps).any(touches);
            assert!(known, "guest page {page:#x} is marked, and nobody wrote there");
            marked.extend(here);
        }
        for range in &written.surely {
            let mut at = range.start;
            while at < range.end {
                let part = marked.iter().find(|part| part.contains(&at));
                let part = part.unwrap_or_else(|| panic!("byte {at:#x} of the file was written and is not marked"));
                at = part.end;
            }
        }
    }

    /// Looks at the whole file: nothing is marked, and nothing around the bitmap was touched.
    ///
    /// # Panics
    /// When a byte is not 0.
    pub fn check_clean(&self) {
        let mut bytes = vec![0; usize::try_from(FILE_BYTES).expect("small")];
        self.file.read_exact_at(&mut bytes, 0).expect("a memfd gives it");
        let stray = bytes.iter().position(|&byte| byte != 0);
        assert_eq!(stray, None, "a byte of the log's file that nobody should have touched");
    }
}

/// The ranges of the guest's file that a guest page shows.
fn places(page: u64) -> Vec<Range<usize>> {
    let (first, end) = (page * LOG_PAGE, (page + 1) * LOG_PAGE);
    let part = |region: &labsw_dataplane::virtio::memory::RegionInfo| {
        let start = first.max(region.guest_start);
        let end = end.min(region.guest_start + region.bytes);
        let at = |address: u64| usize::try_from(address - region.guest_start + region.file_offset).expect("small");
        (start < end).then(|| at(start)..at(end))
    };
    REGIONS.iter().filter_map(part).collect()
}
