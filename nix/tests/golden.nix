# What the glue makes of typical ports: `{ FILE = text; }`, compared with the files in golden/ by tests/tests/nix/ and
# by `nix flake check`.
{ lib }:

let
  glue = import ../lib { inherit lib; };
  # One argument a line, as a person would write it.
  lines = args: lib.concatStringsSep "\n" args + "\n";
  vm = { port = "dc01"; };
  many = vm // { queuePairs = 4; mac = "52:54:00:00:00:01"; };
  win = { port = "win"; type = "tap"; interface = "win0"; model = "e1000e"; };
  web = { port = "web"; type = "veth"; interface = "ls-web"; };
  inside = { inherit pkgs; config.microvm = { mem = 768; shares = [ ]; hypervisor = "qemu"; }; };
  pkgs.stdenv.hostPlatform.isx86_64 = true;
  microvm = shares: (glue.microvm vm (inside // { config.microvm = inside.config.microvm // { inherit shares; }; })).microvm.qemu.extraArgs;
in
{
  "qemu-nic.args" = lines (glue.qemuArgs vm);
  "qemu-memory.args" = lines (glue.qemuArgs (vm // { memory = 4096; }));
  "qemu-hugepages.args" = lines (glue.qemuArgs (vm // { memory = 4096; hugepageSize = "2M"; }));
  "qemu-queues.args" = lines (glue.qemuArgs many);
  "qemu-before-9.2.args" = lines (glue.qemuArgs (vm // { qemuVersion = "9.1.3"; }));
  "qemu-client.args" = lines (glue.qemuArgs (vm // { role = "client"; socket = "/run/dc01.sock"; }));
  "qemu-mtu.args" = lines (glue.qemuArgs (vm // { mtu = 9000; }));
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
  "nixvirt-tap-virtio.json" = builtins.toJSON (glue.nixvirtInterface (win // { model = "virtio"; }));
  "libvirt-escaped.xml" = glue.libvirtInterface (vm // { socket = "/run/a'b&c.sock"; });
  "libvirt-memory.xml" = glue.libvirtMemoryBacking { };
  "libvirt-hugepages.xml" = glue.libvirtMemoryBacking { hugepageSize = "2M"; };
  "libvirt-hugepages-1g.xml" = glue.libvirtMemoryBacking { hugepageSize = "1G"; };
  "libvirt-mtu.xml" = glue.libvirtInterface (vm // { mtu = 9000; });
  "libvirt-size.xml" = glue.libvirtSize { memory = 4096; cpus = 2; };
  "libvirt-cpu.xml" = glue.libvirtCpu { };
  "libvirt-cpu-nested.xml" = glue.libvirtCpu { nested = true; };
  "libvirt-disk.xml" = glue.libvirtDisk { path = "/dev/nvme0n1"; };
  "libvirt-disk-file.xml" = glue.libvirtDisk { path = "/var/lib/vm.qcow2"; format = "qcow2"; bus = "sata"; dev = "sda"; };
  "libvirt-passthrough.xml" = glue.libvirtPassthrough "0000:0a:1f.1";
  "qemu-cpu-aarch64.args" = lines (glue.qemuCpuArgs { arch = "aarch64"; });
  "nixvirt-interface.json" = builtins.toJSON (glue.nixvirtInterface vm);
  "nixvirt-tap.json" = builtins.toJSON (glue.nixvirtInterface win);
  "nixvirt-guest.json" = builtins.toJSON (glue.nixvirtGuest
    { ports = [ many win ]; hugepageSize = "2M"; memory = 8192; cpus = 4; passthrough = [ "0000:0a:1f.1" ]; disks = [{ path = "/dev/vg/dc01"; } { path = "/img.qcow2"; format = "qcow2"; bus = "sata"; dev = "sda"; }]; }
    { name = "DC01"; devices = { disk = [{ device = "cdrom"; }]; interface = { type = "bridge"; }; sound.model = "ich9"; }; });
  "microvm.args" = lines (microvm [ ]);
  "microvm-two.args" = lines ((glue.microvm [ vm (vm // { port = "dc02"; }) ] inside).microvm.qemu.extraArgs);
  "microvm-shares.args" = lines (microvm [{ tag = "store"; }]);
  "lxc.conf" = glue.lxc web;
  "lxc-second.conf" = glue.lxc (web // { index = 1; });
  "container-two.json" = builtins.toJSON (glue.nixosContainer [ web (web // { port = "db"; interface = "ls-db"; }) ]);
  "lxc-netns.conf" = glue.lxc (web // { netns = "web"; });
  "container.json" = builtins.toJSON (glue.nixosContainer web);
  "container-netns.json" = builtins.toJSON (glue.nixosContainer (web // { netns = "web"; }));
}
