//! What a test needs from the machine. Where it is missing the test says so and is skipped; with
//! `LABSW_TEST_REQUIRE=1` in the environment it fails instead, so that CI cannot lose a test unnoticed.
//!
//! The note goes to the process's real standard error: the test runner captures only the print macros.

use std::io::Write;

use crate::guest::Image;
use crate::installed::{find_program, promtool};
use crate::{guest, switch};

/// One thing a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Effective user id 0, for namespaces, XDP and raw sockets.
    Root,
    /// The built switch and its control tool.
    Labswd,
    /// QEMU, the guest kernel and the initramfs.
    Guest,
    /// As [`Need::Guest`], with a kernel that has drivers of emulated NICs.
    GeneralGuest,
    /// QEMU with igb, and a lab host's kernel and initramfs.
    LabHost,
    /// LXC with its busybox template.
    Lxc,
    /// DPDK's testpmd.
    Testpmd,
    /// Prometheus' checker of metrics.
    Promtool,
    /// A program by its name in the `PATH`.
    Program(&'static str),
}

fn missing(need: Need) -> Option<String> {
    let program = |name: &str| find_program(name).is_none().then(|| format!("program {name} (tests/setup-debian.sh)"));
    match need {
        Need::Root => (!rustix::process::geteuid().is_root()).then(|| "root".to_owned()),
        Need::Labswd => ["labswd", "labsw-ctl"].iter().find_map(|name| switch::find_binary(name).err()),
        Need::Guest => program("qemu-system-x86_64").or_else(|| guest::image(Image::Cloud).err()),
        Need::GeneralGuest => program("qemu-system-x86_64").or_else(|| guest::image(Image::General).err()),
        Need::LabHost => program("qemu-system-x86_64").or_else(|| guest::image(Image::Host).err()).or_else(|| {
            (guest::version() < (8, 0))
                .then(|| "QEMU 8 or newer, which emulates igb (tests/setup-debian.sh)".to_owned())
        }),
        Need::Lxc => program("lxc-start").or_else(|| program("busybox")),
        Need::Testpmd => program("dpdk-testpmd"),
        Need::Promtool => (!promtool().is_file()).then(|| "promtool (tests/setup-debian.sh)".to_owned()),
        Need::Program(name) => program(name),
    }
}

/// Whether everything is there. If not, says what is missing; the test then returns.
///
/// # Panics
/// When something is missing and `LABSW_TEST_REQUIRE=1`.
#[must_use]
pub fn all(needs: &[Need]) -> bool {
    let lacks: Vec<String> = needs.iter().filter_map(|&need| missing(need)).collect();
    if lacks.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let note = format!("SKIPPED {test}: missing {}", lacks.join("; "));
    assert!(std::env::var("LABSW_TEST_REQUIRE").as_deref() != Ok("1"), "{note}");
    drop(writeln!(std::io::stderr().lock(), "{note}"));
    false
}
