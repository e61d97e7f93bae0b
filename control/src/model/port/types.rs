//! The types of ports: the table of all types, and the trait that the settings of each type implement.
//!
//! A new type of port is three things: a file beside this one with its settings (the keys of its table) and their
//! [`TypeSettings`], a file in `daemon/attach` that opens its ports, and a line in the table below. The `mod` lines of
//! both directories name the files. Everything else asks the table.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use crate::model::de::keys;
use crate::model::mistake::AtKey;
use crate::model::reader::Reader;
use crate::model::switch::SwitchConfig;
use crate::model::tree::Tree;

/// The settings of one type of port.
pub trait TypeSettings {
    /// Sets keys that are left out and whose defaults depend on the port's name.
    fn fill_in(_port: &str, _tree: &mut Tree, _reader: &mut Reader)
    where
        Self: Sized,
    {
    }

    /// True if a port of this type leads to other switches: without `vlan` it is in every VLAN. Every other port leads
    /// to one machine, which is in one VLAN, and in more only if the configuration says so.
    fn leads_to_switches() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Checks keys that contradict each other, or the name of the port.
    fn check(&self, _port: &str) -> Result<(), AtKey<String>> {
        Ok(())
    }

    /// Removes settings that are equal to their defaults.
    fn normalise(&mut self, _port: &str, _switch: &SwitchConfig) {}

    /// The things that the port needs for itself alone, each with the key that names it.
    fn claims(&self, port: &str, switch: &SwitchConfig) -> Vec<(&'static str, Claim)>;
}

/// Makes [`PortKind`], [`PortType`] and [`settings_of`] of the table of types. `$d` is a dollar sign.
macro_rules! port_types {
    ($d:tt $($(#[$doc:meta])* $type:ident($module:ident::$settings:ident) = $name:literal,)+) => {
        $(pub use super::$module::*;)+

        /// The type of a port (key `type`), with the settings of that type.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "type")]
        pub enum PortKind {
            $($(#[$doc])* #[serde(rename = $name)] $type($settings),)+
        }

        /// The type of a port: how it moves frames.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum PortType {
            $($(#[$doc])* #[serde(rename = $name)] $type,)+
        }

        /// Evaluates an expression with the settings of a [`PortKind`], whatever its type.
        macro_rules! settings_of {
            ($d kind:expr, $d settings:ident => $d then:expr) => {
                match $d kind {
                    $($crate::model::PortKind::$type($d settings) => $d then,)+
                }
            };
        }
        pub(crate) use settings_of;

        impl PortType {
            /// Every type.
            pub const ALL: &[PortType] = &[$(PortType::$type),+];

            /// The name in configuration and JSON.
            pub fn name(self) -> &'static str {
                match self {
                    $(PortType::$type => $name,)+
                }
            }

            /// The keys that only ports of some types have, this one among them.
            pub fn keys(self) -> &'static [&'static str] {
                match self {
                    $(PortType::$type => keys::<$settings>(),)+
                }
            }

            /// The JSON schema of the keys of this type.
            pub(super) fn schema(self, generator: &mut SchemaGenerator) -> Schema {
                match self {
                    $(PortType::$type => $settings::json_schema(generator),)+
                }
            }

            /// Reads the keys of this type.
            pub(super) fn read(self, tree: &Tree, reader: &mut Reader) -> Option<PortKind> {
                match self {
                    $(PortType::$type => reader.part(tree).map(PortKind::$type),)+
                }
            }

            /// See [`TypeSettings::fill_in`].
            pub(super) fn fill_in(self, port: &str, tree: &mut Tree, reader: &mut Reader) {
                match self {
                    $(PortType::$type => $settings::fill_in(port, tree, reader),)+
                }
            }

            /// See [`TypeSettings::leads_to_switches`].
            pub(super) fn leads_to_switches(self) -> bool {
                match self {
                    $(PortType::$type => $settings::leads_to_switches(),)+
                }
            }
        }

        impl PortKind {
            /// The type.
            pub fn port_type(&self) -> PortType {
                match self {
                    $(PortKind::$type(_) => PortType::$type,)+
                }
            }
        }
    };
}

port_types! { $
    /// A network device of the host, through AF_XDP sockets.
    AfXdp(nic::AfXdpConfig) = "af_xdp",
    /// A guest's virtio-net device, through a vhost-user socket.
    VhostUser(guest::VhostUserConfig) = "vhost_user",
    /// A container, through a pair of virtual Ethernet devices that the switch makes.
    Veth(veth::VethConfig) = "veth",
    /// The host, a container, or a guest with an emulated NIC, through a TAP interface.
    Tap(tap::TapConfig) = "tap",
}

impl PortKind {
    /// The settings of the type.
    pub fn settings(&self) -> &dyn TypeSettings {
        settings_of!(self, settings => settings)
    }

    /// The settings of the type, to change them.
    pub(super) fn settings_mut(&mut self) -> &mut dyn TypeSettings {
        settings_of!(self, settings => settings)
    }
}

impl std::fmt::Display for PortType {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.pad(self.name())
    }
}
