//! Checks the switch and its sockets: the switch answers, and its users can open the sockets.
//!
//! Accounts are those of /etc/passwd and /etc/group.

use std::path::{Path, PathBuf};

use super::host::{ConfigSource, FileStatus, SwitchAnswer};
use super::{Finding, Host, Level};
use crate::api::PortState;
use crate::config::{PortKind, VhostRole, VhostUserConfig};

/// Users that libvirt runs guests as, on Debian, Fedora and NixOS.
const GUEST_USERS: [&str; 3] = ["libvirt-qemu", "qemu", "qemu-libvirtd"];

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let mut findings = vec![configuration(host), switch(host)];
    findings.extend(ports(host));
    findings.extend(group(host));
    findings.extend(control_socket(host));
    findings.extend(directory(host));
    findings.extend(guests(host));
    findings
}

fn configuration(host: &Host) -> Finding {
    let source = &host.facts.config_source;
    match (&host.facts.config_error, source) {
        (Some(error), _) => Finding::problem("configuration", "labswd does not start with this file", error.as_str())
            .command(format!("labswd --config {source} --check"))
            .nixos("services.labsw.settings (checked at build time)"),
        (None, ConfigSource::Nowhere) => Finding::advice(
            "configuration",
            "no switch runs and none is installed: only the needs of every lab are checked",
            "/etc/labsw/labsw.toml: not there",
        )
        .command("labsw-ctl doctor --config FILE")
        .nixos("services.labsw.enable = true"),
        (None, _) => {
            let ports = host.facts.config.ports.len();
            Finding::ok("configuration", format!("the host is judged for its {ports} ports"), source.to_string())
        }
    }
}

fn switch(host: &Host) -> Finding {
    match &host.facts.switch {
        SwitchAnswer::Status { socket, status } => {
            let evidence = format!("{}: labswd {}, up {} s", socket.display(), status.version, status.uptime_seconds);
            Finding::ok("switch", "it runs and answers", evidence)
        }
        SwitchAnswer::Denied { socket, reason } => {
            let group = host.facts.config.switch.socket_group.as_deref().unwrap_or("GROUP");
            Finding::problem("switch", "you may not ask it", format!("{}: {reason}", socket.display()))
                .command(format!("usermod -aG {group} USER, and log in again; or as root"))
                .nixos("services.labsw.socketUsers = [ \"USER\" ]")
        }
        SwitchAnswer::Absent { socket, reason } => {
            let summary = "no switch answers; the modes of its ports are not known";
            Finding::advice("switch", summary, format!("{}: {reason}", socket.display()))
                .command("systemctl start labsw")
                .nixos("services.labsw.enable = true")
        }
    }
}

/// Ports that are out of service, with the switch's reasons.
fn ports(host: &Host) -> Vec<Finding> {
    let SwitchAnswer::Status { status, .. } = &host.facts.switch else { return Vec::new() };
    let judge = |port: &crate::api::Port| {
        let level = match port.state {
            PortState::Failed => Level::Problem,
            // A guest that is switched off needs no remedy.
            PortState::Waiting if port.socket.is_none() => Level::Advice,
            _ => return None,
        };
        let reason = port.reason.as_deref().unwrap_or("no reason given");
        let summary = format!("the port is {}: {reason}", port.state);
        let command = format!("labsw-ctl port show {}", port.name);
        let finding = Finding::new(level, "port", summary, format!("{command}: state {}", port.state));
        Some(finding.command(command).about(&port.name))
    };
    status.ports.iter().filter_map(judge).collect()
}

/// The id of a group, by name or number.
fn group_named(host: &Host, name: &str) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let text = host.text("/etc/group")?;
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    { fields }.find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

fn group(host: &Host) -> Option<Finding> {
    const CHECK: &str = "socket_group";
    let Some(name) = &host.facts.config.switch.socket_group else {
        if sockets(host).is_empty() {
            return None;
        }
        let summary = "sockets belong to the user and group that labswd runs as; other users' guests can't open them";
        let finding = Finding::advice(CHECK, summary, format!("{}: no socket_group", host.facts.config_source));
        let mended = finding.command("add socket_group = \"kvm\" to [switch]; labsw-ctl config apply FILE");
        return Some(mended.nixos("services.labsw.settings.switch.socket_group = \"kvm\" (the module's default)"));
    };
    let finding = match group_named(host, name) {
        Some(id) => {
            Finding::ok(CHECK, format!("sockets belong to group {name}"), format!("/etc/group: {name} is {id}"))
        }
        None => Finding::problem(
            CHECK,
            format!("there is no group {name}; labswd refuses it"),
            format!("/etc/group: no {name}"),
        )
        .command(format!("groupadd --system {name}"))
        .nixos(format!("users.groups.{name} = {{ }}")),
    };
    Some(finding.about(name))
}

fn control_socket(host: &Host) -> Option<Finding> {
    const CHECK: &str = "control_socket";
    let (SwitchAnswer::Status { socket, .. } | SwitchAnswer::Denied { socket, .. }) = &host.facts.switch else {
        return None;
    };
    let status = host.status(socket).filter(|status| status.is_socket)?;
    let evidence = format!("{}: mode {:04o}, user {}, group {}", socket.display(), status.mode, status.uid, status.gid);
    let finding = if status.mode & 0o002 != 0 {
        Finding::advice(CHECK, "every user of the host may open the control socket", evidence)
            .command("set socket_mode = \"0660\" in [switch]; labsw-ctl config apply FILE")
            .nixos("services.labsw.settings.switch.socket_mode = \"0660\"")
    } else {
        Finding::ok(CHECK, "only its user and group may open it", evidence)
    };
    Some(finding.about(socket.display().to_string()))
}

/// The first directory on the way to `path` that user `uid` with the groups `gids` may not pass.
fn barred<'a>(host: &Host, path: &'a Path, uid: u32, gids: &[u32]) -> Option<&'a Path> {
    let may_pass = |directory: &&Path| {
        let Some(status) = host.status(directory) else { return true };
        let shift = if status.uid == uid {
            6
        } else if gids.contains(&status.gid) {
            3
        } else {
            0
        };
        status.mode >> shift & 1 == 1
    };
    path.ancestors().skip(1).filter(|directory| !may_pass(directory)).last()
}

/// The vhost-user sockets that the switch makes.
fn sockets(host: &Host) -> Vec<(String, PathBuf)> {
    let switch = &host.facts.config.switch;
    let socket = |port: &crate::config::PortConfig| match &port.kind {
        PortKind::VhostUser(guest @ VhostUserConfig { role: VhostRole::Server, .. }) => {
            Some((port.name.clone(), guest.socket_of(&port.name, switch)))
        }
        _ => None,
    };
    host.facts.config.ports.iter().filter_map(socket).collect()
}

fn directory(host: &Host) -> Option<Finding> {
    const CHECK: &str = "vhost_user_dir";
    let directory = &host.facts.config.switch.vhost_user_dir;
    if sockets(host).is_empty() {
        return None;
    }
    let runs = matches!(host.facts.switch, SwitchAnswer::Status { .. });
    let finding = match host.status(directory) {
        Some(status) => {
            let evidence =
                format!("{}: mode {:04o}, user {}, group {}", directory.display(), status.mode, status.uid, status.gid);
            Finding::ok(CHECK, "guests' sockets are here", evidence)
        }
        None if runs => Finding::problem(CHECK, "a switch runs, but its directory is gone", "not there")
            .command("systemctl restart labsw"),
        None => Finding::ok(CHECK, "made when the switch starts", "not there"),
    };
    Some(finding.about(directory.display().to_string()))
}

/// Checks that libvirt's guests can open their sockets. If not, `virsh start` with `<reconnect>` hangs rather than
/// fails.
fn guests(host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    for account in accounts(host) {
        for (port, socket) in sockets(host) {
            let Some(status) = host.status(&socket).filter(|status| status.is_socket) else { continue };
            findings.push(access(host, &account, &socket, &status).about(port));
        }
    }
    findings
}

/// An account that runs guests.
struct Account {
    name: String,
    uid: u32,
    gids: Vec<u32>,
}

/// The accounts of this host that run libvirt's guests, with their groups.
fn accounts(host: &Host) -> Vec<Account> {
    let [passwd, groups] = ["/etc/passwd", "/etc/group"].map(|file| host.text(file).unwrap_or_default());
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let name = *fields.first().filter(|name| GUEST_USERS.contains(name))?;
        let (uid, own_group) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        let member = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let listed = fields.get(3).is_some_and(|members| members.split(',').any(|member| member == name));
            fields.get(2).filter(|_| listed).and_then(|id| id.parse().ok())
        };
        let gids = std::iter::once(own_group).chain(groups.lines().filter_map(member)).collect();
        Some(Account { name: name.to_owned(), uid, gids })
    };
    passwd.lines().filter_map(account).collect()
}

/// Checks whether `account` can open a socket, and reach it.
fn access(host: &Host, account: &Account, socket: &Path, status: &FileStatus) -> Finding {
    const CHECK: &str = "guest_access";
    let Account { name: user, uid, gids } = account;
    let shift = if status.uid == *uid {
        6
    } else if gids.contains(&status.gid) {
        3
    } else {
        0
    };
    let evidence = format!(
        "{}: mode {:04o}, user {}, group {}; /etc/passwd, /etc/group: {user} is {uid} of {gids:?}",
        socket.display(),
        status.mode,
        status.uid,
        status.gid
    );
    if let Some(bar) = barred(host, socket, *uid, gids) {
        let summary = format!("{user}, who runs libvirt's guests, may not pass {}", bar.display());
        return Finding::problem(CHECK, summary, evidence).command(format!("chmod o+x {}", bar.display()));
    }
    // Connecting to a socket needs the right to write.
    if status.mode >> shift & 0o2 != 0 {
        return Finding::ok(CHECK, format!("{user} may open the port's socket"), evidence);
    }
    let summary = format!("{user}, who runs libvirt's guests, may not open the port's socket: `virsh start` hangs");
    let command = match host.facts.config.switch.socket_group.as_deref() {
        Some(group) if !gids.contains(&status.gid) => format!("usermod -aG {group} {user}; systemctl restart libvirtd"),
        _ => {
            "set socket_group = \"kvm\" and socket_mode = \"0660\" in [switch]; labsw-ctl config apply FILE".to_owned()
        }
    };
    Finding::problem(CHECK, summary, evidence)
        .command(command)
        .nixos("services.labsw.settings.switch.socket_group = \"kvm\" (libvirtd's user is made a member)")
}
