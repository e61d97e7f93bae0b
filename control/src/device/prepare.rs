//! Prepares a network device for AF_XDP, after noting its state in the [`Ledger`] so that it can be restored.
//!
//! AF_XDP does not see tags that the device removed from a frame (the frame is then in the wrong VLAN), nor frames that
//! the device filtered or merged. A device that can't keep tags is refused. That a device merges frames is a warning in
//! the log. That it filters VLANs is only noted: a promiscuous device receives all of them. The MTU is raised to the
//! port's, never lowered; the number of channels is set only if the port asks for one.

use super::DeviceError;
use super::ethtool::{self, Channels, Offload};
use super::ledger::{Before, Ledger};
use super::links::{Link, Links};

/// Offloads that must be off while AF_XDP has the device.
const RECEIVE: [Offload; 3] = [Offload::RxVlan, Offload::RxVlanFilter, Offload::RxCoalescing];

/// Switches off the offloads of `device` that AF_XDP does not work with.
pub fn offloads_off(device: &str) -> Result<(), DeviceError> {
    ethtool::switch_off(device, &[Offload::RxVlan])?;
    if let Err(error) = ethtool::switch_off(device, &[Offload::RxCoalescing]) {
        tracing::warn!("{error}");
    }
    if let Err(error) = ethtool::switch_off(device, &[Offload::RxVlanFilter]) {
        tracing::info!("{error}");
    }
    Ok(())
}

/// Prepares a device of the host: offloads, MTU, channels (`queues`, if a number is configured), and sets it up. After
/// an error, the ledger has the changes made so far, for the caller to undo.
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

/// Gives a prepared device the MTU that preparing it for a port with `mtu` would give: its own, or more.
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

/// Checks that `link` can have this MTU.
pub fn check_mtu(link: &Link, mtu: u32) -> Result<(), DeviceError> {
    match link.max_mtu {
        Some(max) if mtu > max => {
            let device = link.name.clone();
            Err(DeviceError::Mtu { device, mtu, max })
        }
        _ => Ok(()),
    }
}

/// A change of the number of channels.
struct ChannelChange {
    from: Channels,
    to: Channels,
    wanted: u32,
}

impl ChannelChange {
    /// The change for `wanted` receive queues; `None` if there are as many already.
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

    /// Makes the change and checks the result.
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
