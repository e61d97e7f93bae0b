# Evaluates the module, and NixOS configurations that use it, with nixpkgs' `lib` and the stubs beside this file: no
# packages and no store are needed. `lib` is a path (that of nixpkgs' lib directory). tests/tests/nix.rs asks for the
# attributes.
{ lib }:

let
  lib' = import lib;
  inherit (lib') evalModules;

  # As much of pkgs as the modules touch. Programs are paths that say what they are.
  program = name: { type = "derivation"; outPath = "/nix/store/${name}"; inherit name; version = "10.1.0"; };
  pkgs = {
    labsw = program "labsw";
    qemu_kvm = program "qemu";
    iproute2 = program "iproute2";
    formats.toml = _: {
      type = lib'.types.attrsOf lib'.types.anything;
      generate = name: value: { outPath = "/nix/store/${name}"; inherit value; };
    };
    runCommand = name: _: script: "/nix/store/checked-${name}";
    writeShellScript = name: _: "/nix/store/${name}";
    stdenv = {
      buildPlatform.canExecute = _: true;
      hostPlatform = { qemuArch = "x86_64"; isAarch64 = false; system = "x86_64-linux"; };
    };
  };
  utils.escapeSystemdExecArgs = lib'.concatMapStringsSep " " (arg: builtins.toJSON (toString arg));

  evaluate = modules: evalModules {
    modules = [ ./stubs.nix ] ++ modules;
    specialArgs = { inherit utils; inherit pkgs; modulesPath = "/nixos/modules"; };
  };
  nixos = modules: evaluate ([ ../module ] ++ modules);
  lab = settings: (nixos [{ services.labsw = { enable = true; } // settings; }]).config;

  broken = config: map (a: a.message) (lib'.filter (a: !a.assertion) config.assertions);
in
{
  inherit evaluate nixos lab broken pkgs;
  lib = lib';
}
