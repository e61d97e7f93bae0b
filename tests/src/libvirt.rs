//! A real libvirtd of a test's own: in a namespace of networks, mounts and processes, with its state in memory. The
//! host's configuration, state and processes stay as they are, and all of it goes when it is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::netns::Netns;
use crate::process::{self, Process, wait_for};

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Prepares the namespace and runs libvirtd. `$1` is a directory of the test's. Guests run as root and unconfined:
/// who may open a port's socket is not what is tested.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
cp -a /etc/libvirt "$1/etc"
for state in /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
  mkdir -p $state
  mount -t tmpfs libvirt $state
done
mount --bind "$1/etc" /etc/libvirt
rm -rf /etc/libvirt/qemu/networks/autostart
printf '%s\n' 'user="root"' 'group="root"' 'security_driver="none"' 'cgroup_controllers=[]' 'remember_owner=0' \
  'namespaces=[]' >/etc/libvirt/qemu.conf
virtlogd &
# Process 1 has to take up orphans, which libvirtd does not.
libvirtd &
wait $!
"#;

/// A running libvirtd.
#[derive(Debug)]
pub struct Libvirt {
    daemon: Process,
    directory: PathBuf,
}

impl Libvirt {
    /// Starts one in the network namespace `ns`; `directory` is for its files.
    ///
    /// # Panics
    /// When it does not answer within a minute.
    pub fn start(ns: &Netns, directory: &Path) -> Self {
        let directory = directory.join("libvirt");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = ns.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", SCRIPT, "bash"]);
        let daemon = Process::spawn("libvirtd", command.arg(&directory));
        let mut libvirt = Self { daemon, directory };
        wait_for("answer of libvirtd", START_TIMEOUT, || {
            assert!(libvirt.daemon.is_running(), "{}", libvirt.daemon.log());
            process::output(&mut libvirt.virsh_command(&["version"])).0.success().then_some(())
        });
        libvirt
    }

    fn virsh_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.daemon.pid().to_string(), "--mount", "--net"]);
        command.args(["virsh", "-q", "-c", "qemu:///system"]).args(args);
        command
    }

    /// `virsh ARGS`, has to succeed; what it printed.
    pub fn virsh(&self, args: &[&str]) -> String {
        process::run(&mut self.virsh_command(args))
    }

    /// Defines a domain from its XML.
    ///
    /// # Panics
    /// When libvirt refuses it.
    pub fn define(&self, xml: &str) {
        let file = self.directory.join("domain.xml");
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["define", &file.to_string_lossy()]);
    }
}
