//! What names may look like: ports, interfaces, namespaces, groups, paths. Each check says what is wrong.

/// Longest name of a port or a mirror.
const PORT_NAME_CHARS: usize = 32;
/// Longest name of an interface: `IFNAMSIZ` of linux/if.h less the terminating zero.
pub(super) const INTERFACE_NAME_BYTES: usize = 15;
/// Longest path of a Unix socket: `sun_path` of unix(7) less the terminating zero.
pub(super) const SOCKET_PATH_BYTES: usize = 107;

/// A port or mirror: 1 to 32 of `A-Z a-z 0-9 _ . -`, beginning with a letter or digit (they become file names).
pub(super) fn port(name: &str) -> Result<(), String> {
    let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if legal && begins && name.len() <= PORT_NAME_CHARS {
        return Ok(());
    }
    Err(format!("use 1 to {PORT_NAME_CHARS} of A-Z a-z 0-9 _ . - and begin with a letter or digit"))
}

/// A network interface: what the kernel takes (`dev_valid_name`), less `%`, which it would treat as a pattern.
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
