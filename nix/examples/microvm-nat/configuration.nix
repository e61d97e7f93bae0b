# A microVM under load, in a network of its own behind the host: the host is its gateway, its DHCP server, and forwards
# ports to it. No NIC of the host belongs to the lab.
#
#   clients ── eno1 ── host: NAT, port forwards, DHCP ── lab0 ── labsw ── origin   10.177.0.10, vhost-user
{ config, ... }:

let
  mac = "02:00:00:01:77:01";
  address = "10.177.0.10";
  # Port of the host → port of the guest.
  forwards = { "17080" = 17080; "17100" = 9100; "17113" = 9113; "17122" = 22; };
in
{
  # Replace by the host's own hardware-configuration.nix.
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  boot.loader.grub.device = "/dev/sda";
  networking.hostName = "lab";
  system.stateVersion = "25.11";

  services.labsw = {
    enable = true;
    managementInterface = "eno1";
    ports = {
      host = { type = "tap"; interface = "lab0"; vlan = 177; };
      origin = { vlan = 177; queue_pairs = 2; };
    };
    # This lab has no external gateway: the host serves its addresses, here and nowhere else.
    dhcpInterfaces = [ "lab0" ];
    guests.origin = { backend = "microvm"; memory = 4096; cpus = 2; macs.origin = mac; };
  };

  networking.useNetworkd = true;
  systemd.network.networks."20-lab0" = {
    matchConfig.Name = "lab0";
    networkConfig = { Address = "10.177.0.1/24"; LinkLocalAddressing = "no"; };
  };
  services.dnsmasq = {
    enable = true;
    settings = {
      interface = "lab0";
      bind-dynamic = true;
      dhcp-range = "10.177.0.100,10.177.0.199,12h";
      dhcp-host = "${mac},${address}";
    };
  };
  networking.nat = {
    enable = true;
    internalInterfaces = [ "lab0" ];
    externalInterface = "eno1";
    forwardPorts = builtins.attrValues (builtins.mapAttrs
      (from: to: { sourcePort = builtins.fromJSON from; destination = "${address}:${toString to}"; proto = "tcp"; })
      forwards);
  };

  microvm.vms.origin.config = {
    networking.hostName = "origin";
    networking.useNetworkd = true;
    systemd.network.networks."20-lab" = {
      matchConfig.MACAddress = mac;
      networkConfig = { DHCP = "yes"; };
    };
    networking.firewall.allowedTCPPorts = builtins.attrValues forwards;
    services.nginx.enable = true;
    services.openssh.enable = true;
    system.stateVersion = config.system.stateVersion;
  };
}
