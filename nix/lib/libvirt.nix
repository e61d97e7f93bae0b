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
    } // lib.optionalAttrs (p.model == "virtio") { driver.host = lib.genAttrs offloads (_: false); }
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
      driver = { rx_queue_size = 1024; tx_queue_size = 1024; }
        // lib.optionalAttrs (p.queuePairs > 1) { queues = p.queuePairs; };
    };

  interfaceXml = p:
    let
      mac = "  <mac address='${attribute p.mac}'/>\n";
      queues = lib.optionalString (p.queuePairs > 1) " queues='${toString p.queuePairs}'";
      reconnect = "  <source type='unix' path='${attribute p.socket}' mode='client'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n";
      source = if p.role == "client" then "  <source type='unix' path='${attribute p.socket}' mode='server'/>\n" else reconnect;
      finished = lib.optionalString (p.model == "virtio")
        "  <driver>\n    <host ${lib.concatMapStringsSep " " (name: "${name}='off'") offloads}/>\n  </driver>\n";
    in
    if p.type == "tap" then
      "<interface type='ethernet'>\n${mac}  <target dev='${attribute p.interface}' managed='no'/>\n  <model type='${p.model}'/>\n${finished}</interface>\n"
    else
      "<interface type='vhostuser'>\n${mac}${source}  <model type='virtio'/>\n  <driver${queues} rx_queue_size='1024' tx_queue_size='1024'/>\n</interface>\n";

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

  # The switch takes finished frames from a TAP. libvirt opens it with a vnet header for these two, so virtio is told to
  # offer no offloads, and QEMU's e1000e to do them itself (which only an argument of QEMU says). e1000 and rtl8139 have none.
  offloads = [ "csum" "ecn" "gso" "tso4" "tso6" "ufo" ];
  e1000eArgs = ports: lib.optionals (lib.any (p: p.type == "tap" && p.model == "e1000e") ports) [ "-global" "e1000e.disable_vnet_hdr=1" ];

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

  memoryBacking = hugepages: {
    source.type = "memfd";
    access.mode = "shared";
  } // lib.optionalAttrs hugepages { hugepages = { }; };
in
{
  # `<interface>` of a vhost_user or tap port, for a domain written by hand. The domain needs libvirtMemoryBacking as well.
  libvirtInterface = given: interfaceXml (require given);

  # Memory that the switch may map; in `<domain>`. With huge pages those of services.labsw.host.hugepages.
  libvirtMemoryBacking = { hugepages ? false }:
    "<memoryBacking>\n${lib.optionalString hugepages "  <hugepages/>\n"}  <source type='memfd'/>\n  <access mode='shared'/>\n</memoryBacking>\n";

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

  # Arguments of QEMU that a guest of these ports needs; the last thing in `<domain>`, or nothing.
  libvirtCommandline = givens:
    let
      args = e1000eArgs (map require givens);
    in
    lib.optionalString (args != [ ])
      "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n${lib.concatMapStrings (arg: "  <qemu:arg value='${arg}'/>\n") args}</qemu:commandline>\n";

  # The same for `devices.interface` of NixVirt.
  nixvirtInterface = given: interface (require given);

  # A NixVirt domain with all that a guest of these ports needs: interfaces in place of what it had, shared memory, the
  # host's CPU, its disks (as for libvirtDisk) in front of those it had, and PCI devices handed over.
  nixvirtGuest = { ports, hugepages ? false, nested ? false, arch ? "x86_64", disks ? [ ], passthrough ? [ ] }: domain:
    let
      args = map (value: { inherit value; }) (e1000eArgs (map require ports));
    in
    domain // {
      memoryBacking = memoryBacking hugepages;
      cpu = { mode = "host-passthrough"; }
      // lib.optionalAttrs (withheld nested arch != [ ]) { feature = map (name: { policy = "disable"; inherit name; }) (withheld nested arch); };
      devices = (domain.devices or { }) // {
        interface = map (given: interface (require given)) ports;
        disk = map disk disks ++ (domain.devices.disk or [ ]);
      } // lib.optionalAttrs (passthrough != [ ]) {
        hostdev = map (address: { mode = "subsystem"; type = "pci"; managed = true; source.address = (pci address).numbers; }) passthrough;
      };
    } // lib.optionalAttrs (args != [ ]) {
      qemu-commandline = (domain.qemu-commandline or { }) // { arg = (domain.qemu-commandline.arg or [ ]) ++ args; };
    };
}
