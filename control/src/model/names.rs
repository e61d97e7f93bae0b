//! Names: ports, interfaces, namespaces, groups, paths, MAC addresses. Each check says what is wrong, and each kind of
//! name has a reader for fields of that kind.

use labsw_switch::Mac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::value;

/// Longest name of a port or a mirror.
const PORT_NAME_CHARS: usize = 32;
/// Longest name of an interface: `IFNAMSIZ` of linux/if.h less the terminating zero.
pub(crate) const INTERFACE_NAME_BYTES: usize = 15;
/// Longest path of a Unix socket: `sun_path` of unix(7) less the terminating zero.
pub(crate) const SOCKET_PATH_BYTES: usize = 107;

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

/// Generates the reader for a field that is a name: what it should be, and the check.
macro_rules! reads {
    ($($name:ident, $optional:ident, $what:literal, $check:path;)*) => {$(
        #[allow(dead_code, reason = "not every name must be there somewhere")]
        pub(super) fn $name<'de, T: From<String>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
            value::checked(deserializer, $what, $check).map(T::from)
        }

        #[allow(dead_code, reason = "not every name is optional somewhere")]
        pub(super) fn $optional<'de, T: From<String>, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<T>, D::Error> {
            value::optional(deserializer, $what, $check).map(|name| name.map(T::from))
        }
    )*};
}

reads! {
    read_port, read_some_port, "a port name", port;
    read_profile, read_some_profile, "a profile name", port;
    read_interface, read_some_interface, "an interface name", interface;
    read_netns, read_some_netns, "the name of a network namespace", netns;
    read_group, read_some_group, "the name of a group", group;
    read_account, read_some_account, "the name or number of an account", group;
    read_directory, read_some_directory, "a directory", path;
    read_socket, read_some_socket, "a socket path", socket_path;
}
