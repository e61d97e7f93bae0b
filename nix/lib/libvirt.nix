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
      driver = { rx_queue_size = 1024; tx_queue_size = 1024; }
        // lib.optionalAttrs (p.queuePairs > 1) { queues = p.queuePairs; };
    };

  interfaceXml = p:
    let
      mac = "  <mac address='${attribute p.mac}'/>\n";
      queues = lib.optionalString (p.queuePairs > 1) " queues='${toString p.queuePairs}'";
      reconnect = "  <source type='unix' path='${attribute p.socket}' mode='client'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>\n";
      source = if p.role == "client" then "  <source type='unix' path='${attribute p.socket}' mode='server'/>\n" else reconnect;
    in
    if p.type == "tap" then
      "<interface type='ethernet'>\n${mac}  <target dev='${attribute p.interface}' managed='no'/>\n  <model type='${p.model}'/>\n</interface>\n"
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

  # What lets a guest run guests: Intel's and AMD's.
  nestedFeatures = [ "vmx" "svm" ];

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
  libvirtCpu = { nested ? false }:
    if nested then "<cpu mode='host-passthrough'/>\n"
    else "<cpu mode='host-passthrough'>\n${lib.concatMapStrings (name: "  <feature policy='disable' name='${name}'/>\n") nestedFeatures}</cpu>\n";

  # The same for `devices.interface` of NixVirt.
  nixvirtInterface = given: interface (require given);

  # A NixVirt domain with all that a guest of these ports needs: interfaces in place of what it had, shared memory, the
  # host's CPU, and its disks (`{ path, format, bus, dev }` each) in front of those it had, past the page cache.
  nixvirtGuest = { ports, hugepages ? false, nested ? false, disks ? [ ] }: domain:
    domain // {
      memoryBacking = memoryBacking hugepages;
      cpu = { mode = "host-passthrough"; }
      // lib.optionalAttrs (!nested) { feature = map (name: { policy = "disable"; inherit name; }) nestedFeatures; };
      devices = (domain.devices or { }) // {
        interface = map (given: interface (require given)) ports;
        disk = map disk disks ++ (domain.devices.disk or [ ]);
      };
    };
}
