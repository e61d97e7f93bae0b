# The test guest: a kernel and the initramfs that tests/guest/mkinitramfs.sh makes, under the names that the demo and
# the tests look for. The name of the kernel's image stands at the kernel since NixOS 26.11, at the platform before.
{ cpio
, ethtool
, iperf3
, linux
, pkgsStatic
, runCommand
, stdenv
, tcpdump
, xz
}:

runCommand "labsw-test-guest"
{
  nativeBuildInputs = [ cpio ethtool iperf3 stdenv.cc.libc.bin tcpdump xz ];
} ''
  mkdir -p $out only
  # The static busybox under that name alone: its other names would hide the builder's tools.
  ln -s ${pkgsStatic.busybox}/bin/busybox only/busybox
  PATH=$PWD/only:$PATH bash ${../tests/guest}/mkinitramfs.sh ${linux.modules or linux} $out/initramfs.cpio
  cp ${linux}/${linux.target or stdenv.hostPlatform.linux-kernel.target} $out/vmlinuz
''
