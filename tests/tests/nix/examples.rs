//! The examples under `nix/examples/` evaluate to what they promise; the flake has its outputs.

use super::*;

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
    assert_eq!(impaired["impair"], json!({"a": {"profile": "lossy", "outage": "5s after 10s", "lose_segment": 3}}));
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
