//! Proves of the Nix files what can be proved without a store of packages: every file parses and is laid out alike; the
//! guest glue makes what `nix/tests/golden/` says, and a real guest boots with it; mistakes in a NixOS configuration
//! get one message each; the examples evaluate to what they promise, and the real `labswd --check` takes the
//! configuration that each generates; the flake has its outputs.
//!
//! All that is evaluated with the small `lib` of `nix/tests/stub-lib.nix`, and with nixpkgs' own where it is to be had:
//! `LABSW_NIXPKGS_LIB` names its directory, or `<nixpkgs/lib>` is found. Both have to give the same. Without nixpkgs
//! the comparison says so on standard error and passes, `LABSW_TEST_REQUIRE=1` or not: no Debian package has it.
//! `LABSW_NIXOS` names a checkout of nixpkgs, or the directories `nixos/` and `lib/` of one: then the examples and the
//! mistakes are evaluated with the real NixOS, too, those with microVMs and NixVirt if `LABSW_MICROVM` and
//! `LABSW_NIXVIRT` name checkouts of theirs. `LABSW_BLESS=1` writes the golden files again.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used, reason = "test helpers report by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use labsw_tests::guest;
use labsw_tests::installed::find_program;
use labsw_tests::process::{self, Process};
use labsw_tests::require::{self, Need};
use labsw_tests::switch::{Labswd, Site, check_config};
use serde_json::{Value, json};

const NIX: Need = Need::Program("nix-instantiate");

/// What the types and the glue refuse (`refused` in eval.nix), and what the message has to say.
const REFUSED: [(&str, &str); 7] = [
    ("vlan", "services.labsw.ports.a.vlan"),
    ("type", "services.labsw.ports.a.type"),
    ("pci", "services.labsw.portA.pciAddress"),
    ("name", "services.labsw.portA.interface"),
    ("unknownPort", "labsw: there is no port b; the ports are a"),
    ("wrongType", "labsw: a container attaches to a port of type veth or tap; port a is of type vhost_user"),
    ("wrongModel", "make it type = \"tap\", for = \"guest\""),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Says on the process's own standard error what the test runner would swallow.
fn say(note: &str) {
    drop(writeln!(std::io::stderr().lock(), "{note}"));
}

/// What an expression is, or what Nix said.
fn evaluate(args: &[&str]) -> Result<Value, String> {
    let mut command = Command::new("nix-instantiate");
    command.current_dir(root()).args(["--eval", "--strict", "--json"]).args(args);
    let out = command.output().unwrap();
    if out.status.success() {
        return Ok(serde_json::from_slice(&out.stdout).unwrap());
    }
    Err(String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Where nixpkgs' `lib` is, if it is anywhere.
fn nixpkgs_lib() -> Option<String> {
    std::env::var("LABSW_NIXPKGS_LIB").ok().or_else(|| {
        let path = evaluate(&["--expr", "toString <nixpkgs/lib>"]).ok()?;
        path.as_str().map(str::to_owned)
    })
}

/// An attribute of `nix/tests/eval.nix`, with the stub's `lib`.
fn attribute(name: &str) -> Result<Value, String> {
    evaluate(&["-A", name, "nix/tests/eval.nix"])
}

fn nix_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(nix_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "nix") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn all_nix_files() -> Vec<PathBuf> {
    let mut files = nix_files(&root().join("nix"));
    files.push(root().join("flake.nix"));
    files
}

#[test]
fn every_file_parses() {
    if !require::all(&[NIX]) {
        return;
    }
    let files = all_nix_files();
    assert!(files.len() > 20, "{files:?}");
    for file in files {
        let (status, text) = process::output(Command::new("nix-instantiate").arg("--parse").arg(&file));
        assert!(status.success(), "{}: {text}", file.display());
    }
}

#[test]
fn every_file_is_laid_out_alike() {
    for file in all_nix_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{}: one newline at the end", file.display());
        for (n, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let place = format!("{}:{}", file.display(), n + 1);
            assert!(!line.contains('\t') && line.trim_end() == line, "{place}: tabs, or blanks at the end");
            assert!(indent % 2 == 0, "{place}: indented by {indent}");
        }
    }
    if find_program("nixpkgs-fmt").is_none() {
        say("SKIPPED nixpkgs-fmt --check: no such program (cargo install nixpkgs-fmt); `nix flake check` runs it");
        return;
    }
    process::run(Command::new("nixpkgs-fmt").arg("--check").args(all_nix_files()));
}

/// `{ FILE = text; }` is what the files under `nix/tests/golden` say; JSON by value, the rest byte for byte.
fn assert_golden(made: &Value) {
    let dir = root().join("nix/tests/golden");
    let pretty =
        |text: &str| serde_json::to_string_pretty(&serde_json::from_str::<Value>(text).unwrap()).unwrap() + "\n";
    let mut names: Vec<&String> = made.as_object().unwrap().keys().collect();
    for (name, text) in made.as_object().unwrap() {
        let text = text.as_str().unwrap();
        let text = if name.ends_with(".json") { pretty(text) } else { text.to_owned() };
        let file = dir.join(name);
        if std::env::var_os("LABSW_BLESS").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(golden, text, "{} (LABSW_BLESS=1 writes it again)", file.display());
    }
    let mut files: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    files.sort();
    names.sort();
    assert_eq!(names, files.iter().collect::<Vec<_>>(), "files of cases that are gone");
}

#[test]
fn glue_is_what_the_golden_files_say() {
    if !require::all(&[NIX]) {
        return;
    }
    assert_golden(&attribute("golden").unwrap());
}

/// One port, two generators: `labsw-ctl guest` and the Nix files. Names of QEMU's objects differ, nothing else.
#[test]
fn the_tool_prints_what_the_nix_files_make() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let tool = read("control/src/glue/golden/libvirt-vhost.txt");
    let interface = &tool[tool.find("<interface").unwrap()..];
    assert_eq!(interface, read("nix/tests/golden/libvirt-interface.xml"));
    let words: Vec<String> = read("control/src/glue/golden/qemu-vhost.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split_whitespace().filter(|word| *word != "\\").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let device = &words[words.iter().position(|word| word == "-chardev").unwrap()..];
    let nix = read("nix/tests/golden/qemu-nic.args")
        .replace("labsw-dc01-socket", "chr-dc01")
        .replace("labsw-dc01", "net-dc01")
        .replace(",queues=1", "");
    assert_eq!(device, nix.lines().collect::<Vec<_>>());
    let container = read("control/src/glue/golden/lxc.txt");
    let lines: Vec<&str> = container.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines, read("nix/tests/golden/lxc.conf").lines().collect::<Vec<_>>());
}

#[test]
fn nixpkgs_gives_the_same() {
    if !require::all(&[NIX]) {
        return;
    }
    let Some(lib) = nixpkgs_lib() else {
        say("SKIPPED nixpkgs_gives_the_same: no nixpkgs lib to evaluate with; LABSW_NIXPKGS_LIB=DIR names one");
        return;
    };
    for name in
        ["golden", "mistakes", "examples", "flake", "off", "impaired", "injecting", "bound", "sysctl", "forwarding"]
    {
        let with_nixpkgs = evaluate(&["--arg", "lib", &lib, "-A", name, "nix/tests/eval.nix"]).unwrap();
        assert_eq!(attribute(name).unwrap(), with_nixpkgs, "{name}");
    }
    for (name, says) in REFUSED {
        let error = evaluate(&["--arg", "lib", &lib, "-A", &format!("refused.{name}"), "nix/tests/eval.nix"]);
        assert!(error.as_ref().is_err_and(|error| error.contains(says)), "{name}: {error:?}");
    }
}

/// The whole of each example, containers and microVMs inside of it as well, with the modules of a real NixOS.
#[test]
fn a_real_nixos_takes_the_examples_and_finds_the_mistakes() {
    let Ok(nixpkgs) = std::env::var("LABSW_NIXOS") else {
        say("SKIPPED a_real_nixos_takes_the_examples_and_finds_the_mistakes: LABSW_NIXOS=DIR names no nixpkgs");
        return;
    };
    assert!(require::all(&[NIX]), "LABSW_NIXOS is given");
    let mut args = vec!["--arg".to_owned(), "nixpkgs".to_owned(), nixpkgs];
    let mut left_out = vec![];
    for (name, variable, examples) in [
        ("microvm", "LABSW_MICROVM", &["microvm-cluster", "microvm-nat"][..]),
        ("nixvirt", "LABSW_NIXVIRT", &["windows-lab"]),
    ] {
        match std::env::var(variable) {
            Ok(directory) => args.extend(["--arg".to_owned(), name.to_owned(), directory]),
            Err(_) => left_out.extend_from_slice(examples),
        }
    }
    let real = |attribute: &str| {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["-A", attribute, "nix/tests/real"]).collect();
        evaluate(&args).unwrap_or_else(|error| panic!("{attribute}: {error}"))
    };
    for directory in std::fs::read_dir(root().join("nix/examples")).unwrap().flatten() {
        let name = directory.file_name().into_string().unwrap();
        if left_out.contains(&name.as_str()) {
            say(&format!("SKIPPED nix/examples/{name}: LABSW_MICROVM or LABSW_NIXVIRT names no checkout"));
            continue;
        }
        let example = real(&format!("examples.{name}"));
        assert_eq!((&example["broken"], &example["warnings"]), (&json!([]), &json!([])), "{name}");
        assert!(example["toplevel"].as_str().unwrap().ends_with(".drv"), "{name}: {example}");
    }
    for mistake in real("mistakes").as_array().unwrap() {
        assert_eq!(mistake["got"], mistake["want"], "{}", mistake["name"]);
    }
}

/// libvirt's own schema, where its tools are installed.
#[test]
fn libvirt_takes_the_xml() {
    if !require::all(&[Need::Program("virt-xml-validate")]) {
        return;
    }
    let site = labsw_tests::switch::TempDir::new();
    let golden = |name: &str| std::fs::read_to_string(root().join("nix/tests/golden").join(name)).unwrap();
    let validate = |devices: &str| {
        let file = site.path().join("domain.xml");
        let parts = [golden("libvirt-hugepages.xml"), golden("libvirt-cpu.xml")].concat();
        let os = "<os><type arch='x86_64' machine='q35'>hvm</type></os>";
        std::fs::write(
            &file,
            format!("<domain type='kvm'><name>x</name><memory>1048576</memory>{os}{parts}<devices>{devices}</devices></domain>"),
        )
        .unwrap();
        process::output(Command::new("virt-xml-validate").arg(&file).arg("domain"))
    };
    let names =
        ["interface", "queues", "client", "mtu", "tap", "tap-virtio", "escaped", "disk", "disk-file", "passthrough"];
    for name in names {
        let (status, text) = validate(&golden(&format!("libvirt-{name}.xml")));
        assert!(status.success(), "{name}: {text}");
    }
    assert!(!validate("<interface type='vhostuser'><source type='unix'/></interface>").0.success(), "it can refuse");
}

/// The arguments as they come out of Nix, in front of a real kernel: its driver runs, so memory and rings are shared.
#[test]
fn a_guest_runs_with_the_arguments() {
    if !require::all(&[NIX, Need::Root, Need::Labswd, Need::Guest]) {
        return;
    }
    let site = Site::new("nixg");
    let switch = Labswd::start(&site, "[ports.vm]\ntype = \"vhost_user\"\nqueue_pairs = 2\n");
    let version = process::run(Command::new("qemu-system-x86_64").arg("--version"));
    let version = version.split_once("version ").unwrap().1.split([' ', '(', '\n']).next().unwrap();
    let expression = format!(
        "(import ./nix/lib {{ lib = import ./nix/tests/stub-lib.nix; }}).qemuArgs {{ port = \"vm\"; queuePairs = 2; memory = 192; \
         socket = \"{}\"; qemuVersion = \"{version}\"; }}",
        switch.vhost_socket("vm").display()
    );
    let args = evaluate(&["--expr", &expression]).unwrap();
    let args: Vec<&str> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let (kernel, initramfs) = guest::image(guest::Image::Cloud).unwrap();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-accel", "tcg", "-cpu", "max", "-smp", "2"]);
    command.args(args).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let _guest =
        Process::spawn("guest", command.args(["-append", "console=ttyS0 quiet no_timer_check lab.ip=10.0.0.1/24"]));
    switch.wait_port("vm", "up", guest::BOOT_TIMEOUT);
    assert_eq!(switch.port("vm")["queue_pairs"], 2);
}

/// A microVM at two ports, as microvm.nix would start it: QEMU takes the arguments, and both NICs are plugged in.
#[test]
fn a_microvm_at_two_ports_starts() {
    if !require::all(&[NIX, Need::Root, Need::Labswd, Need::Program("qemu-system-x86_64")]) {
        return;
    }
    let site = Site::new("nixt");
    let switch =
        Labswd::start(&site, "[ports.a]\ntype = \"vhost_user\"\n[ports.b]\ntype = \"vhost_user\"\nmtu = 9000\n");
    let version = process::run(Command::new("qemu-system-x86_64").arg("--version"));
    let version = version.split_once("version ").unwrap().1.split([' ', '(', '\n']).next().unwrap();
    let port = |name: &str, mtu: u32| {
        let socket = switch.vhost_socket(name);
        format!("{{ port = \"{name}\"; mtu = {mtu}; socket = \"{}\"; qemuVersion = \"{version}\"; }}", socket.display())
    };
    let expression = format!(
        "let lib = import ./nix/tests/stub-lib.nix; in ((import ./nix/lib {{ inherit lib; }}).microvm [ {} {} ] {{ \
         config.microvm = {{ mem = 128; shares = [ ]; hypervisor = \"qemu\"; }}; \
         pkgs.stdenv.hostPlatform.isx86_64 = true; }}).microvm.qemu.extraArgs",
        port("a", 1500),
        port("b", 9000)
    );
    let args = evaluate(&["--expr", &expression]).unwrap();
    let args: Vec<&str> = args.as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-S", "-nodefaults", "-display", "none", "-machine", "q35,accel=tcg", "-m", "128M", "-qmp", "stdio"]);
    let mut qemu = Process::spawn("microvm", command.args(args));
    // QMP greets when every device is made: the NICs by then have the switch's features.
    qemu.wait_for_text(0, "\"QMP\"", guest::BOOT_TIMEOUT);
    qemu.write("{\"execute\":\"qmp_capabilities\"}{\"execute\":\"quit\"}\n");
    assert!(qemu.wait(guest::BOOT_TIMEOUT).success(), "{}", qemu.log());
}

#[test]
fn mistakes_get_one_message_each() {
    if !require::all(&[NIX]) {
        return;
    }
    let mistakes = attribute("mistakes").unwrap();
    for mistake in mistakes.as_array().unwrap() {
        assert_eq!(mistake["got"], mistake["want"], "{}", mistake["name"]);
    }
    assert!(mistakes.as_array().unwrap().len() >= 30);
    for (name, says) in REFUSED {
        let error = attribute(&format!("refused.{name}")).expect_err(name);
        assert!(error.contains(says), "{name}: {error}");
    }
}

/// The configuration that Nix generates, as the file that labswd reads.
fn as_toml(settings: &Value) -> String {
    toml::to_string(settings).unwrap()
}

/// The real `labswd --check` takes what the module generates. CPUs are the lab host's, as when the file is built in
/// Nix.
fn assert_checked(what: &str, settings: &Value) {
    let mut settings = settings.clone();
    settings["switch"].as_object_mut().unwrap().remove("workers");
    let dir = labsw_tests::switch::TempDir::new();
    let file = dir.path().join("labsw.toml");
    std::fs::write(&file, as_toml(&settings)).unwrap();
    let (code, text) = check_config(&file);
    assert_eq!(code, Some(0), "{what}: {text}\n{}", as_toml(&settings));
}

#[test]
fn the_examples_are_whole() {
    if !require::all(&[NIX, Need::Labswd]) {
        return;
    }
    let examples = attribute("examples").unwrap();
    let names: Vec<_> = examples.as_object().unwrap().keys().map(String::as_str).collect();
    let all = ["break-and-detect", "hypervisor", "microvm-cluster", "microvm-nat", "nested-lab", "windows-lab"];
    assert_eq!(names, all);
    for (name, example) in examples.as_object().unwrap() {
        assert_eq!(example["broken"], json!([]), "{name}");
        assert_checked(name, &example["settings"]);
        let switch = &example["units"]["labsw"];
        assert_eq!(switch["wantedBy"], json!(["multi-user.target"]), "{name}");
        assert!(switch["before"].as_array().unwrap().contains(&json!("libvirtd.service")), "{name}");
        assert_eq!(switch["reloadTriggers"], json!(["/nix/store/checked-labsw.toml"]), "{name}");
        // No guest is bound to the switch: it may go while they run.
        for (unit, of) in example["units"].as_object().unwrap() {
            let bound = ["requires", "bindsTo", "partOf"].map(|key| of[key].to_string());
            assert!(!bound.concat().contains("labsw.service"), "{name}: {unit}: {bound:?}");
        }
    }
}

#[test]
fn a_host_is_made_ready_for_two_ports() {
    if !require::all(&[NIX]) {
        return;
    }
    let lab = attribute("examples.break-and-detect").unwrap();
    let settings = &lab["settings"];
    assert_eq!(settings["ports"]["span"], json!({"type": "af_xdp", "device": "pci:0000:03:00.0", "mirror_only": true}));
    assert_eq!(settings["ports"]["uplink"]["vlan"], json!({"mode": "trunk", "trunks": [10, 20]}));
    assert_eq!(settings["switch"]["protected_interfaces"], json!(["eno1"]));
    let link = &lab["links"]["10-labsw-lab-b"];
    assert_eq!(link["matchConfig"], json!({"Path": "pci-0000:03:00.1"}));
    assert_eq!(link["extraConfig"], "[Link]\nRxBufferSize=max\nTxBufferSize=max\nRxCoalesceSec=0us\n");
    assert_eq!(link["linkConfig"], json!({"Name": "lab-b", "MACAddressPolicy": "none", "WakeOnLan": "off"}));
    for name in ["lab-a", "lab-b"] {
        let network = &lab["networks"][format!("05-labsw-{name}")];
        assert_eq!(network["matchConfig"], json!({"Name": name}));
        let quiet = json!({
            "DHCP": "no", "LinkLocalAddressing": "no", "IPv6AcceptRA": false, "LLDP": false, "EmitLLDP": false,
            "LLMNR": false, "MulticastDNS": false,
        });
        assert_eq!(network["networkConfig"], quiet);
        assert_eq!(lab["sysctl"][format!("net.ipv6.conf.{name}.disable_ipv6")], 1);
    }
    // A container's end keeps its flags when it is moved: networkd has to leave it alone altogether.
    assert_eq!(lab["networks"]["05-labsw-ls-web"]["linkConfig"], json!({"Unmanaged": true}));
    const FORWARDING: &str = "net.ipv4.conf.all.forwarding";
    assert_eq!(lab["sysctl"][FORWARDING], 0);
    // sysctl.conf is sorted: this key would undo the one that nixpkgs' modules set.
    assert!(lab["sysctl"]["net.ipv4.ip_forward"].is_null());
    let given = attribute("sysctl").unwrap();
    assert_eq!((&given[FORWARDING], &given["net.ipv6.conf.default.accept_ra"]), (&json!(1), &json!(0)));
    let forwarding = attribute("forwarding").unwrap();
    assert_eq!((&forwarding["nat"][FORWARDING], &forwarding["usual"][FORWARDING]), (&json!(true), &json!(0)));
    assert!(given["net.bridge.bridge-nf-call-iptables"].is_null());
    let parameters = json!([
        "hugepagesz=2M",
        "hugepages=2112",
        "intel_iommu=on",
        "iommu=pt",
        "isolcpus=managed_irq,domain,2,3",
        "nohz_full=2,3",
        "rcu_nocbs=2,3",
        "irqaffinity=0,1",
    ]);
    assert_eq!(lab["kernelParams"], parameters);
    assert_eq!(lab["manager"], json!({"CPUAffinity": "0 1"}));
    assert!(lab["extraModprobeConfig"].as_str().unwrap().contains("options kvm_intel nested=1"));
    assert_eq!(lab["users"]["alice"], json!(["kvm", "labsw", "wheel"]));
    // A port in a namespace needs what the unit does not have.
    let service = &lab["units"]["labsw"]["serviceConfig"];
    for key in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(service[key], json!(["CAP_SYS_ADMIN"]), "{key}");
    }
    assert_eq!(service["RestrictNamespaces"], "net");
    a_guest_is_confined_and_shut_down(&lab);
    assert_eq!(["stopIfChanged", "reloadIfChanged"].map(|key| &lab["units"]["labsw"][key]), [false, true]);
    assert_eq!(lab["units"]["labsw-netns-web"]["restartIfChanged"], false);
    assert_eq!(lab["containers"]["web"]["networkNamespace"], "/run/netns/web");
    assert_eq!(lab["insides"]["web"]["networking"]["interfaces"], json!({"eth0": {"useDHCP": true}}));
}

/// The unit of a guest.
fn a_guest_is_confined_and_shut_down(lab: &Value) {
    let target = &lab["units"]["labsw-guest-target"];
    assert_eq!((&target["wants"], &target["restartIfChanged"]), (&json!(["labsw.service"]), &json!(false)));
    let start = target["serviceConfig"]["ExecStart"].as_str().unwrap();
    for part in [
        "memory-backend-memfd,id=labsw-mem,size=4096M,share=on,hugetlb=on,hugetlbsize=2M",
        "\"-cpu\" \"host\"",
        "aio=io_uring",
    ] {
        assert!(start.contains(part), "{part} in {start}");
    }
    for part in ["\"-sandbox\" \"on,", "qmp.sock,server=on,wait=off"] {
        assert!(start.contains(part), "{part} in {start}");
    }
    let confined = &target["serviceConfig"];
    assert_eq!((&confined["CapabilityBoundingSet"], &confined["NoNewPrivileges"]), (&json!(""), &json!(true)));
    assert_eq!(confined["DeviceAllow"], json!(["/dev/kvm rw", "/dev/disk/by-id/nvme-target rw"]));
    assert!(confined["ExecStop"].as_str().unwrap().contains("powerdown"), "a guest is shut down, not cut off");
}

#[test]
fn labs_of_a_host_that_serves_and_of_one_that_does_not() {
    if !require::all(&[NIX]) {
        return;
    }
    let hypervisor = attribute("examples.hypervisor").unwrap();
    assert_eq!(hypervisor["networks"]["20-infra"]["networkConfig"], json!({"DHCP": "yes"}));
    assert_eq!(hypervisor["settings"]["ports"]["router"]["vlan"], json!({"mode": "trunk", "trunks": [20, 30]}));
    let nat = attribute("examples.microvm-nat").unwrap();
    let origin = nat["microvms"]["origin"]["microvm"]["qemu"]["extraArgs"].to_string();
    assert!(origin.contains("mac=02:00:00:01:77:01"), "the address that the DHCP server knows: {origin}");
    let nested = attribute("examples.nested-lab").unwrap();
    let profiles: Vec<_> = nested["settings"]["profiles"].as_object().unwrap().keys().collect();
    assert_eq!(profiles, ["constrained", "default", "lossy"]);
    let programs: Vec<_> = nested["programs"].as_object().unwrap().keys().collect();
    assert_eq!(programs, ["emulation-vm", "emulation-vm-bg"]);
    assert_eq!(nested["checks"], json!({"emulation-vm-boots": []}));
    for guest in ["n100-1", "n100-2", "n100-3"] {
        let unit = &nested["units"][format!("labsw-guest-{guest}")];
        assert!(unit["wantedBy"].is_null(), "{guest} waits for its image: {unit}");
    }
}

#[test]
fn windows_and_microvms_get_their_nics() {
    if !require::all(&[NIX]) {
        return;
    }
    let windows = attribute("examples.windows-lab").unwrap();
    let domain = |name: &str| {
        let domains = windows["domains"].as_array().unwrap();
        domains.iter().find(|domain| domain["name"] == name).unwrap_or_else(|| panic!("{name}")).clone()
    };
    assert_eq!(windows["domains"].as_array().unwrap().len(), 4);
    let dc01 = domain("DC01");
    // The NIC on libvirt's NAT network stays, the one at the switch stands behind it.
    assert_eq!(dc01["devices"]["interface"][0]["source"], json!({"bridge": "virbr0"}));
    assert_eq!(dc01["devices"]["interface"][1]["source"]["path"], "/run/labsw/vhost/dc01.sock");
    assert_eq!(dc01["devices"]["interface"][1]["driver"]["queues"], 2);
    assert_eq!((&dc01["vcpu"], &dc01["memory"]), (&json!({"count": 4}), &json!({"count": 8192, "unit": "MiB"})));
    assert_eq!(dc01["devices"]["disk"][1]["source"]["file"], "/var/lib/libvirt/images/windows-server-2022.iso");
    assert_eq!(domain("CLIENT02")["devices"]["disk"][1]["source"]["file"], "/var/lib/libvirt/images/windows-11.iso");
    assert_eq!(windows["pools"][0]["volumes"].as_array().unwrap().len(), 4);
    assert_eq!(dc01["memoryBacking"], json!({"source": {"type": "memfd"}, "access": {"mode": "shared"}}));
    // The template's CD stays behind the disk that is added.
    assert_eq!(
        (dc01["devices"]["disk"][0]["driver"]["io"].as_str(), &dc01["devices"]["disk"][1]["device"]),
        (Some("io_uring"), &json!("cdrom"))
    );
    let sccm01 = domain("SCCM01");
    assert_eq!(sccm01["devices"]["interface"][1]["model"]["type"], "e1000e");
    assert_eq!(sccm01["devices"]["interface"][1]["target"], json!({"dev": "win-sccm01", "managed": false}));
    assert_eq!(sccm01["cpu"], json!({"mode": "host-passthrough"}));

    let cluster = attribute("examples.microvm-cluster").unwrap();
    for (name, node) in cluster["microvms"].as_object().unwrap() {
        assert_eq!(node["microvm"]["qemu"]["machine"], "q35", "{name}: microvm.nix's own default has no PCI bus");
        assert_eq!(node["warnings"], json!([]), "{name}");
    }
    let args = cluster["microvms"]["node2"]["microvm"]["qemu"]["extraArgs"].to_string();
    assert!(args.contains("/run/labsw/vhost/node2.sock") && args.contains("size=512M,share=on"), "{args}");
    assert_eq!(cluster["settings"]["impair"]["node2"], json!({"profile": "lossy", "direction": "both"}));
    let impaired = attribute("impaired").unwrap();
    assert_eq!(impaired["impair"], json!({"a": {"profile": "lossy"}}));
}

#[test]
fn the_flake_has_its_outputs() {
    if !require::all(&[NIX, Need::Labswd]) {
        return;
    }
    let flake = attribute("flake").unwrap();
    for system in ["x86_64-linux", "aarch64-linux"] {
        assert_eq!(flake["packages"][system], json!({"default": "labsw", "labsw": "labsw"}));
        let apps: Vec<_> = flake["apps"][system].as_object().unwrap().keys().collect();
        assert_eq!(apps, ["demo", "labsw-ctl"]);
        let checks: Vec<_> = flake["checks"][system].as_object().unwrap().keys().collect();
        assert_eq!(checks, ["clippy", "examples", "format", "golden", "labsw", "module", "tests", "vm-lab"]);
        assert_eq!(flake["formatter"][system], "nixpkgs-fmt");
        assert_eq!(flake["devShells"][system]["default"], "shell");
    }
    let modules: Vec<_> = flake["nixosModules"].as_object().unwrap().keys().collect();
    assert_eq!(modules, ["default", "labsw"]);
    assert_eq!(flake["overlay"], "labsw");
    assert_eq!(flake["vm"]["broken"], json!([]));
    assert_checked("VM test", &flake["vm"]["settings"]);
    // The package puts the unit where systemd.packages looks, with nothing of /usr/local left.
    let install = flake["package"]["postInstall"].as_str().unwrap();
    assert!(install.contains("control/labsw.service $out/lib/systemd/system/labsw.service"), "{install}");

    let off = attribute("off").unwrap();
    let nothing = json!({"kernelParams": [], "kernelModules": [], "assertions": [], "services": [], "packages": []});
    assert_eq!(off, nothing, "the module sets something although it is not enabled");
    let injecting = attribute("injecting").unwrap();
    assert_eq!(injecting["ports"]["span"]["mirror_only"], false);
    let bound = attribute("bound").unwrap();
    assert!(
        bound["args"].to_string().contains("path=/run/labsw/x/vm.sock")
            && bound["args"].to_string().contains("queues=2")
    );
    assert!(bound["other"].to_string().contains("queues=1"), "what is given wins: {}", bound["other"]);
    assert_eq!(bound["lxc"], "lxc.namespace.share.net = /run/netns/n\n");
}
