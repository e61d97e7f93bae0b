# A host with a dual-port NIC. Port B (0000:03:00.1) is the trunk to the gateway, which has the VLANs' addresses, routes
# and DHCP. Port A (0000:03:00.0) goes to the sensor: everything that the target says and hears is copied there, and the
# sensor's machine may be anything.
#
#   gateway ── lab-b ─┐                ┌─ target    QEMU, VLAN 20: what is attacked
#                     ├── labsw ───────┼─ attacker  QEMU, VLAN 20
#   sensor  ── lab-a ─┘                └─ web       NixOS container, VLAN 10
{ config, ... }:

{
  # Replace by the host's own hardware-configuration.nix.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/sda";
  networking.hostName = "lab";
  networking.useNetworkd = true;
  services.openssh.enable = true;
  system.stateVersion = "25.11";

  services.labsw = {
    enable = true;
    managementInterface = "eno1";
    portA.pciAddress = "0000:03:00.0";
    portB = {
      pciAddress = "0000:03:00.1";
      settings.vlan = [ 10 20 ];
      # Interrupts for every frame: the lab is about latency, not about bandwidth.
      coalesce.rxUsecs = 0;
    };
    settings.switch.workers = [ 2 ];

    ports = {
      target.vlan = 20;
      attacker = { vlan = 20; queue_pairs = 2; };
      web = { type = "veth"; peer = "ls-web"; netns = "web"; peer_name = "eth0"; offloads = true; vlan = 10; };
    };
    mirrors.detect = { sources = [ "target" ]; to = "span"; };

    guests = {
      target = {
        memory = 4096;
        hugepages = true;
        cpus = 2;
        cpuAffinity = [ 3 ];
        nestedVirtualization = true;
        # The drive as it is, past the page cache. QEMU needs the device, hence root.
        user = "root";
        disks = [{ path = "/dev/disk/by-id/nvme-target"; }];
      };
      attacker = {
        memory = 2048;
        disks = [{ path = "/var/lib/labsw-guests/attacker/disk.qcow2"; format = "qcow2"; }];
      };
      web.backend = "container";
    };

    host = {
      # 2048 pages for the target, 32 for the switch.
      hugepages = { size = "2M"; count = 2112; };
      iommu = "intel";
      nestedVirtualization = true;
      isolatedCpus = [ 2 3 ];
      housekeepingCpus = [ 0 1 ];
    };
    adminUsers = [ "alice" ];
  };

  users.users.alice = { isNormalUser = true; extraGroups = [ "wheel" ]; };

  # Its address comes from the gateway, through port B.
  containers.web = {
    autoStart = true;
    config = {
      # NixOS containers set networking.useDHCP to false.
      networking.interfaces.eth0.useDHCP = true;
      services.nginx.enable = true;
      system.stateVersion = config.system.stateVersion;
    };
  };
}
