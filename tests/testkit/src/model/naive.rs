//! A switch as one would explain it: frames are taken apart into addresses, tags and the rest, each rule is asked
//! of each port in turn, and whole frames are put together again.

use std::collections::{BTreeMap, HashMap};

use labsw_switch::DropReason;
use labsw_switch::inline::Way;
use labsw_switch::vlan::VlanMode;

use super::scene::{AGEING_SECONDS, Inline, Mirror, Pattern, Port, To};

/// The outcome of a burst.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Per port: index and bytes of each frame sent.
    pub sent: BTreeMap<u16, Vec<(usize, Vec<u8>)>>,
    /// Port and reason of each drop, in order.
    pub drops: Vec<(u16, DropReason)>,
    /// Per mirror destination, a port and of RSPAN the VLAN: index, mirror, bytes.
    pub copies: BTreeMap<(u16, Option<u16>), Vec<Copy>>,
    /// Frames selected per mirror.
    pub matched: BTreeMap<u16, u32>,
    /// Bit per frame that goes to one port and to no mirror.
    pub unshared: u64,
}

pub type Copy = (usize, u16, Vec<u8>);

/// A copy that could be made.
struct Offer {
    mirror: u16,
    to: (u16, Option<u16>),
    /// The port that has to send the frame first.
    after: Option<u16>,
    /// The frame as the mirror's filter sees it.
    seen: Vec<u8>,
    copy: Vec<u8>,
}

/// The fate of one frame.
#[derive(Default)]
struct Fate {
    sent: Vec<(u16, Vec<u8>)>,
    copies: Vec<Offer>,
    drops: Vec<(u16, DropReason)>,
}

/// The entry of an address.
struct Place {
    port: u16,
    fixed: bool,
    /// Learned at a sticky port.
    stays: bool,
    seen: u32,
}

pub struct Naive {
    ports: Vec<Port>,
    mirrors: Vec<Mirror>,
    inlines: Vec<Inline>,
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

/// True if a mirror with this filter wants the frame.
fn fits(pattern: Option<&Pattern>, frame: &[u8]) -> bool {
    let Some(Pattern { tagged, least, at, mask, value }) = pattern else { return true };
    let mut frame = frame.to_vec();
    if !tagged && matches!(word(&frame, 12), Some(0x8100 | 0x88a8)) {
        frame.drain(12..16);
    }
    frame.len() >= *least as usize && frame.get(*at as usize).is_some_and(|byte| byte & mask == *value)
}

fn in_trunks(port: &Port, vlan: u16) -> bool {
    port.trunks.is_empty() || port.trunks.iter().any(|range| range.contains(&vlan))
}

fn carries(port: &Port, vlan: u16) -> bool {
    match port.mode {
        VlanMode::Access => port.tag == vlan,
        VlanMode::Trunk => in_trunks(port, vlan),
        VlanMode::NativeTagged | VlanMode::NativeUntagged => port.tag == vlan || in_trunks(port, vlan),
        VlanMode::Dot1qTunnel => port.tag == vlan,
    }
}

/// Checks that a tunnel port takes frames of this VLAN of its customer; 0: untagged.
fn may_be_carried(port: &Port, customer: u16) -> Result<(), DropReason> {
    match customer {
        _ if port.trunks.is_empty() => Ok(()),
        0 if port.customer_untagged => Ok(()),
        0 => Err(DropReason::UntaggedNotAllowed),
        4095 => Err(DropReason::VidReserved),
        _ if in_trunks(port, customer) => Ok(()),
        _ => Err(DropReason::VlanNotMember),
    }
}

fn vlan_of(port: &Port, frame: &Parts) -> Result<u16, DropReason> {
    match (port.mode, frame.vid()) {
        (VlanMode::Dot1qTunnel, customer) => may_be_carried(port, customer).map(|()| port.tag),
        (VlanMode::Trunk, 0) => Err(DropReason::UntaggedNotAllowed),
        (_, 0) => Ok(port.tag),
        (VlanMode::Access, _) => Err(DropReason::TaggedNotAllowed),
        (_, vid) if carries(port, vid) => Ok(vid),
        _ => Err(DropReason::VlanNotMember),
    }
}

/// The VLAN of a frame of which `from` took the tags apart, its priority (and TPID) if it had a tag of that VLAN, and
/// the tags behind that.
struct Carried {
    vlan: u16,
    tag: Option<(u16, u16)>,
    behind: Vec<(u16, u16)>,
    tpid: u16,
}

impl Carried {
    fn new(from: &Port, vlan: u16, frame: &Parts) -> Carried {
        let mut tags = frame.tags.clone().into_iter();
        let tunnel = from.mode == VlanMode::Dot1qTunnel;
        let tag = if tunnel { None } else { tags.next() };
        Carried { vlan, tag, behind: tags.collect(), tpid: if tunnel { from.tpid } else { 0x8100 } }
    }

    /// The customer VLAN of a frame in a tunnel; 0: untagged.
    fn customer(&self) -> u16 {
        self.behind.first().map_or(0, |(_, tci)| tci % 4096)
    }
}

/// The frame as a port of its VLAN sends it.
fn leaving(from: &Port, port: &Port, carried: &Carried, frame: &Parts) -> Result<Vec<u8>, DropReason> {
    let vlan = carried.vlan;
    let mut payload = frame.rest.len() - 2;
    let tags = match port.mode {
        VlanMode::Dot1qTunnel => {
            may_be_carried(port, carried.customer())?;
            carried.behind.clone()
        }
        VlanMode::Access | VlanMode::NativeUntagged if port.tag == vlan => {
            if !carried.behind.is_empty() {
                return Err(DropReason::DoubleTag);
            }
            Vec::new()
        }
        _ => {
            if from.mode == VlanMode::Dot1qTunnel {
                payload += 4 * carried.behind.len();
            }
            let (tpid, tci) = carried.tag.unwrap_or((carried.tpid, 0));
            [vec![(tpid, tci / 4096 * 4096 + vlan)], carried.behind.clone()].concat()
        }
    };
    if payload > port.mtu as usize { Err(DropReason::Oversize) } else { Ok(frame.with_tags(&tags)) }
}

impl Naive {
    pub fn new(ports: Vec<Port>, mirrors: Vec<Mirror>, inlines: Vec<Inline>) -> Naive {
        Naive { ports, mirrors, inlines, places: HashMap::new() }
    }

    /// The sensor that a port belongs to.
    fn sensor_at(&self, port: u16) -> Option<&Inline> {
        self.inlines.iter().find(|inline| inline.near == port || inline.far == port)
    }

    /// The port that frames to a port leave by, or why there is none.
    fn way_out(&self, port: u16) -> Result<u16, DropReason> {
        if self.sensor_at(port).is_some() {
            return Err(DropReason::InlineSensor);
        }
        match self.inlines.iter().find(|inline| inline.port == port) {
            Some(Inline { way: Way::Closed, .. }) => Err(DropReason::InlineClosed),
            Some(Inline { way: Way::Through, far, .. }) => Ok(*far),
            _ => Ok(port),
        }
    }

    pub fn add_static(&mut self, vlan: u16, mac: [u8; 6], port: u16) {
        self.places.insert((vlan, mac), Place { port, fixed: true, stays: false, seen: 0 });
    }

    fn port(&self, port: u16) -> &Port {
        &self.ports[usize::from(port)]
    }

    fn is_destination(&self, port: u16) -> bool {
        self.port(port).mirror_only || self.mirrors.iter().any(|mirror| mirror.to == Some(To::Port(port)))
    }

    fn is_rspan(&self, vlan: u16) -> bool {
        self.mirrors.iter().any(|mirror| mirror.to == Some(To::Vlan(vlan)))
    }

    /// The ports by which frames of an RSPAN VLAN leave.
    fn rspan_ports(&self, vlan: u16) -> Vec<u16> {
        let names = |port: &Port| match port.mode {
            VlanMode::Trunk => !port.trunks.is_empty() && in_trunks(port, vlan),
            VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                !port.trunks.is_empty() && in_trunks(port, vlan) && port.tag != vlan
            }
            VlanMode::Access | VlanMode::Dot1qTunnel => false,
        };
        let ports = (0u16..).zip(&self.ports).filter(|(_, port)| port.enabled && names(port));
        ports.map(|(id, _)| id).filter(|id| !self.is_destination(*id) && self.way_out(*id).is_ok()).collect()
    }

    /// The copies that mirrors which watch `port` in a direction and take frames of `vlan` would make of `frame`, which
    /// is so there.
    fn offers(&self, port: u16, sending: bool, vlan: Option<u16>, frame: &[u8]) -> Vec<Offer> {
        if self.is_destination(port) || vlan.is_some_and(|vlan| self.is_rspan(vlan)) {
            return Vec::new();
        }
        let tagged = |rspan: u16| {
            let parts = Parts::of(frame).unwrap();
            // The tags of a tunnel's customer stay.
            let replaced = usize::from(self.port(port).mode != VlanMode::Dot1qTunnel && !parts.tags.is_empty());
            parts.with_tags(&[&[(0x8100, rspan)], &parts.tags[replaced..]].concat())
        };
        let watches = |mirror: &Mirror| {
            let wants = |rx: bool, tx: bool| if sending { tx } else { rx };
            let named = mirror.sources.iter().any(|(source, rx, tx)| *source == port && wants(*rx, *tx));
            let all = self.sensor_at(port).is_none() && mirror.all.is_some_and(|(rx, tx)| wants(rx, tx));
            let in_vlan = mirror.vlans.as_ref().is_none_or(|vlans| vlan.is_some_and(|vlan| vlans.contains(&vlan)));
            (named || all) && in_vlan
        };
        let live = (0u16..).zip(&self.mirrors).filter(|(_, mirror)| watches(mirror));
        let offers = live.flat_map(|(mirror, Mirror { to, .. })| {
            let (to, copy) = match to {
                None => (Vec::new(), Vec::new()),
                Some(To::Port(to)) => (vec![(*to, None)], frame.to_vec()),
                Some(To::Vlan(rspan)) => {
                    let ports = self.rspan_ports(*rspan);
                    let ports = ports.iter().map(|to| (self.way_out(*to).unwrap(), Some(*rspan)));
                    (ports.collect(), tagged(*rspan))
                }
            };
            let up = to.into_iter().filter(|to| to.1.is_some() || self.port(to.0).enabled);
            up.map(move |to| Offer {
                mirror,
                to,
                after: sending.then_some(port),
                seen: frame.to_vec(),
                copy: copy.clone(),
            })
        });
        offers.collect()
    }

    fn place(&self, vlan: u16, mac: [u8; 6], now: u32) -> Option<u16> {
        let place = self.places.get(&(vlan, mac))?;
        (place.fixed || place.stays || now.wrapping_sub(place.seen) < AGEING_SECONDS).then_some(place.port)
    }

    /// Decides about a burst. Port `n` does not take its frames in `failed[n]` (bit = index).
    pub fn burst(&mut self, ingress: u16, frames: &[Vec<u8>], now: u32, failed: &[u64]) -> Outcome {
        let mut outcome = Outcome::default();
        for (index, bytes) in frames.iter().enumerate() {
            let mut fate = Fate::default();
            let refused = self.frame(ingress, bytes, now, &mut fate).err();
            let Fate { sent, mut copies, drops } = fate;
            outcome.drops.extend(drops.into_iter().chain(refused));
            copies.retain(|offer| fits(self.mirrors[usize::from(offer.mirror)].pattern.as_ref(), &offer.seen));
            // Nothing that was injected comes back as a copy, and no copy goes where the frame came from.
            copies.retain(|offer| offer.to.0 != ingress);
            if sent.len() == 1 && copies.is_empty() {
                outcome.unshared |= 1 << index;
            }
            for mirror in 0u16..4 {
                if copies.iter().any(|offer| offer.mirror == mirror) {
                    *outcome.matched.entry(mirror).or_default() += 1;
                }
            }
            for (port, bytes) in sent {
                outcome.sent.entry(port).or_default().push((index, bytes));
            }
            for Offer { mirror, to, after, copy: bytes, .. } in copies {
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

    fn learn(&mut self, ingress: u16, port: &Port, key: (u16, [u8; 6]), now: u32) -> Result<(), DropReason> {
        let place = self.places.get(&key);
        if place.is_some_and(|place| place.fixed) {
            return Ok(());
        }
        if place.is_some_and(|place| place.stays && place.port != ingress) {
            return Err(DropReason::MacSticky);
        }
        if let Some((limit, drops)) = port.guards.limit
            && place.is_none_or(|place| place.port != ingress)
            && self.places.values().filter(|place| place.port == ingress && !place.fixed).count() >= limit as usize
        {
            return if drops { Err(DropReason::MacLimit) } else { Ok(()) };
        }
        let learned = Place { port: ingress, fixed: false, stays: port.guards.sticky, seen: now };
        self.places.insert(key, learned);
        Ok(())
    }

    fn frame(&mut self, ingress: u16, bytes: &[u8], now: u32, fate: &mut Fate) -> Result<(), (u16, DropReason)> {
        if !self.port(ingress).enabled {
            return Err((ingress, DropReason::PortDown));
        }
        if !self.is_destination(ingress) {
            return self.enter(ingress, bytes, now, fate);
        }
        let Some(inject) = self.port(ingress).inject.clone() else {
            return Err((ingress, DropReason::MirrorDestination));
        };
        let source = bytes.get(6..12);
        if !inject.sources.is_empty() && source.is_some_and(|source| !inject.sources.iter().any(|mac| mac == source)) {
            return Err((ingress, DropReason::InjectSource));
        }
        match inject.vlan {
            Some(vlan) => {
                let (mode, trunks) = (VlanMode::NativeUntagged, vec![vlan..=vlan]);
                let port = Port { mode, trunks, tag: vlan, learning: false, ..self.port(ingress).clone() };
                self.judge((ingress, ingress), port, bytes, now, fate)
            }
            None if !self.port(inject.port).enabled => Err((inject.port, DropReason::PortDown)),
            None if self.is_destination(inject.port) => Err((inject.port, DropReason::MirrorDestination)),
            None => self.enter(inject.port, bytes, now, fate),
        }
    }

    /// Handles a frame from a port that is up and no mirror destination.
    fn enter(&mut self, ingress: u16, bytes: &[u8], now: u32, fate: &mut Fate) -> Result<(), (u16, DropReason)> {
        if let Some(Inline { port, near, far, way }) = self.sensor_at(ingress).cloned() {
            return match way {
                Way::Past | Way::Closed => Err((ingress, DropReason::InlineSensor)),
                Way::Through if ingress == near => self.pass_on(ingress, port, port, bytes, fate),
                Way::Through if !self.port(port).enabled => Err((far, DropReason::PortDown)),
                Way::Through => self.judge((port, far), self.port(port).clone(), bytes, now, fate),
            };
        }
        match self.inlines.iter().find(|inline| inline.port == ingress) {
            Some(Inline { way: Way::Through, near, .. }) => self.pass_on(ingress, ingress, *near, bytes, fate),
            Some(Inline { way: Way::Closed, .. }) => Err((ingress, DropReason::InlineClosed)),
            _ => self.judge((ingress, ingress), self.port(ingress).clone(), bytes, now, fate),
        }
    }

    /// Sends a frame of the wire of the port `of` on to `to`, as it is.
    fn pass_on(&self, ingress: u16, of: u16, to: u16, bytes: &[u8], fate: &mut Fate) -> Result<(), (u16, DropReason)> {
        let refuse = |reason| Err((ingress, reason));
        let Some(frame) = Parts::of(bytes) else { return refuse(DropReason::Runt) };
        if bytes[6] % 2 == 1 {
            return refuse(DropReason::SourceGroupAddress);
        }
        if frame.vid() == 4095 {
            return refuse(DropReason::VidReserved);
        }
        if bytes[..6] == [0x01, 0x80, 0xc2, 0, 0, 0x01] || frame.rest[..2] == [0x88, 0x08] {
            return refuse(DropReason::MacControl);
        }
        if !self.port(of).enabled {
            return refuse(DropReason::PortDown);
        }
        let vlan = vlan_of(self.port(of), &frame).ok().or_else(|| Some(frame.vid()).filter(|vid| *vid != 0));
        fate.copies.extend(self.offers(ingress, false, vlan, bytes));
        fate.copies.extend(self.offers(to, true, vlan, bytes));
        fate.sent.push((to, bytes.to_vec()));
        Ok(())
    }

    /// Decides about a frame of the port `ingress` that has come in at the port `seen_at`.
    fn judge(
        &mut self,
        (ingress, seen_at): (u16, u16),
        port: Port,
        bytes: &[u8],
        now: u32,
        fate: &mut Fate,
    ) -> Result<(), (u16, DropReason)> {
        let refuse = |reason| Err((ingress, reason));
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
        fate.copies.extend(self.offers(seen_at, false, mirror_vlan, bytes));
        if frame.rest.len() - 2 > port.mtu as usize {
            return refuse(DropReason::Oversize);
        }
        if dst == [0x01, 0x80, 0xc2, 0, 0, 0x01] || frame.rest[..2] == [0x88, 0x08] {
            return refuse(DropReason::MacControl);
        }
        if port.drops_link_local && dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && dst[5] < 16 {
            return refuse(DropReason::LinkLocal);
        }
        let vlan = classified.map_err(|reason| (ingress, reason))?;
        let guards = &port.guards;
        if guards.pinned.as_ref().is_some_and(|macs| !macs.iter().any(|last| src == [0x52, 0x54, 0, 0, 0, *last])) {
            return refuse(DropReason::MacNotAllowed);
        }
        let rspan = self.is_rspan(vlan);
        if port.learning && !rspan {
            self.learn(ingress, &port, (vlan, src), now).map_err(|reason| (ingress, reason))?;
        }
        self.deliver(ingress, &port, vlan, &frame, now, fate)
    }

    /// Where a frame that was taken in goes.
    fn deliver(
        &mut self,
        ingress: u16,
        port: &Port,
        vlan: u16,
        frame: &Parts,
        now: u32,
        fate: &mut Fate,
    ) -> Result<(), (u16, DropReason)> {
        let refuse = |reason| Err((ingress, reason));
        let (guards, rspan) = (&port.guards, self.is_rspan(vlan));
        let dst: [u8; 6] = frame.macs[..6].try_into().unwrap();
        let carried = Carried::new(port, vlan, frame);
        let targets: Vec<u16> = match self.place(vlan, dst, now).filter(|_| dst[0].is_multiple_of(2) && !rspan) {
            Some(to) if to == ingress => return refuse(DropReason::SamePort),
            Some(to) if !self.port(to).enabled => return Err((to, DropReason::PortDown)),
            Some(to) if self.is_destination(to) => return Err((to, DropReason::MirrorDestination)),
            Some(to) if self.way_out(to).is_err() => return Err((to, self.way_out(to).unwrap_err())),
            Some(to) if !carries(self.port(to), vlan) => return Err((to, DropReason::VlanNotMember)),
            Some(to) if guards.isolated && self.port(to).guards.isolated => {
                // The first of several reasons counts.
                let reason = leaving(port, self.port(to), &carried, frame).err().unwrap_or(DropReason::Isolated);
                return Err((to, reason));
            }
            Some(to) => vec![to],
            None if rspan => self.rspan_ports(vlan).into_iter().filter(|to| *to != ingress).collect(),
            None => (0..u16::try_from(self.ports.len()).unwrap())
                .filter(|to| *to != ingress && self.port(*to).enabled)
                .filter(|to| !self.is_destination(*to) && self.way_out(*to).is_ok())
                .filter(|to| carries(self.port(*to), vlan))
                .filter(|to| {
                    let to = self.port(*to);
                    to.mode != VlanMode::Dot1qTunnel || may_be_carried(to, carried.customer()).is_ok()
                })
                .collect(),
        };
        if targets.is_empty() {
            return refuse(DropReason::NoDestination);
        }
        for to in targets {
            match leaving(port, self.port(to), &carried, frame) {
                Ok(_) if guards.isolated && self.port(to).guards.isolated => {
                    fate.drops.push((to, DropReason::Isolated))
                }
                Ok(bytes) => {
                    let by = self.way_out(to).unwrap();
                    fate.copies.extend(self.offers(by, true, Some(vlan), &bytes));
                    fate.sent.push((by, bytes));
                }
                Err(reason) => fate.drops.push((to, reason)),
            }
        }
        Ok(())
    }
}
