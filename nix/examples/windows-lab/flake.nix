{
  description = "A Windows domain of four machines, described with NixVirt";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Where this repository is; from a checkout: "path:../../..".
    labsw.url = "github:labsw/labsw";
    labsw.inputs.nixpkgs.follows = "nixpkgs";
    nixvirt.url = "github:AshleyYakeley/NixVirt";
    nixvirt.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { nixpkgs, labsw, nixvirt, ... }: {
    nixosConfigurations.lab = nixpkgs.lib.nixosSystem {
      system = "x86_64-linux";
      specialArgs = { inherit nixvirt; };
      modules = [ labsw.nixosModules.default nixvirt.nixosModules.default ./configuration.nix ];
    };
  };
}
