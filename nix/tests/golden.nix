# What the glue makes of typical ports: `{ FILE = text; }`, compared with the files in golden/ by tests/tests/nix.rs and by
# `nix flake check`.
{ lib }:

let
  glue = import ../lib { inherit lib; };
  # One argument a line, as a person would write it.
  lines = args: lib.concatStringsSep "\n" args + "\n";
  vm = { port = "dc01"; };
  many = vm // { queuePairs = 4; mac = "52:54:00:00:00:01"; };
  win = { port = "win"; type = "tap"; interface = "win0"; model = "e1000e"; };
  web = { port = "web"; type = "veth"; interface = "ls-web"; };
  microvm = shares: (glue.microvm vm { config.microvm = { mem = 768; inherit shares; hypervisor = "qemu"; }; }).microvm.qemu.extraArgs;
in
{
  "qemu-nic.args" = lines (glue.qemuArgs vm);
  "qemu-memory.args" = lines (glue.qemuArgs (vm // { memory = 4096; }));
  "qemu-hugepages.args" = lines (glue.qemuArgs (vm // { memory = 4096; hugepageSize = "2M"; }));
  "qemu-queues.args" = lines (glue.qemuArgs many);
  "qemu-before-9.2.args" = lines (glue.qemuArgs (vm // { qemuVersion = "9.1.3"; }));
  "qemu-client.args" = lines (glue.qemuArgs (vm // { role = "client"; socket = "/run/dc01.sock"; }));
  "qemu-tap.args" = lines (glue.qemuArgs (win // { memory = 2048; }));
  "qemu-cpu.args" = lines (glue.qemuCpuArgs { cpus = 4; });
  "qemu-cpu-nested.args" = lines (glue.qemuCpuArgs { nested = true; });
  "qemu-disks.args" = lines (glue.qemuDiskArgs [{ path = "/dev/nvme0n1"; } { path = "/var/lib/vm.qcow2"; format = "qcow2"; bus = "nvme"; }]);
  "qemu-passthrough.args" = lines (glue.qemuPassthroughArgs [ "0000:04:00.0" ]);
  "libvirt-interface.xml" = glue.libvirtInterface vm;
  "libvirt-queues.xml" = glue.libvirtInterface many;
  "libvirt-client.xml" = glue.libvirtInterface (vm // { role = "client"; });
  "libvirt-tap.xml" = glue.libvirtInterface win;
  "libvirt-tap-virtio.xml" = glue.libvirtInterface (win // { model = "virtio"; });
  "libvirt-commandline.xml" = glue.libvirtCommandline [ vm win ];
  "libvirt-no-commandline.xml" = glue.libvirtCommandline [ vm (win // { model = "e1000"; }) ];
  "nixvirt-tap-virtio.json" = builtins.toJSON (glue.nixvirtInterface (win // { model = "virtio"; }));
  "libvirt-escaped.xml" = glue.libvirtInterface (vm // { socket = "/run/a'b&c.sock"; });
  "libvirt-memory.xml" = glue.libvirtMemoryBacking { };
  "libvirt-hugepages.xml" = glue.libvirtMemoryBacking { hugepages = true; };
  "libvirt-cpu.xml" = glue.libvirtCpu { };
  "libvirt-cpu-nested.xml" = glue.libvirtCpu { nested = true; };
  "libvirt-disk.xml" = glue.libvirtDisk { path = "/dev/nvme0n1"; };
  "libvirt-disk-file.xml" = glue.libvirtDisk { path = "/var/lib/vm.qcow2"; format = "qcow2"; bus = "sata"; dev = "sda"; };
  "libvirt-passthrough.xml" = glue.libvirtPassthrough "0000:0a:1f.1";
  "qemu-cpu-aarch64.args" = lines (glue.qemuCpuArgs { arch = "aarch64"; });
  "nixvirt-interface.json" = builtins.toJSON (glue.nixvirtInterface vm);
  "nixvirt-tap.json" = builtins.toJSON (glue.nixvirtInterface win);
  "nixvirt-guest.json" = builtins.toJSON (glue.nixvirtGuest
    { ports = [ many win ]; hugepages = true; passthrough = [ "0000:0a:1f.1" ]; disks = [{ path = "/dev/vg/dc01"; } { path = "/img.qcow2"; format = "qcow2"; bus = "sata"; dev = "sda"; }]; }
    { name = "DC01"; devices = { disk = [{ device = "cdrom"; }]; interface = { type = "bridge"; }; sound.model = "ich9"; }; });
  "microvm.args" = lines (microvm [ ]);
  "microvm-shares.args" = lines (microvm [{ tag = "store"; }]);
  "lxc.conf" = glue.lxc web;
  "lxc-netns.conf" = glue.lxc (web // { netns = "web"; });
  "container.json" = builtins.toJSON (glue.nixosContainer web);
  "container-netns.json" = builtins.toJSON (glue.nixosContainer (web // { netns = "web"; }));
}
