//! A switch as one would explain it: frames are taken apart into addresses, tags and the rest, each rule is asked
//! of each port in turn, and whole frames are put together again.

use labsw_switch::DropReason;
use labsw_switch::vlan::VlanMode;

use super::{AGEING_SECONDS, BTreeMap, HashMap, Mirror, Port};

/// What a burst led to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Per port: index and bytes of each frame sent.
    pub sent: BTreeMap<u16, Vec<(usize, Vec<u8>)>>,
    /// Port and reason of each drop, in order.
    pub drops: Vec<(u16, DropReason)>,
    /// Per mirror destination: index, mirror, bytes.
    pub copies: BTreeMap<u16, Vec<Copy>>,
    /// Frames selected per mirror.
    pub matched: BTreeMap<u16, u32>,
    /// Bit per frame that goes to one port and to no mirror.
    pub sole: u64,
}

pub type Copy = (usize, u16, Vec<u8>);

/// What is known about an address.
struct Place {
    port: u16,
    fixed: bool,
    seen: u32,
}

pub struct Naive {
    ports: Vec<Port>,
    mirrors: Vec<Mirror>,
    places: HashMap<(u16, [u8; 6]), Place>,
}

/// A frame taken apart.
struct Parts {
    macs: Vec<u8>,
    /// TPID and TCI of up to all leading tags.
    tags: Vec<(u16, u16)>,
    /// From the type on.
    rest: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

impl Parts {
    fn of(frame: &[u8]) -> Option<Parts> {
        let mut tags = Vec::new();
        let mut at = 12;
        // A third tag is payload to this switch.
        while tags.len() < 2 && matches!(word(frame, at)?, 0x8100 | 0x88a8) {
            tags.push((word(frame, at)?, word(frame, at + 2)?));
            at += 4;
        }
        word(frame, at)?;
        Some(Parts { macs: frame[..12].to_vec(), tags, rest: frame[at..].to_vec() })
    }

    fn with_tags(&self, tags: &[(u16, u16)]) -> Vec<u8> {
        let mut bytes = self.macs.clone();
        for (tpid, tci) in tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(&self.rest);
        bytes
    }

    /// The VLAN id of the first tag; 0 without one.
    fn vid(&self) -> u16 {
        self.tags.first().map_or(0, |(_, tci)| tci % 4096)
    }
}

fn in_trunks(port: &Port, vlan: u16) -> bool {
    port.trunks.is_empty() || port.trunks.iter().any(|range| range.contains(&vlan))
}

fn carries(port: &Port, vlan: u16) -> bool {
    match port.mode {
        VlanMode::Access => port.tag == vlan,
        VlanMode::Trunk => in_trunks(port, vlan),
        VlanMode::NativeTagged | VlanMode::NativeUntagged => port.tag == vlan || in_trunks(port, vlan),
    }
}

fn vlan_of(port: &Port, frame: &Parts) -> Result<u16, DropReason> {
    match (port.mode, frame.vid()) {
        (VlanMode::Trunk, 0) => Err(DropReason::UntaggedNotAllowed),
        (_, 0) => Ok(port.tag),
        (VlanMode::Access, _) => Err(DropReason::TaggedNotAllowed),
        (_, vid) if carries(port, vid) => Ok(vid),
        _ => Err(DropReason::VlanNotMember),
    }
}

/// The frame as a port of its VLAN sends it.
fn leaving(port: &Port, vlan: u16, frame: &Parts) -> Result<Vec<u8>, DropReason> {
    let untagged = port.mode == VlanMode::Access || port.mode == VlanMode::NativeUntagged && port.tag == vlan;
    let mut tags = frame.tags.clone();
    if untagged {
        if tags.len() == 2 {
            return Err(DropReason::DoubleTag);
        }
        tags.clear();
    } else if let Some((_, tci)) = tags.first_mut() {
        *tci = *tci / 4096 * 4096 + vlan;
    } else {
        tags.push((0x8100, vlan));
    }
    let payload = frame.rest.len() - 2;
    if payload > port.mtu as usize { Err(DropReason::Oversize) } else { Ok(frame.with_tags(&tags)) }
}

impl Naive {
    pub fn new(ports: Vec<Port>, mirrors: Vec<Mirror>) -> Naive {
        Naive { ports, mirrors, places: HashMap::new() }
    }

    pub fn add_static(&mut self, vlan: u16, mac: [u8; 6], port: u16) {
        self.places.insert((vlan, mac), Place { port, fixed: true, seen: 0 });
    }

    fn port(&self, port: u16) -> &Port {
        &self.ports[usize::from(port)]
    }

    fn is_destination(&self, port: u16) -> bool {
        self.port(port).mirror_only || self.mirrors.iter().any(|mirror| mirror.to == Some(port))
    }

    /// Mirrors that watch `port` in a direction and take frames of `vlan`, with their destinations.
    fn watching(&self, port: u16, sending: bool, vlan: Option<u16>) -> Vec<(u16, u16)> {
        let watches = |mirror: &Mirror| {
            let wants = |rx: bool, tx: bool| if sending { tx } else { rx };
            let named = mirror.sources.iter().any(|(source, rx, tx)| *source == port && wants(*rx, *tx));
            let all = mirror.all.is_some_and(|(rx, tx)| wants(rx, tx));
            let in_vlan = mirror.vlans.as_ref().is_none_or(|vlans| vlan.is_some_and(|vlan| vlans.contains(&vlan)));
            (named || all) && in_vlan
        };
        let live = (0u16..).zip(&self.mirrors).filter(|(_, mirror)| watches(mirror));
        live.filter_map(|(id, mirror)| Some((id, mirror.to.filter(|to| self.port(*to).enabled)?))).collect()
    }

    fn place(&self, vlan: u16, mac: [u8; 6], now: u32) -> Option<u16> {
        let place = self.places.get(&(vlan, mac))?;
        (place.fixed || now.wrapping_sub(place.seen) < AGEING_SECONDS).then_some(place.port)
    }

    /// Of the frames for port `n`, it does not take those in `failed[n]` (bit = index).
    pub fn burst(&mut self, ingress: u16, frames: &[Vec<u8>], now: u32, failed: &[u64]) -> Outcome {
        let mut outcome = Outcome::default();
        for (index, bytes) in frames.iter().enumerate() {
            let mut sent = Vec::new();
            // Mirror, destination, egress, bytes.
            let mut copies: Vec<(u16, u16, Option<u16>, Vec<u8>)> = Vec::new();
            if let Err(drop) = self.frame(ingress, bytes, now, &mut sent, &mut copies, &mut outcome.drops) {
                outcome.drops.push(drop);
            }
            if sent.len() == 1 && copies.is_empty() {
                outcome.sole |= 1 << index;
            }
            for mirror in 0u16..4 {
                if copies.iter().any(|copy| copy.0 == mirror) {
                    *outcome.matched.entry(mirror).or_default() += 1;
                }
            }
            for (port, bytes) in sent {
                outcome.sent.entry(port).or_default().push((index, bytes));
            }
            for (mirror, to, after, bytes) in copies {
                let took = after.is_none_or(|egress| failed[usize::from(egress)] >> index & 1 == 0);
                let list = outcome.copies.entry(to).or_default();
                // The first that can be made serves.
                if took && !list.iter().any(|other| other.0 == index) {
                    let snap = self.mirrors[usize::from(mirror)].snap as usize;
                    let len = if snap == 0 { bytes.len() } else { bytes.len().min(snap) };
                    list.push((index, mirror, bytes[..len].to_vec()));
                }
            }
        }
        outcome.copies.retain(|_, list| !list.is_empty());
        outcome
    }

    fn frame(
        &mut self,
        ingress: u16,
        bytes: &[u8],
        now: u32,
        sent: &mut Vec<(u16, Vec<u8>)>,
        copies: &mut Vec<(u16, u16, Option<u16>, Vec<u8>)>,
        drops: &mut Vec<(u16, DropReason)>,
    ) -> Result<(), (u16, DropReason)> {
        let refuse = |reason| Err((ingress, reason));
        let port = self.port(ingress).clone();
        if !port.enabled {
            return refuse(DropReason::PortDown);
        }
        if self.is_destination(ingress) {
            return refuse(DropReason::MirrorDestination);
        }
        let Some(frame) = Parts::of(bytes) else { return refuse(DropReason::Runt) };
        let (dst, src): ([u8; 6], [u8; 6]) = (bytes[..6].try_into().unwrap(), bytes[6..12].try_into().unwrap());
        if src[0] % 2 == 1 {
            return refuse(DropReason::SourceGroupAddress);
        }
        if frame.vid() == 4095 {
            return refuse(DropReason::VidReserved);
        }
        let classified = vlan_of(&port, &frame);
        let mirror_vlan = classified.ok().or_else(|| Some(frame.vid()).filter(|vid| *vid != 0));
        for (mirror, to) in self.watching(ingress, false, mirror_vlan) {
            copies.push((mirror, to, None, bytes.to_vec()));
        }
        if frame.rest.len() - 2 > port.mtu as usize {
            return refuse(DropReason::Oversize);
        }
        if port.drops_link_local && dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && dst[5] < 16 {
            return refuse(DropReason::LinkLocal);
        }
        let vlan = classified.map_err(|reason| (ingress, reason))?;
        let fixed = self.places.get(&(vlan, src)).is_some_and(|place| place.fixed);
        if port.learning && !fixed {
            self.places.insert((vlan, src), Place { port: ingress, fixed: false, seen: now });
        }
        let targets: Vec<u16> = match self.place(vlan, dst, now).filter(|_| dst[0] % 2 == 0) {
            Some(to) if to == ingress => return refuse(DropReason::SamePort),
            Some(to) if !self.port(to).enabled => return Err((to, DropReason::PortDown)),
            Some(to) if self.is_destination(to) => return Err((to, DropReason::MirrorDestination)),
            Some(to) if !carries(self.port(to), vlan) => return Err((to, DropReason::VlanNotMember)),
            Some(to) => vec![to],
            None => (0..u16::try_from(self.ports.len()).unwrap())
                .filter(|to| *to != ingress && self.port(*to).enabled)
                .filter(|to| !self.is_destination(*to) && carries(self.port(*to), vlan))
                .collect(),
        };
        if targets.is_empty() {
            return refuse(DropReason::NoDestination);
        }
        for to in targets {
            match leaving(self.port(to), vlan, &frame) {
                Ok(bytes) => {
                    for (mirror, destination) in self.watching(to, true, Some(vlan)) {
                        copies.push((mirror, destination, Some(to), bytes.clone()));
                    }
                    sent.push((to, bytes));
                }
                Err(reason) => drops.push((to, reason)),
            }
        }
        Ok(())
    }
}
