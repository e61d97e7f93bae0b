//! Containers and namespaces: they get one end of a veth pair or a TAP interface, which comes back when they end.

use super::{Plug, Socket, quote};

/// The interface to hand over.
fn interface<'a>(socket: &'a Socket<'_>) -> &'a str {
    match &socket.plug {
        Plug::Veth { peer: interface } | Plug::Tap { interface } | Plug::Socket { path: interface, .. } => interface,
    }
}

/// Lines for the configuration of an LXC container.
pub(super) fn lxc(socket: &Socket<'_>) -> String {
    format!(
        "# Port {}: into the container's configuration. Start it in the switch's network namespace.\n\
         lxc.net.0.type = phys\nlxc.net.0.link = {}\nlxc.net.0.name = eth0\nlxc.net.0.flags = up\n\
         lxc.net.0.hwaddr = {}\n",
        socket.port,
        interface(socket),
        socket.mac
    )
}

/// The option of systemd-nspawn.
pub(super) fn nspawn(socket: &Socket<'_>) -> String {
    let interface = interface(socket);
    format!(
        "# Port {}: the container's interface is {interface} (down, without address). In a .nspawn file: [Network] \
         Interface={interface}\n  {}\n",
        socket.port,
        quote::shell(&format!("--network-interface={interface}"))
    )
}

/// Commands that hand the interface to a named namespace.
pub(super) fn netns(socket: &Socket<'_>) -> String {
    let (port, mac) = (socket.port, socket.mac);
    format!(
        "# Port {port}: for a namespace called {port} (ip netns add {port}).\n\
         # To have the switch do it at each start: netns = \"{port}\" and peer_name = \"eth0\" at the port.\n\
         ip link set {} netns {port} name eth0\nip -n {port} link set eth0 address {mac} up\n",
        quote::shell(interface(socket))
    )
}
