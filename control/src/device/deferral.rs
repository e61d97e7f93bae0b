//! Deferral of a device's interrupts in favour of a program with busy polling.
//!
//! A device has two settings in sysfs. The kernel goes back to interrupts after `napi_defer_hard_irqs` polls of its own
//! without a frame, each `gro_flush_timeout` after the last. Without the settings every poll of the program would be
//! followed by an interrupt.
//!
//! Reference: kernel `Documentation/networking/napi.rst`, "IRQ mitigation".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const LOOKS: &str = "napi_defer_hard_irqs";
const TIMEOUT: &str = "gro_flush_timeout";

/// The two settings of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deferral {
    /// Polls of the kernel without a frame (`napi_defer_hard_irqs`).
    pub looks: u32,
    /// Nanoseconds between two polls (`gro_flush_timeout`).
    pub timeout: u64,
}

impl Deferral {
    /// The settings for a queue under busy polling. A worker polls every few microseconds, so that 200 µs pass only if
    /// the worker sleeps or is kept from running.
    pub const BUSY: Deferral = Deferral { looks: 2, timeout: 200_000 };

    /// The settings of the device called `name`.
    pub(super) fn of(name: &str) -> io::Result<Deferral> {
        Deferral::read(&directory(name))
    }

    fn read(device: &Path) -> io::Result<Deferral> {
        fn number<T: std::str::FromStr>(file: PathBuf) -> io::Result<T> {
            let text = fs::read_to_string(file)?;
            text.trim().parse().map_err(|_| io::Error::other(format!("{text:?} is no number")))
        }
        Ok(Deferral { looks: number(device.join(LOOKS))?, timeout: number(device.join(TIMEOUT))? })
    }

    /// Writes the settings of the device called `device`.
    pub(super) fn apply(self, device: &str) -> io::Result<()> {
        self.write(&directory(device))
    }

    /// Settings that are as wanted already are not written: they may be read-only, and were never changed then.
    fn write(self, device: &Path) -> io::Result<()> {
        if Deferral::read(device).is_ok_and(|now| now == self) {
            return Ok(());
        }
        fs::write(device.join(TIMEOUT), self.timeout.to_string())?;
        fs::write(device.join(LOOKS), self.looks.to_string())
    }
}

fn directory(device: &str) -> PathBuf {
    Path::new("/sys/class/net").join(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_written_and_nonsense_is_refused() {
        let directory = std::env::temp_dir().join(format!("labsw-napi-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        assert!(Deferral::read(&directory).is_err(), "no such files");
        Deferral::BUSY.write(&directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join(LOOKS)).unwrap(), "2");
        assert_eq!(fs::read_to_string(directory.join(TIMEOUT)).unwrap(), "200000");
        assert_eq!(Deferral::read(&directory).unwrap(), Deferral::BUSY);
        fs::write(directory.join(LOOKS), "many\n").unwrap();
        assert!(Deferral::read(&directory).unwrap_err().to_string().contains("many"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn settings_that_cannot_be_written_may_stay_as_they_are() {
        // A number that not even root can change.
        let constant = Path::new("/proc/sys/kernel/ngroups_max");
        let number = fs::read_to_string(constant).unwrap().trim().parse().unwrap();
        let directory = std::env::temp_dir().join(format!("labsw-napi-constant-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for file in [LOOKS, TIMEOUT] {
            std::os::unix::fs::symlink(constant, directory.join(file)).unwrap();
        }
        let now = Deferral { looks: number, timeout: number.into() };
        now.write(&directory).unwrap();
        assert!(Deferral::BUSY.write(&directory).is_err());
        fs::remove_dir_all(&directory).unwrap();
    }
}
