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

mod examples;

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
