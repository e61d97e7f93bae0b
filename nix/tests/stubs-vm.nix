# What a node of a NixOS VM test sets besides.
{ lib, ... }:

let
  any = lib.mkOption { type = lib.types.anything; default = null; };
in
{
  options.virtualisation = { interfaces = any; memorySize = any; cores = any; };
}
