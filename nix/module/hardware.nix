# Ports A and B: which NIC is which, under names that never swap, with the host's own stack kept off them, and off every
# other interface of the lab; and the management interface kept out of the lab.
#
# A NIC is known by PCI address or permanent MAC, never by the name the kernel gave it. A systemd .link file names it
# and sets its rings and interrupt moderation; udev applies it whatever manages the network. labswd finds the NIC by the
# same address, so that a failed rename harms nothing.
{ config, lib, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  pciAddress = types.strMatching "[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]";
  macAddress = types.strMatching "([0-9a-f]{2}:){5}[0-9a-f]{2}";
  # Without a dot: sysctl would take it for a separator.
  interfaceName = types.strMatching "[A-Za-z][A-Za-z0-9_-]{0,14}";

  nic = { letter, portName, interface, what }: types.submodule {
    options = {
      pciAddress = mkOption {
        type = types.nullOr pciAddress;
        default = null;
        example = "0000:03:00.0";
        description = "PCI address with its domain, in lower case, as `lspci -D` shows it. This or `macAddress`.";
      };
      macAddress = mkOption {
        type = types.nullOr macAddress;
        default = null;
        example = "52:54:00:12:34:56";
        description = "Permanent MAC address (`ethtool -P`), in lower case. This or `pciAddress`.";
      };
      port = mkOption {
        type = types.str;
        default = portName;
        description = "The name of the port in the switch.";
      };
      interface = mkOption {
        type = interfaceName;
        default = interface;
        description = "The name that the NIC gets.";
      };
      settings = mkOption {
        type = types.attrsOf types.anything;
        default = { };
        example = lib.literalExpression "{ vlan = [ 10 20 ]; mode = \"zero_copy\"; }";
        description = "Other keys of port ${letter} (${what}), as in `services.labsw.ports`.";
      };
      ring = {
        rx = ringSize "receive";
        tx = ringSize "transmit";
      };
      coalesce = {
        rxUsecs = usecs "received";
        txUsecs = usecs "sent";
        adaptive = mkOption {
          type = types.nullOr types.bool;
          default = null;
          description = "Let the driver choose (`ethtool -C adaptive-rx adaptive-tx`). Left out: unchanged.";
        };
      };
    };
  };
  ringSize = what: mkOption {
    type = types.nullOr (types.either types.ints.positive (types.enum [ "max" ]));
    default = "max";
    description = "Entries of the NIC's ${what} ring (`ethtool -G`). `null`: unchanged.";
  };
  usecs = what: mkOption {
    type = types.nullOr types.ints.unsigned;
    default = null;
    example = 8;
    description = "Microseconds until an interrupt for a frame that was ${what} (`ethtool -C`). Left out: unchanged.";
  };

  nics = lib.filter (n: n != null) [ cfg.portA cfg.portB ];
  # Without an address there is no device, and an assertion says so.
  device = n:
    if n.pciAddress != null then "pci:${n.pciAddress}"
    else if n.macAddress != null then "mac:${n.macAddress}"
    else null;

  link = n: {
    name = "10-labsw-${n.interface}";
    value = {
      matchConfig = if n.pciAddress != null then { Path = "pci-${n.pciAddress}"; } else { PermanentMACAddress = n.macAddress; };
      linkConfig = lib.filterAttrs (_: value: value != null) {
        Name = n.interface;
        MACAddressPolicy = "none";
        WakeOnLan = "off";
        RxBufferSize = if n.ring.rx == "max" then null else n.ring.rx;
        TxBufferSize = if n.ring.tx == "max" then null else n.ring.tx;
      };
      # Beside linkConfig, whose check in nixpkgs wants a number where systemd takes "max", and knows the coalescing
      # keys only since 26.05.
      extraConfig =
        let
          line = key: value: lib.optionalString (value != null) "${key}=${value}\n";
          max = size: if size == "max" then "max" else null;
          usecs = value: if value == null then null else "${toString value}us";
          flag = value: if value == null then null else lib.boolToString value;
          lines = line "RxBufferSize" (max n.ring.rx)
            + line "TxBufferSize" (max n.ring.tx)
            + line "RxCoalesceSec" (usecs n.coalesce.rxUsecs)
            + line "TxCoalesceSec" (usecs n.coalesce.txUsecs)
            + line "UseAdaptiveRxCoalesce" (flag n.coalesce.adaptive)
            + line "UseAdaptiveTxCoalesce" (flag n.coalesce.adaptive);
        in
        lib.optionalString (lines != "") "[Link]\n${lines}";
    };
  };

  ports = lib.attrValues (cfg.finalSettings.ports or { });
  ofType = type: lib.filter (p: p.type or "" == type) ports;
  # The switch's ends of veth pairs are lsw-*, unless they were given a name.
  vethEnds = [ "lsw-*" ] ++ lib.concatMap (p: lib.optional (p ? interface) p.interface) (ofType "veth");
  vethPeers = map (p: p.peer) (lib.filter (p: p ? peer) (ofType "veth"));
  guestTaps = lib.concatLists (lib.mapAttrsToList
    (name: p: lib.optional (p.type or "" == "tap" && p."for" or "host" == "guest") (p.interface or name))
    (cfg.finalSettings.ports or { }));
  others = lib.optionals (ofType "veth" != [ ]) (vethEnds ++ vethPeers) ++ guestTaps;
  silent = map (n: n.interface) nics ++ others;

  network = name: value: {
    name = "05-labsw-${lib.replaceStrings [ "*" ] [ "all" ] name}";
    value = { matchConfig.Name = name; } // value;
  };
  quiet = name: network name {
    linkConfig = { ActivationPolicy = "manual"; RequiredForOnline = "no"; ARP = false; };
    networkConfig = {
      DHCP = "no";
      LinkLocalAddressing = "no";
      IPv6AcceptRA = false;
      LLDP = false;
      EmitLLDP = false;
      LLMNR = false;
      MulticastDNS = false;
    };
  };
  unmanaged = name: network name { linkConfig.Unmanaged = true; };
in
{
  options.services.labsw = {
    portA = mkOption {
      type = types.nullOr (nic { letter = "A"; portName = "span"; interface = "lab-a"; what = "the loop port to the detection tools"; });
      default = null;
      example = lib.literalExpression "{ pciAddress = \"0000:03:00.0\"; }";
      description = "Port A: mirrored frames go out here. It takes nothing else, unless `settings.mirror_only = false`.";
    };
    portB = mkOption {
      type = types.nullOr (nic { letter = "B"; portName = "uplink"; interface = "lab-b"; what = "the trunk to the gateway"; });
      default = null;
      example = lib.literalExpression "{ pciAddress = \"0000:03:00.1\"; settings.vlan = [ 10 20 ]; }";
      description = "Port B: the trunk to the external gateway, its VLANs and its DHCP.";
    };
    managementInterface = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "eno1";
      description = "The host's own interface. The switch refuses to open it, whatever a port says.";
    };
    silentInterfaces = mkOption {
      type = types.listOf types.str;
      internal = true;
      readOnly = true;
      description = "Interfaces of the lab on which the host must not speak.";
    };
  };

  config = lib.mkMerge [
    { services.labsw.silentInterfaces = silent; }
    (lib.mkIf cfg.enable {
      services.labsw.ports = lib.mkMerge (map
        (n: {
          ${n.port} = { type = "af_xdp"; device = device n; }
            // lib.optionalAttrs (cfg.portA == n) { mirror_only = lib.mkDefault true; }
            // n.settings;
        })
        nics);
      services.labsw.settings.switch.protected_interfaces =
        lib.optional (cfg.managementInterface != null) cfg.managementInterface;

      systemd.network.links = lib.listToAttrs (map link nics);

      # If networkd manages the host's network: no addresses, no IPv6 link-local, no LLDP, and up or down is the
      # switch's business. The switch itself keeps the host off the other interfaces, so there networkd only has to keep
      # away; a container's end takes its flags along.
      systemd.network.networks = lib.listToAttrs (map quiet (map (n: n.interface) nics) ++ map unmanaged others);
      networking.dhcpcd.denyInterfaces = silent;
      networking.networkmanager.unmanaged = map (name: "interface-name:${name}") silent;
      # systemd's udev rules apply these when the interface appears.
      boot.kernel.sysctl = lib.mkMerge (lib.optional (ofType "veth" != [ ]) { "net.ipv6.conf.lsw-*.disable_ipv6" = 1; } ++ map
        (n: {
          "net.ipv6.conf.${n.interface}.disable_ipv6" = 1;
          "net.ipv6.conf.${n.interface}.accept_ra" = 0;
          "net.ipv6.conf.${n.interface}.autoconf" = 0;
          "net.ipv4.conf.${n.interface}.forwarding" = 0;
        })
        nics);
    })
  ];
}
