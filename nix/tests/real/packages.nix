# A stand-in for nixpkgs' packages, so that a whole NixOS can be evaluated to the text of its units without nixpkgs'
# package set, a store or a network. Every word that occurs in a module is the name of a package; a package is a
# derivation that says its name. What the modules look at inside a package (versions, platform, functions) is written
# out below. Builders are real `derivation`s: all that a build would be given is forced.
#
# lib: nixpkgs' lib; nixpkgs: where it is; texts: the module files whose words are packages.
{ lib, nixpkgs, texts }:

let
  inherit (lib) elem filter filterAttrs genAttrs isAttrs isFunction isString listToAttrs nameValuePair;

  # All words of the module files, without the functions of `lib`: `with pkgs;` would hide those.
  wordsOf = file: filter (w: isString w && builtins.match "[a-zA-Z_][a-zA-Z0-9_+-]{1,40}" w != null) (builtins.split "[^a-zA-Z0-9_+-]+" (builtins.readFile file));
  words = lib.attrNames (removeAttrs (listToAttrs (map (word: nameValuePair word null) (lib.concatMap wordsOf texts))) (lib.attrNames lib));

  # What a builder can be given: no functions, and nothing that only describes.
  environment = args:
    lib.mapAttrs (_: value: if builtins.isBool value || isAttrs value && !(value ? outPath) then builtins.toJSON value else value)
      (filterAttrs (name: value: !(isFunction value) && !(lib.hasPrefix "__" name) && !(elem name [ "meta" "passthru" "env" "checkPhase" "derivationArgs" "outputs" "version" "nativeBuildInputs" ]))
        args // args.env or { });
  # A package's own attributes are there before what it is made of: `etc` asks its own passthru.
  build = args:
    let
      name = lib.strings.sanitizeDerivationName (args.name or "${args.pname}-${args.version or "1"}");
      made = derivation (environment args // { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; });
    in
    dress ({
      type = "derivation";
      inherit name;
      inherit (made) outPath drvPath;
      drvAttrs = made.drvAttrs;
      version = args.version or "1";
      pname = args.pname or name;
      meta = args.meta or { };
      passthru = args.passthru or { };
    } // args.passthru or { });

  # The functions and outputs that any package has.
  dress = package: package // { lib = dress package; } // rec {
    override = _: dress package;
    overrideAttrs = _: dress package;
    withPackages = _: dress package;
    version = package.version or "99.1";
    pname = package.pname or package.name;
    out = dress package;
    dev = out;
    bin = out;
    man = out;
    doc = out;
    info = out;
    debug = out;
    data = out;
    fd = out;
    su = out;
    getBin = out;
    outputs = [ "out" ];
    meta = { mainProgram = pname; description = ""; priority = 5; platforms = lib.platforms.all; available = true; } // package.meta or { };
    passthru = package.passthru or { };
    shellPath = "/bin/${pname}";
    interfaceVersion = 2;
    extensions = { };
    providedSessions = [ ];
  };
  packageWith = name: attributes: dress (derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; } // attributes);
  program = name: packageWith name { };

  text = name: value: build { inherit name; text = value; };
  format = extension: _: {
    type = (lib.types.attrsOf lib.types.anything) // { description = "${extension} value"; };
    generate = name: value: text name (builtins.toJSON value);
    lib = { };
  };
  platform = lib.systems.elaborate "x86_64-linux";

  kernel = packageWith "linux" (rec {
    version = "6.12.9";
    modDirVersion = version;
    features = { };
    kernelOlder = lib.versionOlder version;
    kernelAtLeast = lib.versionAtLeast version;
    target = "bzImage";
    config = {
      isSet = _: true;
      isYes = _: true;
      isNo = _: false;
      isModule = _: true;
      isEnabled = _: true;
      isDisabled = _: false;
      getValue = _: null;
    };
    modules = program "linux-modules";
    stdenv = stdenv;
    configfile = program "config";
    isZen = false;
    isHardened = false;
    isLibre = false;
  });
  kernelPackages = extra: genAttrs words program // {
    inherit kernel stdenv;
    recurseForDerivations = true;
    kernelOlder = kernel.kernelOlder;
    kernelAtLeast = kernel.kernelAtLeast;
    extend = _: kernelPackages extra;
  } // extra;

  stdenv = filterAttrs (name: _: lib.hasPrefix "is" name) platform // {
    hostPlatform = platform;
    buildPlatform = platform;
    targetPlatform = platform;
    inherit (platform) system;
    mkDerivation = args: build (if isFunction args then args { finalPackage = build (args { finalPackage = { }; }); } else args);
    shellPackage = program "bash";
    cc = packageWith "cc" {
      libc = program "glibc";
      bintools = packageWith "binutils" { dynamicLinker = "/lib/ld-linux-x86-64.so.2"; };
      cc = program "gcc";
      isGNU = true;
      isClang = false;
    };
    shell = "/bin/sh";
    glibc = program "glibc";
  };

  pkgs = genAttrs words program // {
    inherit lib stdenv;
    _type = "pkgs";
    __splicedPackages = pkgs;
    stdenvNoCC = stdenv;
    pkgs = pkgs;
    buildPackages = pkgs;
    targetPackages = pkgs;
    pkgsBuildBuild = pkgs;
    pkgsBuildHost = pkgs;
    pkgsStatic = pkgs;
    pkgsHostTarget = pkgs;
    pkgsi686Linux = pkgs;
    pkgsx86_64Linux = pkgs;
    pkgsCross = genAttrs words (_: pkgs);
    unixtools = genAttrs words program;
    xorg = genAttrs words program;
    perlPackages = genAttrs words program;
    python3Packages = genAttrs words program;
    nodePackages = genAttrs words program;
    inherit (platform) system;
    config = { allowUnfree = true; allowAliases = true; };
    overlays = [ ];
    path = nixpkgs;
    runtimeShell = "/bin/sh";
    runtimeShellPackage = program "bash";
    # Every word is a package, so only arguments without a default are filled in.
    callPackage = path: args:
      let
        f = if isFunction path then path else import path;
      in
      f (builtins.intersectAttrs (filterAttrs (_: optional: !optional) (builtins.functionArgs f)) pkgs // args);
    newScope = _: pkgs.callPackage;
    extend = _: pkgs;
    appendOverlays = _: pkgs;

    # Builders of texts and links.
    runCommand = name: args: command: build (args // { inherit name command; });
    runCommandLocal = pkgs.runCommand;
    runCommandCC = pkgs.runCommand;
    writeText = text;
    writeTextFile = args: build args;
    writeTextDir = path: text (baseNameOf path);
    writeScript = text;
    writeScriptBin = text;
    writeShellScript = text;
    writeShellScriptBin = text;
    writeShellApplication = args: build ({ bin = args.text; } // removeAttrs args [ "runtimeInputs" ] // { inputs = args.runtimeInputs or [ ]; });
    # writeNginxConfig is given a text; the others take options, too.
    writers = genAttrs words (_: name: _: text name) // { writeNginxConfig = text; };
    symlinkJoin = build;
    buildEnv = args: build (removeAttrs args [ "extraPrefix" ]);
    linkFarm = name: entries: build { inherit name; entries = builtins.toJSON entries; };
    linkFarmFromDrvs = name: entries: build { inherit name entries; };
    substituteAll = args: build ({ name = baseNameOf (toString args.src); } // args);
    replaceVars = path: args: build ({ name = baseNameOf (toString path); src = path; } // args);
    replaceVarsWith = args: build ({ name = baseNameOf (toString args.src); } // removeAttrs args [ "replacements" ] // { replacements = builtins.toJSON args.replacements; });
    concatText = name: files: build { inherit name files; };
    concatTextFile = build;
    closureInfo = args: build ({ name = "closure-info"; } // args);
    makeWrapper = program "make-wrapper";
    makeInitrd = args: build {
      name = "initrd";
      contents = builtins.toJSON args.contents;
      passthru = { compressorExecutableFunction = _: "zstd"; compressorArgs = [ ]; };
    };
    makeInitrdNG = pkgs.makeInitrd;
    makeModulesClosure = args: build ({ name = "modules"; } // args);
    aggregateModules = modules: build { name = "kernel-modules"; inherit modules; };
    compressFirmwareXz = p: p;
    compressFirmwareZstd = p: p;
    makeDBusConf = args: build ({ name = "dbus-1"; } // args);
    nixosOptionsDoc = _: { optionsJSON = program "options"; optionsNix = { }; optionsAsciiDoc = program "options"; optionsCommonMark = program "options"; };
    srcOnly = package: dress (package // { name = "source"; });
    makeFontsCache = args: build { name = "fc-cache"; fonts = args.fontDirectories; };
    cacert = packageWith "cacert" { p11kit = program "p11kit"; unbundled = program "unbundled"; hashed = program "hashed"; override = _: pkgs.cacert; };
    substitute = args: build ({ name = baseNameOf (toString args.src); } // removeAttrs args [ "substitutions" ] // { substitutions = toString args.substitutions; });
    libxcrypt = packageWith "libxcrypt" { enabledCryptSchemeIds = [ "y" "gy" "7" "2b" "6" ]; };
    nixos-artwork.wallpapers = genAttrs words (_: packageWith "wallpaper" { gnomeFilePath = "/wallpaper.png"; });
    nginxStable = pkgs.nginx;
    nginx = packageWith "nginx" { modules = [ ]; };
    libressl = packageWith "libressl" { nc = program "nc"; };
    writeClosure = paths: build { name = "closure"; inherit paths; };
    requireFile = program "required";
    fetchurl = args: build ({ name = "fetched"; } // args);
    formats = genAttrs [ "json" "yaml" "toml" "ini" "iniWithGlobalSection" "keyValue" "gitIni" "libconfig" "hocon" "javaProperties" "elixirConf" "php" "pythonVars" "xml" "systemd" "cdn" "lua" ] format;

    # The kernel and what the modules look at inside packages.
    linux = kernel;
    linuxPackages = kernelPackages { };
    linuxPackages_latest = kernelPackages { };
    linuxPackagesFor = kernel: kernelPackages { inherit kernel; };
    linuxKernel = { packages.linux_6_12 = kernelPackages { }; kernels.linux_6_12 = kernel; packagesFor = kernel: kernelPackages { inherit kernel; }; };
    systemd = packageWith "systemd" {
      version = "258";
      kmod = program "kmod";
      kbd = packageWith "kbd" { gzip = program "gzip"; };
      util-linux = program "util-linux";
      withBootloader = true;
      withCryptsetup = true;
      withEfi = true;
      withHomed = true;
      withHostnamed = true;
      withImportd = true;
      withLocaled = true;
      withLogind = true;
      withMachined = true;
      withNetworkd = true;
      withNss = true;
      withOomd = true;
      withPortabled = true;
      withPolkit = true;
      withRepart = true;
      withResolved = true;
      withSysupdate = true;
      withSysusers = true;
      withTimedated = true;
      withTimesyncd = true;
      withTpm2Tss = true;
      withUtmp = true;
      withFido2 = true;
      withPasswordQuality = true;
      withCompression = true;
      withShellCompletions = true;
      withCoredump = true;
      withQrencode = true;
      withVmspawn = true;
      withKexectools = true;
      withLibBPF = true;
      withAudit = true;
      withHwdb = true;
      withTpm2Units = true;
    };
    glibcLocales = packageWith "glibc-locales" { outPath = "/glibc-locales"; };
    glibc = packageWith "glibc" { libgcc = program "libgcc"; };
    nixVersions = genAttrs [ "stable" "latest" ] (_: packageWith "nix" { version = "2.28.1"; });
    nix = packageWith "nix" { version = "2.28.1"; };
    qemu = packageWith "qemu" { version = "10.1.0"; };
    qemu_kvm = packageWith "qemu" { version = "10.1.0"; };
    dbus = program "dbus";
    shadow = packageWith "shadow" { shellPath = "/bin/sh"; su = program "su"; };
    labsw = program "labsw";
  };
in
pkgs
