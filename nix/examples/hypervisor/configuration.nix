# A hypervisor that is a participant of the network and no appliance: one trunk, an infrastructure VLAN with the host's
# own address in it, and guests that see ordinary Ethernet. Routing, firewall and DHCP are the gateway's.
#
#   gateway ── lab-b (trunk: 10 untagged, 20, 30) ── labsw ─┬─ infra0   the host, VLAN 10, address by DHCP
#                                                           ├─ app      VLAN 10, untagged: the common case
#                                                           ├─ iot      VLAN 30, untagged for the guest
#                                                           └─ router   VLANs 20 and 30, tagged for the guest
{
  # Replace by the host's own hardware-configuration.nix.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/sda";
  networking.hostName = "hypervisor";
  system.stateVersion = "25.11";

  services.labsw = {
    enable = true;
    # The host is managed over its own port of the switch; it has no other.
    managementPort = "infra";
    portB = {
      pciAddress = "0000:03:00.1";
      settings.vlan = { mode = "native-untagged"; tag = 10; trunks = [ 20 30 ]; };
    };
    ports = {
      infra = { type = "tap"; interface = "infra0"; vlan = 10; };
      app.vlan = 10;
      iot.vlan = 30;
      router.vlan = [ 20 30 ];
    };
    guests = {
      app.disks = [{ path = "/var/lib/labsw-guests/app/disk.qcow2"; format = "qcow2"; }];
      iot.disks = [{ path = "/var/lib/labsw-guests/iot/disk.qcow2"; format = "qcow2"; }];
      router.disks = [{ path = "/var/lib/labsw-guests/router/disk.qcow2"; format = "qcow2"; }];
    };
  };

  # The only address of the host, from the gateway.
  networking.useDHCP = false;
  networking.useNetworkd = true;
  systemd.network.networks."20-infra" = {
    matchConfig.Name = "infra0";
    networkConfig = { DHCP = "yes"; };
  };
  services.openssh.enable = true;
}
