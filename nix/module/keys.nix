# The keys of the configuration file as options, made from control/src/model by `make generated`. `optional` and
# `required` make an option of a type and a description; `table` is the type of a table.
{ types, optional, required, table }:
{
  switch = {
    workers = optional (types.listOf (types.ints.between 0 8191)) "CPUs of the polling workers, each once; empty: one worker that is not pinned.";
    power = optional (types.enum [ "adaptive" "performance" ]) "The power mode: `adaptive` lets an idle worker sleep.";
    control_socket = optional types.str "Path of the control socket.";
    vhost_user_dir = optional types.str "Directory of the vhost-user sockets that have no path of their own.";
    socket_group = optional types.str "Group of the guests' sockets, and of the control socket if it has none of its own; left out: unchanged.";
    control_group = optional types.str "Group of the control socket; left out: `socket_group`.";
    socket_mode = optional types.str "Permission bits of the sockets, in octal.";
    admin_group = optional types.str "Group whose members may change the switch; left out: only root may.";
    mac_ageing = optional types.str "Time after which a learned address is forgotten; whole seconds, at least 1.";
    mac_table_size = optional (types.ints.between 16 1048576) "Most addresses that the forwarding database holds.";
    hugepages = optional (types.enum [ "auto" "required" "off" ]) "The use of huge pages for packet memory.";
    max_guest_memory = optional types.str "Most guest memory that one vhost-user port maps; left out: as much as the machine has.";
    metrics_listen = optional types.str "Address and port at which metrics are served over HTTP; left out: nowhere.";
    protected_interfaces = optional (types.listOf types.str) "Interfaces that are never opened, whatever a port names.";
    allow_mirror = optional (types.enum [ "all" "declared" ]) "The default of the ports' `allow_mirror`.";
    rewind = optional types.str "The default of the ports' `rewind`, as in `\"64MiB\"`; left out: `\"off\"`.";
    max_rewind_memory = optional types.str "Most memory that the ports' `rewind` takes together.";
    default_vlan = optional (types.ints.between 1 4094) "The VLAN of guests', containers' and TAP ports without VLAN settings: they are access ports in it.";
    accelerate = optional (types.enum [ "auto" "off" ]) "The kernel fast path between containers' ports with `offloads`.";
    multicast_snooping = optional (types.either types.bool (types.listOf (types.either (types.ints.between 1 4094) types.str))) "VLANs in which multicast frames go only to ports that asked for them.";
  };
  port = {
    vlan = optional table "The VLANs of the port; left out: all for a device of the host, `switch.default_vlan` for every other type.";
    mtu = optional (types.ints.between 68 9216) "Largest frame, in bytes, without Ethernet header, tags and FCS.";
    link_local = optional (types.enum [ "transparent" "drop" ]) "Frames to 01-80-C2-00-00-0X (STP, LLDP, 802.1X and the like) are flooded, or dropped.";
    mirror_only = optional types.bool "The port takes mirrored frames and nothing else.";
    allow_mirror = optional types.bool "The port may be a source or the destination of mirrors; left out: as `switch.allow_mirror` says.";
    rewind = optional types.str "Memory for the frames that passed, as in `\"64MiB\"`, or `\"off\"`; left out: as `switch.rewind` says.";
    finish_checksums = optional types.bool "Frames to the port have finished checksums and are cut, even if its guest accepts to do that.";
    storm = optional table "Limits of flooded frames from the port, in frames per second, as in `\"1kpps\"`.";
    mac_limit = optional (types.either (types.ints.between 1 1048576) (types.enum [ "off" ])) "The most addresses that are learned at the port; `\"off\"` or left out: no limit of the port's own.";
    mac_limit_action = optional (types.enum [ "drop" "alert" ]) "How frames from further addresses are handled; left out: drop.";
    sticky = optional types.bool "Addresses learned at the port stay there.";
    macs = optional (types.listOf types.str) "The only source addresses that may send; empty: any.";
    isolated = optional types.bool "The port talks only to ports that are not isolated.";
    dhcp_guard = optional types.bool "Frames of DHCP servers are dropped.";
    ra_guard = optional types.bool "IPv6 router advertisements and redirects are dropped.";
    device = optional types.str "af_xdp: The device, as in `\"pci:0000:03:00.1\"`, `\"mac:52:54:00:12:34:56\"` or `\"name:enp3s0f1\"`.";
    mode = optional types.str "af_xdp: The XDP mode: how frames get in and out of the driver. vhost_user: Permission bits of the socket's file, in octal; left out: `switch.socket_mode`.";
    queues = optional (types.either (types.ints.between 1 64) (types.enum [ "all" ])) "af_xdp: The receive queues that are bound. veth: Queues each way, at both ends. tap: Number of queues, for the host or a container.";
    busy_poll = optional types.bool "af_xdp: The worker runs the kernel's receive loop (busy polling).";
    role = optional (types.enum [ "server" "client" ]) "vhost_user: The side that listens on the socket: the switch (`server`) or the guest's hypervisor (`client`).";
    socket = optional types.str "vhost_user: The socket; left out: `NAME.sock` in `switch.vhost_user_dir`.";
    queue_pairs = optional (types.ints.between 1 8) "vhost_user: Pairs of a receive and a transmit ring, at most 8.";
    offloads = optional types.bool "vhost_user: Checksum and segmentation offloads are offered to the guest. veth: The container's end keeps its offloads on, and known unicast may pass in the kernel.";
    owner = optional types.str "vhost_user: User who owns the socket's file, by name or number; left out: the daemon's. tap: User who may open the interface, for a guest; a name or a number.";
    group = optional types.str "vhost_user: Group of the socket's file, by name or number; left out: `switch.socket_group`. tap: Group that may open the interface, for a guest; a name or a number.";
    peer_uid = optional (types.ints.between 0 4294967294) "vhost_user: The only user whose processes are served; left out: any that can open the socket.";
    peer = optional types.str "veth: The container's end, as it is created.";
    interface = optional types.str "veth: The switch's end; left out: `lsw-` and the name of the port. tap: The interface; left out: the name of the port.";
    netns = optional types.str "veth: Named network namespace the container's end is moved into. tap: Named network namespace the interface is moved into, for a container.";
    peer_name = optional types.str "veth: The name of the container's end in that namespace; left out: as it was created. tap: The name of the interface in that namespace; left out: `interface`.";
    mac = optional types.str "veth: MAC address of the container's end; left out: derived from the port's name. tap: MAC address of the interface, for the host or a container; left out: derived from the port's name.";
    "for" = optional (types.enum [ "host" "guest" "container" ]) "tap: The user of the other end of the interface.";
  };
  vlan = {
    mode = optional (types.enum [ "access" "trunk" "native-tagged" "native-untagged" "dot1q-tunnel" ]) "The VLAN mode; left out: `tag` and `trunks` decide.";
    tag = optional (types.ints.between 1 4094) "The VLAN of untagged frames, or of the tunnel; a trunk has none.";
    trunks = optional (types.listOf (types.either (types.ints.between 1 4094) types.str)) "The VLANs that pass tagged; left out: all.";
    cvlans = optional (types.listOf (types.either (types.ints.between 0 4094) types.str)) "The customer VLANs that may pass at a tunnel port, 0 for untagged frames; left out: all.";
    ethertype = optional (types.enum [ "0x88a8" "0x8100" ]) "TPID of the tag that a tunnel port pushes.";
  };
  mirror = {
    sources = required (types.listOf types.str) "The sources of mirrored frames: each port once, never empty.";
    vlans = optional (types.listOf (types.either (types.ints.between 1 4094) types.str)) "Only frames of these VLANs; left out: all.";
    filter = optional types.str "Only frames that match this expression in tcpdump's syntax; left out: all.";
    snaplen = optional (types.ints.between 0 65535) "Copies end after this many bytes; 0: whole frames.";
    inject = optional table "The frames that the destination of a mirror may inject; left out: frames that arrive on it are dropped.";
    to = optional types.str "The port that copies are sent to; it takes no other traffic.";
    to_vlan = optional (types.ints.between 1 4094) "The VLAN that copies are sent in, by every port that names it in its trunks (RSPAN).";
    to_remote = optional table "The other machine that copies are sent to.";
    force = optional types.bool "Take the VLAN even if it is the VLAN of untagged frames at a port.";
  };
  inline = {
    of = required types.str "The port in whose wire the sensor is.";
    through = required (types.listOf types.str) "The two ports of the sensor: the one on the side of that port, then the one on the side of the switch.";
    on_failure = required (types.enum [ "open" "closed" ]) "The treatment of the port's frames while the sensor lets none pass: they go past it (open), or are dropped (closed).";
  };
}
