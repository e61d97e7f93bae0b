{
  description = "A dual-port lab: guests that are broken on purpose, and a sensor that sees every frame";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Where this repository is; from a checkout: "path:../../..".
    labsw.url = "github:labsw/labsw";
    labsw.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { nixpkgs, labsw, ... }: {
    nixosConfigurations.lab = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ labsw.nixosModules.default ./configuration.nix ];
    };
  };
}
