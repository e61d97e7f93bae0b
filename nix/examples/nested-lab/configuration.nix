# A lab in a machine: an outer virtual machine that is the hypervisor of three inner ones, with labsw as their switch.
# It runs on any host with nested virtualisation and touches nothing there.
#
#   any host ── outer VM (12 GiB, 8 CPUs) ── labsw ─┬─ lab0    the outer VM, 192.168.100.1, DHCP
#                                                   ├─ n100-1  192.168.100.10, k3s server
#                                                   ├─ n100-2  192.168.100.11, k3s server
#                                                   └─ n100-3  192.168.100.12, k3s agent
#
# Links are made bad in the running lab, and good again:
#   labsw-ctl impair set n100-2 --profile constrained
#   labsw-ctl impair set n100-3 --profile lossy
#   labsw-ctl impair set n100-3 --profile default
{ config, lib, ... }:

let
  nodes = {
    n100-1 = { address = "192.168.100.10"; memory = 4096; };
    n100-2 = { address = "192.168.100.11"; memory = 4096; };
    n100-3 = { address = "192.168.100.12"; memory = 2048; };
  };
  images = "/var/lib/labsw-guests";
in
{
  # For an installed system; `system.build.vm` puts its own in place.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/sda";
  networking.hostName = "emulator";
  system.stateVersion = "25.11";

  # What `system.build.vm` gives the outer machine.
  virtualisation.vmVariant.virtualisation = {
    memorySize = 12288;
    cores = 8;
    diskSize = 61440;
    graphics = false;
    qemu.options = [ "-cpu host" ];
  };

  services.labsw = {
    enable = true;
    # The outer machine's way out.
    managementInterface = "eth0";
    ports = lib.genAttrs (lib.attrNames nodes) (_: { vlan = 100; }) // {
      host = { type = "tap"; interface = "lab0"; vlan = 100; };
    };
    dhcpInterfaces = [ "lab0" ];
    guests = lib.mapAttrs
      (name: node: {
        inherit (node) memory;
        cpus = 2;
        disks = [{ path = "${images}/${name}/disk.qcow2"; format = "qcow2"; }];
        # An image is put there first; then: systemctl start labsw-guest-NAME.
        autoStart = false;
      })
      nodes;
    settings.profiles = {
      # A good link: every value at its default.
      default = { loss = "0%"; };
      # What an embedded board's network does.
      constrained = { rate = "50mbit"; delay = "5ms"; };
      lossy = { loss = "5%"; delay = "20ms"; jitter = "10ms"; };
    };
    host = { nestedVirtualization = true; hugepages.count = 0; };
    settings.switch.hugepages = "off";
  };

  networking.useNetworkd = true;
  systemd.network.networks."20-lab0" = {
    matchConfig.Name = "lab0";
    networkConfig = { Address = "192.168.100.1/24"; LinkLocalAddressing = "no"; };
  };
  services.dnsmasq = {
    enable = true;
    settings = {
      interface = "lab0";
      bind-dynamic = true;
      dhcp-range = "192.168.100.100,192.168.100.199,12h";
      dhcp-host = lib.mapAttrsToList (name: node: "${config.lib.labsw.macOf name},${node.address},${name}") nodes;
    };
  };
  users.users.root.initialPassword = "test";
}
