# QEMU: arguments for the NIC, the memory that it shares with the switch, CPU, disks and devices passed through.
{ lib, port }:

let
  # The MTU that the guest is told; 1500 is what every driver has by itself.
  mtu = p: lib.optionalString (p.mtu != 1500) ",host_mtu=${toString p.mtu}";

  vhostUser = p:
    let
      reconnect = if lib.versionAtLeast p.qemuVersion "9.2" then "reconnect-ms=500" else "reconnect=1";
      # The side that the switch is not makes the socket.
      socket = if p.role == "client" then "server=on,wait=off" else reconnect;
      queues = lib.optionalString (p.queuePairs > 1) ",mq=on,vectors=${toString (2 * p.queuePairs + 2)}";
    in
    [
      "-chardev"
      "socket,id=labsw-${p.port}-socket,path=${p.socket},${socket}"
      "-netdev"
      "vhost-user,id=labsw-${p.port},chardev=labsw-${p.port}-socket,queues=${toString p.queuePairs}"
      "-device"
      "virtio-net-pci,netdev=labsw-${p.port},mac=${p.mac},rx_queue_size=1024,tx_queue_size=1024${queues}${mtu p}"
    ];

  # Without a vnet header QEMU finishes checksums and cuts segments before the switch has the frame (docs/tap.md).
  tap = p:
    let
      device = if p.model == "virtio" then "virtio-net-pci" else p.model;
    in
    [
      "-netdev"
      "tap,id=labsw-${p.port},ifname=${p.interface},script=no,downscript=no"
      "-device"
      "${device},netdev=labsw-${p.port},mac=${p.mac}${lib.optionalString (p.model == "virtio") (mtu p)}"
    ];

  # Guest memory that another process may map; without it the switch sees no frame of the guest.
  memoryArgs = p:
    let
      size = "${toString p.memory}M";
      huge = lib.optionalString (p.hugepageSize != null) ",hugetlb=on,hugetlbsize=${p.hugepageSize}";
    in
    lib.optionals (p.memory != null) [
      "-m"
      size
      "-object"
      "memory-backend-memfd,id=labsw-mem,size=${size},share=on${huge}"
      "-numa"
      "node,memdev=labsw-mem"
    ];

  disk = index: d:
    let
      d' = { format = "raw"; bus = "virtio"; } // d;
      node = "labsw-disk${toString index}";
      # A block device is opened as such; a file is a file.
      driver = if lib.hasPrefix "/dev/" d'.path then "host_device" else "file";
      device = {
        virtio = "virtio-blk-pci,drive=${node}";
        # What Windows can read before it has virtio drivers.
        nvme = "nvme,drive=${node},serial=${node}";
        sata = "ide-hd,drive=${node}";
      }.${d'.bus};
    in
    [
      "-blockdev"
      "driver=${driver},node-name=${node}-file,filename=${d'.path},aio=io_uring,cache.direct=on,discard=unmap"
      "-blockdev"
      "driver=${d'.format},node-name=${node},file=${node}-file,cache.direct=on,discard=unmap"
      "-device"
      device
    ];
in
{
  # NIC and, if `memory` is given, the memory backing of a guest of a vhost_user or tap port.
  qemuArgs = given:
    let
      p = port.require "QEMU" [ "vhost_user" "tap" ] given;
    in
    if p.type == "tap" then lib.optionals (p.memory != null) [ "-m" "${toString p.memory}M" ] ++ tap p
    else memoryArgs p ++ vhostUser p;

  # With `nested` the guest sees vmx or svm, if KVM on the host offers it (services.labsw.host.nestedVirtualization).
  qemuCpuArgs = { nested ? false, cpus ? 1, arch ? "x86_64" }: [
    "-accel"
    "kvm"
    "-cpu"
    (if nested || arch != "x86_64" then "host" else "host,vmx=off,svm=off")
    "-smp"
    (toString cpus)
  ];

  # Disks past the page cache, through io_uring: `{ path, format ? "raw", bus ? "virtio" }` each.
  qemuDiskArgs = disks: lib.concatLists (lib.imap0 disk disks);

  # PCI devices (an NVMe drive, say) handed to the guest whole: addresses with their domain.
  qemuPassthroughArgs = addresses: lib.concatMap (address: [ "-device" "vfio-pci,host=${address}" ]) addresses;
}
