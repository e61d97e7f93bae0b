# Mistakes that can be known when the configuration is evaluated, one message each: what, where, what would be right.
# What needs the program itself (unknown keys, say) is found by `labswd --check` when the file is built.
{ config, lib, ... }:

let
  cfg = config.services.labsw;
  host = cfg.host;
  settings = cfg.finalSettings;
  ports = settings.ports or { };
  mirrors = settings.mirrors or { };
  portNames = lib.concatStringsSep ", " (lib.attrNames ports);
  names = lib.concatStringsSep ", ";

  # One NIC given twice: by the same address, or under the same name.
  sameNic = cfg.portA != null && cfg.portB != null && (
    (cfg.portA.pciAddress != null && cfg.portA.pciAddress == cfg.portB.pciAddress)
      || (cfg.portA.macAddress != null && cfg.portA.macAddress == cfg.portB.macAddress)
  );
  nicAssertions = option: n: lib.optionals (n != null) [
    {
      assertion = (n.pciAddress == null) != (n.macAddress == null);
      message = "services.labsw.${option}: give either pciAddress (lspci -D) or macAddress (ethtool -P), not ${if n.pciAddress == null then "neither" else "both"}.";
    }
    {
      assertion = cfg.managementInterface != n.interface;
      message = "services.labsw.managementInterface: ${n.interface} is ${option}; the management interface can't be a port of the lab. Name the host's own interface, or give ${option} another `interface`.";
    }
  ];

  # Ports that open the management interface by its name.
  management = cfg.managementInterface;
  opensManagement = lib.attrNames (lib.filterAttrs
    (name: p: management != null && (p.device or "" == "name:${management}" || p.peer or "" == management || (p.interface or (if p.type or "" == "tap" then name else "")) == management))
    ports);

  portOf = source: lib.head (lib.splitString ":" source);
  mirrorAssertions = name: m:
    let
      unknown = lib.filter (port: port != "*" && !(ports ? ${port})) (map portOf m.sources);
      feedsItself = lib.any (source: portOf source == (m.to or null)) m.sources;
    in
    [
      {
        assertion = unknown == [ ];
        message = "services.labsw.mirrors.${name}.sources: there is no port ${names unknown}; the ports are ${portNames}.";
      }
      {
        assertion = lib.count (key: m ? ${key}) [ "to" "to_vlan" "to_remote" ] == 1;
        message = "services.labsw.mirrors.${name}: one of to, to_vlan and to_remote says where the copies go.";
      }
      {
        assertion = !(m ? to) || ports ? ${m.to};
        message = "services.labsw.mirrors.${name}.to: there is no port ${m.to}; the ports are ${portNames}.";
      }
      {
        assertion = !feedsItself;
        message = "services.labsw.mirrors.${name}: ${m.to} is also a source; a mirror cannot feed itself.";
      }
    ];

  inlineAssertions = name: inline:
    let
      unknown = lib.filter (port: !(ports ? ${port})) ([ inline.of ] ++ inline.through);
    in
    [
      {
        assertion = unknown == [ ];
        message = "services.labsw.inline.${name}: there is no port ${names unknown}; the ports are ${portNames}.";
      }
      {
        assertion = lib.length inline.through == 2;
        message = "services.labsw.inline.${name}.through: a sensor has two ports.";
      }
    ];

  pages = host.hugepages;
  reserved = if pages.perNode != { } then lib.foldl' builtins.add 0 (lib.attrValues pages.perNode) else pages.count;
  smallPages = if pages.size == "2M" then reserved else 0;
  shared = lib.intersectLists host.isolatedCpus host.housekeepingCpus;
  workersOutside = lib.subtractLists host.isolatedCpus (settings.switch.workers or [ ]);

  # The lab's interfaces: those that the host is kept off, and its own ports on the lab.
  ownTaps = lib.concatLists (lib.mapAttrsToList (name: p: lib.optional (p.type or "" == "tap" && p."for" or "host" == "host") (p.interface or name)) ports);
  labInterfaces = cfg.silentInterfaces ++ ownTaps;
  servedInterfaces = lib.subtractLists cfg.dhcpInterfaces labInterfaces;
  strangers = lib.subtractLists ownTaps cfg.dhcpInterfaces;
  nics = map (n: n.interface) (lib.filter (n: n != null) [ cfg.portA cfg.portB ]);

  # An interface and a pattern, as networkd's Name= has them: names and globs, separated by blanks, or a list of those.
  matches = patterns: interface:
    let
      globs = lib.concatMap (lib.splitString " ") (lib.toList patterns);
      regex = glob: lib.replaceStrings [ "." "*" "?" ] [ "\\." ".*" "." ] glob;
    in
    lib.any (glob: glob != "" && builtins.match (regex glob) interface != null) globs;
  matched = n: interfaces: lib.filter (matches (n.matchConfig.Name or [ ])) interfaces;
  yes = value: value == true || value == "yes" || value == "true";

  networks = config.systemd.network.networks;
  dhcpOnLab = lib.concatMap (n: lib.optionals (yes (n.networkConfig.DHCPServer or false)) (matched n servedInterfaces)) (lib.attrValues networks);
  # Files of networkd are taken in the order of their names: the first that matches an interface counts.
  others = lib.filterAttrs (name: _: !lib.hasPrefix "05-labsw-" name) networks;
  earlier = lib.filter (name: builtins.lessThan name "05-labsw-" && matched others.${name} nics != [ ]) (lib.attrNames others);

  bridged = lib.concatLists (lib.mapAttrsToList (name: b: map (i: { inherit name; interface = i; }) (lib.intersectLists b.interfaces nics)) (config.networking.bridges or { }));
  # NixOS itself lists the members of bridges among the interfaces.
  configured = lib.subtractLists (map (b: b.interface) bridged) (lib.filter (i: (config.networking.interfaces or { }) ? ${i}) nics);

  # Servers of addresses: the interfaces that each listens on; null: on all there are.
  dnsmasq = config.services.dnsmasq;
  keaDhcp4 = config.services.kea.dhcp4 or { enable = false; };
  radvd = config.services.radvd or { enable = false; };
  reached = interfaces: if interfaces == null then servedInterfaces else lib.filter (matches interfaces) servedInterfaces;
  dnsmasqReaches = lib.optionals (dnsmasq.enable && dnsmasq.settings ? dhcp-range)
    (lib.subtractLists (lib.toList (dnsmasq.settings.except-interface or [ ])) (reached (dnsmasq.settings.interface or null)));
  keaReaches = lib.optionals keaDhcp4.enable
    (reached (let listed = lib.toList (keaDhcp4.settings.interfaces-config.interfaces or [ ]); in map (i: lib.head (lib.splitString "/" i)) listed));
  radvdReaches = lib.optionals radvd.enable (lib.filter (i: lib.hasInfix "interface ${i}" (radvd.config or "")) servedInterfaces);
in
{
  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !sameNic;
        message = "services.labsw: portA and portB are the same NIC; give each its own pciAddress or macAddress (lspci -D lists them).";
      }
      {
        assertion = cfg.portA == null || cfg.portB == null || cfg.portA.interface != cfg.portB.interface;
        message = "services.labsw: portA and portB both get the name ${toString (cfg.portA.interface or "")}; give each its own `interface`.";
      }
      {
        assertion = cfg.portA == null || cfg.portB == null || cfg.portA.port != cfg.portB.port;
        message = "services.labsw: portA and portB are both port ${toString (cfg.portA.port or "")} of the switch; give each its own `port`.";
      }
      {
        assertion = opensManagement == [ ];
        message = "services.labsw.ports.${names opensManagement}: uses ${toString management}, which is the managementInterface; use another interface.";
      }
      {
        assertion = settings.switch.hugepages != "required" || smallPages >= 32;
        message = "services.labsw.settings.switch.hugepages = \"required\", but ${toString smallPages} huge pages of 2M are reserved: set services.labsw.host.hugepages = { size = \"2M\"; count = 64; } (32 are the switch's), or make it \"auto\".";
      }
      {
        assertion = shared == [ ];
        message = "services.labsw.host: CPU ${names (map toString shared)} is in isolatedCpus and in housekeepingCpus; take it out of one.";
      }
      {
        assertion = host.isolatedCpus == [ ] || host.housekeepingCpus != [ ];
        message = "services.labsw.host.isolatedCpus: also set housekeepingCpus to the CPUs that are left (lscpu -e lists them), so that the host keeps them to itself.";
      }
      {
        assertion = host.isolatedCpus == [ ] || workersOutside == [ ];
        message = "services.labsw.settings.switch.workers: CPU ${names (map toString workersOutside)} is not isolated; put the workers on host.isolatedCpus (${names (map toString host.isolatedCpus)}).";
      }
      {
        assertion = host.passthrough == [ ] || host.iommu != null;
        message = "services.labsw.host.passthrough needs the IOMMU: set services.labsw.host.iommu = \"intel\" or \"amd\".";
      }
      {
        assertion = dhcpOnLab == [ ];
        message = "systemd.network.networks: a DHCP server on an interface of the lab (${names dhcpOnLab}); leave DHCPServer out, or name the interface in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
      }
      {
        assertion = dnsmasqReaches == [ ];
        message = "services.dnsmasq.settings: serves DHCP on an interface of the lab (${names dnsmasqReaches}); list the host's own interfaces in `interface`, or name this one in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
      }
      {
        assertion = keaReaches == [ ];
        message = "services.kea.dhcp4.settings.interfaces-config.interfaces: serves DHCP on an interface of the lab (${names keaReaches}); take it out, or name it in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
      }
      {
        assertion = radvdReaches == [ ];
        message = "services.radvd.config: advertises a router on an interface of the lab (${names radvdReaches}); take it out, or name it in services.labsw.dhcpInterfaces if this host is to be the lab's router.";
      }
      {
        assertion = strangers == [ ];
        message = "services.labsw.dhcpInterfaces: ${names strangers} is no port of the host in the lab; those are ${if ownTaps == [ ] then "none (add a port of type tap)" else names ownTaps}.";
      }
      {
        assertion = earlier == [ ];
        message = "systemd.network.networks.${names earlier}: matches ${names (lib.concatMap (name: matched others.${name} nics) earlier)}, a port of the lab, before labsw's own file (05-labsw-…); give it a later name or another match.";
      }
      {
        assertion = configured == [ ];
        message = "networking.interfaces.${names configured}: is a port of the lab, on which the host does not speak; take it out.";
      }
      {
        assertion = bridged == [ ];
        message = "networking.bridges.${names (map (b: b.name) bridged)}: has ${names (map (b: b.interface) bridged)}, which is a port of the lab; take it out, the switch is its bridge.";
      }
      {
        assertion = nics == [ ] || management != null || cfg.managementPort != null;
        message = "services.labsw.managementInterface: name the host's own interface (ip route show default), so that the lab can never take it; or managementPort, if the host is managed through a port of the switch.";
      }
      {
        assertion = cfg.managementPort == null || (ports.${cfg.managementPort}.type or "") == "tap" && (ports.${cfg.managementPort}."for" or "host") == "host";
        message = "services.labsw.managementPort: ${toString cfg.managementPort} is no port of the host (type tap, for = \"host\").";
      }
    ]
    ++ nicAssertions "portA" cfg.portA
    ++ nicAssertions "portB" cfg.portB
    ++ lib.concatLists (lib.mapAttrsToList mirrorAssertions mirrors)
    ++ lib.concatLists (lib.mapAttrsToList inlineAssertions (settings.inline or { }));
  };
}
