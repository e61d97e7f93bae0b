{
  description = "labsw, a user-space virtual Ethernet switch for lab hosts";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      forEachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = forEachSystem (pkgs: rec {
        labsw = pkgs.callPackage ./nix/package.nix { };
        default = labsw;
      });

      overlays.default = import ./nix/overlay.nix;

      nixosModules = rec {
        labsw.imports = [ ./nix/module ];
        default = labsw;
      };

      # Guest glue; in a NixOS configuration `config.lib.labsw` is the same with its ports looked up.
      lib = import ./nix/lib { inherit (nixpkgs) lib; };

      apps = forEachSystem (pkgs: import ./nix/apps.nix { inherit pkgs; });

      devShells = forEachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      checks = forEachSystem (pkgs: import ./nix/checks { inherit pkgs; });

      formatter = forEachSystem (pkgs: pkgs.nixpkgs-fmt);
    };
}
