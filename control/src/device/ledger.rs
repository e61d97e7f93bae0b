//! The ledger: a file beside the control socket with the changes that the switch made on this host, so that the next
//! run can undo those of a killed one.
//!
//! **How it works.** Before a device is changed, an entry with its state is written; when the device has been restored,
//! the entry is removed. The file is replaced as a whole (written aside, then renamed), so that a kill at any moment
//! leaves the old or the new one; without entries there is no file. A run reads the entries of its predecessor. A
//! device that the run opens itself is *taken over* (the older state is restored in the end). A device that it has not
//! opened by the end of its start is restored then, unused pairs are deleted, and the sockets of ports that this run
//! does not have are removed.
//!
//! **Invariants.** An entry is applied only to the device that it was written for: same boot, same network namespace,
//! same index. A device of the host must also have the same MAC address (the permanent one, if there is one), a pair
//! the alias that names its port, a socket's file the same inode and time, and no listener. Any other device or file of
//! the same name is left alone. A ledger that can't be read or parsed is ignored with a warning; its content can do no
//! more than change the settings listed in [`Before`], delete pairs, and remove sockets without a listener.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use labsw_dataplane::sys::socket;
use labsw_dataplane::xdp::attached_program;
use serde::{Deserialize, Serialize};

use super::DeviceError;
use super::deferral::Deferral;
use super::ethtool;
use super::links::{Link, Links};

/// Largest file that is read, in bytes: more than 1024 ports need.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The state of a device before the switch changed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// The kernel's names of the features that were on and were switched off.
    pub features: Vec<String>,
    /// The active channels, if their number was changed.
    pub channels: Option<ethtool::Channels>,
    /// The MTU in bytes, if it was changed.
    pub mtu: Option<u32>,
    /// The device was down.
    pub down: bool,
    /// The deferral of interrupts, if it was changed.
    #[serde(default)]
    pub deferral: Option<Deferral>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceEntry {
    index: u32,
    mac: Option<String>,
    /// The device's name, for people who read the file.
    name: String,
    before: Before,
    /// The device was gone when it was to be restored.
    #[serde(skip)]
    gone: bool,
}

/// A veth pair that the switch made, by the switch's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PairEntry {
    name: String,
    /// Index and alias; `None` until the pair has been made.
    made: Option<(u32, Option<String>)>,
}

/// The file of a guest's socket that the switch listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SocketEntry {
    path: PathBuf,
    identity: socket::Identity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    boot: String,
    /// Device and inode number of the network namespace.
    netns: (u64, u64),
    devices: Vec<DeviceEntry>,
    pairs: Vec<PairEntry>,
    #[serde(default)]
    sockets: Vec<SocketEntry>,
}

/// The ledger of this run, and the entries that a killed run left.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    own: File,
    inherited: File,
}

impl Ledger {
    /// Reads the file at `path`, for the namespace of the calling thread.
    pub fn open(path: PathBuf) -> Ledger {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        let netns = fs::metadata("/proc/thread-self/ns/net").map(|of| (of.dev(), of.ino())).unwrap_or_default();
        let own = File { boot, netns, ..File::default() };
        let inherited = match read(&path) {
            Ok(Some(file)) if file.boot == own.boot && file.netns == own.netns => file,
            Ok(_) => File::default(),
            Err(error) => {
                let path = path.display();
                tracing::warn!("{path}: {error}; device settings that a killed run changed are not restored");
                File::default()
            }
        };
        Ledger { path, own, inherited }
    }

    /// Goes on with what is in the file: the process that wrote it hands the switch over, and ends.
    pub fn go_on(&mut self) {
        let File { devices, pairs, sockets, .. } = std::mem::take(&mut self.inherited);
        self.own.devices.extend(devices);
        self.own.pairs.extend(pairs);
        self.own.sockets.extend(sockets);
    }

    /// Notes the state of `link` before a change. For a link that a killed run changed, that run's entry counts.
    pub fn note(&mut self, link: &Link, before: Before) {
        let mut before = before;
        let (index, mac, name) = (link.index, identity(link), link.name.clone());
        let older = [&self.inherited, &self.own].into_iter().flat_map(|file| &file.devices);
        for older in
            older.filter(|entry| entry.fits(link) || (entry.gone && entry.mac == mac)).map(|entry| &entry.before)
        {
            before.features.extend(older.features.iter().cloned());
            before.channels = older.channels.or(before.channels);
            before.mtu = older.mtu.or(before.mtu);
            before.down |= older.down;
            before.deferral = older.deferral.or(before.deferral);
        }
        before.features.sort();
        before.features.dedup();
        self.inherited.devices.retain(|entry| !entry.fits(link));
        self.own.devices.retain(|entry| entry.index != index && !(entry.gone && entry.mac == mac));
        self.own.devices.push(DeviceEntry { index, mac, name, before, gone: false });
        self.write();
    }

    /// The MTU of `link` before the switch changed it, if it did.
    pub fn mtu_before(&self, link: &Link) -> Option<u32> {
        self.own.devices.iter().find(|entry| entry.fits(link)).and_then(|entry| entry.before.mtu)
    }

    /// Restores the interrupts of `link`, if they were deferred.
    pub fn interrupts_back(&mut self, link: &Link) -> io::Result<()> {
        let entry = self.own.devices.iter_mut().find(|entry| entry.fits(link));
        let Some(deferral) = entry.and_then(|entry| entry.before.deferral.take()) else { return Ok(()) };
        let outcome = deferral.apply(&link.name);
        self.write();
        outcome
    }

    /// Restores the device with `index`. The entry of a device that has gone is kept: the device may only be in another
    /// namespace, and come back unchanged, under any index.
    pub fn put_back(&mut self, links: &mut Links, index: u32) -> Result<(), DeviceError> {
        let Some(at) = self.own.devices.iter().position(|entry| entry.index == index) else { return Ok(()) };
        if links.link_by_index(index)?.is_none() {
            if let Some(entry) = self.own.devices.get_mut(at) {
                entry.gone = true;
            }
            return Ok(());
        }
        let outcome = self.own.devices.swap_remove(at).put_back(links);
        self.write();
        outcome
    }

    /// Notes a veth pair that is about to be made or taken over; `name` is the name of the switch's end.
    pub fn note_pair(&mut self, name: &str) {
        self.own.pairs.retain(|pair| pair.name != name);
        self.own.pairs.push(PairEntry { name: name.to_owned(), made: None });
        self.write();
    }

    /// Notes that the pair exists, with this end.
    pub fn pair_is(&mut self, end: &Link) {
        let made = Some((end.index, end.alias.clone()));
        self.inherited.pairs.retain(|pair| pair.made != made && pair.name != end.name);
        self.own.pairs.retain(|pair| pair.name != end.name);
        self.own.pairs.push(PairEntry { name: end.name.clone(), made });
        self.write();
    }

    /// Deletes the unused pair of this name that a killed run made; returns true if there was one.
    pub fn delete_inherited_pair(&mut self, links: &mut Links, name: &str) -> Result<bool, DeviceError> {
        match self.inherited.pairs.iter().find(|pair| pair.name == name) {
            Some(pair) => pair.delete(links),
            None => Ok(false),
        }
    }

    /// Notes that the pair was removed.
    pub fn pair_gone(&mut self, name: &str) {
        self.own.pairs.retain(|pair| pair.name != name);
        self.write();
    }

    /// Notes that the switch listens at this path.
    pub fn socket_is(&mut self, path: &Path) {
        let Some(identity) = socket::identity(path) else { return };
        self.inherited.sockets.retain(|socket| socket.path != path);
        self.own.sockets.retain(|socket| socket.path != path);
        self.own.sockets.push(SocketEntry { path: path.to_owned(), identity });
        self.write();
    }

    /// Notes that the socket was removed.
    pub fn socket_gone(&mut self, path: &Path) {
        self.own.sockets.retain(|socket| socket.path != path);
        self.write();
    }

    /// Undoes what a killed run changed and made, and this run has not taken over.
    pub fn put_back_inherited(&mut self, links: &mut Links) {
        let inherited = std::mem::take(&mut self.inherited);
        for entry in inherited.devices {
            match entry.put_back(links) {
                Ok(()) => tracing::info!(device = entry.name, "restored the settings that a killed run had changed"),
                Err(error) => tracing::warn!(device = entry.name, "not put back as before a killed run: {error}"),
            }
        }
        for pair in inherited.pairs {
            match pair.delete(links) {
                Ok(false) => {}
                Ok(true) => tracing::info!(interface = pair.name, "deleted the pair that a killed run had made"),
                Err(error) => tracing::warn!(interface = pair.name, "pair of a killed run not deleted: {error}"),
            }
        }
        for SocketEntry { path, identity } in inherited.sockets {
            if let Err(error) = socket::remove_dead(&path, identity) {
                tracing::warn!("left by a killed run: {error}");
            }
        }
        self.write();
    }

    /// Replaces the file. If that fails, a kill would leave the changes in place, which is no reason not to run.
    fn write(&self) {
        // Until the start is over, the file keeps the entries of the predecessor.
        let mut file = self.own.clone();
        file.devices.extend(self.inherited.devices.iter().cloned());
        file.pairs.extend(self.inherited.pairs.iter().cloned());
        file.sockets.extend(self.inherited.sockets.iter().cloned());
        let outcome = if file.devices.is_empty() && file.pairs.is_empty() && file.sockets.is_empty() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            }
        } else {
            replace(&self.path, &file)
        };
        if let Err(error) = outcome {
            let path = self.path.display();
            tracing::warn!("{path}: {error}; were this run killed, devices would stay as they are");
        }
    }
}

impl DeviceEntry {
    fn fits(&self, link: &Link) -> bool {
        self.index == link.index && self.mac == identity(link)
    }

    fn put_back(&self, links: &mut Links) -> Result<(), DeviceError> {
        let Some(link) = links.link_by_index(self.index)?.filter(|link| self.fits(link)) else { return Ok(()) };
        let Before { features, channels, mtu, down, deferral } = &self.before;
        // Each change is undone on its own: a failure does not stop the others.
        let outcomes = [
            mtu.map_or(Ok(()), |mtu| links.set_mtu(link.index, mtu)),
            channels.map_or(Ok(()), |channels| ethtool::set_channels(&link.name, channels)),
            if features.is_empty() { Ok(()) } else { ethtool::switch_on(&link.name, features) },
            deferral.map_or(Ok(()), |deferral| {
                let what = || format!("{}: interrupts as before", link.name);
                deferral.apply(&link.name).map_err(|error| DeviceError::refused(what(), error))
            }),
            if *down { links.set_down(link.index) } else { Ok(()) },
        ];
        outcomes.into_iter().collect()
    }
}

impl PairEntry {
    /// Deletes the pair, if it exists and is unused; returns true if it did.
    fn delete(&self, links: &mut Links) -> Result<bool, DeviceError> {
        let found = match &self.made {
            Some((index, alias)) => links.link_by_index(*index)?.filter(|link| link.alias == *alias),
            None => links.link_by_name(&self.name)?,
        };
        match found.filter(|link| link.kind.as_deref() == Some("veth")) {
            Some(link) if attached_program(link.index).is_none() => links.delete_link(link.index).map(|()| true),
            _ => Ok(false),
        }
    }
}

/// The MAC address that tells a device from another with the same index: the permanent one, otherwise the current one.
fn identity(link: &Link) -> Option<String> {
    link.permanent_mac.or(link.mac).map(|mac| mac.to_string())
}

/// Reads the file at `path`, if there is one. A symbolic link, a file that is not regular, and a file of another user
/// are refused.
fn read(path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let of = file.metadata()?;
    if !of.is_file() || ![0, rustix::process::geteuid().as_raw()].contains(&of.uid()) {
        return Err(io::Error::other("is not a file of this user's or of root's"));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("is too large"));
    }
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Replaces the file at `path`. The new file is written aside first; nothing that another user placed there is followed
/// or written to.
fn replace(path: &Path, file: &File) -> io::Result<()> {
    let aside = path.with_extension("devices.new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut out = options.write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&aside)?;
    out.write_all(&serde_json::to_vec_pretty(file)?)?;
    drop(out);
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_put_in_the_way_is_followed_read_or_written_to() {
        let directory = std::env::temp_dir().join(format!("labsw-ledger-safe-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (path, victim) = (directory.join("c.sock.devices"), directory.join("victim"));
        fs::write(&victim, "{}").unwrap();
        let aside = path.with_extension("devices.new");
        for planted in [&aside, &path] {
            std::os::unix::fs::symlink(&victim, planted).unwrap();
        }
        assert!(read(&path).is_err(), "a link is not followed");
        let mut ledger = Ledger::open(path.clone());
        ledger.note_pair("lsw-web");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "{}");
        assert_eq!(read(&path).unwrap(), Some(ledger.own.clone()), "the link was replaced");
        ledger.pair_gone("lsw-web");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(read(&path).is_err(), "a pipe that nobody writes to is not waited for");
        fs::remove_dir_all(&directory).unwrap();
    }
}
