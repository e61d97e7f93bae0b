//! A network device made ready for AF_XDP, and noted in the [`Ledger`] first so that it can be put back.
//!
//! AF_XDP sees neither a tag that the device took out of a frame (without one a frame is in the wrong VLAN) nor frames
//! that it filtered or joined. A device that will not stop taking tags out is refused; the others only cost frames that
//! a person can miss, so they are logged. The MTU is raised, never lowered, to the port's; the number of channels is
//! set only if one was asked for.

use super::DeviceError;
use super::ethtool::{self, Channels, Offload};
use super::ledger::{Before, Ledger};
use super::links::{Link, Links};

/// Offloads that a device must not have while AF_XDP has it.
const RECEIVE: [Offload; 3] = [Offload::RxVlan, Offload::RxVlanFilter, Offload::RxCoalescing];

/// Switches off what AF_XDP can't have on `device`.
pub fn offloads_off(device: &str) -> Result<(), DeviceError> {
    ethtool::switch_off(device, &[Offload::RxVlan])?;
    for offload in [Offload::RxVlanFilter, Offload::RxCoalescing] {
        if let Err(error) = ethtool::switch_off(device, &[offload]) {
            tracing::warn!("{error}");
        }
    }
    Ok(())
}

/// Prepares a device of the host: offloads, MTU, channels (`queues`, if a number was asked for), and sets it up. What
/// was changed until an error is in the ledger, to be put back by the caller.
pub fn device(
    links: &mut Links,
    ledger: &mut Ledger,
    link: &Link,
    mtu: u32,
    queues: Option<u32>,
) -> Result<(), DeviceError> {
    check_mtu(link, mtu)?;
    let channels = queues.map(|queues| ChannelChange::plan(link, queues)).transpose()?.flatten();
    let before = Before {
        features: ethtool::active(&link.name, &RECEIVE)?,
        channels: channels.as_ref().map(|change| change.from),
        mtu: (link.mtu < mtu).then_some(link.mtu),
        down: !link.up,
        deferral: None,
    };
    ledger.note(link, before);
    offloads_off(&link.name)?;
    if link.mtu < mtu {
        links.set_mtu(link.index, mtu)?;
    }
    if let Some(change) = channels {
        change.make(link)?;
    }
    links.set_up(link.index)
}

/// Gives a device that was prepared the MTU it would have been prepared with for a port with this one: its own, or
/// more.
pub fn change_mtu(links: &mut Links, ledger: &mut Ledger, link: &Link, mtu: u32) -> Result<(), DeviceError> {
    check_mtu(link, mtu)?;
    let own = ledger.mtu_before(link).unwrap_or(link.mtu);
    let wanted = own.max(mtu);
    if wanted == link.mtu {
        return Ok(());
    }
    ledger.note(link, Before { mtu: Some(own), ..Before::default() });
    links.set_mtu(link.index, wanted)
}

/// Whether `link` can have this MTU.
pub fn check_mtu(link: &Link, mtu: u32) -> Result<(), DeviceError> {
    match link.max_mtu {
        Some(max) if mtu > max => {
            let device = link.name.clone();
            Err(DeviceError::Mtu { device, mtu, max })
        }
        _ => Ok(()),
    }
}

/// Channels that are to change.
struct ChannelChange {
    from: Channels,
    to: Channels,
    wanted: u32,
}

impl ChannelChange {
    /// What has to change for `wanted` receive queues; `None` if there are so many.
    fn plan(link: &Link, wanted: u32) -> Result<Option<ChannelChange>, DeviceError> {
        let refused = |detail: String| DeviceError::Channels { device: link.name.clone(), wanted, detail };
        let Some((from, most)) = ethtool::channels(&link.name)? else {
            let one = "its driver has one and tells nothing of channels".to_owned();
            return if wanted == 1 { Ok(None) } else { Err(refused(one)) };
        };
        if from.rx + from.combined == wanted {
            return Ok(None);
        }
        let to = if wanted <= most.combined {
            Channels { rx: 0, tx: 0, combined: wanted }
        } else if wanted <= most.rx {
            Channels { rx: wanted, tx: from.tx, combined: 0 }
        } else {
            return Err(refused(format!("it has at most {}", most.rx.max(most.combined))));
        };
        Ok(Some(ChannelChange { from, to, wanted }))
    }

    /// Makes the change and reads it back.
    fn make(&self, link: &Link) -> Result<(), DeviceError> {
        let refused = |detail: String| DeviceError::Channels { device: link.name.clone(), wanted: self.wanted, detail };
        let ChannelChange { from, to, .. } = self;
        if let Err(error) = ethtool::set_channels(&link.name, *to) {
            let active = from.rx + from.combined;
            return Err(refused(format!("{active} are active, and that can't be changed: {error}")));
        }
        match ethtool::channels(&link.name)? {
            Some((now, _)) if now.rx + now.combined == self.wanted => Ok(()),
            now => Err(refused(format!("the driver took the number and has {now:?}"))),
        }
    }
}
