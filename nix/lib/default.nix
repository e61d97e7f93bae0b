# Guest glue: what to give a hypervisor or container so that it attaches to a port of labsw.
#
# Every function takes one attribute set that describes the port (see `defaults` in port.nix) and returns what the
# program in question reads: a list of arguments, XML, NixVirt attributes, a NixOS module or a configuration file.
# They are pure and know nothing of a NixOS configuration; `config.lib.labsw` in module/guests.nix is the same
# functions, with the port looked up in `services.labsw`.
#
# A port of the wrong type is refused in one line that names the port.
{ lib }:

let
  port = import ./port.nix { inherit lib; };
in
{
  inherit (port) macOf;
}
// import ./qemu.nix { inherit lib port; }
// import ./libvirt.nix { inherit lib port; }
// import ./microvm.nix { inherit lib port; }
  // import ./lxc.nix { inherit lib port; }
