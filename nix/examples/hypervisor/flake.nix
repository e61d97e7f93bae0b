{
  description = "A hypervisor on its infrastructure VLAN, with guests untagged and tagged";

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
