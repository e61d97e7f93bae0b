# `nix run .#labsw-ctl` and `nix run .#demo`.
{ pkgs }:

let
  labsw = pkgs.callPackage ./package.nix { };
  demo = pkgs.callPackage ./demo.nix { inherit labsw; };
in
{
  labsw-ctl = {
    type = "app";
    program = "${labsw}/bin/labsw-ctl";
    meta.description = "Looks at and changes a running switch";
  };
  demo = {
    type = "app";
    program = "${demo}/bin/labsw-demo";
    meta.description = "A whole lab on this machine, narrated; needs root";
  };
}
