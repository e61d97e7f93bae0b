//! Checks huge pages: the switch's packet memory (64 MiB) needs 32 pages of 2 MiB, at the node of a NIC or a worker.

use super::host::SwitchAnswer;
use super::{Finding, Host, Level};
use crate::config::Hugepages;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
/// The kernel's setting for transparent huge pages of shared memory.
const SHARED: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// Pages of 2 MiB that packet memory takes.
const NEEDED: u64 = 32;

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let pages = pages(host);
    let transparent = transparent(host, &pages);
    let mut findings = vec![pages];
    findings.extend(transparent);
    findings.extend(nodes(host));
    findings
}

fn pages(host: &Host) -> Finding {
    const CHECK: &str = "hugepages";
    let wanted = host.facts.config.switch.hugepages;
    let file = |name: &str| format!("{POOL}/{name}_hugepages");
    let (total, free) = (format!("{POOL}/nr_hugepages"), file("free"));
    let evidence = host.all_shown(&[&total, &free, &file("nr_overcommit"), &file("surplus")]);
    if wanted == Hugepages::Off {
        return Finding::ok(CHECK, "none are wanted: hugepages = \"off\"", evidence);
    }
    let (Some(total), Some(free)) = (host.number(&total), host.number(&free)) else {
        let summary = "this kernel has no huge pages of 2 MiB (CONFIG_HUGETLBFS)";
        return if wanted == Hugepages::Required {
            let fallback = "set hugepages = \"auto\" in [switch], and start labswd again";
            Finding::problem(CHECK, format!("{summary}, and hugepages = \"required\""), evidence)
                .command(fallback)
                .nixos("services.labsw.settings.switch.hugepages = \"auto\"")
        } else {
            Finding::advice(CHECK, format!("{summary}; packet memory lies in normal pages"), evidence)
        };
    };
    // Pages that the kernel may allocate on demand.
    let number = |name: &str| host.number(&file(name)).unwrap_or_default();
    let on_demand = number("nr_overcommit").saturating_sub(number("surplus"));
    let described = match on_demand {
        0 => format!("{free} of {total} pages of 2 MiB are free; the switch takes {NEEDED}"),
        _ => format!("{free} of {total} pages of 2 MiB are free, {on_demand} on demand; the switch takes {NEEDED}"),
    };
    if free.saturating_add(on_demand) >= NEEDED {
        return Finding::ok(CHECK, described, evidence);
    }
    let runs = matches!(host.facts.switch, SwitchAnswer::Status { .. }) && host.has_packet_memory();
    if runs && total >= NEEDED {
        let summary = format!("{total} pages of 2 MiB, {free} free; a switch runs and has had its share");
        return Finding::ok(CHECK, summary, evidence);
    }
    let more = total.saturating_add(NEEDED).saturating_sub(free);
    let finding = if wanted == Hugepages::Required && !runs && host.has_packet_memory() {
        Finding::problem(CHECK, format!("{described}, and does not start without (hugepages = \"required\")"), evidence)
    } else {
        Finding::advice(CHECK, format!("{described}; without them packet memory lies in normal pages"), evidence)
    };
    finding
        .command(format!("sysctl -w vm.nr_hugepages={more}"))
        .nixos(format!("services.labsw.host.hugepages = {{ size = \"2M\"; count = {more}; }}"))
}

/// Checks that the kernel makes huge pages of packet memory that lies in normal pages. That is shared memory, of which
/// most kernels make none by themselves.
fn transparent(host: &Host, reserved: &Finding) -> Option<Finding> {
    const CHECK: &str = "hugepages_transparent";
    if host.facts.config.switch.hugepages == Hugepages::Off || !host.has_packet_memory() {
        return None;
    }
    let evidence = host.all_shown(&[SHARED]);
    if reserved.level == Level::Ok {
        return Some(Finding::ok(CHECK, "not needed: there are reserved ones for packet memory", evidence));
    }
    let setting = host.text(SHARED).unwrap_or_default();
    if ["[never]", "[deny]"].iter().all(|off| !setting.contains(off)) {
        return Some(Finding::ok(CHECK, "the kernel makes huge pages of packet memory where it can", evidence));
    }
    let summary = "packet memory lies in normal pages, and the kernel is set to make no huge ones of shared memory";
    let rule = format!("systemd.tmpfiles.rules = [ \"w {SHARED} - - - - advise\" ]");
    Some(Finding::advice(CHECK, summary, evidence).command(format!("echo advise >{SHARED}")).nixos(rule))
}

/// On a machine with several nodes: checks that the nodes of the ports' devices have pages of their own.
fn nodes(host: &Host) -> Vec<Finding> {
    const NODES: &str = "/sys/devices/system/node";
    let is_node = |name: &String| name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok());
    if host.facts.config.switch.hugepages == Hugepages::Off
        || host.names(NODES).iter().filter(|name| is_node(name)).count() < 2
        || matches!(host.facts.switch, SwitchAnswer::Status { .. })
    {
        return Vec::new();
    }
    let node_of = |nic: &super::Nic| {
        let address = nic.link.as_ref()?.pci_address.as_ref()?;
        host.number(&format!("/sys/bus/pci/devices/{address}/numa_node"))
    };
    let mut nodes: Vec<u64> = host.facts.nics.iter().filter(|nic| nic.port.is_some()).filter_map(node_of).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let judge = |node: u64| {
        let file = format!("{NODES}/node{node}/hugepages/hugepages-2048kB/free_hugepages");
        let free = host.number(&file)?;
        let (check, evidence) = ("hugepages_numa", host.shown(&file));
        let finding = if free >= NEEDED {
            Finding::ok(check, format!("{free} pages of 2 MiB are free at the NIC's node"), evidence)
        } else {
            let (total, summary) = (NEEDED - free, format!("{free} pages of 2 MiB are free at the NIC's node"));
            let reserve = file.replace("free_", "nr_");
            Finding::advice(check, format!("{summary}; packet memory may lie at another"), evidence)
                .command(format!("echo $(($(cat {reserve}) + {total})) > {reserve}"))
                .nixos(format!("services.labsw.host.hugepages.perNode = {{ \"{node}\" = {NEEDED}; }}"))
        };
        Some(finding.about(format!("node{node}")))
    };
    nodes.into_iter().filter_map(judge).collect()
}
