# What the configuration file says. `settings` is the file, freely (RFC 42); `ports`, `mirrors` and `inline` are its
# tables with types, descriptions and a short form for VLANs. Keys keep the names that docs/configuration.md has for
# them.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  format = pkgs.formats.toml { };

  vid = types.ints.between 1 4094;
  optional = type: description: mkOption {
    type = types.nullOr type;
    default = null;
    inherit description;
  };

  # 20 is access; [ 10 "20-29" ] a trunk; an attribute set the table as it is in the file.
  vlan = types.oneOf [ vid (types.listOf (types.either vid types.str)) vlanTable ];
  vlanTable = types.submodule {
    options = {
      mode = optional (types.enum [ "access" "trunk" "native-tagged" "native-untagged" "dot1q-tunnel" ]) "How tags are treated; see docs/vlans.md.";
      tag = optional vid "The VLAN of untagged frames.";
      trunks = optional (types.listOf (types.either vid types.str)) "VLANs, and ranges as in \"20-29\".";
      cvlans = optional (types.listOf (types.either (types.ints.between 0 4094) types.str)) "For dot1q-tunnel: the customer's VLANs that may pass, 0 for untagged frames.";
      ethertype = optional (types.enum [ "0x88a8" "0x8100" ]) "For dot1q-tunnel: what the tag in front of the customer's begins with.";
    };
  };
  vlanSettings = value:
    if builtins.isInt value then { mode = "access"; tag = value; }
    else if builtins.isList value then { mode = "trunk"; trunks = value; }
    else value;

  port = types.submodule {
    freeformType = format.type;
    options = {
      type = mkOption {
        type = types.enum [ "vhost_user" "af_xdp" "veth" "tap" ];
        default = "vhost_user";
        description = "What is attached: a guest's virtio NIC, a NIC of the host, a container, a TAP interface.";
      };
      vlan = mkOption {
        type = types.nullOr vlan;
        default = null;
        example = 20;
        description = ''
          `20`: access to VLAN 20. `[ 10 "20-29" ]`: a trunk of these VLANs. Or the table of the file:
          `{ mode = "native-untagged"; tag = 10; trunks = [ 10 20 ]; }`. Left out: access to `settings.switch.default_vlan` (1); for af_xdp all VLANs, untagged frames in VLAN 1.
        '';
      };
      mtu = optional (types.ints.between 68 9216) "Bytes behind Ethernet header and tags; 1500 if left out.";
      link_local = optional (types.enum [ "transparent" "drop" ]) "STP, LLDP, 802.1X and the like: flooded, or dropped.";
      mirror_only = optional types.bool "The port takes copies of mirrors and nothing else.";
      allow_mirror = optional types.bool "The port may be mirrored, and be the destination of mirrors; as `switch.allow_mirror` says if left out.";
      rewind = optional types.str "Memory for the frames that passed, as in \"64MiB\", or \"off\"; as `switch.rewind` says if left out.";
      finish_checksums = optional types.bool "Frames to the port have finished checksums and are cut, whatever its guest accepts.";
      queue_pairs = optional (types.ints.between 1 8) "vhost_user: queue pairs of the guest's NIC.";
      role = optional (types.enum [ "server" "client" ]) "vhost_user: `server` makes the socket, `client` connects to it.";
      socket = optional types.str "vhost_user: where the socket is, if not in `vhost_user_dir`.";
      device = optional (types.strMatching "(pci|mac|name):.+") "af_xdp: the NIC, as pci:0000:03:00.1, mac:52:54:00:12:34:56 or name:enp3s0f1. Ports A and B are better given as `portA` and `portB`.";
      peer = optional types.str "veth: the container's end.";
      netns = optional types.str "veth: the named network namespace that the container's end is moved to.";
      peer_name = optional types.str "veth: the name of the container's end in `netns`.";
      interface = optional types.str "veth: the switch's end; tap: the interface.";
      "for" = optional (types.enum [ "host" "guest" "container" ]) "tap: who is at the other end, the host itself, a guest with an emulated NIC, or a container.";
      owner = optional types.str "vhost_user, tap for a guest: the user who may open the socket or the interface.";
      group = optional types.str "vhost_user, tap for a guest: the group that may open the socket or the interface.";
      peer_uid = optional (types.ints.between 0 4294967294) "vhost_user: the only user whose front end is served.";
      offloads = optional types.bool "vhost_user: checksums and segmentation are offered to the guest; veth: the container's end keeps its offloads, and frames may pass in the kernel (docs/fast-path.md).";
      mode = optional types.str "af_xdp: auto, zero_copy, copy or skb; vhost_user: permission bits of the socket, as in \"0660\".";
      queues = optional (types.either (types.ints.between 1 64) (types.enum [ "all" ])) "af_xdp, veth, tap: number of receive queues; af_xdp: \"all\" is every queue of the NIC.";
      busy_poll = optional types.bool "af_xdp: the worker drives the NIC's queues itself.";
      mac = optional types.str "veth, tap: the MAC address of the other end.";
      isolated = optional types.bool "The port talks only to ports that are not isolated.";
      sticky = optional types.bool "Addresses that were learned at the port stay there.";
      macs = optional (types.listOf types.str) "The only source addresses that the port may use.";
      mac_limit = optional (types.either (types.ints.between 1 1048576) (types.enum [ "off" ])) "Most addresses that are learned at the port.";
      mac_limit_action = optional (types.enum [ "drop" "alert" ]) "What becomes of frames from further addresses.";
      storm = optional format.type "Most frames per second: `broadcast`, `multicast`, `unknown_unicast`, as in \"1kpps\".";
      dhcp_guard = optional types.bool "Replies of DHCP servers from the port are dropped.";
      ra_guard = optional types.bool "IPv6 router advertisements from the port are dropped.";
    };
  };

  mirror = types.submodule {
    freeformType = format.type;
    options = {
      sources = mkOption {
        type = types.nonEmptyListOf types.str;
        example = [ "dc01" "web:rx" ];
        description = "Ports that are copied: PORT, PORT:rx, PORT:tx; `*` is every port.";
      };
      to = optional types.str "The port that takes the copies, or else `to_vlan`.";
      to_vlan = optional vid "RSPAN: the VLAN that copies are tagged with; they leave by every port that names it in its trunks.";
      force = optional types.bool "Take `to_vlan` even if it is the VLAN of untagged frames of a port.";
      vlans = optional (types.nonEmptyListOf (types.either vid types.str)) "Only frames of these VLANs.";
      snaplen = optional (types.ints.between 0 65535) "Bytes of each frame; 0: all.";
      filter = optional types.str "Only frames that this expression in tcpdump's syntax selects.";
      inject = optional format.type "What the destination may inject: `vlan` or `as_port`, `rate`, `sources`; see docs/injection.md.";
    };
  };

  inline = types.submodule {
    freeformType = format.type;
    options = {
      of = mkOption {
        type = types.str;
        description = "The port in whose wire the sensor is.";
      };
      through = mkOption {
        type = types.nonEmptyListOf types.str;
        description = "The sensor's two ports: on the side of that port, and on the side of the switch.";
      };
      on_failure = mkOption {
        type = types.enum [ "open" "closed" ];
        description = "While the sensor lets no frames pass: they go past it, or are dropped.";
      };
    };
  };

  withoutNulls = lib.filterAttrsRecursive (_: value: value != null);
in
{
  options.services.labsw = {
    settings = mkOption {
      default = { };
      description = "The configuration file of labswd (docs/configuration.md). `ports`, `mirrors` and `inline` of this module end up here.";
      example = lib.literalExpression ''{ switch = { workers = [ 2 3 ]; power = "adaptive"; }; }'';
      type = types.submodule {
        freeformType = format.type;
        options.switch = mkOption {
          default = { };
          description = "The `[switch]` table.";
          type = types.submodule {
            freeformType = format.type;
            options = {
              workers = optional (types.listOf (types.ints.between 0 8191)) "CPUs of the polling workers. Left out: one worker, not pinned.";
              power = optional (types.enum [ "adaptive" "performance" ]) "`adaptive` sleeps when there is no traffic.";
              control_socket = mkOption {
                type = types.str;
                default = "/run/labsw/control.sock";
                description = "The control socket. In /run/labsw, which systemd makes for the unit.";
              };
              vhost_user_dir = mkOption {
                type = types.str;
                default = "/run/labsw/vhost";
                description = "Where the sockets of guests are: DIRECTORY/PORT.sock.";
              };
              socket_group = mkOption {
                type = types.str;
                default = "kvm";
                description = "The group that may open the guests' sockets and, without `control_group`, the control socket (to read). microvm.nix runs guests in group kvm.";
              };
              control_group = optional types.str "The group that may open the control socket (to read), if not `socket_group`.";
              socket_mode = mkOption {
                type = types.strMatching "0[0-7]{3}";
                default = "0660";
                description = "Permission bits of the sockets.";
              };
              admin_group = mkOption {
                type = types.nullOr types.str;
                default = "labsw";
                description = "Members may change the switch at run time; see `services.labsw.adminUsers`.";
              };
              mac_ageing = optional types.str "When a silent station is forgotten, as in \"300s\".";
              multicast_snooping = optional (types.either types.bool (types.listOf (types.either vid types.str))) "VLANs in which multicast frames go to who asked for them only, or true for all; needs a querier.";
              mac_table_size = optional (types.ints.between 16 1048576) "Most stations that are known at a time.";
              hugepages = mkOption {
                type = types.enum [ "auto" "required" "off" ];
                default = "auto";
                description = "Packet memory in huge pages of 2 MiB: if there are enough, or nothing else, or never.";
              };
              metrics_listen = optional types.str "Address and port at which metrics are served over HTTP, as in \"127.0.0.1:9477\".";
              allow_mirror = optional (types.enum [ "all" "declared" ]) "Whether ports that say nothing of it may be mirrored: `all` of them, or none (`declared`).";
              accelerate = optional (types.enum [ "auto" "off" ]) "The kernel fast path between containers' ports with `offloads`; see docs/fast-path.md.";
              rewind = optional types.str "Memory for the frames that passed, of ports that say nothing of it, as in \"64MiB\"; \"off\" if left out.";
              max_rewind_memory = optional types.str "Most memory for frames that passed, of all ports together, as in \"1GiB\".";
              default_vlan = optional vid "The VLAN of ports that say nothing of VLANs.";
              max_guest_memory = optional types.str "Most memory of its guest that a vhost-user port maps, as in \"64GiB\"; as much as the machine has if left out.";
              protected_interfaces = mkOption {
                type = types.listOf types.str;
                default = [ ];
                description = "Interfaces that the switch never opens. `managementInterface` is added.";
              };
            };
          };
        };
      };
    };

    ports = mkOption {
      type = types.attrsOf port;
      default = { };
      example = lib.literalExpression ''{ dc01.vlan = 20; web = { type = "veth"; peer = "ls-web"; vlan = 10; }; }'';
      description = "The ports of the switch besides A and B; keys as in the file, `vlan` with a short form.";
    };

    mirrors = mkOption {
      type = types.attrsOf mirror;
      default = { };
      example = lib.literalExpression ''{ detect = { sources = [ "dc01" ]; to = "span"; }; }'';
      description = "Mirror (SPAN) sessions.";
    };

    inline = mkOption {
      type = types.attrsOf inline;
      default = { };
      example = lib.literalExpression ''{ ips = { of = "web"; through = [ "ips-in" "ips-out" ]; on_failure = "open"; }; }'';
      description = "Sensors in the wires of ports (docs/inline.md).";
    };

    finalSettings = mkOption {
      type = types.raw;
      internal = true;
      readOnly = true;
      description = "`settings` without what is left out: what the file says.";
    };
  };

  config.services.labsw = {
    settings.ports = lib.mkIf (cfg.ports != { })
      (lib.mapAttrs (_: p: withoutNulls (p // { vlan = if p.vlan == null then null else withoutNulls (vlanSettings p.vlan); })) cfg.ports);
    settings.mirrors = lib.mkIf (cfg.mirrors != { }) (lib.mapAttrs (_: withoutNulls) cfg.mirrors);
    settings.inline = lib.mkIf (cfg.inline != { }) cfg.inline;
    finalSettings = withoutNulls cfg.settings;
  };
}
