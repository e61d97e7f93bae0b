# A cluster of three in VLAN 30 that has to live with bad links: node1 on a good one, node2 on a lossy one, node3 far
# away.
{ config, lib, ... }:

let
  nodes = [ "node1" "node2" "node3" ];

  # Impairment of each link.
  profiles = {
    lossy = { loss = "5%"; delay = "20ms"; jitter = "10ms"; };
    far = { delay = "120ms"; jitter = "5ms"; rate = "10Mbit"; };
  };
  impair = {
    node2 = { profile = "lossy"; direction = "both"; };
    node3 = { profile = "far"; direction = "both"; };
  };
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
    settings = { inherit profiles impair; };

    # The host's own port in the lab, for ssh into the nodes. Its address is given below.
    ports = lib.genAttrs nodes (_: { vlan = 30; }) // {
      host = { type = "tap"; interface = "labsw-host"; vlan = 30; };
    };
    guests = lib.genAttrs nodes (_: { backend = "microvm"; memory = 512; cpus = 1; });
  };

  # Addresses are written down here, so that nothing has to serve them.
  networking.useNetworkd = true;
  systemd.network.networks."20-labsw-host" = {
    matchConfig.Name = "labsw-host";
    networkConfig = { Address = "10.30.0.1/24"; LinkLocalAddressing = "no"; };
  };
  microvm.vms = lib.listToAttrs (lib.imap1
    (n: name: {
      inherit name;
      value.config = {
        networking.hostName = name;
        networking.useNetworkd = true;
        systemd.network.networks."20-lab" = {
          matchConfig.MACAddress = config.lib.labsw.macOf name;
          networkConfig = { Address = "10.30.0.${toString (10 + n)}/24"; LinkLocalAddressing = "no"; };
        };
        services.openssh.enable = true;
        system.stateVersion = config.system.stateVersion;
      };
    })
    nodes);
}
