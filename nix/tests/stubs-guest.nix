# The inside of a guest, as far as labsw's glue and the examples set it: a machine of microvm.nix, or a NixOS container.
# What the real modules define themselves is defined here with the same priority, so that a conflict shows.
{ lib, config, ... }:

let
  inherit (lib) mkOption types;
  any = default: mkOption { type = types.anything; inherit default; };
  free = mkOption { type = types.attrsOf types.anything; default = { }; };
in
{
  options = {
    assertions = any [ ];
    warnings = mkOption { type = types.listOf types.str; default = [ ]; };
    networking = {
      hostName = any "";
      useDHCP = mkOption { type = types.bool; default = true; };
      useNetworkd = any false;
      interfaces = free;
      firewall = free;
    };
    services = free;
    systemd = free;
    system = free;
    users = free;
    microvm = {
      hypervisor = any "qemu";
      mem = any 512;
      vcpu = any 1;
      shares = any [ ];
      qemu.machine = mkOption { type = types.str; };
      qemu.extraArgs = mkOption { type = types.listOf types.str; default = [ ]; };
    };
  };

  config = {
    # microvm.nix, nixos-modules/microvm/options.nix, on x86_64.
    microvm.qemu.machine = lib.mkDefault "microvm";
    # microvm.nix warns: QEMU hangs with exactly this much.
    warnings = lib.optionals (config.microvm.mem == 2048) [ "QEMU hangs if memory is exactly 2GB" ];
  };
}
