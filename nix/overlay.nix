# `pkgs.labsw`.
final: _prev: {
  labsw = final.callPackage ./package.nix { };
}
