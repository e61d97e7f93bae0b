# The options of a microvm.nix guest that labsw's glue sets or reads.
{ lib, ... }:

let
  any = default: lib.mkOption { type = lib.types.anything; inherit default; };
in
{
  options = {
    assertions = any [ ];
    networking = any { };
    services = any { };
    systemd = any { };
    system = any { };
    microvm = {
      hypervisor = any "qemu";
      mem = any 512;
      vcpu = any 1;
      shares = any [ ];
      qemu.machine = any "microvm";
      qemu.extraArgs = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
    };
  };
}
