# NixOS VM tests: a lab host, a gateway behind its port B, a sensor behind its port A, and two guests inside the host.
#
#   gateway eth1 ── (VLAN tags 10, 20) ── lab eth1 = port B ┐
#   sensor  eth1 ─────────────────────── lab eth2 = port A ├ labsw ─ vm10 (VLAN 10), vm20 (VLAN 20): QEMU in QEMU
#
# The same situations run without Nix in tests/tests/ (guests.rs, mirror.rs, lifecycle.rs).
{ pkgs }:

let
  guestImage = pkgs.callPackage ../guest-image.nix { };
  # The test driver gives the second NIC of node N in virtual LAN V the address 52:54:00:12:V:N; nodes count by name.
  # Without an address of its own: the switch has it.
  mac = lan: node: "52:54:00:12:0${toString lan}:0${toString node}";
  labNode = 2;
  port = vlan: { inherit vlan; assignIP = false; };

  guest = address: {
    memory = 256;
    cpus = 1;
    # Where KVM is not to be had inside the VM, the guest is emulated.
    extraArgs = [
      "-accel"
      "tcg"
      "-cpu"
      "max"
      "-serial"
      "null"
      "-kernel"
      "${guestImage}/vmlinuz"
      "-initrd"
      "${guestImage}/initramfs.cpio"
      "-append"
      "console=ttyS0 quiet lab.ip=${address}"
    ];
  };

  lab = { config, ... }: {
    imports = [ ../module ];
    virtualisation = { interfaces = { lab-b = port 1; lab-a = port 2; }; memorySize = 3072; cores = 2; };
    networking.useDHCP = false;
    services.labsw = {
      enable = true;
      managementInterface = "eth0";
      portB = { macAddress = mac 1 labNode; settings.vlan = [ 10 20 ]; ring = { rx = null; tx = null; }; };
      portA = { macAddress = mac 2 labNode; ring = { rx = null; tx = null; }; };
      ports = { vm10.vlan = 10; vm20.vlan = 20; };
      guests = { vm10 = guest "10.10.0.7/24"; vm20 = guest "10.20.0.7/24"; };
    };
    environment.etc."labsw/with-mirror.toml".source = (pkgs.formats.toml { }).generate "with-mirror.toml"
      (config.services.labsw.finalSettings // { mirrors.detect = { sources = [ "vm10" ]; to = "span"; }; });
  };

  gateway = {
    virtualisation.vlans = [ 1 ];
    networking = {
      useDHCP = false;
      firewall.enable = false;
      vlans = { v10 = { id = 10; interface = "eth1"; }; v20 = { id = 20; interface = "eth1"; }; };
      interfaces.v10.ipv4.addresses = [{ address = "10.10.0.1"; prefixLength = 24; }];
      interfaces.v20.ipv4.addresses = [{ address = "10.20.0.1"; prefixLength = 24; }];
    };
  };

  sensor = {
    virtualisation.vlans = [ 2 ];
    environment.systemPackages = [ pkgs.tcpdump ];
  };
in
{
  vm-lab = pkgs.testers.runNixOSTest {
    name = "labsw-lab";
    nodes = { inherit gateway lab sensor; };
    testScript = ''
      def reached():
          for address in ["10.10.0.7", "10.20.0.7"]:
              gateway.wait_until_succeeds(f"ping -c1 -W1 {address}", timeout=180)

      start_all()
      lab.wait_for_unit("labsw.service")
      gateway.wait_for_unit("network.target")

      with subtest("guests of both VLANs answer the gateway"):
          reached()

      with subtest("the host says nothing on ports A and B"):
          lab.fail("ip -o addr show dev lab-a | grep inet")
          lab.fail("ip -o addr show dev lab-b | grep inet")

      with subtest("a mirror set at run time reaches the sensor"):
          sensor.wait_for_unit("multi-user.target")
          lab.succeed("labsw-ctl mirror set detect --source vm10 --to span")
          sensor.execute("tcpdump -U -i eth1 -c 4 -w /tmp/seen icmp >&2 &")
          reached()
          sensor.wait_until_succeeds("tcpdump -r /tmp/seen host 10.10.0.7 | grep -q 'ICMP echo reply'", timeout=60)
          sensor.fail("tcpdump -r /tmp/seen host 10.20.0.7 | grep -q .")
          lab.succeed("labsw-ctl mirror del detect")

      with subtest("a reload changes what differs and leaves the rest running"):
          before = lab.succeed("systemctl show -p MainPID --value labsw").strip()
          lab.succeed("rm /etc/labsw/labsw.toml; cp /etc/labsw/with-mirror.toml /etc/labsw/labsw.toml")
          lab.succeed("systemctl reload labsw")
          lab.succeed("labsw-ctl mirror show detect")
          assert before == lab.succeed("systemctl show -p MainPID --value labsw").strip()
          reached()

      with subtest("guests outlive a restart and a kill of the switch"):
          lab.succeed("systemctl restart labsw")
          reached()
          lab.succeed("systemctl kill -s KILL labsw")
          lab.wait_for_unit("labsw.service")
          reached()
          lab.succeed("systemctl is-active labsw-guest-vm10 labsw-guest-vm20")

      with subtest("the unit has no more rights than it says"):
          lab.succeed("systemd-analyze security --threshold=30 labsw.service")
    '';
  };
}
