# tests/demo/demo.sh with everything it calls, and the test guest it boots. Run as root.
{ bash

, busybox
, coreutils
, dnsmasq
, ethtool
, gawk
, gnugrep
, gnused
, iperf3
, iproute2
, iputils
, jq
, labsw
, callPackage
, lxc
, procps
, qemu_kvm
, tcpdump
, util-linux
, writeShellApplication
}:

let
  guest = callPackage ./guest-image.nix { };
  # The gateway's VLANs: a program of the tests.
  gateway = labsw.overrideAttrs {
    pname = "labsw-vlan-gateway";
    cargoBuildFlags = [ "-p" "labsw-tests" "--bin" "labsw-vlan-gateway" ];
    postInstall = "";
    doCheck = false;
  };
in
writeShellApplication {
  name = "labsw-demo";
  runtimeInputs = [
    bash
    coreutils
    dnsmasq
    ethtool
    gawk
    gnugrep
    gnused
    iperf3
    iproute2
    iputils
    jq
    lxc
    procps
    qemu_kvm
    tcpdump
    util-linux
    # Last: its names of other programs must not win.
    busybox
  ];
  text = ''
    bin=$(mktemp -d)
    trap 'rm -rf "$bin"' EXIT
    ln -s ${labsw}/bin/* ${gateway}/bin/labsw-vlan-gateway "$bin"
    LABSW_BIN_DIR=$bin LABSW_CACHE=${guest} bash ${../tests/demo}/demo.sh
  '';
}
