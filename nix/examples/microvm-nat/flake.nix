{
  description = "A microVM under load, behind NAT and port forwards of the host";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Where this repository is; from a checkout: "path:../../..".
    labsw.url = "github:labsw/labsw";
    labsw.inputs.nixpkgs.follows = "nixpkgs";
    microvm.url = "github:microvm-nix/microvm.nix";
    microvm.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { nixpkgs, labsw, microvm, ... }: {
    nixosConfigurations.lab = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      modules = [ labsw.nixosModules.default microvm.nixosModules.host ./configuration.nix ];
    };
  };
}
