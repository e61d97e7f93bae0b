//! Guest memory that the kernel does not use, by guest-physical address.

use std::fs::OpenOptions;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, fence};

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// The memory, mapped for as long as the program runs.
pub(crate) struct Memory {
    start: NonNull<u8>,
    /// Its first address.
    pub(crate) from: u64,
    /// The address behind its last byte.
    pub(crate) to: u64,
}

impl Memory {
    /// Maps what lies between two guest-physical addresses.
    pub(crate) fn open(from: u64, to: u64) -> io::Result<Memory> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
        let bytes = usize::try_from(to - from).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, from)?
        };
        Ok(Memory { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, from, to })
    }

    fn place(&self, address: u64, bytes: usize) -> *mut u8 {
        let inside = address >= self.from && address + bytes as u64 <= self.to;
        assert!(inside, "{bytes} bytes at {address:#x} are not ours");
        let offset = usize::try_from(address - self.from).expect("fits");
        // SAFETY: inside the mapping, which is never removed.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Writes bytes, after all that was written before.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        let place = self.place(address, bytes.len());
        fence(Ordering::SeqCst);
        // SAFETY: `place` is good for so many bytes; the device on the other side is not Rust's concern.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
        fence(Ordering::SeqCst);
    }

    /// Reads bytes.
    pub(crate) fn read<const N: usize>(&self, address: u64) -> [u8; N] {
        let place = self.place(address, N);
        fence(Ordering::SeqCst);
        // SAFETY: as in `write`.
        unsafe { place.cast::<[u8; N]>().read_volatile() }
    }

    /// Writes a 16-bit field.
    pub(crate) fn set16(&self, address: u64, value: u16) {
        self.write(address, &value.to_le_bytes());
    }

    /// Reads a 16-bit field.
    pub(crate) fn get16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address))
    }

    /// Fills a range with a byte.
    pub(crate) fn fill(&self, address: u64, bytes: usize, value: u8) {
        let place = self.place(address, bytes);
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_bytes(place, value, bytes) };
        fence(Ordering::SeqCst);
    }
}
