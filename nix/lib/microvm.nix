# microvm.nix: a NixOS module for the guest. The NIC goes in as arguments, because microvm.nix knows no vhost-user NIC.
{ lib, port }:

let
  qemu = import ./qemu.nix { inherit lib port; };
in
{
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
      p = port.require "a microvm" [ "vhost_user" "tap" ] given;
    in
    { config, ... }: {
      microvm.hypervisor = lib.mkDefault "qemu";
      # A PCI bus: virtio-net on QEMU's own microvm machine is a legacy MMIO device by default.
      microvm.qemu.machine = lib.mkDefault "q35";
      microvm.qemu.extraArgs = lib.optionals (p.type == "vhost_user") (backing config)
        ++ qemu.qemuArgs (p // { memory = null; });
      assertions = [
        {
          assertion = config.microvm.hypervisor == "qemu";
          message = "labsw: port ${p.port} is attached by QEMU arguments; set microvm.hypervisor = \"qemu\" in this guest (it is ${config.microvm.hypervisor}).";
        }
      ];
    };
}
