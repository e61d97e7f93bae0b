//! A QEMU guest on vhost-user sockets or TAP interfaces: a Debian kernel, an initramfs with busybox, and a shell on its
//! serial line.
//!
//! It runs under emulation (TCG) unless KVM is really there; `LABSW_QEMU_ACCEL=kvm|tcg` decides otherwise. A boot takes
//! seconds on an idle machine and over a minute on a busy one, so several guests are best booted together: all
//! [`Guest::boot`] first, then [`Guest::ready`] on each. Its kernel does not try out the timer (`no_timer_check`): on a
//! busy machine the emulated one may seem not to tick.
//!
//! QEMU falls back to its own virtio without a word when vhost-user fails: a test has to look at the switch's
//! counters, or get an answer from another port, before it believes that frames went through the switch.
//!
//! Kernel and initramfs come from `tests/setup-debian.sh` (in `LABSW_CACHE`, default `/var/cache/labsw`).

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::netns::Netns;
use crate::process::{self, Process};

mod image;
mod nic;

pub(crate) use image::write_image;
pub use image::{Image, image};
pub use nic::Nic;

/// How long a guest may take to boot.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a command in a guest may take unless said otherwise.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Memory of a guest.
pub const MEMORY_MIB: u32 = 192;
pub(crate) const QEMU: &str = "qemu-system-x86_64";
/// Emulation does string instructions byte by byte: without these two features the guest copies three times as fast.
pub(crate) const EMULATED_CPU: &str = "max,-erms,-fsrm";

/// Major and minor version of the installed QEMU.
pub fn version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let text = process::run(Command::new(QEMU).arg("--version"));
        let version = text.split_once("version ").map_or("", |(_, rest)| rest);
        let mut numbers = version.split(['.', ' ', '(']).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    })
}

/// KVM where an ordinary kernel runs on it: `kvm_intel` or `kvm_amd`, not one of the paravirtual kinds that need a
/// kernel made for them.
pub(crate) fn accelerator() -> String {
    std::env::var("LABSW_QEMU_ACCEL").unwrap_or_else(|_| {
        let exists = |path: &str| std::path::Path::new(path).exists();
        let kvm = exists("/dev/kvm") && (exists("/sys/module/kvm_intel") || exists("/sys/module/kvm_amd"));
        if kvm { "kvm" } else { "tcg" }.to_owned()
    })
}

/// Gives the human monitor on `socket` a command; returns what it printed up to the next prompt.
///
/// # Panics
/// When QEMU does not answer.
pub fn monitor(socket: &Path, command: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(COMMAND_TIMEOUT)).unwrap();
    read_to_prompt(&mut stream);
    writeln!(stream, "{command}").unwrap();
    read_to_prompt(&mut stream)
}

fn read_to_prompt(stream: &mut UnixStream) -> String {
    let (mut printed, mut byte) = (Vec::new(), [0]);
    while !printed.ends_with(b"(qemu) ") {
        stream.read_exact(&mut byte).unwrap();
        printed.extend(byte);
    }
    String::from_utf8_lossy(&printed).into_owned()
}

/// A command that runs in a guest; see [`Guest::begin`].
#[derive(Debug)]
#[must_use = "finish() gives its result"]
pub struct Running {
    number: u32,
    from: usize,
}

/// The shell of a guest that moves; see [`Guest::shell`].
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    commands: u32,
}

/// A running guest. Dropped, its QEMU is killed.
#[derive(Debug)]
pub struct Guest {
    process: Process,
    position: usize,
    commands: u32,
}

/// A copy of `program` in `folder`, without symbols and debug information.
fn stripped(program: &Path, folder: &Path) -> PathBuf {
    let copy = folder.join(program.file_name().unwrap_or_default());
    std::fs::create_dir_all(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let stripped = Command::new("strip").arg("-o").arg(&copy).arg(program).status();
    assert!(
        stripped.is_ok_and(|status| status.success()),
        "strip {} (Debian: apt-get install binutils)",
        program.display()
    );
    copy
}

impl Guest {
    /// Starts a guest with one NIC, `eth0` with the address `ip` (`10.0.0.1/24`, or `none`: up without one). Does not
    /// wait for it to boot.
    pub fn boot(name: &str, ip: &str, nic: &Nic) -> Self {
        Self::boot_with(name, ip, std::slice::from_ref(nic))
    }

    /// As [`Guest::boot`], with room to plug memory in through a human monitor on the socket `monitor`.
    pub fn boot_with_monitor(name: &str, ip: &str, nic: &Nic, monitor: &Path) -> Self {
        let monitor = format!("unix:{},server=on,wait=off", monitor.display());
        let memory = format!("{MEMORY_MIB}M,slots=2,maxmem=1G");
        Self::launch(Command::new(QEMU), name, ip, std::slice::from_ref(nic), &memory, &["-monitor", &monitor])
    }

    /// As [`Guest::boot`], with further options of QEMU.
    pub fn boot_with_options(name: &str, ip: &str, nic: &Nic, options: &[&str]) -> Self {
        let memory = format!("{MEMORY_MIB}M");
        Self::launch(Command::new(QEMU), name, ip, std::slice::from_ref(nic), &memory, options)
    }

    /// The state of the guest's shell: it goes along when the guest is saved or moved.
    pub fn shell(&self) -> Shell {
        Shell { commands: self.commands }
    }

    /// Goes on with the shell of the guest that was saved or moved and has come here.
    pub fn go_on(&mut self, shell: Shell) {
        self.commands = shell.commands;
    }

    /// Starts a guest with several NICs; `ips` are their addresses with commas between.
    ///
    /// # Panics
    /// When QEMU or the guest's image is missing.
    pub fn boot_with(name: &str, ips: &str, nics: &[Nic]) -> Self {
        Self::launch(Command::new(QEMU), name, ips, nics, &format!("{MEMORY_MIB}M"), &[])
    }

    /// Starts a guest with one NIC that runs `program` beside the usual ones, as `/bin/NAME`, and whose kernel uses the
    /// memory below `kernel_mib` only. What is above, up to [`MEMORY_MIB`], is for programs to map from `/dev/mem`.
    /// `image` is where the guest's initramfs is written.
    ///
    /// The guest gets the program without its debug information, for which its memory has no room.
    ///
    /// # Panics
    /// When the program, strip(1), QEMU or the guest's image is missing.
    pub fn boot_with_program(name: &str, nic: &Nic, program: &Path, kernel_mib: u32, image: &Path) -> Self {
        let program = stripped(program, &image.with_extension("programs"));
        write_image(Image::Cloud, &[&program], image).unwrap_or_else(|e| panic!("{}: {e}", image.display()));
        let kernel = format!("mem={kernel_mib}M iomem=relaxed");
        let mut command = Command::new(QEMU);
        Self::machine(&mut command, name, "none", 1, Some((image, &kernel)), false);
        Self::start(command, name, std::slice::from_ref(nic), &format!("{MEMORY_MIB}M"), &[])
    }

    /// As [`Guest::boot`], with QEMU in the namespace `ns`: where its TAP interface is.
    pub fn boot_in(ns: &Netns, name: &str, ip: &str, nic: &Nic) -> Self {
        Self::launch(ns.command(QEMU), name, ip, std::slice::from_ref(nic), &format!("{MEMORY_MIB}M"), &[])
    }

    /// Starts a guest in the namespace `ns` with options as `labsw-ctl guest --for qemu` prints them: its comments are
    /// left out, the rest is given to a shell as it is, behind a machine with so many processors, a kernel and a
    /// console.
    ///
    /// # Panics
    /// When QEMU or the guest's image is missing.
    pub fn boot_printed(ns: &Netns, name: &str, ip: &str, processors: u16, printed: &str) -> Self {
        let options: String =
            printed.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let mut command = ns.command("sh");
        command.args(["-c", &format!("exec \"$@\" \\\n{options}"), "sh", QEMU]);
        Self::machine(&mut command, name, ip, processors, None, false);
        Self { process: Process::spawn(&format!("guest {name}"), &mut command), position: 0, commands: 0 }
    }

    /// Starts what `command` describes: a machine whose initramfs has the guests' `init`, with its shell on standard
    /// input and output.
    pub(crate) fn spawn(name: &str, command: &mut Command) -> Self {
        Self { process: Process::spawn(&format!("guest {name}"), command), position: 0, commands: 0 }
    }

    fn launch(mut command: Command, name: &str, ips: &str, nics: &[Nic], memory: &str, extra: &[&str]) -> Self {
        let e1000e = nics.iter().any(|nic| nic.e1000e);
        let queue_pairs = nics.iter().map(|nic| nic.queue_pairs).max().unwrap_or(1);
        Self::machine(&mut command, name, ips, queue_pairs, None, e1000e);
        Self::start(command, name, nics, memory, extra)
    }

    /// Starts a machine with memory and NICs.
    fn start(mut command: Command, name: &str, nics: &[Nic], memory: &str, extra: &[&str]) -> Self {
        // The switch maps the guest's memory: it has to be shared.
        command.args(["-m", memory, "-object", &format!("memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on")]);
        command.args(["-numa", "node,memdev=mem"]).args(extra);
        for (n, nic) in nics.iter().enumerate() {
            command.args(nic.qemu_args(n));
        }
        Self { process: Process::spawn(&format!("guest {name}"), &mut command), position: 0, commands: 0 }
    }

    /// A machine without memory and NICs; `special` is another initramfs, and more for the kernel's command line.
    fn machine(
        command: &mut Command,
        name: &str,
        ips: &str,
        processors: u16,
        special: Option<(&Path, &str)>,
        e1000e: bool,
    ) {
        let of = if e1000e { Image::General } else { Image::Cloud };
        let (kernel, usual) = image(of).unwrap_or_else(|e| panic!("{e}"));
        let (initramfs, more) = special.unwrap_or((&usual, ""));
        let accel = accelerator();
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-name", name]);
        command.args(["-accel", &accel, "-cpu", if accel == "kvm" { "host" } else { EMULATED_CPU }]);
        command.args(["-machine", "pc", "-smp", &processors.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args([
            "-append",
            &format!(
                "console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on no_timer_check lab.ip={ips} \
                 {more}"
            ),
        ]);
    }

    /// Waits until the guest has booted and its shell takes commands.
    ///
    /// # Panics
    /// When it does not within [`BOOT_TIMEOUT`].
    pub fn ready(&mut self) {
        let (_, position) = self.process.wait_for_text(self.position, "GUEST-READY", BOOT_TIMEOUT);
        self.position = position;
        // Typed while the shell was not there yet, a command may be echoed: ask once without looking at the answer.
        let begun = self.begin("stty -echo; PS1= PS2=");
        self.finish(begun, COMMAND_TIMEOUT);
    }

    /// Starts a command in the guest's shell without waiting; one at a time.
    pub fn begin(&mut self, command: &str) -> Running {
        self.commands += 1;
        let number = self.commands;
        // The quotes keep the mark out of an echo of the command itself.
        self.process.write(&format!("{{ {command}\n}} 2>&1; echo @@{number}''@$?@\n"));
        Running { number, from: self.position }
    }

    /// Waits for a command that [`Guest::begin`] started; gives exit status and output.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(&mut self, running: Running, timeout: Duration) -> (i32, String) {
        let mark = format!("@@{}@", running.number);
        let (output, position) = self.process.wait_for_text(running.from, &mark, timeout);
        let (status, position) = self.process.wait_for_text(position, "@", COMMAND_TIMEOUT);
        self.position = position;
        // QEMU's own complaints stand in the same log.
        let output = output.replace('\r', "");
        let lines: Vec<&str> = output.lines().filter(|line| !line.starts_with("qemu-system-")).collect();
        (status.parse().unwrap_or(-1), lines.join("\n").trim().to_owned())
    }

    /// Runs a command in the guest; gives exit status and output.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        let running = self.begin(command);
        self.finish(running, COMMAND_TIMEOUT)
    }

    /// Runs a command in the guest that has to succeed; gives its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&mut self, command: &str) -> String {
        let (status, output) = self.run(command);
        assert_eq!(status, 0, "in the guest: {command}: exit {status}\n{output}");
        output
    }

    /// Whether one ping to `address` is answered within a second.
    pub fn pings(&mut self, address: &str) -> bool {
        self.run(&format!("ping -c 1 -W 1 {address}")).0 == 0
    }

    /// Pings until an answer comes: ports and the guest's own link take a moment after a boot.
    ///
    /// # Panics
    /// When none comes within `timeout`.
    pub fn wait_ping(&mut self, address: &str, timeout: Duration) {
        process::wait_for(&format!("answer from {address}"), timeout, || self.pings(address).then_some(()));
    }

    /// Takes an address for an interface by DHCP and gives it, without the prefix length.
    ///
    /// # Panics
    /// When no lease is given.
    pub fn dhcp(&mut self, interface: &str) -> String {
        let output = self.ok(&format!("udhcpc -i {interface} -n -q -t 10 -T 1"));
        let lease = output.lines().find_map(|line| line.strip_prefix(&format!("LEASE {interface} ")));
        let address = lease.and_then(|rest| rest.split('/').next());
        address.unwrap_or_else(|| panic!("no lease in: {output}")).to_owned()
    }

    /// A counter of `/sys/class/net/INTERFACE/statistics`, like `rx_packets`.
    pub fn counter(&mut self, interface: &str, counter: &str) -> u64 {
        let text = self.ok(&format!("cat /sys/class/net/{interface}/statistics/{counter}"));
        text.parse().unwrap_or_else(|e| panic!("{counter}: {e}: {text}"))
    }

    /// Whether the guest's link is up.
    pub fn carrier(&mut self, interface: &str) -> bool {
        self.run(&format!("cat /sys/class/net/{interface}/carrier")).1 == "1"
    }

    /// Seconds since the guest's kernel started: goes back when it reboots.
    pub fn uptime_seconds(&mut self) -> f64 {
        let text = self.ok("cut -d' ' -f1 /proc/uptime");
        text.parse().unwrap_or_else(|e| panic!("uptime: {e}: {text}"))
    }

    /// Resets the machine from inside and waits for the next boot.
    pub fn reboot(&mut self) {
        self.process.write("reboot -f\n");
        self.ready();
    }

    /// SIGKILL to QEMU, as a crash would.
    pub fn kill9(&mut self) {
        self.process.kill();
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything seen on the serial line and from QEMU.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
