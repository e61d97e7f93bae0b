# LXC and NixOS containers: the container's end of a veth port.
{ lib, port }:

{
  # Lines for the container's configuration. With `netns` the container runs in the named namespace, where the switch puts
  # its end back after every restart; without, LXC takes the end when the container starts.
  lxc = given:
    let
      p = port.require "a container" [ "veth" ] given;
    in
    if p.netns != null then "lxc.namespace.share.net = /run/netns/${p.netns}\n"
    else
      lib.concatStringsSep "\n" [
        "lxc.net.0.type = phys"
        "lxc.net.0.link = ${p.interface}"
        "lxc.net.0.name = ${p.peerName}"
        "lxc.net.0.flags = up"
      ] + "\n";

  # The value of `containers.<name>` of NixOS: systemd-nspawn in the named namespace, or with the end moved in.
  nixosContainer = given:
    let
      p = port.require "a container" [ "veth" ] given;
    in
    if p.netns != null then { networkNamespace = "/run/netns/${p.netns}"; }
    else { privateNetwork = true; interfaces = [ p.interface ]; };
}
