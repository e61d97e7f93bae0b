# libvirt: domain XML by hand, and the same as attributes of NixVirt, from one description each.
{ lib, port }:

let
  attribute = lib.escapeXML;

  require = port.require "a libvirt domain" [ "vhost_user" "tap" ];

  # NixVirt's attributes; libvirt's documentation calls them by the same names.
  interface = p:
    if p.type == "tap" then {
      type = "ethernet";
      mac.address = p.mac;
      # The switch makes the interface and keeps it; libvirt only opens it.
      target = { dev = p.interface; managed = false; };
      model.type = p.model;
    }
    else {
      type = "vhostuser";
      mac.address = p.mac;
      source = {
        type = "unix";
        path = p.socket;
        # libvirt means the domain's side: it connects if the switch made the socket.
        mode = if p.role == "client" then "server" else "client";
      } // lib.optionalAttrs (p.role == "server") { reconnect = { enabled = true; timeout = 1; }; };
      model.type = "virtio";
      driver = { name = "vhost"; queues = p.queuePairs; rx_queue_size = 1024; tx_queue_size = 1024; };
    };

  interfaceXml = p:
    let
      mac = "  <mac address='${attribute p.mac}'/>\n";
      mtu = lib.optionalString (p.mtu != 1500) "  <mtu size='${toString p.mtu}'/>\n";
      reconnect = "  <source type='unix' path='${attribute p.socket}' mode='client'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n";
      source = if p.role == "client" then "  <source type='unix' path='${attribute p.socket}' mode='server'/>\n" else reconnect;
    in
    if p.type == "tap" then
      "<interface type='ethernet'>\n${mac}  <target dev='${attribute p.interface}' managed='no'/>\n  <model type='${p.model}'/>\n${lib.optionalString (p.model == "virtio") mtu}</interface>\n"
    else
      "<interface type='vhostuser'>\n${mac}${source}  <model type='virtio'/>\n  <driver name='vhost' queues='${toString p.queuePairs}' rx_queue_size='1024' tx_queue_size='1024'/>\n${mtu}</interface>\n";

  disk = d:
    let
      d' = { format = "raw"; bus = "virtio"; dev = "vda"; } // d;
      block = lib.hasPrefix "/dev/" d'.path;
    in
    {
      type = if block then "block" else "file";
      device = "disk";
      driver = { name = "qemu"; type = d'.format; cache = "none"; io = "io_uring"; discard = "unmap"; };
      source = if block then { dev = d'.path; } else { file = d'.path; };
      target = { inherit (d') bus dev; };
    };

  # What lets a guest run guests, and is taken from it: Intel's and AMD's.
  withheld = nested: arch: lib.optionals (!nested && arch == "x86_64") [ "vmx" "svm" ];

  # "0000:04:00.1" as numbers, and as libvirt writes them.
  pci = address:
    let
      parts = builtins.match "([0-9a-f]+):([0-9a-f]+):([0-9a-f]+)\\.([0-7])" address;
      hex = digits: lib.foldl' (sum: digit: 16 * sum + digit) 0 (map (c: valueOf.${c}) (lib.stringToCharacters digits));
      valueOf = lib.listToAttrs (lib.imap0 (value: name: { inherit name value; }) (lib.stringToCharacters "0123456789abcdef"));
      part = builtins.elemAt parts;
    in
    {
      text = "domain='0x${part 0}' bus='0x${part 1}' slot='0x${part 2}' function='0x${part 3}'";
      numbers = { domain = hex (part 0); bus = hex (part 1); slot = hex (part 2); function = hex (part 3); };
    };

  # A page size as libvirt spells it. Without one libvirt takes the host's default size, whatever was reserved.
  pageOf = hugepageSize: { size = lib.toInt (lib.removeSuffix "G" (lib.removeSuffix "M" hugepageSize)); unit = if lib.hasSuffix "G" hugepageSize then "G" else "M"; };

  memoryBacking = hugepageSize: {
    source.type = "memfd";
    access.mode = "shared";
  } // lib.optionalAttrs (hugepageSize != null) { hugepages.page = pageOf hugepageSize; };
in
{
  # `<interface>` of a vhost_user or tap port, for a domain written by hand. The domain needs libvirtMemoryBacking as
  # well.
  libvirtInterface = given: interfaceXml (require given);

  # Memory that the switch may map; in `<domain>`. `hugepageSize`: null, "2M" or "1G", as in
  # services.labsw.host.hugepages.
  libvirtMemoryBacking = { hugepageSize ? null }:
    let
      page = pageOf hugepageSize;
      pages = lib.optionalString (hugepageSize != null) "  <hugepages>\n    <page size='${toString page.size}' unit='${page.unit}'/>\n  </hugepages>\n";
    in
    "<memoryBacking>\n${pages}  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n";

  # Memory and processors of a guest; in `<domain>`. `memory` is in MiB.
  libvirtSize = { memory, cpus }:
    "<memory unit='MiB'>${toString memory}</memory>\n<vcpu>${toString cpus}</vcpu>\n";

  # The host's CPU as it is, with or without vmx and svm.
  libvirtCpu = { nested ? false, arch ? "x86_64" }:
    let
      features = lib.concatMapStrings (name: "  <feature policy='disable' name='${name}'/>\n") (withheld nested arch);
    in
    if features == "" then "<cpu mode='host-passthrough'/>\n" else "<cpu mode='host-passthrough'>\n${features}</cpu>\n";

  # A disk past the page cache, through io_uring: `{ path, format ? "raw", bus ? "virtio", dev ? "vda" }`.
  libvirtDisk = given:
    let
      d = disk given;
      source = if d.type == "block" then "dev='${attribute d.source.dev}'" else "file='${attribute d.source.file}'";
    in
    "<disk type='${d.type}' device='disk'>\n  <driver name='qemu' type='${d.driver.type}' cache='none' io='io_uring' discard='unmap'/>\n"
    + "  <source ${source}/>\n  <target dev='${d.target.dev}' bus='${d.target.bus}'/>\n</disk>\n";

  # A PCI device (an NVMe drive, say) handed to the guest whole; libvirt takes it from the host and gives it back.
  libvirtPassthrough = address:
    "<hostdev mode='subsystem' type='pci' managed='yes'>\n  <source>\n    <address ${(pci address).text}/>\n  </source>\n</hostdev>\n";

  # The same for `devices.interface` of NixVirt.
  nixvirtInterface = given: interface (require given);

  # A NixVirt domain with all that a guest of these ports needs: shared memory, the host's CPU, its disks (as for
  # libvirtDisk) in front of those it had, and PCI devices handed over. The interfaces take the place of those that the
  # domain had; with `keepInterfaces` they stand behind them. `memory` (MiB) and `cpus`: null leaves the domain's own.
  nixvirtGuest = { ports, hugepageSize ? null, memory ? null, cpus ? null, keepInterfaces ? false, nested ? false, arch ? "x86_64", disks ? [ ], passthrough ? [ ] }: domain:
    domain // lib.optionalAttrs (memory != null) { memory = { count = memory; unit = "MiB"; }; }
    // lib.optionalAttrs (cpus != null) { vcpu.count = cpus; } // {
      memoryBacking = memoryBacking hugepageSize;
      cpu = { mode = "host-passthrough"; }
      // lib.optionalAttrs (withheld nested arch != [ ]) { feature = map (name: { policy = "disable"; inherit name; }) (withheld nested arch); };
      devices = (domain.devices or { }) // {
        interface = lib.optionals keepInterfaces (lib.toList (domain.devices.interface or [ ]))
          ++ map (given: interface (require given)) ports;
        disk = map disk disks ++ (domain.devices.disk or [ ]);
      } // lib.optionalAttrs (passthrough != [ ]) {
        hostdev = map (address: { mode = "subsystem"; type = "pci"; managed = true; source.address = (pci address).numbers; }) passthrough;
      };
    };
}
