//! A whole lab host in a virtual machine: a Debian kernel with real NIC drivers, `labswd` on emulated NICs, and the far
//! end of every cable in the test's hands.
//!
//! **How it works.** QEMU emulates the machine with the NICs of [`NICS`], `labswd` and `labsw-ctl` are in its
//! initramfs, its shell is on the serial line as a guest's is ([`Guest`]), and each NIC's cable is a Unix stream socket
//! ([`Wire`]): frames with their length in front. Cables are pulled, and NICs, by the machine monitor. No privilege and
//! no namespace is needed on this side.
//!
//! The NICs' drivers are not loaded at first. The nth NIC, counting from 1, is in the PCIe slot `rpn`.
//!
//! [`LabHost::boot_system`] boots a Debian system with systemd in place of the shell, and labsw as its service.
//!
//! The page `docs/lab-host-tests.md` says more.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::guest::{self, Guest, Image};
use crate::process::{self, wait_for};
use crate::qmp::Qmp;
use crate::switch::{TempDir, find_binary};

/// How long something may take in the machine, which is emulated and shares two processors with others.
pub const PATIENCE: Duration = Duration::from_secs(60);
const MEMORY: &str = "1536M";
/// Most bytes of a frame that QEMU may send: a TCP segment to be cut.
const FRAME_BYTES_MAX: usize = 1 << 17;
const CONFIG: &str = "/tmp/lab.toml";
const LOG: &str = "/tmp/labswd.log";

/// A NIC of the machine.
#[derive(Clone, Copy, Debug)]
pub struct HostNic {
    /// QEMU's name of the model: `igb`, `e1000e`, `virtio-net-pci`, `vmxnet3`, `e1000`, `rtl8139`.
    pub model: &'static str,
    /// The name of its driver's module.
    pub driver: &'static str,
    /// What it is called here: by the wire, by QEMU and by the port.
    pub name: &'static str,
    /// The last byte of its MAC address, `52:54:00:00:00:n`.
    pub mac: u8,
}

/// The models that a lab host may have. The drivers of the last two have no XDP and no second queue.
pub const NICS: [HostNic; 6] = [
    HostNic { model: "igb", driver: "igb", name: "igb", mac: 1 },
    HostNic { model: "e1000e", driver: "e1000e", name: "e1000e", mac: 2 },
    HostNic { model: "virtio-net-pci", driver: "virtio_net", name: "virtio", mac: 3 },
    HostNic { model: "vmxnet3", driver: "vmxnet3", name: "vmxnet3", mac: 4 },
    HostNic { model: "e1000", driver: "e1000", name: "e1000", mac: 5 },
    HostNic { model: "rtl8139", driver: "8139cp", name: "rtl8139", mac: 6 },
];

/// The test's end of a cable.
#[derive(Debug)]
pub struct Wire {
    stream: UnixStream,
    received: Arc<Received>,
}

#[derive(Debug, Default)]
struct Received {
    frames: Mutex<VecDeque<Vec<u8>>>,
    came: Condvar,
}

impl Wire {
    /// Waits for QEMU to connect. Frames are taken from the socket as they come, so that the machine never waits.
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let received = Arc::<Received>::default();
        let (mut from, into) = (stream.try_clone().unwrap(), Arc::clone(&received));
        thread::spawn(move || {
            while let Ok(frame) = read_frame(&mut from) {
                into.frames.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame);
                into.came.notify_all();
            }
        });
        Self { stream, received }
    }

    /// Sends a frame to the machine.
    ///
    /// # Panics
    /// When QEMU has gone.
    pub fn send(&self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        (&self.stream).write_all(&[&length, frame].concat()).unwrap();
    }

    /// The first frame that is wanted; others are thrown away. `None` if none comes in time.
    pub fn receive(&self, timeout: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut frames = self.received.frames.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(frame) = frames.pop_front() {
                if wanted(&frame) {
                    return Some(frame);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            frames = self.received.came.wait_timeout(frames, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What has come so far.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        self.received.frames.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }
}

fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

/// The machine. Dropped, its QEMU is killed.
#[derive(Debug)]
pub struct LabHost {
    guest: Guest,
    qmp: Qmp,
    nics: Vec<HostNic>,
    wires: Vec<Wire>,
    _directory: TempDir,
}

impl LabHost {
    /// Boots a machine with these NICs, and waits for its shell.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn boot(nics: &[HostNic]) -> Self {
        let directory = TempDir::new();
        let image = write_programs(directory.path());
        Self::launch(nics, directory, &image, "net.ifnames=0")
    }

    /// Boots a machine with these NICs and an image of [`system_image`], and waits for its shell, which is there before
    /// all services are.
    ///
    /// # Panics
    /// When it does not boot.
    pub fn boot_system(nics: &[HostNic], image: &Path) -> Self {
        Self::launch(nics, TempDir::new(), image, "systemd.show_status=0")
    }

    fn launch(nics: &[HostNic], directory: TempDir, image: &Path, options: &str) -> Self {
        let path = |name: &str| directory.path().join(name);
        let (kernel, _) = guest::image(Image::Host).unwrap();
        let mut command = Command::new(guest::QEMU);
        let accelerator = guest::accelerator();
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.args(["-accel", &accelerator, "-cpu", if accelerator == "kvm" { "host" } else { guest::EMULATED_CPU }]);
        command.args(["-machine", "q35", "-smp", "2", "-m", MEMORY]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp").display())]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
        let line = "console=ttyS0 quiet tsc=reliable mitigations=off random.trust_cpu=on no_timer_check";
        command.args(["-append", &format!("{line} {options}")]);
        let mut listeners = Vec::new();
        for (n, nic) in (1..).zip(nics) {
            let socket = path(nic.name);
            listeners.push(UnixListener::bind(&socket).unwrap());
            command
                .args(["-netdev", &format!("stream,id=n{n},server=off,addr.type=unix,addr.path={}", socket.display())]);
            command.args(["-device", &format!("pcie-root-port,id=rp{n},chassis={n},slot={n},bus=pcie.0")]);
            command.args(["-device", &device(*nic, n)]);
        }
        let mut guest = Guest::spawn("lab host", &mut command);
        let qmp = Qmp::connect(&path("qmp"));
        let wires = listeners.iter().map(Wire::accept).collect();
        guest.ready();
        Self { guest, qmp, nics: nics.to_vec(), wires, _directory: directory }
    }

    /// Loads a driver.
    pub fn load(&mut self, driver: &str) {
        self.ok(&format!("insmod /modules/{driver}.ko"));
    }

    /// The test's end of the cable of the NIC called `name`.
    pub fn wire(&self, name: &str) -> &Wire {
        &self.wires[self.number(name) - 1]
    }

    fn number(&self, name: &str) -> usize {
        1 + self.nics.iter().position(|nic| nic.name == name).unwrap()
    }

    /// Puts the cable of a NIC in, or pulls it out.
    pub fn cable(&mut self, name: &str, is_in: bool) {
        self.qmp.execute("set_link", &json!({"name": name, "up": is_in}));
    }

    /// The NIC of this name.
    pub fn nic(&self, name: &str) -> HostNic {
        self.nics[self.number(name) - 1]
    }

    /// Takes a NIC out of its slot, and waits until the machine has let go of it. Its cable stays in place.
    pub fn unplug(&mut self, name: &str) {
        self.qmp.execute("device_del", &json!({"id": name}));
        wait_for("a NIC that is out", PATIENCE, || {
            let devices = self.qmp.execute("qom-list", &json!({"path": "/machine/peripheral"}));
            devices.as_array().is_some_and(|all| all.iter().all(|one| one["name"] != name)).then_some(())
        });
    }

    /// Puts a NIC back into its slot.
    pub fn plug(&mut self, name: &str) {
        let (HostNic { model, mac, .. }, n) = (self.nic(name), self.number(name));
        let (netdev, bus, mac) = (format!("n{n}"), format!("rp{n}"), format!("52:54:00:00:00:{mac:02x}"));
        let device = json!({"driver": model, "id": name, "netdev": netdev, "mac": mac, "bus": bus});
        self.qmp.execute("device_add", &device);
    }

    /// Runs a command that has to succeed; what it printed.
    pub fn ok(&mut self, command: &str) -> String {
        self.guest.ok(command)
    }

    /// Runs a command; its exit status and what it printed.
    pub fn run(&mut self, command: &str) -> (i32, String) {
        self.guest.run(command)
    }

    /// Starts the switch with this configuration, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn start(&mut self, config: &str) {
        self.ok(&format!("mkdir -p /run/labsw; cat >{CONFIG} <<'EOF'\n{config}\nEOF"));
        self.start_again();
    }

    /// Starts the switch with the configuration that it had.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn start_again(&mut self) {
        // In a shell of its own, or the one on the serial line reports its end at any time.
        self.ok(&format!("(labswd --config {CONFIG} >>{LOG} 2>&1 & echo $! >/tmp/labswd.pid)"));
        let deadline = Instant::now() + PATIENCE;
        while self.run("labsw-ctl status >/dev/null 2>&1").0 != 0 {
            let alive = self.run("kill -0 $(cat /tmp/labswd.pid)").0 == 0;
            assert!(alive && Instant::now() < deadline, "labswd does not answer:\n{}", self.log());
        }
    }

    /// Ends the switch with a signal (`TERM`, `KILL`), and waits until it has gone.
    pub fn end(&mut self, signal: &str) {
        self.ok(&format!("kill -{signal} $(cat /tmp/labswd.pid)"));
        wait_for("end of labswd", PATIENCE, || {
            (self.run("kill -0 $(cat /tmp/labswd.pid) 2>/dev/null").0 != 0).then_some(())
        });
    }

    /// What the switch has written to its log.
    pub fn log(&mut self) -> String {
        self.run(&format!("cat {LOG}")).1
    }

    /// A port as `port show` has it.
    ///
    /// # Panics
    /// When there is no such port.
    pub fn port(&mut self, name: &str) -> Value {
        let (status, text) = self.run(&format!("labsw-ctl --json port show {name} 2>/tmp/error"));
        if status != 0 {
            panic!("{name}: status {status}: {}\n{}", self.run("cat /tmp/error").1, self.log());
        }
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Waits until `port show` of a port is as wanted; gives it.
    ///
    /// # Panics
    /// When it is not in time, showing what it is.
    pub fn wait_port(&mut self, name: &str, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let port = self.port(name);
            if wanted(&port) {
                return port;
            }
            assert!(Instant::now() < deadline, "{name}: not {what}: {port}\n{}", self.log());
        }
    }

    /// Waits until a port is up; gives it.
    pub fn wait_up(&mut self, name: &str) -> Value {
        self.wait_port(name, "up", |port| port["state"] == "up")
    }
}

fn device(nic: HostNic, n: usize) -> String {
    let HostNic { model, name, mac, .. } = nic;
    format!("{model},id={name},netdev=n{n},mac=52:54:00:00:00:{mac:02x},bus=rp{n}")
}

/// Sends a frame by a cable until it comes out of another one, unchanged.
///
/// # Panics
/// When it does not come in time.
pub fn assert_passes(host: &LabHost, from: &str, to: &str, frame: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        host.wire(from).send(frame);
        let mut came = Vec::new();
        let found = host.wire(to).receive(Duration::from_millis(500), |other| {
            came.push(other.to_vec());
            other == frame
        });
        if found.is_some() {
            return;
        }
        assert!(Instant::now() < deadline, "{from} to {to}: {frame:02x?} does not pass; {came:02x?} came");
    }
}

/// Writes an initramfs with a Debian system into `directory`: systemd, and labsw as it is installed, with this
/// configuration.
///
/// # Panics
/// When a part of it is missing.
pub fn system_image(directory: &Path, config: &str) -> PathBuf {
    let path = |name: &str| directory.join(name);
    let programs = find_binary("labswd").unwrap();
    std::fs::write(path("labsw.toml"), config).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/mksystemd.sh");
    let mut command = Command::new(script);
    command.arg(programs.parent().unwrap()).args([path("labsw.toml"), path("system.cpio")]);
    process::run(&mut command);
    let (_, usual) = guest::image(Image::Host).unwrap();
    let parts = [usual, path("system.cpio")].map(|part| std::fs::read(part).unwrap());
    std::fs::write(path("system-image.cpio"), parts.concat()).unwrap();
    path("system-image.cpio")
}

/// Writes the machine's initramfs into `directory`, with the switch in it.
fn write_programs(directory: &Path) -> PathBuf {
    let stripped = ["labswd", "labsw-ctl"].map(|name| {
        let to = directory.join(name);
        process::run(Command::new("strip").arg("-o").arg(&to).arg(find_binary(name).unwrap()));
        to
    });
    let programs: Vec<&Path> = stripped.iter().map(|program| program.as_path()).collect();
    let image = directory.join("initramfs.cpio");
    guest::write_image(Image::Host, &programs, &image).unwrap();
    image
}
