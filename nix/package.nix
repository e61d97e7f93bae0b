# labswd and labsw-ctl. They need libpcap and the C library; what needs clang and libelf is a test of another crate.
{ lib, rustPlatform, installShellFiles, libpcap, stdenv }:

let
  manifest = (lib.importTOML ../Cargo.toml).workspace.package;
in
rustPlatform.buildRustPackage {
  pname = "labsw";
  inherit (manifest) version;

  # Only what is built or installed.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../clippy.toml
      ../switch
      ../dataplane
      ../control
      ../tests
      ../benches
      ../docs
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  cargoBuildFlags = [ "-p" "labsw-control" "--bins" ];

  # The tests of the other crates want root, namespaces and /dev/kvm, or skip most of themselves in a sandbox.
  cargoTestFlags = [ "-p" "labsw-switch" ];

  nativeBuildInputs = [ installShellFiles ];
  buildInputs = [ libpcap ];
  postInstall = ''
    install -Dm444 control/labsw.service $out/lib/systemd/system/labsw.service
    substituteInPlace $out/lib/systemd/system/labsw.service \
      --replace-fail /usr/local/bin $out/bin --replace-fail file:///usr/local file://$out
    install -Dm444 -t $out/share/doc/labsw docs/*.md docs/*.png
  '' + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd labsw-ctl \
      --bash <($out/bin/labsw-ctl completions bash) \
      --zsh <($out/bin/labsw-ctl completions zsh) \
      --fish <($out/bin/labsw-ctl completions fish)
    $out/bin/labsw-ctl man pages
    installManPage pages/*
    install -d $out/share/labsw
    $out/bin/labsw-ctl config schema >$out/share/labsw/config.schema.json
  '';

  meta = {
    description = "User-space virtual Ethernet switch for lab hosts, with vhost-user, AF_XDP, veth and TAP ports";
    license = with lib.licenses; [ mit asl20 ];
    platforms = [ "x86_64-linux" "aarch64-linux" ];
    mainProgram = "labsw-ctl";
  };
}
