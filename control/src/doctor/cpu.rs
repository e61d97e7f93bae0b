//! Checks the processors: disturbances of pinned workers, and features that guests need.
//!
//! References: kernel `Documentation/admin-guide/kernel-parameters.txt` (isolcpus, nohz_full, rcu_nocbs, intel_iommu),
//! `Documentation/admin-guide/pm/cpufreq.rst`, `Documentation/virt/kvm/x86/running-nested-guests.rst`.

use super::host::{listed, nix_list, numbers};
use super::{Finding, Host};
use crate::config::Power;

pub(super) fn examine(host: &Host) -> Vec<Finding> {
    let mut findings = vec![isolation(host)];
    findings.extend(siblings(host));
    findings.extend(clock(host));
    findings.extend([kvm(host), nested(host), iommu(host)]);
    findings
}

fn isolation(host: &Host) -> Finding {
    const CHECK: &str = "cpu_isolation";
    let (isolated, tickless) = ("/sys/devices/system/cpu/isolated", "/sys/devices/system/cpu/nohz_full");
    let workers = host.worker_cpus();
    let evidence = format!("workers = [{}]; {}", listed(&workers), host.all_shown(&[isolated, tickless]));
    if workers.is_empty() {
        return match host.facts.config.switch.power {
            Power::Adaptive => Finding::ok(CHECK, "no worker is pinned to a CPU; none has to be isolated", evidence),
            Power::Performance => {
                let summary = "power = \"performance\" without `workers`: the worker spins on whatever CPU it is put";
                Finding::advice(CHECK, summary, evidence)
                    .command("add workers = [CPU] to [switch]; lscpu -e lists the CPUs")
                    .nixos("services.labsw.settings.switch.workers")
            }
        };
    }
    let has = |file: &str| numbers(&host.text(file).unwrap_or_default());
    let (isolated, tickless) = (has(isolated), has(tickless));
    let open: Vec<usize> = workers.iter().copied().filter(|cpu| !isolated.contains(cpu)).collect();
    let ticking: Vec<usize> = workers.iter().copied().filter(|cpu| !tickless.contains(cpu)).collect();
    let summary = match (open.is_empty(), ticking.is_empty()) {
        (true, true) => return Finding::ok(CHECK, "the workers' CPUs are isolated and without a tick", evidence),
        (false, _) => format!("other threads are scheduled on CPU {}, which has a worker", listed(&open)),
        (true, false) => format!("the timer interrupts CPU {}, which has a worker", listed(&ticking)),
    };
    let list = listed(&workers);
    Finding::advice(CHECK, summary, evidence)
        .command(format!("boot with isolcpus=managed_irq,domain,{list} nohz_full={list} rcu_nocbs={list}"))
        .nixos(format!("services.labsw.host.isolatedCpus = {} (with housekeepingCpus)", nix_list(&workers)))
}

/// Checks that no two workers are on threads of one core, which they would share.
fn siblings(host: &Host) -> Vec<Finding> {
    let workers = host.worker_cpus();
    let judge = |&cpu: &usize| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let siblings = numbers(&host.text(&file)?);
        let other = siblings.iter().find(|sibling| **sibling > cpu && workers.contains(sibling))?;
        let summary = format!("CPU {cpu} and CPU {other} are threads of one core, and both have a worker");
        let finding = Finding::advice("cpu_siblings", summary, host.shown(&file));
        let mended = finding.command("put `workers` on CPUs of different cores; lscpu -e lists them");
        Some(mended.nixos("services.labsw.settings.switch.workers").about(format!("cpu{cpu}")))
    };
    workers.iter().filter_map(judge).collect()
}

/// Checks the clock of the CPUs: it follows the load late on a CPU that sleeps or idles, unless the processor itself
/// sets it.
fn clock(host: &Host) -> Vec<Finding> {
    let judge = |cpu: usize| {
        let directory = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq");
        let (governor, driver) = (format!("{directory}/scaling_governor"), format!("{directory}/scaling_driver"));
        let (by, is) = (host.text(&driver)?, host.text(&governor)?);
        let of_itself = by.starts_with("intel_pstate") || by.starts_with("amd-pstate-epp");
        let evidence = host.all_shown(&[&governor, &driver]);
        let finding = if is != "powersave" || of_itself {
            Finding::ok("cpu_clock", "the worker's clock follows its load", evidence)
        } else {
            Finding::advice("cpu_clock", "the worker's CPU stays at its lowest clock (powersave)", evidence)
                .command(format!("cpupower -c {cpu} frequency-set -g performance"))
                .nixos("powerManagement.cpuFreqGovernor = \"performance\"")
        };
        Some(finding.about(format!("cpu{cpu}")))
    };
    host.worker_cpus().into_iter().filter_map(judge).collect()
}

/// The virtualisation flag that the processors have, vmx or svm.
fn virtualisation_flag(host: &Host) -> Option<&'static str> {
    let text = host.text("/proc/cpuinfo")?;
    let flags = text.lines().find(|line| line.starts_with("flags"))?;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_whitespace().any(|word| word == *flag))
}

fn kvm(host: &Host) -> Finding {
    const CHECK: &str = "kvm";
    let flag = virtualisation_flag(host);
    let device = if host.is_there("/dev/kvm") { "there" } else { "not there" };
    let evidence = format!("/dev/kvm: {device}; /proc/cpuinfo: {}", flag.unwrap_or("neither vmx nor svm"));
    if host.is_there("/dev/kvm") {
        return Finding::ok(CHECK, "guests can use KVM", evidence);
    }
    match flag {
        None if cfg!(target_arch = "x86_64") => {
            let summary = "this processor offers no virtualisation; guests are emulated, slowly";
            let mend =
                "switch on VT-x or SVM in the firmware; if this is a guest itself, nested virtualisation at its host";
            Finding::advice(CHECK, summary, evidence).command(mend)
        }
        _ => {
            let module = if flag == Some("svm") { "kvm_amd" } else { "kvm_intel" };
            Finding::advice(CHECK, "KVM is not loaded; guests are emulated, slowly", evidence)
                .command(format!("modprobe {module}"))
                .nixos(format!("boot.kernelModules = [ \"{}\" ]", module.replace('_', "-")))
        }
    }
}

fn nested(host: &Host) -> Finding {
    const CHECK: &str = "nested_virtualisation";
    let file = |module: &str| format!("/sys/module/{module}/parameters/nested");
    let Some(module) = ["kvm_intel", "kvm_amd"].into_iter().find(|module| host.is_there(&file(module))) else {
        let summary = "no kvm_intel or kvm_amd; guests can't run guests (Hyper-V)";
        return Finding::advice(CHECK, summary, host.all_shown(&[&file("kvm_intel"), &file("kvm_amd")]))
            .nixos("services.labsw.host.nestedVirtualization = true");
    };
    let file = file(module);
    if matches!(host.text(&file).as_deref(), Some("1" | "Y" | "y")) {
        return Finding::ok(
            CHECK,
            "guests may run guests (Hyper-V), if their CPU model has vmx or svm",
            host.shown(&file),
        );
    }
    let line = format!("options {module} nested=1");
    Finding::advice(CHECK, "guests can't run guests (Hyper-V)", host.shown(&file))
        .command(format!("echo '{line}' > /etc/modprobe.d/labsw.conf; modprobe -r {module}; modprobe {module}"))
        .nixos("services.labsw.host.nestedVirtualization = true")
}

fn iommu(host: &Host) -> Finding {
    const CHECK: &str = "iommu";
    let groups = host.names("/sys/kernel/iommu_groups").len();
    let parameters = host.text("/proc/cmdline").unwrap_or_default();
    let said = parameters.split_whitespace().filter(|word| word.contains("iommu")).collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { "nothing of an IOMMU".to_owned() } else { said };
    let evidence = format!("/sys/kernel/iommu_groups: {groups} groups; /proc/cmdline: {said}");
    if groups > 0 {
        return Finding::ok(CHECK, "PCI devices can be handed to guests", evidence);
    }
    let vendor = host.text("/proc/cpuinfo").unwrap_or_default();
    let (parameter, option) = if vendor.contains("AuthenticAMD") {
        ("switch on the IOMMU in the firmware (AMD-Vi), and boot with iommu=pt", "amd")
    } else {
        ("switch on VT-d in the firmware, and boot with intel_iommu=on iommu=pt", "intel")
    };
    Finding::advice(CHECK, "no IOMMU: PCI devices can't be handed to guests; the switch needs none", evidence)
        .command(parameter)
        .nixos(format!("services.labsw.host.iommu = \"{option}\""))
}
