//! The words of a trace: the meaning of each fact, and hints how to change the outcome.

use labsw_switch::fdb::Learned;
use labsw_switch::forward::TagEdit;
use labsw_switch::header::{Header, Tag};
use labsw_switch::tables::PortRules;
use labsw_switch::vlan::{CustomerVlans, PortVlan, VlanMode, VlanSet};
use labsw_switch::{DropReason, PortId, Vid};

use super::Trouble;
use crate::model::VlanList;

/// Ethertypes with a name (IANA, "IEEE 802 Numbers").
pub(crate) const ETHERTYPES: [(u16, &str); 7] = [
    (0x0800, "ipv4"),
    (0x0806, "arp"),
    (0x86dd, "ipv6"),
    (0x8809, "slow"),
    (0x888e, "eapol"),
    (0x88cc, "lldp"),
    (0x88b5, "experimental"),
];

/// A header in words.
pub(super) fn header(header: &Header, frame_bytes: usize) -> String {
    let tag = |tag: Tag| {
        let kind = if tag.tpid == labsw_switch::wire::TPID_S_TAG { "S-tag" } else { "tag" };
        match (tag.vid(), tag.tci >> 13) {
            (0, priority) => format!("priority tag (VLAN 0, priority {priority})"),
            (vid, 0) => format!("{kind} of VLAN {vid}"),
            (vid, priority) => format!("{kind} of VLAN {vid}, priority {priority}"),
        }
    };
    let tags = match (header.outer, header.inner) {
        (None, _) => "untagged".to_owned(),
        (Some(outer), None) => tag(outer),
        (Some(outer), Some(inner)) => format!("{}, behind it {}", tag(outer), tag(inner)),
    };
    let name = ETHERTYPES.iter().find(|(ethertype, _)| *ethertype == header.ethertype);
    let kind = match (name, header.ethertype) {
        (Some((_, name)), ethertype) => format!("ethertype {ethertype:#06x} ({name})"),
        (None, length @ ..=1500) => format!("length {length} (802.3)"),
        (None, ethertype) => format!("ethertype {ethertype:#06x}"),
    };
    format!("from {} to {}, {tags}, {kind}, {frame_bytes} bytes", header.src, header.dst)
}

/// The VLAN settings of a port in words: `access 20`, `native-untagged 10, trunks 20-29`.
pub(super) fn membership(vlan: &PortVlan) -> String {
    let tag = vlan.tag().map(|tag| format!(" {tag}")).unwrap_or_default();
    let trunks = match vlan.trunks() {
        all if *all == VlanSet::ALL => ", trunks all".to_owned(),
        none if none.is_empty() => String::new(),
        some => format!(", trunks {}", VlanList::from(some)),
    };
    format!("{}{tag}{trunks}", vlan.mode())
}

/// Why a frame with this tag is in its VLAN.
pub(super) fn classified(outer: Option<Tag>, port: &str, rules: Option<&PortRules>) -> String {
    let mode = rules.map(|rules| membership(&rules.vlan)).unwrap_or_default();
    if rules.is_some_and(|rules| rules.vlan.mode() == VlanMode::Dot1qTunnel) {
        return format!("that is the VLAN of the tunnel at {port}, whatever tags a frame has ({mode})");
    }
    match outer {
        None => format!("it is untagged, and that is the VLAN of untagged frames at {port} ({mode})"),
        Some(tag) if tag.vid() == 0 => {
            format!("a priority tag counts as none, and that is the VLAN of untagged frames at {port} ({mode})")
        }
        Some(_) => format!("its tag says so, and {port} is a member ({mode})"),
    }
}

/// How the source address is learned.
pub(super) fn learned<'n>(
    learned: Option<Learned>,
    src: &str,
    vlan: u16,
    port: &str,
    name: impl Fn(PortId) -> &'n str,
) -> String {
    let address = format!("{src} in VLAN {vlan}");
    match learned {
        None => format!("{port} does not learn addresses"),
        Some(Learned::New) => format!("{address} is new, and would be learned at {port}"),
        Some(Learned::Known) => format!("{address} is known at {port}"),
        Some(Learned::Refreshed) => format!("{address} is known at {port}, and its age would start over"),
        Some(Learned::Moved { from }) => format!("{address} would move from {} to {port}", name(from)),
        Some(Learned::Static) => format!("{address} is not learned: a static entry has it at another port"),
        Some(Learned::Sticky) => format!("{address} is not learned: it is known at a sticky port, where it stays"),
        Some(Learned::Group) => format!("{src} is a group address, which is not learned"),
        Some(Learned::PortLimit) => {
            format!("{address} is not learned: {port} has as many addresses as it may have")
        }
        Some(Learned::Full) => {
            format!("{address} is not learned: the forwarding database is full, and no entry would fairly be evicted")
        }
    }
}

/// The tags of a frame as it leaves.
pub(super) fn edited(edit: TagEdit, header: Option<&Header>) -> String {
    let inserted = edit.insert.map(|[_, _, high, low]| u16::from_be_bytes([high, low]) & 0x0fff);
    match (edit.strip_bytes, inserted) {
        (0, None) => match header.and_then(|header| header.outer) {
            None => "untagged, as received".to_owned(),
            Some(tag) => format!("with its tag of VLAN {}, as received", tag.vid()),
        },
        (0, Some(vid)) => format!("with a tag of VLAN {vid}, which is put in"),
        (_, None) => "untagged; its tag is taken out".to_owned(),
        (_, Some(vid)) => format!("with a tag of VLAN {vid} in place of its own; the priority stays"),
    }
}

/// The frame as it leaves.
pub(super) fn apply(edit: TagEdit, frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(12));
    let rest = rest.get(usize::from(edit.strip_bytes)..).unwrap_or_default();
    [addresses, edit.insert.as_ref().map_or(&[], |tag| &tag[..]), rest].concat()
}

/// All facts about a drop.
pub(super) struct Dropped<'a> {
    pub reason: DropReason,
    /// Name of the port that counts the drop.
    pub port: &'a str,
    pub rules: Option<&'a PortRules>,
    pub trouble: Option<&'a Trouble>,
    pub header: Option<&'a Header>,
    pub vid: Option<Vid>,
    pub frame: &'a [u8],
}

impl Dropped<'_> {
    /// The sentence about the drop: port, reason, explanation.
    pub(super) fn text(&self) -> String {
        format!("dropped at {}: {}: {}", self.port, self.reason.name(), self.why())
    }

    /// The VLAN of the frame, by its classification or else by its tag.
    fn vlan(&self) -> u16 {
        let tagged = self.header.and_then(|header| header.outer).map_or(0, Tag::vid);
        self.vid.map_or(tagged, Vid::get)
    }

    fn why(&self) -> String {
        let Dropped { port, rules, trouble, .. } = self;
        let mode = rules.map(|rules| membership(&rules.vlan)).unwrap_or_default();
        let mtu = rules.map_or(0, |rules| rules.mtu_bytes);
        let payload = self.frame.len().saturating_sub(self.header.map_or(14, |header| header.l3_offset.into()));
        match (self.reason, trouble) {
            (DropReason::PortDown | DropReason::NotConnected, Some(trouble)) => {
                format!("the port is {}: {}", trouble.state, trouble.reason)
            }
            (DropReason::Runt, _) => format!("{} bytes end before the header does", self.frame.len()),
            (DropReason::Oversize, _) => {
                format!("{payload} bytes behind the header, and the MTU of {port} is {mtu}")
            }
            (DropReason::VlanNotMember, _) => {
                format!("VLAN {} is not a member of port {port} ({mode})", self.vlan())
            }
            (DropReason::TaggedNotAllowed, _) => {
                format!("it has a tag of VLAN {}, and {port} takes untagged frames only ({mode})", self.vlan())
            }
            (DropReason::UntaggedNotAllowed, _) => {
                format!("it is in no VLAN without a tag, and {port} has none for such frames ({mode})")
            }
            (DropReason::NoDestination, _) => {
                format!("no other port that is up is a member of VLAN {}", self.vlan())
            }
            (reason, _) => reason.explanation().trim_end_matches('.').to_owned(),
        }
    }

    /// A hint how to avoid the drop.
    pub(super) fn hint(&self) -> Option<String> {
        let Dropped { port, trouble, .. } = self;
        let payload = self.frame.len().saturating_sub(self.header.map_or(14, |header| header.l3_offset.into()));
        Some(match self.reason {
            DropReason::PortDown if trouble.is_some_and(|trouble| trouble.reason.starts_with("administratively")) => {
                format!("labsw-ctl port up {port}")
            }
            DropReason::Oversize if payload <= 9216 => format!("labsw-ctl port set {port} mtu={payload}"),
            DropReason::TaggedNotAllowed | DropReason::UntaggedNotAllowed | DropReason::VlanNotMember => {
                self.vlan_hint()
            }
            DropReason::DoubleTag => "carry double-tagged frames between trunks only".to_owned(),
            DropReason::LinkLocal => format!("labsw-ctl port set {port} link_local=transparent"),
            DropReason::MirrorDestination => {
                format!("{port} takes part in mirroring only: labsw-ctl mirror list; labsw-ctl port show {port}")
            }
            DropReason::SamePort => {
                "if the station is elsewhere, the address is stolen or there is a loop: labsw-ctl fdb list".to_owned()
            }
            DropReason::MulticastNotWanted => "labsw-ctl mcast list".to_owned(),
            DropReason::NoDestination => "labsw-ctl vlan list; labsw-ctl port list".to_owned(),
            DropReason::NotConnected => format!("labsw-ctl port show {port}"),
            DropReason::MacLimit | DropReason::MacSticky => {
                format!("labsw-ctl fdb list --port {port}; the guards of the port: labsw-ctl port show {port}")
            }
            DropReason::StormBroadcast
            | DropReason::StormMulticast
            | DropReason::StormUnknownUnicast
            | DropReason::MacNotAllowed
            | DropReason::Isolated
            | DropReason::DhcpGuard
            | DropReason::RaGuard => format!("the guards of the port: labsw-ctl port show {port}"),
            DropReason::InjectSource | DropReason::InjectRate => "labsw-ctl mirror list".to_owned(),
            DropReason::InlineClosed | DropReason::InlineSensor => "labsw-ctl inline list".to_owned(),
            DropReason::NoNextHop => "labsw-ctl mirror list".to_owned(),
            DropReason::Oversize
            | DropReason::Runt
            | DropReason::SourceGroupAddress
            | DropReason::VidReserved
            | DropReason::PortDown
            | DropReason::BadOffload
            | DropReason::BadChain
            | DropReason::GuestRingFull
            | DropReason::GuestBufferTooSmall
            | DropReason::TxRingFull
            | DropReason::HeldByPeer
            | DropReason::NoBuffer
            | DropReason::ImpairLoss
            | DropReason::ImpairOutage
            | DropReason::ImpairQueueFull
            | DropReason::ImpairMemoryFull
            | DropReason::ImpairCleared
            | DropReason::MirrorLoop
            | DropReason::MacControl
            | DropReason::SegmentLimit
            | DropReason::TagUnsure => return None,
        })
    }

    /// A hint how a frame gets into a VLAN of the port. The settings name all VLANs that the port then has.
    fn vlan_hint(&self) -> String {
        let (port, vlan) = (self.port, self.vlan());
        let set = format!("labsw-ctl port set {port}");
        let Some(own) = self.rules.map(|rules| &rules.vlan) else { return format!("labsw-ctl port show {port}") };
        if let Some(CustomerVlans { untagged, tagged }) = own.tunnel().and_then(|tunnel| tunnel.cvlans.as_ref()) {
            let listed = untagged.then(|| "0".to_owned()).into_iter();
            let listed = listed.chain((!tagged.is_empty()).then(|| VlanList::from(tagged).to_string()));
            let cvlans = listed.chain([vlan.to_string()]).collect::<Vec<_>>().join(",");
            return format!("add VLAN {vlan} to the customer VLANs of {port}: {set} cvlans={cvlans}");
        }
        let trunks = VlanList::from(own.trunks());
        match (self.reason, own.tag()) {
            (DropReason::TaggedNotAllowed, Some(tag)) => format!(
                "send it untagged, or let {port} take VLAN {vlan} with tags: \
                 {set} vlan_mode=native-untagged tag={tag} trunks={vlan}"
            ),
            (DropReason::UntaggedNotAllowed, _) => format!(
                "send it tagged, or give {port} a native VLAN: {set} vlan_mode=native-untagged tag=N trunks={trunks}"
            ),
            _ if own.trunks().is_empty() => {
                format!("send it in the VLAN of {port}, or make {port} a trunk (labsw-ctl port set)")
            }
            _ => format!("add VLAN {vlan} to the trunks of {port}: {set} trunks={trunks},{vlan}"),
        }
    }
}
