//! Traces a frame: works out, on the control thread, how the switch would handle it, from the tables and the forwarding
//! database in force. No worker takes part.

use labsw_dataplane::clock;
use labsw_switch::forward::Forwarder;

use super::fabric::Fabric;
use super::port::Port;
use super::view::View;
use crate::api::{self, Error, PortDirection, PortState};
use crate::trace::{PortView, Scene, Trouble, explain};

/// The steps and the outcome for `frame` arriving at the port called `port`.
pub(super) fn trace(seen: View<'_>, port: &str, frame: &[u8]) -> Result<api::Trace, Error> {
    let View { ports, mirrors, fabric: Fabric { shared, tables, .. }, .. } = seen;
    let ingress = ports.get(port)?.id;
    let scene = Scene {
        by: Forwarder { tables, fdb: &shared.fdb, now_seconds: clock::now_seconds() },
        now_ns: clock::now_ns(),
        ports: ports.iter().map(|port| (port.id, view(port))).collect(),
        mirrors: mirrors.iter().map(|mirror| (mirror.id, mirror.config.name.clone())).collect(),
    };
    Ok(explain(&scene, ingress, frame))
}

fn view(port: &Port) -> PortView {
    let (state, reason) = port.state();
    let trouble = (state != PortState::Up).then(|| Trouble {
        state,
        reason: reason.unwrap_or_else(|| "no reason given".to_owned()),
        // A device takes frames even while its link is down; a guest's rings and a TAP interface do not.
        takes_frames: port.tx.is_some() && port.attached.to().is_some_and(|to| to.takes_frames_when_down()),
    });
    let name = port.config.name.clone();
    let how = |direction| {
        let found = port.impaired.as_ref()?.show().find(|one| one.direction == direction)?;
        let settings: Vec<String> = found.settings().iter().map(|(key, value)| format!("{key} {value}")).collect();
        (!settings.is_empty()).then(|| settings.join(", "))
    };
    let (impaired_rx, impaired_tx) = (how(PortDirection::Rx), how(PortDirection::Tx));
    PortView { name, trouble, impaired_rx, impaired_tx, fast_path: port.fast_path() }
}
