//! Offloads of a network device, switched off and read back, and its channels (`SIOCETHTOOL` of netdevice(7),
//! linux/ethtool.h).
//!
//! The kernel describes a device's features as bits whose names it hands out as a string set; the names are stable, the
//! bit numbers are not. An [`Offload`] is a group of names. An offload that cannot be switched off is an error at once
//! rather than a surprise later: a frame whose checksum or segmentation was left to the device is broken once AF_XDP
//! has it.

#![allow(unsafe_code, reason = "the ioctl takes a pointer inside a structure")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use super::{DeviceError, netns};
use crate::confine::helper::SocketKind;

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
/// The string set with the names of features.
const ETH_SS_FEATURES: u32 = 4;
/// Bytes of one string of a string set.
const ETH_GSTRING_LEN: usize = 32;
/// Most features a kernel can have: the bits of `netdev_features_t`.
const FEATURES_MAX: usize = 64;

/// A group of features that the switch may need switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The device finishes checksums of sent frames.
    TxChecksum,
    /// The device segments large sent frames: TSO, USO, tunnels, and the kernel's software segmentation.
    TxSegmentation,
    /// The device inserts the VLAN tags of frames sent.
    TxVlan,
    /// The device removes the VLAN tags of frames received.
    RxVlan,
    /// The device drops received frames of VLANs that no program registered.
    RxVlanFilter,
    /// The device or the kernel merges received frames: GRO, LRO.
    RxCoalescing,
}

/// Offloads that the container's end of a veth pair must not use: its frames would arrive unfinished or without their
/// tag.
pub const CONTAINER_END: [Offload; 3] = [Offload::TxChecksum, Offload::TxSegmentation, Offload::TxVlan];

impl Offload {
    /// True if the feature with the kernel's name `name` belongs to the group.
    fn includes(self, name: &str) -> bool {
        match self {
            Offload::TxChecksum => name.starts_with("tx-checksum-"),
            Offload::TxSegmentation => {
                (name.starts_with("tx-") && name.ends_with("-segmentation")) || name == "tx-gso-list"
            }
            Offload::TxVlan => matches!(name, "tx-vlan-hw-insert" | "tx-vlan-stag-hw-insert"),
            Offload::RxVlan => matches!(name, "rx-vlan-hw-parse" | "rx-vlan-stag-hw-parse"),
            Offload::RxVlanFilter => matches!(name, "rx-vlan-filter" | "rx-vlan-stag-filter"),
            Offload::RxCoalescing => {
                matches!(name, "rx-gro" | "rx-lro" | "rx-gro-hw" | "rx-gro-list" | "rx-udp-gro-forwarding")
            }
        }
    }
}

impl Offload {
    /// Where it leads if it can't be switched off.
    fn consequence(self) -> &'static str {
        match self {
            Offload::TxChecksum | Offload::TxSegmentation => "frames of the other end would arrive unfinished",
            Offload::TxVlan => "frames of the other end would arrive without their VLAN tag",
            Offload::RxVlan => "frames would arrive without their VLAN tag",
            Offload::RxVlanFilter => "that does no harm while the device is promiscuous, as it is for the port",
            Offload::RxCoalescing => "some frames may arrive joined to larger ones",
        }
    }
}

/// One feature of a device.
#[derive(Clone, Debug)]
struct Feature {
    name: String,
    /// The feature's bit: word and mask.
    word: usize,
    mask: u32,
    active: bool,
    /// The feature can be switched on and off.
    changeable: bool,
}

/// Switches `offloads` of `device` off and checks the result. Returns the kernel's names of the features that were on,
/// for [`switch_on`]. An offload that the device does not have counts as off.
pub fn switch_off(device: &str, offloads: &[Offload]) -> Result<Vec<String>, DeviceError> {
    let socket = Ethtool::open(device)?;
    let meant = |feature: &Feature| feature.active && offloads.iter().any(|offload| offload.includes(&feature.name));
    let on: Vec<Feature> = socket.features()?.into_iter().filter(meant).collect();
    if on.is_empty() {
        return Ok(Vec::new());
    }
    socket.set(&on, false)?;
    let still_on: Vec<String> = socket.features()?.into_iter().filter(meant).map(|feature| feature.name).collect();
    if !still_on.is_empty() {
        let consequence = offloads.first().map_or("", |offload| offload.consequence());
        let (device, features) = (device.to_owned(), still_on.join(", "));
        return Err(DeviceError::OffloadStuck { device, features, consequence });
    }
    Ok(on.into_iter().map(|feature| feature.name).collect())
}

/// Switches features on again that [`switch_off`] switched off.
pub fn switch_on(device: &str, names: &[String]) -> Result<(), DeviceError> {
    let socket = Ethtool::open(device)?;
    let off: Vec<Feature> = socket.features()?.into_iter().filter(|feature| names.contains(&feature.name)).collect();
    socket.set(&off, true)
}

/// Numbers of active queues of a device (`ETHTOOL_GCHANNELS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// Queues that only receive.
    pub rx: u32,
    /// Queues that only send.
    pub tx: u32,
    /// Queues that receive and send.
    pub combined: u32,
}

impl Channels {
    /// Queues that receive; a device has at least one.
    pub fn receiving(self) -> u32 {
        self.rx.saturating_add(self.combined).max(1)
    }
}

/// The active channels of `device`, and its most; `None` if the driver does not report channels.
pub fn channels(device: &str) -> Result<Option<(Channels, Channels)>, DeviceError> {
    match Ethtool::open(device)?.raw_channels() {
        Ok([_, rx, tx, _, combined, now_rx, now_tx, _, now_combined]) => {
            Ok(Some((Channels { rx: now_rx, tx: now_tx, combined: now_combined }, Channels { rx, tx, combined })))
        }
        Err(DeviceError::Refused { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets the numbers of active queues.
pub fn set_channels(device: &str, channels: Channels) -> Result<(), DeviceError> {
    let socket = Ethtool::open(device)?;
    let mut request = socket.raw_channels()?;
    let Channels { rx, tx, combined } = channels;
    [request[0], request[5], request[6], request[8]] = [ETHTOOL_SCHANNELS, rx, tx, combined];
    socket.ioctl(&mut request, "set the channels")
}

/// The kernel's names of the features of `offloads` that are on.
pub fn active(device: &str, offloads: &[Offload]) -> Result<Vec<String>, DeviceError> {
    let meant = |feature: &Feature| feature.active && offloads.iter().any(|offload| offload.includes(&feature.name));
    let features = Ethtool::open(device)?.features()?;
    Ok(features.into_iter().filter(meant).map(|feature| feature.name).collect())
}

/// The bits, in the kernel's order, of the features of a group. It is the same for all devices; `device` is one to ask.
pub fn bits_of(device: &str, offload: Offload) -> Result<Vec<usize>, DeviceError> {
    let names = Ethtool::open(device)?.feature_names()?;
    Ok(names.iter().enumerate().filter(|(_, name)| offload.includes(name)).map(|(bit, _)| bit).collect())
}

/// The kernel's names of the features of `offloads` that are on and can't be switched off.
pub fn stuck(device: &str, offloads: &[Offload]) -> Result<Vec<String>, DeviceError> {
    let meant = |feature: &Feature| {
        feature.active && !feature.changeable && offloads.iter().any(|offload| offload.includes(&feature.name))
    };
    let features = Ethtool::open(device)?.features()?;
    Ok(features.into_iter().filter(meant).map(|feature| feature.name).collect())
}

/// A socket for ioctls about one device of the calling thread's namespace.
struct Ethtool<'a> {
    device: &'a str,
    socket: OwnedFd,
}

impl Ethtool<'_> {
    fn open(device: &str) -> Result<Ethtool<'_>, DeviceError> {
        let here = || Ok(socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?);
        let socket = netns::socket_within(SocketKind::Device).unwrap_or_else(here);
        let socket = socket.map_err(|error| DeviceError::refused("open a socket for ethtool", error))?;
        Ok(Ethtool { device, socket })
    }

    /// struct ethtool_channels: command, most rx, tx, other, combined, then the active ones in the same order.
    fn raw_channels(&self) -> Result<[u32; 9], DeviceError> {
        let mut request = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
        self.ioctl(&mut request, "read the channels")?;
        Ok(request)
    }

    fn features(&self) -> Result<Vec<Feature>, DeviceError> {
        let names = self.feature_names()?;
        // struct ethtool_gfeatures: command, number of blocks, then per block available, requested, active, fixed.
        let blocks = names.len().div_ceil(32);
        let mut request = vec![0_u32; 2 + blocks * 4];
        request[..2].copy_from_slice(&[ETHTOOL_GFEATURES, self.length(blocks)?]);
        self.ioctl(&mut request, "read the features")?;
        let has = |word: usize, field: usize, mask: u32| {
            request.get(2 + word * 4 + field).is_some_and(|bits: &u32| bits & mask != 0)
        };
        let feature = |(bit, name): (usize, String)| {
            let (word, mask) = (bit / 32, 1 << (bit % 32));
            let changeable = has(word, 0, mask) && !has(word, 3, mask);
            Feature { name, word, mask, active: has(word, 2, mask), changeable }
        };
        Ok(names.into_iter().enumerate().map(feature).collect())
    }

    /// The names of all features, in order of their bits.
    fn feature_names(&self) -> Result<Vec<String>, DeviceError> {
        // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then the length of the one set in the mask.
        let mut request = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.ioctl(&mut request, "count the features")?;
        let count = usize::try_from(request[4]).unwrap_or(usize::MAX);
        if count > FEATURES_MAX {
            let what = format!("count the features of {}", self.device);
            return Err(DeviceError::Answer { what, detail: format!("{count} are more than {FEATURES_MAX}") });
        }
        // struct ethtool_gstrings: command, set, number of strings, then the strings.
        let mut request = vec![0_u32; 3 + count * ETH_GSTRING_LEN / 4];
        request[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_FEATURES, self.length(count)?]);
        self.ioctl(&mut request, "name the features")?;
        let bytes: Vec<u8> = request.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
        let text = |string: &[u8]| {
            let string = string.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(string).into_owned()
        };
        Ok(bytes.chunks(ETH_GSTRING_LEN).map(text).collect())
    }

    fn set(&self, features: &[Feature], on: bool) -> Result<(), DeviceError> {
        let Some(blocks) = features.iter().map(|feature| feature.word + 1).max() else {
            return Ok(());
        };
        // The kernel expects all blocks that it has, changed or not.
        let blocks = blocks.max(self.feature_names()?.len().div_ceil(32));
        // struct ethtool_sfeatures: command, number of blocks, then per block the mask of bits and their values.
        let mut request = vec![0_u32; 2 + blocks * 2];
        request[..2].copy_from_slice(&[ETHTOOL_SFEATURES, self.length(blocks)?]);
        for feature in features {
            request[2 + feature.word * 2] |= feature.mask;
            request[2 + feature.word * 2 + 1] |= if on { feature.mask } else { 0 };
        }
        self.ioctl(&mut request, "change the features")
    }

    fn length(&self, count: usize) -> Result<u32, DeviceError> {
        u32::try_from(count).map_err(|error| DeviceError::refused(self.device, io::Error::other(error)))
    }

    /// Makes one `SIOCETHTOOL` call. `request` begins with the command and has the length of the command's structure;
    /// for a command with an array, the count in the request gives the array's length.
    fn ioctl(&self, request: &mut [u32], what: &str) -> Result<(), DeviceError> {
        let refused = |error: io::Error| DeviceError::refused(format!("{what} of {}", self.device), error);
        // SAFETY: `ifreq` is plain data, for which zero bytes are a legal value.
        let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
        let name = self.device.as_bytes();
        if name.len() >= ifreq.ifr_name.len() {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        for (to, from) in ifreq.ifr_name.iter_mut().zip(name) {
            *to = from.cast_signed();
        }
        ifreq.ifr_ifru.ifru_data = request.as_mut_ptr().cast();
        // SAFETY: `ifreq` is initialised and outlives the call. Its data pointer covers the whole of `request`, which
        // is borrowed mutably for the call; the kernel reads and writes no more of it than the structure of the
        // command with the count in it, and the callers in this file size `request` by that structure and count (the
        // number of features is fixed when a kernel is built, so it cannot grow between the calls).
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut ifreq) };
        if result < 0 { Err(refused(io::Error::last_os_error())) } else { Ok(()) }
    }
}
