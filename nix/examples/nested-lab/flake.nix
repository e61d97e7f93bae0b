{
  description = "Three machines in a machine, with links of chosen quality";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Where this repository is; from a checkout: "path:../../..".
    labsw.url = "github:labsw/labsw";
    labsw.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { self, nixpkgs, labsw, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
      vm = self.nixosConfigurations.lab.config.system.build.vm;
      app = description: program: { type = "app"; program = "${program}"; meta = { inherit description; }; };
      # In the background: the console and QEMU's monitor are sockets in the user's run-time directory.
      background = pkgs.writeShellScript "emulation-vm-bg" ''
        set -eu
        run=''${XDG_RUNTIME_DIR:-/tmp}/labsw-emulation
        mkdir -p "$run"
        export QEMU_OPTS="-display none -daemonize -serial unix:$run/serial.sock,server=on,wait=off -monitor unix:$run/monitor.sock,server=on,wait=off"
        ${vm}/bin/run-emulator-vm
        echo "console: socat -,raw,echo=0 unix-connect:$run/serial.sock"
        echo "stop:    echo quit | socat - unix-connect:$run/monitor.sock"
      '';
    in
    {
      nixosConfigurations.lab = nixpkgs.lib.nixosSystem {
        inherit system;
        modules = [ labsw.nixosModules.default ./configuration.nix ];
      };
      packages.${system}.emulation-vm = vm;
      apps.${system} = {
        emulation-vm = app "The outer machine, its console on this terminal" "${vm}/bin/run-emulator-vm";
        emulation-vm-bg = app "The outer machine in the background" background;
      };
      # The outer machine boots, the switch runs, and the ports of the inner machines are there.
      checks.${system}.emulation-vm-boots = pkgs.testers.runNixOSTest {
        name = "emulation-vm-boots";
        nodes.emulator.imports = [ labsw.nixosModules.default ./configuration.nix ];
        testScript = ''
          emulator.wait_for_unit("labsw.service")
          emulator.succeed("labsw-ctl port list | grep n100-1")
          emulator.succeed("ip -4 addr show lab0 | grep 192.168.100.1")
        '';
      };
    };
}
