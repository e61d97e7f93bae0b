//! The commands about a port that the picture offers to copy.

use std::path::Path;

use crate::api::{Port, PortRole, PortState, PortType, Status};
use crate::ctl::USUAL_SOCKET;
use crate::glue::quote;

/// Writes commands for a switch at a control socket.
#[derive(Clone, Debug)]
pub(in crate::ctl) struct Commands {
    /// The program, and the option that names the socket.
    program: String,
}

impl Commands {
    /// Commands for the switch at `socket`, which they name if it is not the usual one.
    pub(in crate::ctl) fn new(socket: &Path) -> Commands {
        let program = match socket == Path::new(USUAL_SOCKET) {
            true => "labsw-ctl".to_owned(),
            false => format!("labsw-ctl --socket {}", quote::shell(&socket.to_string_lossy())),
        };
        Commands { program }
    }

    /// The commands about a port: look, then change.
    pub(super) fn about(&self, port: &Port, status: &Status) -> Vec<String> {
        let name = quote::shell(&port.name);
        let mut commands = vec![
            format!("port show {name}"),
            format!("stats {name} --watch"),
            format!("fdb list --port {name}"),
            format!("capture {name} -w {name}.pcapng"),
        ];
        if port.rewind.is_some() {
            commands.push(format!("rewind {name} --last 30s -w {name}-before.pcapng"));
        }
        if let Some(target) = target(port) {
            commands.push(format!("guest {name} --for {target}"));
        }
        commands.extend(mirror(port, status, &name));
        let inline = status.inlines.iter().find(|inline| inline.of == port.name || inline.through.contains(&port.name));
        commands.extend(inline.map(|inline| format!("inline show {}", quote::shell(&inline.name))));
        if !port.mirror_only {
            let impair = if port.impaired.is_empty() { "set {} --profile lossy" } else { "clear {}" };
            commands.push(format!("impair {}", impair.replace("{}", &name)));
        }
        let other = if port.state == PortState::Down && by_hand(port) { "up" } else { "down" };
        commands.push(format!("port {other} {name}"));
        commands.into_iter().map(|command| format!("{} {command}", self.program)).collect()
    }
}

/// True if somebody disabled the port.
fn by_hand(port: &Port) -> bool {
    port.reason.as_deref().is_some_and(|reason| reason.starts_with("administratively"))
}

/// The usual target of `labsw-ctl guest` for the port.
fn target(port: &Port) -> Option<&'static str> {
    match (port.port_type, port.role) {
        (PortType::VhostUser, _) | (PortType::Tap, Some(PortRole::Guest)) => Some("qemu"),
        (PortType::Veth, _) | (PortType::Tap, Some(PortRole::Container)) => Some("lxc"),
        _ => None,
    }
}

/// Looks at the port's mirrors; without one, mirrors the port to a port that takes nothing else.
fn mirror(port: &Port, status: &Status, name: &str) -> Option<String> {
    if let Some(mirror) = port.mirrors.first() {
        return Some(format!("mirror show {}", quote::shell(mirror)));
    }
    let to = status.ports.iter().find(|other| other.mirror_only && other.allow_mirror)?;
    let is_free = status.mirrors.iter().all(|mirror| mirror.name != port.name);
    let possible = port.allow_mirror && !port.mirror_only && is_free;
    possible.then(|| format!("mirror set {name} --source {name} --to {}", quote::shell(&to.name)))
}
