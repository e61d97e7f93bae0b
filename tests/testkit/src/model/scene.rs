//! A switch as both sides are told about it: ports, mirrors and filters.

use std::ops::RangeInclusive;

use labsw_switch::filter::{Filter, Form, Insn};
use labsw_switch::inline::Way;
use labsw_switch::vlan::VlanMode;

pub const AGEING_SECONDS: u32 = 10;

/// A port as both sides are told about it.
#[derive(Clone, Debug)]
pub struct Port {
    pub mode: VlanMode,
    pub tag: u16,
    /// In tunnel mode, the customer VLANs; empty: all.
    pub trunks: Vec<RangeInclusive<u16>>,
    /// In tunnel mode, whether the customer may send untagged frames where its VLANs are listed.
    pub customer_untagged: bool,
    /// In tunnel mode, the TPID of the tag put in front.
    pub tpid: u16,
    pub mtu: u32,
    pub enabled: bool,
    pub learning: bool,
    pub mirror_only: bool,
    pub drops_link_local: bool,
    pub guards: Guarded,
    /// While it is a mirror destination.
    pub inject: Option<Inject>,
}

/// The guards of a port, as both sides are told about them. Stations are known by the last byte of their address.
#[derive(Clone, Debug, Default)]
pub struct Guarded {
    pub sticky: bool,
    pub isolated: bool,
    /// The only stations that may send.
    pub pinned: Option<Vec<u8>>,
    /// How many are learned, and whether others are dropped.
    pub limit: Option<(u32, bool)>,
}

/// The frames that a destination may inject.
#[derive(Clone, Debug)]
pub struct Inject {
    /// By this VLAN; `None`: as received on `port`.
    pub vlan: Option<u16>,
    pub port: u16,
    pub sources: Vec<[u8; 6]>,
}

/// A sensor in the wire of a port, as both sides are told about it.
#[derive(Clone, Debug)]
pub struct Inline {
    pub port: u16,
    pub near: u16,
    pub far: u16,
    pub way: Way,
}

/// A mirror as both sides are told about it.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub sources: Vec<(u16, bool, bool)>,
    pub all: Option<(bool, bool)>,
    pub vlans: Option<Vec<u16>>,
    pub to: Option<To>,
    pub snap: u32,
    pub pattern: Option<Pattern>,
}

/// Where copies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Port(u16),
    /// An RSPAN VLAN.
    Vlan(u16),
}

impl To {
    pub fn port(self) -> Option<u16> {
        if let To::Port(port) = self { Some(port) } else { None }
    }
}

/// A filter as both sides are told about it: frames of `least` bytes or more with some bits of one byte.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub tagged: bool,
    pub least: u32,
    pub at: u32,
    pub mask: u8,
    pub value: u8,
}

impl Pattern {
    pub(super) fn filter(&self) -> Filter {
        let insn = |code, jt, jf, k| Insn { code, jt, jf, k };
        let length = [insn(0x80, 0, 0, 0), insn(0x35, 0, 4, self.least)];
        let byte = [insn(0x30, 0, 0, self.at), insn(0x54, 0, 0, self.mask.into()), insn(0x15, 0, 1, self.value.into())];
        let end = [insn(0x06, 0, 0, 1), insn(0x06, 0, 0, 0)];
        // A length of 0 is not asked for: then bytes alone decide.
        let length = if self.least == 0 { &[] } else { &length[..] };
        let form = if self.tagged { Form::Tagged } else { Form::Untagged };
        Filter::new(&[length, &byte, &end].concat(), form).unwrap()
    }
}
