# Four Windows machines in VLAN 20: DC01 (domain controller), SCCM01, CLIENT01 and CLIENT02.
#
# Windows Setup has a driver for e1000e and none for virtio: a machine is installed on a TAP port with an e1000e
# (`virtio.NAME = false`), gets virtio-win inside, and is moved to vhost-user by `virtio.NAME = true`. Only that port
# changes, so the switch does not touch the others.
#
# Addresses in VLAN 20 are the domain controller's or the gateway's business: nothing on the host serves DHCP there.
# Each machine has a second NIC on libvirt's own NAT network, for updates and downloads; that one never meets the lab.
{ config, lib, nixvirt, ... }:

let
  virtio = {
    dc01 = true;
    sccm01 = false;
    client01 = false;
    client02 = false;
  };
  server = "/var/lib/libvirt/images/windows-server-2022.iso";
  client = "/var/lib/libvirt/images/windows-11.iso";
  machines = {
    dc01 = { uuid = "5f5c1f4e-6d8c-4a63-9a3c-0d5f2b1c0001"; memory = 8192; iso = server; diskGiB = 60; };
    sccm01 = { uuid = "5f5c1f4e-6d8c-4a63-9a3c-0d5f2b1c0002"; memory = 16384; iso = server; diskGiB = 100; };
    client01 = { uuid = "5f5c1f4e-6d8c-4a63-9a3c-0d5f2b1c0003"; memory = 4096; iso = client; diskGiB = 60; };
    client02 = { uuid = "5f5c1f4e-6d8c-4a63-9a3c-0d5f2b1c0004"; memory = 4096; iso = client; diskGiB = 60; };
  };
  # The storage pool, a volume a machine.
  pool = "/var/lib/libvirt/images/lab";

  # A port for a virtio NIC, or for an emulated one.
  port = name: { vlan = 20; } // (
    if virtio.${name} then { type = "vhost_user"; queue_pairs = 2; }
    else { type = "tap"; "for" = "guest"; interface = "win-${name}"; owner = "qemu-libvirtd"; }
  );

  # NixVirt's template for Windows: UEFI with secure boot, TPM 2.0 (swtpm), Hyper-V enlightenments.
  template = name: machine: nixvirt.lib.domain.templates.windows {
    name = lib.toUpper name;
    inherit (machine) uuid;
    memory = { count = machine.memory; unit = "MiB"; };
    install_vol = machine.iso;
    # The second NIC, which `keepInterfaces` below keeps.
    bridge_name = "virbr0";
    nvram_path = "/var/lib/libvirt/nvram/${name}.fd";
    install_virtio = true;
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
    portA.macAddress = "52:54:00:12:34:56";
    portB = { macAddress = "52:54:00:12:34:57"; settings.vlan = [ 20 ]; };

    ports = lib.genAttrs (lib.attrNames machines) port;
    mirrors.domain = { sources = [ "dc01" ]; to = "span"; };

    guests = lib.mapAttrs
      (name: machine: {
        backend = "nixvirt";
        model = if virtio.${name} then "virtio" else "e1000e";
        inherit (machine) memory;
        # Hyper-V inside SCCM01, for its lab of images.
        nestedVirtualization = name == "sccm01";
        cpus = 4;
        keepInterfaces = true;
        # Its volume, past the page cache. sata until virtio drivers are in.
        disks = [{ path = "${pool}/${name}.qcow2"; format = "qcow2"; bus = if virtio.${name} then "virtio" else "sata"; dev = if virtio.${name} then "vda" else "sda"; }];
      })
      machines;

    host.nestedVirtualization = true;
  };

  virtualisation.libvirt = {
    enable = true;
    connections."qemu:///system".pools = [{
      definition = nixvirt.lib.pool.writeXML {
        name = "lab";
        uuid = "5f5c1f4e-6d8c-4a63-9a3c-0d5f2b1c00ff";
        type = "dir";
        target.path = pool;
      };
      active = true;
      volumes = lib.mapAttrsToList
        (name: machine: {
          definition = nixvirt.lib.volume.writeXML {
            name = "${name}.qcow2";
            capacity = { count = machine.diskGiB; unit = "GiB"; };
            target.format.type = "qcow2";
          };
        })
        machines;
    }];
    connections."qemu:///system".domains = lib.mapAttrsToList
      (name: machine: {
        # The template, completed with port, shared memory, CPU and disk of services.labsw.guests.
        definition = nixvirt.lib.domain.writeXML (config.services.labsw.guests.${name}.nixvirt (template name machine));
      })
      machines;
  };
}
