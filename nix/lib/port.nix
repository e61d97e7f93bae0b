# What all glue has to know of a port, with the defaults that labswd has (docs/configuration.md).
{ lib }:

let
  # The address of the station at a port, by the rule of control/src/derived_mac.rs: 52:54:00, then the name's 32-bit
  # FNV-1a hash, folded to 24 bits.
  macOf = name:
    let
      step = hash: char:
        builtins.bitAnd (builtins.bitXor hash (lib.strings.charToInt char) * 16777619) 4294967295;
      hash = lib.foldl' step 2166136261 (lib.stringToCharacters name);
      folded = builtins.bitXor (hash / 16777216) (builtins.bitAnd hash 16777215);
      digits = lib.fixedWidthString 6 "0" (lib.toLower (lib.trivial.toHexString folded));
      byte = n: builtins.substring (2 * n) 2 digits;
    in
    "52:54:00:${byte 0}:${byte 1}:${byte 2}";

  defaults = {
    # The key under [ports].
    port = throw "labsw: the glue needs `port`, the name of a port of the switch";
    type = "vhost_user";
    # vhost_user: who makes the socket, and where it is.
    role = "server";
    socketDir = "/run/labsw/vhost";
    queuePairs = 1;
    # tap and veth: the interface that the guest opens or the container takes.
    interface = null;
    # veth: the named namespace that the switch moves the container's end to, and its name there.
    netns = null;
    peerName = "eth0";
    # LXC: the number of the interface in the container.
    index = 0;
    mtu = 1500;
    # The guest's NIC. Emulated ones (e1000e, e1000, rtl8139) need a port of type tap.
    model = "virtio";
    # The guest's memory in MiB, for the memory that it shares with the switch.
    memory = null;
    # Huge pages for that memory: null, "2M" or "1G".
    hugepageSize = null;
    # Decides how reconnecting is spelled in QEMU's arguments.
    qemuVersion = "10.0";
  };

  complete = given:
    let
      all = defaults // (if builtins.isString given then { port = given; } else given);
    in
    { socket = "${all.socketDir}/${all.port}.sock"; mac = macOf all.port; } // all;

  # The port, if it is of one of `types`; else one line that says what `what` can be attached to.
  require = what: types: given:
    let
      port = complete given;
    in
    if builtins.elem port.type types then port
    else
      throw "labsw: ${what} attaches to a port of type ${lib.concatStringsSep " or " types}; port ${port.port} is of type ${port.type}";

  # Which NIC a guest of this port can have.
  checkModel = port:
    if port.type == "vhost_user" && port.model != "virtio" then
      throw "labsw: port ${port.port} is of type vhost_user, whose NIC is virtio; for model ${port.model} make it type = \"tap\", for = \"guest\""
    else port;
in
{
  inherit macOf complete;
  require = what: types: given: checkModel (require what types given);
}
