//! Names: ports, interfaces, namespaces, groups, paths, MAC addresses. Each check says what is wrong, and each kind of
//! name has a reader for fields of that kind.

use labsw_switch::Mac;
use schemars::Schema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{schema, value};

/// Longest name of a port or a mirror.
const PORT_NAME_CHARS: usize = 32;
/// Longest name of an interface: `IFNAMSIZ` of linux/if.h less the terminating zero.
pub(crate) const INTERFACE_NAME_BYTES: usize = 15;
/// Longest path of a Unix socket: `sun_path` of unix(7) less the terminating zero.
pub(crate) const SOCKET_PATH_BYTES: usize = 107;

/// MAC addresses, as a regular expression.
pub(super) const STATION_PATTERN: &str = "[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}";
/// Names of interfaces, as a regular expression.
pub(super) const INTERFACE_PATTERN: &str = "[!-$&-.0-9;-~]{1,15}";

/// A port or mirror: 1 to 32 of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit (they become file names).
pub(crate) fn port(name: &str) -> Result<(), String> {
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if legal && begins && name.len() <= PORT_NAME_CHARS {
        return Ok(());
    }
    Err(format!("use 1 to {PORT_NAME_CHARS} of A-Z a-z 0-9 _ . - and begin with a letter or digit"))
}

/// A network interface: the names that the kernel accepts (`dev_valid_name`), without `%`, which it would treat as a
/// pattern.
pub(super) fn interface(name: &str) -> Result<(), String> {
    if name.len() > INTERFACE_NAME_BYTES {
        return Err(format!("it has {} characters, the kernel takes {INTERFACE_NAME_BYTES}", name.len()));
    }
    let legal = name.bytes().all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b));
    if name.is_empty() || name == "." || name == ".." || !legal {
        return Err("use 1 to 15 visible ASCII characters without / : %".to_owned());
    }
    Ok(())
}

/// A named network namespace: a file name in /run/netns (ip-netns(8)).
pub(super) fn netns(name: &str) -> Result<(), String> {
    if name.is_empty() || name == "." || name == ".." || name.len() > 255 || name.contains(['/', '\0']) {
        return Err("use the name that `ip netns list` shows".to_owned());
    }
    Ok(())
}

/// A user of passwd(5) or a group of group(5).
pub(super) fn group(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains([':', ',', '\0', '\n']) {
        return Err("use a name that `getent group` shows".to_owned());
    }
    Ok(())
}

/// Any path.
pub(super) fn path(path: &str) -> Result<(), String> {
    if path.is_empty() || path.contains('\0') {
        return Err("it is empty or holds a zero byte".to_owned());
    }
    Ok(())
}

/// The path of a Unix socket.
pub(super) fn socket_path(text: &str) -> Result<(), String> {
    path(text)?;
    if text.len() > SOCKET_PATH_BYTES {
        return Err(format!("it has {} bytes, a Unix socket takes {SOCKET_PATH_BYTES}", text.len()));
    }
    Ok(())
}

/// The MAC address of one station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station(pub Mac);

impl Serialize for Station {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Station {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Station, D::Error> {
        value::text(deserializer, "a MAC address", |text| match text.parse::<Mac>() {
            Ok(mac) if !mac.is_group() && mac != Mac::default() => Ok(Station(mac)),
            Ok(_) => Err(format!("{text:?} is not a MAC address: it is not the address of one device")),
            Err(wrong) => Err(format!("{text:?} is not a MAC address: {wrong}")),
        })
    }
}

schema::described!(Station, |_| schema::text(STATION_PATTERN));

/// Kinds of names. A field is one by `#[serde(with = "names::NAME")]`: what it should be, the check, and the schema.
macro_rules! kinds {
    ($($name:ident, $what:literal, $check:path, $schema:expr;)*) => {$(
        #[doc = concat!("A key that holds ", $what, ".")]
        pub(super) struct $name;

        impl $name {
            pub(super) fn deserialize<'de, T: value::Checked, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<T, D::Error> {
                T::read(deserializer, $what, $check)
            }

            pub(super) fn serialize<T: Serialize, S: Serializer>(name: &T, serializer: S) -> Result<S::Ok, S::Error> {
                name.serialize(serializer)
            }
        }

        schema::described!($name, |_| $schema);
    )*};
}

kinds! {
    Port, "a port name", port, port_schema();
    Profile, "a profile name", port, port_schema();
    Interface, "an interface name", interface, schema::text(INTERFACE_PATTERN);
    Netns, "the name of a network namespace", netns, schema::text("[^/]{1,255}");
    Group, "the name of a group", group, schema::text("[^:,\\n]+");
    Account, "the name or number of an account", group, schema::text("[^:,\\n]+");
    Directory, "a directory", path, schema::text("[^\\x00]+");
    Socket, "a socket path", socket_path, schema::text("[^\\x00]{1,107}");
}

/// The schema of the names of ports, mirrors and profiles.
pub(crate) fn port_schema() -> Schema {
    schema::text("[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
}
