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
        assertion = (m ? to) != (m ? to_vlan);
        message = "services.labsw.mirrors.${name}: one of to and to_vlan says where the copies go.";
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

  pages = host.hugepages;
  reserved = if pages.perNode != { } then lib.foldl' builtins.add 0 (lib.attrValues pages.perNode) else pages.count;
  smallPages = if pages.size == "2M" then reserved else 0;
  shared = lib.intersectLists host.isolatedCpus host.housekeepingCpus;
  workersOutside = lib.subtractLists host.isolatedCpus (settings.switch.workers or [ ]);

  dhcpOnLab = lib.filter (n: n.networkConfig.DHCPServer or false == true || n.networkConfig.DHCPServer or "no" == "yes")
    (lib.filter (n: lib.any (i: n.matchConfig.Name or null == i) labInterfaces) (lib.attrValues config.systemd.network.networks));
  labInterfaces = cfg.silentInterfaces
    ++ lib.concatLists (lib.mapAttrsToList (name: p: lib.optional (p.type or "" == "tap") (p.interface or name)) ports);
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
        message = "systemd.network.networks: a DHCP server on an interface of the lab (${names (map (n: n.matchConfig.Name) dhcpOnLab)}); leave DHCPServer out, addresses in the lab are the external gateway's business.";
      }
      {
        assertion = !(config.services.dnsmasq.enable && config.services.dnsmasq.settings ? dhcp-range
          && lib.any (i: lib.elem i (lib.toList (config.services.dnsmasq.settings.interface or [ ]))) labInterfaces);
        message = "services.dnsmasq.settings: serves DHCP on an interface of the lab; take it out of `interface`, addresses in the lab are the external gateway's business.";
      }
    ]
    ++ nicAssertions "portA" cfg.portA
    ++ nicAssertions "portB" cfg.portB
    ++ lib.concatLists (lib.mapAttrsToList mirrorAssertions mirrors);
  };
}
