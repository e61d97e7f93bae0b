# Mistakes, and the one message that each gets. `settings` is what stands under services.labsw, `also` what stands
# beside.
let
  portA.pciAddress = "0000:03:00.0";
  portB.pciAddress = "0000:03:00.1";
in
{
  "port A is port B" = {
    settings = { inherit portA; portB = portA; };
    message = "services.labsw: portA and portB are the same NIC; give each its own pciAddress or macAddress (lspci -D lists them).";
  };
  "ports A and B under one name" = {
    settings = { inherit portA; portB = portB // { interface = "lab-a"; }; };
    message = "services.labsw: portA and portB both get the name lab-a; give each its own `interface`.";
  };
  "ports A and B as one port" = {
    settings = { portA = portA // { port = "uplink"; settings.device = "pci:0000:03:00.1"; settings.mirror_only = true; }; portB = portB // { settings.mirror_only = true; }; };
    message = "services.labsw: portA and portB are both port uplink of the switch; give each its own `port`.";
  };
  "a NIC without an address" = {
    settings.portA = { };
    message = "services.labsw.portA: give either pciAddress (lspci -D) or macAddress (ethtool -P), not neither.";
  };
  "a NIC with two addresses" = {
    settings.portB = portB // { macAddress = "52:54:00:12:34:56"; };
    message = "services.labsw.portB: give either pciAddress (lspci -D) or macAddress (ethtool -P), not both.";
  };
  "the management interface is port B" = {
    settings = { inherit portB; managementInterface = "lab-b"; };
    message = "services.labsw.managementInterface: lab-b is portB; the management interface can't be a port of the lab. Name the host's own interface, or give portB another `interface`.";
  };
  "a port opens the management interface" = {
    settings = { managementInterface = "eno1"; ports.out = { type = "af_xdp"; device = "name:eno1"; }; };
    message = "services.labsw.ports.out: uses eno1, which is the managementInterface; use another interface.";
  };
  "a TAP port is the management interface" = {
    settings = { managementInterface = "host"; ports.host.type = "tap"; };
    message = "services.labsw.ports.host: uses host, which is the managementInterface; use another interface.";
  };
  "no huge pages, but required" = {
    settings = { settings.switch.hugepages = "required"; host.hugepages.count = 0; };
    message = "services.labsw.settings.switch.hugepages = \"required\", but 0 huge pages of 2M are reserved: set services.labsw.host.hugepages = { size = \"2M\"; count = 64; } (32 are the switch's), or make it \"auto\".";
  };
  "huge pages of the wrong size, but required" = {
    settings = { settings.switch.hugepages = "required"; host.hugepages = { size = "1G"; count = 64; }; };
    message = "services.labsw.settings.switch.hugepages = \"required\", but 0 huge pages of 2M are reserved: set services.labsw.host.hugepages = { size = \"2M\"; count = 64; } (32 are the switch's), or make it \"auto\".";
  };
  "a mirror of an unknown port" = {
    settings = { inherit portA; mirrors.m = { sources = [ "nobody:rx" ]; to = "span"; }; };
    message = "services.labsw.mirrors.m.sources: there is no port nobody; the ports are span.";
  };
  "a mirror to an unknown port" = {
    settings = { ports.vm = { }; mirrors.m = { sources = [ "*" ]; to = "span"; }; };
    message = "services.labsw.mirrors.m.to: there is no port span; the ports are vm.";
  };
  "a mirror to itself" = {
    settings = { inherit portA; mirrors.m = { sources = [ "span:tx" ]; to = "span"; }; };
    message = "services.labsw.mirrors.m: span is also a source; a mirror cannot feed itself.";
  };
  "a mirror in the free settings" = {
    settings = { inherit portA; settings.mirrors.m = { sources = [ "nobody" ]; to = "span"; }; };
    message = "services.labsw.mirrors.m.sources: there is no port nobody; the ports are span.";
  };
  "a CPU isolated and not" = {
    settings.host = { isolatedCpus = [ 1 2 ]; housekeepingCpus = [ 0 1 ]; };
    message = "services.labsw.host: CPU 1 is in isolatedCpus and in housekeepingCpus; take it out of one.";
  };
  "isolated CPUs without the others" = {
    settings.host.isolatedCpus = [ 2 ];
    message = "services.labsw.host.isolatedCpus: also set housekeepingCpus to the CPUs that are left (lscpu -e lists them), so that the host keeps them to itself.";
  };
  "a worker beside the isolated CPUs" = {
    settings = { settings.switch.workers = [ 1 2 ]; host = { isolatedCpus = [ 2 3 ]; housekeepingCpus = [ 0 ]; }; };
    message = "services.labsw.settings.switch.workers: CPU 1 is not isolated; put the workers on host.isolatedCpus (2, 3).";
  };
  "passthrough without an IOMMU" = {
    settings.host.passthrough = [ "0000:04:00.0" ];
    message = "services.labsw.host.passthrough needs the IOMMU: set services.labsw.host.iommu = \"intel\" or \"amd\".";
  };
  "a DHCP server of networkd in the lab" = {
    settings.ports.host.type = "tap";
    also.systemd.network.networks."30-x" = { matchConfig.Name = "host"; networkConfig.DHCPServer = true; };
    message = "systemd.network.networks: a DHCP server on an interface of the lab (host); leave DHCPServer out, or name the interface in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
  };
  "a DHCP server of networkd on a glob" = {
    settings.ports.lab0.type = "tap";
    also.systemd.network.networks."30-x" = { matchConfig.Name = "eth* lab*"; networkConfig.DHCPServer = "yes"; };
    message = "systemd.network.networks: a DHCP server on an interface of the lab (lab0); leave DHCPServer out, or name the interface in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
  };
  "a DHCP server of dnsmasq in the lab" = {
    settings = { inherit portB; };
    also.services.dnsmasq = { enable = true; settings = { dhcp-range = "10.0.0.2,10.0.0.9"; interface = "lab-b"; }; };
    message = "services.dnsmasq.settings: serves DHCP on an interface of the lab (lab-b); list the host's own interfaces in `interface`, or name this one in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
  };
  "a DHCP server of dnsmasq everywhere" = {
    settings.ports.host.type = "tap";
    also.services.dnsmasq = { enable = true; settings.dhcp-range = "10.0.0.2,10.0.0.9"; };
    message = "services.dnsmasq.settings: serves DHCP on an interface of the lab (host); list the host's own interfaces in `interface`, or name this one in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
  };
  "Kea in the lab" = {
    settings = { inherit portB; };
    also.services.kea.dhcp4 = { enable = true; settings.interfaces-config.interfaces = [ "eno1" "lab-b/10.0.0.1" ]; };
    message = "services.kea.dhcp4.settings.interfaces-config.interfaces: serves DHCP on an interface of the lab (lab-b); take it out, or name it in services.labsw.dhcpInterfaces if this host is to give the lab its addresses.";
  };
  "radvd in the lab" = {
    settings = { inherit portA; };
    also.services.radvd = { enable = true; config = "interface lab-a { AdvSendAdvert on; };"; };
    message = "services.radvd.config: advertises a router on an interface of the lab (lab-a); take it out, or name it in services.labsw.dhcpInterfaces if this host is to be the lab's router.";
  };
  "DHCP allowed on port B" = {
    settings = { inherit portB; dhcpInterfaces = [ "lab-b" ]; };
    message = "services.labsw.dhcpInterfaces: lab-b is no port of the host in the lab; those are none (add a port of type tap).";
  };
  "another file of networkd before labsw's" = {
    settings = { inherit portA; };
    also.systemd.network.networks."01-mine" = { matchConfig.Name = "lab-?"; networkConfig.DHCP = "yes"; };
    message = "systemd.network.networks.01-mine: matches lab-a, a port of the lab, before labsw's own file (05-labsw-…); give it a later name or another match.";
  };
  "an address at a port of the lab" = {
    settings = { inherit portA; };
    also.networking.interfaces.lab-a.useDHCP = true;
    message = "networking.interfaces.lab-a: is a port of the lab, on which the host does not speak; take it out.";
  };
  "a port of the lab in a bridge" = {
    settings = { inherit portB; };
    also.networking.bridges.br0.interfaces = [ "eno2" "lab-b" ];
    message = "networking.bridges.br0: has lab-b, which is a port of the lab; take it out, the switch is its bridge.";
  };
  "ports of the lab without a management interface" = {
    settings = { inherit portA; managementInterface = null; };
    message = "services.labsw.managementInterface: name the host's own interface (ip route show default), so that the lab can never take it; or managementPort, if the host is managed through a port of the switch.";
  };
  "management through a guest's port" = {
    settings = { inherit portB; managementInterface = null; managementPort = "vm"; ports.vm = { }; };
    message = "services.labsw.managementPort: vm is no port of the host (type tap, for = \"host\").";
  };
  "disks of a container" = {
    settings = { ports.c = { type = "veth"; peer = "ls-c"; }; guests.c = { backend = "container"; disks = [{ path = "/x"; }]; }; };
    message = "services.labsw.guests.c.disks: a guest of backend container does not take it; set it in containers.NAME (a MAC address: services.labsw.ports.PORT.mac).";
  };
  "the CPUs of an LXC guest" = {
    settings = { ports.c = { type = "veth"; peer = "ls-c"; }; guests.c = { backend = "lxc"; cpus = 2; }; };
    message = "services.labsw.guests.c.cpus: a guest of backend lxc does not take it; set it in the container's own configuration.";
  };
  "a libvirt guest pinned" = {
    settings = { ports.vm = { }; guests.vm = { backend = "libvirt"; cpuAffinity = [ 1 ]; }; };
    message = "services.labsw.guests.vm.cpuAffinity: a guest of backend libvirt does not take it; set it in the domain.";
  };
  "pages that cannot be counted" = {
    settings = { ports.vm = { }; guests.vm = { backend = "nixvirt"; hugepages = true; }; host.hugepages.count = 5000; };
    message = "services.labsw.guests.vm.hugepages: also give memory, so that the pages can be counted.";
  };
  "a container of two namespaces" = {
    settings = {
      ports = { a = { type = "veth"; peer = "ls-a"; netns = "a"; }; b = { type = "veth"; peer = "ls-b"; }; };
      guests.c = { backend = "container"; ports = [ "a" "b" ]; };
    };
    message = "services.labsw.guests.c.ports: a container runs in one network namespace; leave netns out at its ports, or give it one port and put the others' netns and peer_name to the same namespace.";
  };
  "a guest at an unknown port" = {
    settings = { ports.vm = { }; guests.dc01 = { }; };
    message = "services.labsw.guests.dc01.ports: there is no port dc01; the ports are vm. Add services.labsw.ports.dc01, or name one of them.";
  };
  "a container at a guest's port" = {
    settings = { ports.vm = { }; guests.vm.backend = "lxc"; };
    message = "services.labsw.guests.vm: a lxc guest attaches to a port of type veth or tap; port vm is of type vhost_user.";
  };
  "a libvirt guest at a NIC" = {
    settings = { inherit portB; guests.vm = { backend = "libvirt"; ports = [ "uplink" ]; }; };
    message = "services.labsw.guests.vm: a libvirt guest attaches to a port of type vhost_user or tap; port uplink is of type af_xdp.";
  };
  "a guest at the host's own port" = {
    settings = { ports.host.type = "tap"; guests.vm.ports = [ "host" ]; };
    message = "services.labsw.guests.vm: port host is the host's own (tap with for = \"host\"); set services.labsw.ports.host.for = \"guest\".";
  };
  "an emulated NIC at a vhost-user port" = {
    settings = { ports.vm = { }; guests.vm.model = "e1000e"; };
    message = "services.labsw.guests.vm.model: port vm is of type vhost_user, whose NIC is virtio; for e1000e make the port type = \"tap\", for = \"guest\".";
  };
  "two guests at one port" = {
    settings = { ports.vm = { }; guests.a.ports = [ "vm" ]; guests.b.ports = [ "vm" ]; };
    message = "services.labsw.guests: port vm is used by two guests; a port takes one guest at a time.";
  };
  "nested virtualisation of a guest only" = {
    settings = { ports.vm = { }; guests.vm.nestedVirtualization = true; };
    message = "services.labsw.guests.vm.nestedVirtualization needs it on the host: set services.labsw.host.nestedVirtualization = true.";
  };
  "a device that is still the host's" = {
    settings = { ports.vm = { }; guests.vm.passthrough = [ "0000:04:00.0" ]; host.iommu = "amd"; };
    message = "services.labsw.guests.vm.passthrough: 0000:04:00.0 is still the host's; add it to services.labsw.host.passthrough.";
  };
  "a device for a libvirt guest without an IOMMU" = {
    settings = { ports.vm = { }; guests.vm = { backend = "libvirt"; passthrough = [ "0000:04:00.0" ]; }; };
    message = "services.labsw.guests.vm.passthrough needs the IOMMU: set services.labsw.host.iommu = \"intel\" or \"amd\".";
  };
  "guests in too few huge pages" = {
    settings = { ports.vm = { }; guests.vm = { hugepages = true; memory = 1024; }; host.hugepages.count = 512; };
    message = "services.labsw.guests: guests in huge pages and the switch need 544 pages of 2M, 512 are reserved; raise services.labsw.host.hugepages.count.";
  };
  "a microVM without microvm.nix" = {
    settings = { ports.vm = { }; guests.vm.backend = "microvm"; };
    message = "services.labsw.guests.vm: import microvm.nixosModules.host (github:microvm-nix/microvm.nix) beside labsw's module.";
  };
}
