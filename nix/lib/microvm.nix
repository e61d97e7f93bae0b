# microvm.nix: a NixOS module for the guest. The NICs go in as arguments, because microvm.nix knows no vhost-user NIC.
{ lib, port }:

let
  qemu = import ./qemu.nix { inherit lib port; };
in
{
  # `given` is a port, or a list of ports: one NIC each, and one memory for all.
  microvm = given:
    let
      # microvm.nix makes shared memory itself as soon as the guest shares a directory with the host, and only then.
      backing = config: lib.optionals (config.microvm.shares == [ ]) (memoryBacking config.microvm.mem);
      memoryBacking = mem: [
        "-object"
        "memory-backend-memfd,id=labsw-mem,size=${toString mem}M,share=on"
        "-numa"
        "node,memdev=labsw-mem"
      ];
      ports = map (port.require "a microvm" [ "vhost_user" "tap" ]) (if builtins.isList given then given else [ given ]);
      names = lib.concatMapStringsSep ", " (p: p.port) ports;
    in
    { config, pkgs, ... }: {
      microvm.hypervisor = lib.mkDefault "qemu";
      # A PCI bus: virtio-net on QEMU's own microvm machine is a legacy MMIO device by default. microvm.nix itself sets
      # "microvm" with mkDefault; this wins over that, and a value of the user wins over this. ARM's "virt" has a PCI
      # bus.
      microvm.qemu.machine = lib.mkIf pkgs.stdenv.hostPlatform.isx86_64 (lib.mkOverride 900 "q35");
      microvm.qemu.extraArgs = lib.optionals (lib.any (p: p.type == "vhost_user") ports) (backing config)
        ++ lib.concatMap (p: qemu.qemuArgs (p // { memory = null; })) ports;
      assertions = [
        {
          assertion = config.microvm.hypervisor == "qemu";
          message = "labsw: port ${names} is attached by QEMU arguments; set microvm.hypervisor = \"qemu\" in this guest (it is ${config.microvm.hypervisor}).";
        }
      ];
    };
}
