# What tests/tests/nix/ asks Nix for, an attribute each. The module, and whole NixOS configurations that use it, are
# evaluated with the stubs beside this file: no packages, no store and no NixOS are needed. `lib` is that of nixpkgs,
# where it is to be had, or the stub.
#
#   nix-instantiate --eval --strict --json -A mistakes nix/tests/eval.nix [--arg lib /path/to/nixpkgs/lib]
{ lib ? ./stub-lib.nix }:

let
  lib' = import lib;
  glue = import ../lib { lib = lib'; };

  # As much of pkgs as the modules touch. Programs are paths that say what they are.
  program = name: { type = "derivation"; outPath = "/nix/store/${name}"; inherit name; version = "10.1.0"; };
  pkgs = {
    lib = lib';
    labsw = program "labsw";
    qemu_kvm = program "qemu";
    iproute2 = program "iproute2";
    socat = program "socat";
    coreutils = program "coreutils";
    formats.toml = _: {
      type = lib'.types.attrsOf lib'.types.anything;
      generate = name: value: { outPath = "/nix/store/${name}"; inherit value; };
    };
    runCommand = name: _: _script: "/nix/store/checked-${name}";
    writeShellScript = name: _: "/nix/store/${name}";
    # The rest is for flake.nix: packages are what they are made from.
    callPackage = path: given:
      let
        f = import path;
      in
      f (builtins.intersectAttrs (builtins.functionArgs f) fakes // given);
    testers.runNixOSTest = test: program test.name // {
      inherit (test) testScript;
      broken = broken (evaluate { modules = [ ./stubs-vm.nix (test.nodes.lab or test.nodes.emulator) ]; }).config;
      settings = (evaluate { modules = [ ./stubs-vm.nix test.nodes.lab ]; }).config.services.labsw.finalSettings;
    };
    writeText = name: _: program name;
    linkFarm = name: _: program name;
    path = lib + "/..";
    clippy = program "clippy";
    nixpkgs-fmt = program "nixpkgs-fmt";
    deadnix = program "deadnix";
    jq = program "jq";
    libvirt = program "libvirt";
    libxml2 = program "libxml2";
    tcpdump = program "tcpdump";
    stdenv = {
      cc.libc.bin = program "libc";
      buildPlatform.canExecute = _: true;
      hostPlatform = { qemuArch = "x86_64"; isAarch64 = false; isx86_64 = true; system = "x86_64-linux"; };
    };
  };
  made = args: program (args.pname or args.name or "shell") // args // { overrideAttrs = f: made (args // (if lib'.isFunction f then f args else f)); };
  # Whatever a package asks for.
  fakes = lib'.genAttrs
    (lib'.concatMap (file: lib'.attrNames (builtins.functionArgs (import file))) [ ../package.nix ../shell.nix ../demo.nix ../guest-image.nix ])
    program // pkgs // {
    linux = program "linux" // { target = "bzImage"; };
    rustPlatform.buildRustPackage = made;
    mkShell = made;
    writeShellApplication = made;
    pkgsStatic.busybox = program "busybox-static";
  };
  utils.escapeSystemdExecArgs = lib'.concatMapStringsSep " " (arg: builtins.toJSON (toString arg));

  evaluate = { modules, specialArgs ? { }, ... }: lib'.evalModules {
    modules = [ ./stubs.nix ] ++ modules;
    specialArgs = { inherit utils pkgs; } // specialArgs;
  };
  host = settings: also: (evaluate { modules = [ ../module also { services.labsw = { enable = true; } // settings; } ]; }).config;
  # A NixOS inside of the host's.
  inside = modules: lib'.evalModules { modules = [ ./stubs-guest.nix ] ++ modules; specialArgs = { inherit pkgs; }; };
  broken = config: map (a: a.message) (lib'.filter (a: !a.assertion) config.assertions);

  # The whole flakes under examples/, with stubs for their inputs.
  example = directory:
    let
      flake = import (../examples + "/${directory}/flake.nix");
      inputs = {
        nixpkgs = { lib = lib' // { nixosSystem = evaluate; }; legacyPackages.x86_64-linux = pkgs; };
        labsw = { nixosModules.default = ../module; lib = glue; };
        microvm.nixosModules.host = ./stubs-microvm.nix;
        nixvirt = {
          nixosModules.default = { };
          lib.domain = {
            writeXML = domain: domain;
            templates.windows = given: given // {
              devices = { disk = [{ device = "cdrom"; source.file = given.install_vol; }]; interface = { type = "bridge"; source.bridge = given.bridge_name; }; };
            };
          };
          lib.pool.writeXML = pool: pool;
          lib.volume.writeXML = volume: volume;
        };
      };
      # Every input that the flake declares has a stub, and every stub that is used is declared.
      outputs = flake.outputs (lib'.genAttrs (lib'.attrNames flake.inputs) (name: inputs.${name}) // { self = outputs; });
      config = outputs.nixosConfigurations.lab.config;
      labsw = config.services.labsw;
    in
    {
      broken = broken config;
      settings = labsw.finalSettings;
      inherit (config.boot) kernelParams kernelModules extraModprobeConfig;
      sysctl = config.boot.kernel.sysctl;
      links = lib'.mapAttrs (_: l: { inherit (l) matchConfig linkConfig extraConfig; }) config.systemd.network.links;
      networks = lib'.mapAttrs (_: n: { inherit (n) matchConfig linkConfig networkConfig; }) config.systemd.network.networks;
      units = lib'.mapAttrs
        (_: u: lib'.filterAttrs (_: value: value != [ ] && value != { } && value != null && value != "") (removeAttrs u [ "overrideStrategy" ]))
        config.systemd.services;
      manager = config.systemd.settings.Manager;
      users = lib'.mapAttrs (_: u: builtins.sort builtins.lessThan u.extraGroups) config.users.users;
      etc = lib'.mapAttrs (_: e: if e.text != null then e.text else "${e.source}") config.environment.etc;
      containers = lib'.mapAttrs (_: c: removeAttrs c [ "config" ]) config.containers;
      # nixos-containers sets networking.useDHCP = false inside, at the priority of a user's own lines.
      insides = lib'.mapAttrs
        (_: c: { inherit ((inside [ c.config { networking.useDHCP = false; } ]).config) networking warnings; })
        config.containers;
      programs = lib'.mapAttrs (_: app: app.program) (outputs.apps.x86_64-linux or { });
      checks = lib'.mapAttrs (_: check: check.broken or [ ]) (outputs.checks.x86_64-linux or { });
      pools = map (p: { inherit (p.definition) name target; volumes = map (v: v.definition.name) p.volumes; })
        (config.virtualisation.libvirt.connections."qemu:///system".pools or [ ]);
      domains = map (d: d.definition) (config.virtualisation.libvirt.connections."qemu:///system".domains or [ ]);
      microvms = lib'.mapAttrs
        (_: vm: {
          inherit ((inside [ vm.config ]).config) microvm assertions networking warnings;
        })
        (config.microvm.vms or { });
    };

  flake =
    let
      outputs = (import ../../flake.nix).outputs {
        self = outputs;
        nixpkgs = { lib = lib'; legacyPackages = lib'.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: pkgs); };
      };
      perSystem = lib'.mapAttrs (_: lib'.mapAttrs (_: value: value.program or value.name or "?"));
    in
    {
      inherit (outputs) nixosModules;
      packages = perSystem outputs.packages;
      apps = perSystem outputs.apps;
      devShells = perSystem outputs.devShells;
      checks = lib'.mapAttrs (_: removeExamples) outputs.checks;
      formatter = lib'.mapAttrs (_: f: f.name) outputs.formatter;
      lib = lib'.attrNames outputs.lib;
      overlay = (outputs.overlays.default pkgs { }).labsw.pname;
      vm = { inherit (outputs.checks.x86_64-linux.vm-lab) broken settings testScript; };
      package = { inherit (outputs.packages.x86_64-linux.default) version postInstall cargoBuildFlags; };
    };
  # The examples want the whole of NixOS.
  removeExamples = checks: lib'.mapAttrs (_: check: check.name or check) (removeAttrs checks [ "examples" ]) // { examples = checks ? examples; };

  mistake = name: { settings, message, also ? { } }: {
    inherit name;
    want = [ message ];
    got = broken (host ({ managementInterface = lib'.mkDefault "eno1"; } // settings) also);
  };
in
{
  mistakes = lib'.mapAttrsToList mistake (import ./mistakes.nix);
  examples = lib'.mapAttrs (name: _: example name) (builtins.readDir ../examples);
  inherit flake;
  golden = import ./golden.nix { lib = lib'; };
  # Nothing is set while the module is imported and not enabled.
  off =
    let
      config = (evaluate { modules = [ ../module ]; }).config;
    in
    {
      inherit (config.boot) kernelParams kernelModules;
      inherit (config) assertions;
      services = lib'.attrNames config.systemd.services;
      inherit (config.systemd) packages;
    };
  # A lab with impairments.
  impaired = (host { settings = { profiles.lossy.loss = "5%"; impair.a = { profile = "lossy"; outage = "5s after 10s"; lose_segment = 3; }; }; ports.a = { }; } { }).services.labsw.finalSettings;
  # A value of the host that is given wins over the default, and null leaves it alone.
  sysctl = (host { host.sysctl = { "net.ipv4.conf.all.forwarding" = 1; "net.bridge.bridge-nf-call-iptables" = null; }; } { }).boot.kernel.sysctl;
  # What nixpkgs' own modules say about forwarding wins over the default of ours: networking.nat at 99, the rest at
  # 1000.
  forwarding = {
    nat = (host { } { boot.kernel.sysctl."net.ipv4.conf.all.forwarding" = lib'.mkOverride 99 true; }).boot.kernel.sysctl;
    usual = (host { } { boot.kernel.sysctl."net.ipv4.conf.all.forwarding" = lib'.mkDefault false; }).boot.kernel.sysctl;
  };
  # Given settings win over what ports A and B are by themselves.
  injecting = (host { portA = { pciAddress = "0000:03:00.0"; settings.mirror_only = false; }; } { }).services.labsw.finalSettings;
  # Ports by name, and by name with something else about them.
  bound =
    let
      labsw = (host { ports.vm.queue_pairs = 2; ports.web = { type = "veth"; peer = "ls-web"; netns = "n"; }; settings.switch.vhost_user_dir = "/run/labsw/x"; } { }).lib.labsw;
    in
    {
      args = labsw.qemuArgs "vm";
      other = labsw.qemuArgs { port = "vm"; queuePairs = 1; };
      lxc = labsw.lxc "web";
    };
  # Refused by the types, or by the glue: each throws.
  refused = {
    vlan = (host { ports.a.vlan = 5000; } { }).services.labsw.finalSettings;
    type = (host { ports.a.type = "vhost-user"; } { }).services.labsw.finalSettings;
    pci = (host { portA.pciAddress = "03:00.0"; } { }).services.labsw.finalSettings;
    name = (host { portA = { pciAddress = "0000:03:00.0"; interface = "a-name-that-is-too-long"; }; } { }).services.labsw.finalSettings;
    unknownPort = (host { ports.a = { }; } { }).lib.labsw.qemuArgs "b";
    wrongType = (host { ports.a = { }; } { }).lib.labsw.lxc "a";
    wrongModel = glue.libvirtInterface { port = "a"; model = "e1000e"; };
  };
}
