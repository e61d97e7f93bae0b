# `nix flake check`: everything that Nix can build or evaluate about labsw.
#
#   labsw         the package, with the tests of its pure crate
#   clippy, tests lints, and the tests that need neither root nor devices
#   golden        what the guest glue makes, against tests/golden; libvirt's own schema accepts the XML
#   module        mistakes get their message, and nothing is set while the module is off
#   examples      the configurations of examples/ with the real NixOS: assertions hold, and `labswd --check` takes
#                 the file
#   format        nixpkgs-fmt and deadnix
#   vm-*          NixOS VM tests (x86_64)
#
# tests/tests/nix/ does what it can of this without a store (docs/testing.md).
{ pkgs }:

let
  inherit (pkgs) lib;
  labsw = pkgs.callPackage ../package.nix { };
  evaluated = import ../tests/eval.nix { lib = pkgs.path + "/lib"; };
  # A build of the workspace that ends in `command` in place of the programs.
  cargo = name: command: labsw.overrideAttrs (old: {
    pname = "labsw-${name}";
    nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
    buildPhase = command;
    doCheck = false;
    installPhase = "touch $out";
    postInstall = "";
  });
  crates = "-p labsw-switch -p labsw-dataplane -p labsw-control";

  golden = pkgs.linkFarm "labsw-glue" (lib.mapAttrsToList (name: text: { inherit name; path = pkgs.writeText name text; }) evaluated.golden);
  wrong = lib.filter (mistake: mistake.got != mistake.want) evaluated.mistakes;

  # A NixOS of the real kind, as far as its configuration file and its assertions.
  nixos = directory:
    let
      system = import (pkgs.path + "/nixos/lib/eval-config.nix") {
        system = null;
        modules = [ ../module (../examples + "/${directory}/configuration.nix") { nixpkgs.hostPlatform = pkgs.stdenv.hostPlatform.system; } ];
      };
      failed = lib.filter (a: !a.assertion) system.config.assertions;
    in
    if failed == [ ] then system.config.services.labsw.configFile
    else throw "examples/${directory}: ${lib.concatMapStringsSep "; " (a: a.message) failed}";
in
{
  inherit labsw;
  clippy = cargo "clippy" "cargo clippy --offline ${crates} --all-targets -- -D warnings";
  tests = cargo "tests" "cargo test --offline -p labsw-switch -p labsw-control";

  golden = pkgs.runCommand "labsw-golden" { nativeBuildInputs = [ pkgs.jq pkgs.libvirt pkgs.libxml2 ]; } ''
    for file in ${../tests/golden}/*; do
      name=$(basename "$file")
      case $name in
        *.json) diff <(jq -S . "$file") <(jq -S . ${golden}/"$name") ;;
        *) diff "$file" ${golden}/"$name" ;;
      esac
    done
    for file in ${golden}/libvirt-{interface,queues,client,mtu,tap,tap-virtio,escaped,disk,disk-file,passthrough}.xml; do
      { echo "<domain type='kvm'><name>x</name><memory>1</memory><os><type>hvm</type></os><devices>"; cat "$file"; echo "</devices></domain>"; } >domain.xml
      virt-xml-validate domain.xml domain
    done
    touch $out
  '';

  module = pkgs.runCommand "labsw-module" { } (
    if wrong != [ ] then throw "nix/tests/mistakes.nix: ${builtins.toJSON wrong}"
    else if evaluated.off.services != [ ] || evaluated.off.kernelParams != [ ] then throw "the module sets something although it is not enabled"
    else "touch $out"
  );

  # The other two need the modules of their other inputs; their flakes are checked where they stand.
  examples = nixos "break-and-detect";

  format = pkgs.runCommand "labsw-format" { nativeBuildInputs = [ pkgs.nixpkgs-fmt pkgs.deadnix ]; } ''
    nixpkgs-fmt --check ${../.} ${../../flake.nix}
    deadnix --fail ${../.} ${../../flake.nix}
    touch $out
  '';
} // lib.optionalAttrs pkgs.stdenv.hostPlatform.isx86_64 (import ./vm.nix { inherit pkgs; })
