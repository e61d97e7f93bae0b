//! The virtio-net PCI device, by its registers.
//!
//! Reference: Virtio 1.2, 4.1.4 "Virtio Structure PCI Capabilities", 4.1.4.3 "Common configuration structure layout".

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Bits of the device status.
pub(crate) const ACKNOWLEDGE: u8 = 1;
pub(crate) const DRIVER: u8 = 2;
pub(crate) const DRIVER_OK: u8 = 4;
pub(crate) const FEATURES_OK: u8 = 8;
pub(crate) const FAILED: u8 = 128;

/// The registers of the common structure.
const FEATURE_SELECT: usize = 0;
const FEATURE: usize = 4;
const DRIVER_FEATURE_SELECT: usize = 8;
const DRIVER_FEATURE: usize = 12;
const STATUS: usize = 20;
const GENERATION: usize = 0x15;
const QUEUE_SELECT: usize = 22;
const QUEUE_SIZE: usize = 24;
const QUEUE_ENABLE: usize = 28;
const QUEUE_NOTIFY: usize = 30;
const QUEUE_DESCRIPTORS: usize = 32;
const QUEUE_DRIVER: usize = 40;
const QUEUE_DEVICE: usize = 48;

/// Bits of the PCI command register: memory, bus master, no interrupts by wire.
const COMMAND_OFFSET: u64 = 4;
const COMMAND: u16 = 0x406;
const BUS_MASTER: u16 = 4;

/// A window of registers.
struct Window(NonNull<u8>);

impl Window {
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: callers read registers of the mapped BAR at their own width; it is never unmapped.
        unsafe { self.0.as_ptr().add(offset).cast::<T>().read_volatile() }
    }

    fn write<T: Copy>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.0.as_ptr().add(offset).cast::<T>().write_volatile(value) }
    }
}

/// Where a structure of the device lies.
#[derive(Clone, Copy, Default)]
struct Place {
    bar: u8,
    offset: usize,
}

/// The device.
pub(crate) struct Device {
    directory: PathBuf,
    common: Window,
    notify: Window,
    config: Window,
    notify_step: usize,
}

/// The first virtio-net device of the machine.
fn find() -> io::Result<PathBuf> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        let id = |name: &str| fs::read_to_string(path.join(name)).unwrap_or_default().trim().to_owned();
        if id("vendor") == "0x1af4" && ["0x1000", "0x1041"].contains(&id("device").as_str()) {
            return Ok(path);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Sets the PCI command register.
fn command(directory: &Path, value: u16) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(directory.join("config"))?;
    file.write_all_at(&value.to_le_bytes(), COMMAND_OFFSET)
}

impl Device {
    /// Takes the device from its driver and maps its registers.
    pub(crate) fn open() -> io::Result<Device> {
        let directory = find()?;
        let name = directory.file_name().expect("a name").to_string_lossy().into_owned();
        if directory.join("driver").exists() {
            fs::write(directory.join("driver/unbind"), name)?;
        }
        command(&directory, COMMAND)?;
        let space = fs::read(directory.join("config"))?;
        let word = |at: usize| u32::from_le_bytes([space[at], space[at + 1], space[at + 2], space[at + 3]]);
        let (mut places, mut step) = ([Place::default(); 5], 0);
        let mut at = usize::from(space[0x34]);
        while at != 0 {
            let kind = usize::from(space[at + 3]);
            if space[at] == 9 && kind < places.len() {
                places[kind] = Place { bar: space[at + 4], offset: word(at + 8) as usize };
                if kind == 2 {
                    step = word(at + 16) as usize;
                }
            }
            at = usize::from(space[at + 1]);
        }
        let bar = format!("resource{}", places[1].bar);
        let file = OpenOptions::new().read(true).write(true).open(directory.join(bar))?;
        let bytes = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &file, 0)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let window = |place: Place| {
            assert!(place.bar == places[1].bar && place.offset + 64 <= bytes, "all structures in one BAR");
            // SAFETY: inside the mapping (asserted).
            Window(unsafe { start.add(place.offset) })
        };
        let (common, notify, config) = (window(places[1]), window(places[2]), window(places[4]));
        Ok(Device { directory, common, notify, config, notify_step: step })
    }

    /// Lets the device read and write memory, or not.
    pub(crate) fn set_bus_master(&self, on: bool) {
        command(&self.directory, if on { COMMAND } else { COMMAND & !BUS_MASTER }).expect("the command register");
    }

    /// The device status.
    pub(crate) fn status(&self) -> u8 {
        self.common.read(STATUS)
    }

    /// A number that changes with the device's configuration, so with each link that goes down or comes up.
    pub(crate) fn generation(&self) -> u8 {
        self.common.read(GENERATION)
    }

    /// Sets the device status; 0 resets the device.
    pub(crate) fn set_status(&self, status: u8) {
        self.common.write(STATUS, status);
    }

    /// What the device offers.
    pub(crate) fn offered(&self) -> u64 {
        let half = |which: u32| {
            self.common.write(FEATURE_SELECT, which);
            u64::from(self.common.read::<u32>(FEATURE))
        };
        half(0) | half(1) << 32
    }

    /// Acknowledges features.
    pub(crate) fn acknowledge(&self, features: u64) {
        for (which, half) in [(0u32, features & u64::from(u32::MAX)), (1, features >> 32)] {
            self.common.write(DRIVER_FEATURE_SELECT, which);
            self.common.write(DRIVER_FEATURE, u32::try_from(half).expect("half a word"));
        }
    }

    /// Says where a queue lies and how many entries it has.
    pub(crate) fn place_queue(&self, queue: u16, size: u16, places: [u64; 3]) {
        self.common.write(QUEUE_SELECT, queue);
        self.common.write(QUEUE_SIZE, size);
        for (register, address) in [QUEUE_DESCRIPTORS, QUEUE_DRIVER, QUEUE_DEVICE].into_iter().zip(places) {
            self.common.write(register, u32::try_from(address & u64::from(u32::MAX)).expect("half a word"));
            self.common.write(register + 4, u32::try_from(address >> 32).expect("half a word"));
        }
    }

    /// Writes the enable register of a queue.
    pub(crate) fn enable_queue(&self, queue: u16, value: u16) {
        self.common.write(QUEUE_SELECT, queue);
        self.common.write(QUEUE_ENABLE, value);
    }

    /// Rings the doorbell of a queue, with `value` written.
    pub(crate) fn notify(&self, queue: u16, value: u16) {
        self.common.write(QUEUE_SELECT, queue);
        let place = usize::from(self.common.read::<u16>(QUEUE_NOTIFY)) * self.notify_step;
        self.notify.write(place, value);
    }

    /// Writes anywhere into the first page of doorbells.
    pub(crate) fn notify_at(&self, place: usize, value: u16) {
        self.notify.write(place % 64, value);
    }

    /// The MAC address.
    pub(crate) fn mac(&self) -> [u8; 6] {
        std::array::from_fn(|at| self.config.read(at))
    }

    /// The link is up.
    pub(crate) fn has_link(&self) -> bool {
        self.config.read::<u16>(6) & 1 != 0
    }
}
