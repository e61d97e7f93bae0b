# The option of microvm.nix's host module.
{ lib, ... }:

{
  options.microvm.vms = lib.mkOption {
    default = { };
    type = lib.types.attrsOf (lib.types.submodule {
      options.config = lib.mkOption { type = lib.types.deferredModule; default = { }; };
    });
  };
}
