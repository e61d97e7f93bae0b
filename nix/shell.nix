# What `make lint` and `make unit` need; the end-to-end tests' packages are Debian's (tests/setup-debian.sh).
{ mkShell
, cargo
, clippy
, clang
, elfutils
, ethtool
, gnumake
, iproute2
, libpcap
, llvm
, m4
, pkg-config
, rustc
, rustfmt
, zlib
}:

mkShell {
  # clang, llvm, m4, libelf and zlib: the test of AF_XDP against xsk-rs builds libxdp.
  nativeBuildInputs = [ cargo clippy rustc rustfmt clang llvm m4 pkg-config gnumake iproute2 ethtool ];
  buildInputs = [ elfutils libpcap zlib ];

  # The compiler wrapper's hardening flags are not known to clang's BPF target.
  hardeningDisable = [ "all" ];
}
