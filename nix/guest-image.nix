# The test guest: a kernel and the initramfs that tests/guest/mkinitramfs.sh makes, under the names that the demo and the
# tests look for.
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
  cp ${linux}/${stdenv.hostPlatform.linux-kernel.target} $out/vmlinuz
''
