# The examples, evaluated with a real NixOS: every container and microVM inside of them too, down to the derivation of
# the whole system. Needs a checkout of nixpkgs, or the directories nixos/ and lib/ of one; no packages, no store, no
# network.
#
#   nix-instantiate --eval --strict --json nix/tests/real -A examples \
#     --arg nixpkgs /path/to/nixpkgs --arg microvm /path/to/microvm.nix --arg nixvirt /path/to/NixVirt
{ nixpkgs, microvm ? null, nixvirt ? null }:

let
  lib = import (nixpkgs + "/lib");
  modules = import (nixpkgs + "/nixos/modules/module-list.nix");
  own = lib.filter (path: lib.hasSuffix ".nix" (toString path)) (lib.filesystem.listFilesRecursive ../..);
  pkgs = import ./packages.nix {
    inherit lib nixpkgs;
    texts = lib.filter (path: lib.hasSuffix ".nix" (toString path)) (lib.filesystem.listFilesRecursive (nixpkgs + "/nixos")) ++ own;
  };
  # Options of NixOS 25.11, in a checkout from before.
  knows = file: text: lib.hasInfix text (builtins.readFile (nixpkgs + "/nixos/modules/${file}"));
  option = type: default: lib.mkOption { inherit type default; };
  newer.options = lib.foldl' lib.recursiveUpdate { } [
    (lib.optionalAttrs (!knows "system/boot/systemd.nix" "settings.Manager") {
      systemd.settings.Manager = option (lib.types.attrsOf lib.types.anything) { };
    })
    (lib.optionalAttrs (!builtins.pathExists (nixpkgs + "/nixos/modules/system/boot/systemd/tpm2.nix")) {
      systemd.tpm2.enable = option lib.types.bool false;
      boot.initrd.systemd.tpm2.enable = option lib.types.bool false;
    })
  ];
  # Every system: packages are the stand-in, and the manual, which is made of nixpkgs' documentation, is left out.
  plain = { imports = [ newer ]; config.documentation.enable = lib.mkDefault false; };
  every = { imports = [ plain ]; config.nixpkgs.pkgs = pkgs; };
  host = {
    imports = [ every ];
    options.containers = lib.mkOption {
      type = lib.types.attrsOf (lib.types.submodule {
        options = lib.optionalAttrs (!knows "virtualisation/nixos-containers.nix" "networkNamespace") {
          networkNamespace = option (lib.types.nullOr lib.types.path) null;
        };
        config.config = every;
      });
    };
  };
  # microvm.nix hands the host's packages on by itself.
  machines.options.microvm.vms = lib.mkOption {
    type = lib.types.attrsOf (lib.types.submodule { config.config = plain; });
  };
  nixos = arguments: import (nixpkgs + "/nixos/lib/eval-config.nix")
    ({ inherit lib; system = null; } // arguments // { modules = [ host ] ++ arguments.modules; });
  glue = import ../../lib { inherit lib; };

  example = directory:
    let
      flake = import (../../examples + "/${directory}/flake.nix");
      inputs = {
        nixpkgs = { lib = lib // { nixosSystem = arguments: nixos (removeAttrs arguments [ "system" ]); }; legacyPackages.x86_64-linux = pkgs; outPath = toString nixpkgs; };
        labsw = { nixosModules.default = ../../module; lib = glue; };
        microvm.nixosModules.host.imports = [ (microvm + "/nixos-modules/host") machines ];
        nixvirt = {
          nixosModules.default = (import (nixvirt + "/modules.nix") { packages = pkgs; moduleHelperFile = _: "module-helper"; }).nixosModule;
          lib = import (nixvirt + "/lib.nix") { packages = pkgs; };
        };
      };
      outputs = flake.outputs (lib.genAttrs (lib.attrNames flake.inputs) (name: inputs.${name}) // { self = outputs; });
      config = outputs.nixosConfigurations.lab.config;
    in
    {
      broken = broken config;
      inherit (config) warnings;
      toplevel = config.system.build.toplevel.drvPath;
    };
  broken = config: map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  mistake = name: { settings, message, also ? { } }: {
    inherit name;
    want = [ message ];
    got = broken (nixos {
      modules = [
        ../../module
        also
        { services.labsw = { enable = true; managementInterface = lib.mkDefault "eno1"; } // settings; }
        { fileSystems."/".device = "/dev/sda"; boot.loader.grub.device = "/dev/sda"; system.stateVersion = "25.05"; }
      ];
    }).config;
  };
in
{
  mistakes = lib.mapAttrsToList mistake (import ../mistakes.nix);
  examples = lib.mapAttrs (name: _: example name) (builtins.readDir ../../examples);
}
