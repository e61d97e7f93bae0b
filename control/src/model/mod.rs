//! The model of the configuration: what can be set, once, for everything that reads or writes settings.
//!
//! The file, `--set key=value`, the parameters and replies of the control socket, `config diff`, the JSON schema and
//! the types of the NixOS options come from the types in here, by serde. A key of a noun is a field of its struct, and
//! stands nowhere else.
//!
//! **How it works.** A table is a [`Tree`], from a file or from the control socket. The [`Reader`] reads it into the
//! type of its noun and notes every mistake with its [`Path`]; writing is serde's.
//!
//! | file | content |
//! |---|---|
//! | `switch`, `port`, `device`, `vlan`, `guards` | the switch; its ports, what they are attached to, their VLANs and guards |
//! | `mirror`, `destination`, `inject` | mirrors, where their copies go, what their destinations may inject |
//! | `inline` | sensors in the wires of ports |
//! | `impair` | impairments and their profiles |
//! | `units`, `names` | units and names, each with one parser |
//! | `tree`, `de`, `mistake`, `reader` | a table of settings, and how it is read with every mistake in it |
//! | `value` | helpers by which fields are read and checked |
//! | `schema` | helpers by which their JSON schema is made |

pub(crate) mod de;
mod destination;
mod device;
mod guards;
mod impair;
mod inject;
mod inline;
mod mirror;
mod mistake;
pub(crate) mod names;
pub(crate) mod port;
mod reader;
mod remote;
mod rewind;
pub(crate) mod schema;
mod switch;
mod tree;
mod units;
pub(crate) mod value;
mod vlan;

use serde::Serialize;

pub use destination::{Destination, MirrorTo};
pub use device::DeviceSpec;
pub use guards::{Guards, Storm};
pub use impair::{
    Bursts, ChangingRate, Directions, ImpairConfig, ImpairDirection, OutageTime, ProfileConfig, Selection,
    Settings as ImpairSettings,
};
pub use inject::{Inject, InjectConfig, InjectEntry, Source as InjectSource};
pub use inline::{InlineConfig, InlineRefusal, MAX_INLINES, OnFailure};
pub use labsw_dataplane::worker::Power;
pub use labsw_dataplane::xdp::Hugepages;
pub use mirror::{MirrorConfig, MirrorRefusal, MirrorSource};
pub use mistake::AtKey;
pub(crate) use mistake::cut;
pub use names::Station;
pub use port::*;
pub(crate) use reader::nearest;
pub use reader::{Diagnostic, MAX_DIAGNOSTICS, Reader};
pub use remote::{Address, Remote, RemoteKind};
pub use switch::{Accelerate, SwitchConfig};
pub use tree::{Path, Tree};
pub use units::{BitRate, FrameRate, InvalidUnit, Share, Size, Span, Unit};
pub use vlan::{Ethertype, Vlan, VlanId, VlanList};

/// A noun as a table of the configuration; keys that are `None` are left out.
fn to_table<T: Serialize>(noun: &T) -> toml::Table {
    toml::Table::try_from(noun).unwrap_or_default()
}
