# LXC and NixOS containers: the container's end of a veth port, or the interface of a tap port with for = "container".
{ lib, port }:

{
  # Lines for the container's configuration, of its `index`-th interface. With `netns` the container runs in the named
  # namespace, where the switch puts its end back after every restart; without, LXC takes the end when the container
  # starts.
  lxc = given:
    let
      p = port.require "a container" [ "veth" "tap" ] given;
      net = "lxc.net.${toString p.index}";
    in
    if p.netns != null then "lxc.namespace.share.net = /run/netns/${p.netns}\n"
    else
      lib.concatStringsSep "\n" [
        "${net}.type = phys"
        "${net}.link = ${p.interface}"
        "${net}.name = ${if p.index == 0 then p.peerName else "eth${toString p.index}"}"
        "${net}.flags = up"
        "${net}.hwaddr = ${p.mac}"
      ] + "\n";

  # The value of `containers.<name>` of NixOS: systemd-nspawn in the named namespace, or with the ends of all ports
  # moved in. `given` is a port, or a list of ports.
  nixosContainer = given:
    let
      ports = map (port.require "a container" [ "veth" "tap" ]) (if builtins.isList given then given else [ given ]);
      first = builtins.head ports;
    in
    if first.netns != null then { networkNamespace = "/run/netns/${first.netns}"; }
    else { privateNetwork = true; interfaces = map (p: p.interface) ports; };
}
