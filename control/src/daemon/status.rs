//! The state of the switch in a line for the service manager (`STATUS=` of sd_notify(3)): `systemctl status` shows it.

use std::collections::BTreeMap;

use labsw_switch::MAX_PORTS;
use sd_notify::NotifyState;

use super::show::waits_for;
use super::signals::notify;
use super::switch::Switch;
use crate::api::PortState;

/// Ports of a state that are named, for states other than up.
const NAMED: usize = 3;

impl Switch {
    /// Tells the service manager the state of the switch, if there is one and the state is another than told last.
    pub(super) fn tell_status(&mut self) {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        let status = self.status_line();
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    /// `6 ports: 4 up, 1 waiting (dc01), 1 failed (uplink); mirror detect waits`.
    pub(super) fn status_line(&self) -> String {
        let mut states: BTreeMap<usize, (PortState, Vec<&str>)> = BTreeMap::new();
        for port in self.ports.iter() {
            let state = port.state().0;
            let order = ORDER.iter().position(|known| *known == state).unwrap_or(MAX_PORTS);
            states.entry(order).or_insert_with(|| (state, Vec::new())).1.push(&port.config.name);
        }
        let count: usize = states.values().map(|(_, names)| names.len()).sum();
        let mut status = if count == 1 { "1 port: ".to_owned() } else { format!("{count} ports: ") };
        if count == 0 {
            status = "no ports".to_owned();
        }
        let shown = states.values().map(|(state, names)| match state {
            PortState::Up => format!("{} up", names.len()),
            _ => format!("{} {state} ({})", names.len(), some_of(names)),
        });
        status += &shown.collect::<Vec<_>>().join(", ");
        let waiting: Vec<&str> = self
            .mirrors
            .configs()
            .filter(|mirror| waits_for(mirror, self.view()).is_some())
            .map(|mirror| mirror.name.as_str())
            .collect();
        if !waiting.is_empty() {
            status += &format!("; mirrors that wait: {}", some_of(&waiting));
        }
        if let Some(trial) = &self.trial {
            status += &format!("; {} waits for its confirmation", trial.file);
        }
        status
    }
}

/// The order in which states are told.
const ORDER: [PortState; 5] =
    [PortState::Up, PortState::Down, PortState::Waiting, PortState::Failed, PortState::Opening];

/// The first names, and three dots for others.
fn some_of(names: &[&str]) -> String {
    let more = if names.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", names.get(..NAMED).unwrap_or(names).join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::api::{ConfigText, WantedConfig};
    use crate::daemon::tests::switch;

    #[test]
    fn the_status_counts_ports_by_state_and_names_those_that_are_not_up() {
        assert_eq!(switch("").errand().status_line(), "no ports");
        let port = |name: &str| format!("[ports.{name}]\ntype='veth'\npeer='x{name}'\n");
        assert_eq!(switch(&port("a")).errand().status_line(), "1 port: 1 up");
        let text = ["a", "b", "c", "d", "e"].map(port).concat();
        let mut bench = switch(&(text.clone() + "[mirrors.m]\nsources=['a']\nto='e'\n"));
        let mut switch = bench.errand();
        assert_eq!(switch.status_line(), "5 ports: 5 up");
        switch.switch_port("e", false).unwrap();
        assert_eq!(switch.status_line(), "5 ports: 4 up, 1 down (e); mirrors that wait: m");
        for name in ["b", "c", "d"] {
            switch.switch_port(name, false).unwrap();
        }
        let config = ConfigText { file: "new.toml".to_owned(), text };
        let wanted = WantedConfig { config, keep_runtime: false };
        switch.apply_on_trial(&wanted, Some(Duration::from_secs(9)), Instant::now).unwrap();
        assert_eq!(switch.status_line(), "5 ports: 1 up, 4 down (b, c, d, …); new.toml waits for its confirmation");
    }
}
