# labswd and labsw-ctl. They need no library but the C one; what needs clang and libelf is a test of another crate.
{ lib, rustPlatform }:

let
  manifest = (lib.importTOML ../Cargo.toml).workspace.package;
in
rustPlatform.buildRustPackage {
  pname = "labsw";
  inherit (manifest) version;

  # Only what cargo reads: a change of the documentation builds nothing anew.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../switch
      ../dataplane
      ../control
      ../tests
      ../benches
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [ "-p" "labsw-control" "--bins" ];

  # The tests of the other crates want root, namespaces and /dev/kvm, or skip most of themselves in a sandbox.
  cargoTestFlags = [ "-p" "labsw-switch" ];

  meta = {
    description = "User-space virtual Ethernet switch for lab hosts, with vhost-user, AF_XDP, veth and TAP ports";
    license = with lib.licenses; [ mit asl20 ];
    platforms = [ "x86_64-linux" "aarch64-linux" ];
    mainProgram = "labsw-ctl";
  };
}
