# The options of NixOS that labsw's module sets, declared and nothing more, so that the module can be evaluated with
# nixpkgs' `lib` alone. What the module sets and this file lacks is an error, as a misspelt option would be in NixOS.
{ lib, config, ... }:

let
  inherit (lib) mkOption types;
  any = default: mkOption { type = types.anything; inherit default; };
  free = mkOption { type = types.attrsOf types.anything; default = { }; };
  list = mkOption { type = types.listOf types.anything; default = [ ]; };
  unit = types.submodule {
    options = {
      description = any "";
      wantedBy = list;
      wants = list;
      requires = list;
      bindsTo = list;
      partOf = list;
      after = list;
      before = list;
      reloadTriggers = list;
      restartTriggers = list;
      restartIfChanged = mkOption { type = types.bool; default = true; };
      stopIfChanged = mkOption { type = types.bool; default = true; };
      reloadIfChanged = mkOption { type = types.bool; default = false; };
      overrideStrategy = any null;
      unitConfig = free;
      serviceConfig = free;
    };
  };
  # The keys that nixpkgs' check of a .link file takes in every supported release, as far as NICs have them.
  linkKeys = [
    "Description"
    "Alias"
    "MACAddressPolicy"
    "MACAddress"
    "NamePolicy"
    "Name"
    "AlternativeNamesPolicy"
    "AlternativeName"
    "TransmitQueues"
    "ReceiveQueues"
    "MTUBytes"
    "BitsPerSecond"
    "Duplex"
    "AutoNegotiation"
    "WakeOnLan"
    "Port"
    "RxBufferSize"
    "TxBufferSize"
    "RxChannels"
    "TxChannels"
    "OtherChannels"
    "CombinedChannels"
    "RxFlowControl"
    "TxFlowControl"
    # Of .network files.
    "Unmanaged"
    "ActivationPolicy"
    "RequiredForOnline"
    "ARP"
    "Multicast"
    "AllMulticast"
    "Promiscuous"
  ];
  network = types.submodule {
    options = {
      matchConfig = free;
      linkConfig = mkOption {
        type = types.addCheck (types.attrsOf types.anything) (value: lib.subtractLists linkKeys (lib.attrNames value) == [ ]);
        default = { };
      };
      networkConfig = free;
      extraConfig = mkOption { type = types.lines; default = ""; };
    };
  };
in
{
  options = {
    assertions = list;
    warnings = list;
    lib = mkOption { type = types.attrsOf types.attrs; default = { }; };
    boot = {
      kernelParams = list;
      kernelModules = list;
      extraModprobeConfig = mkOption { type = types.lines; default = ""; };
      kernel.sysctl = mkOption { type = types.attrsOf types.anything; default = { }; };
      loader = free;
    };
    environment = {
      systemPackages = list;
      sessionVariables = free;
      etc = mkOption {
        type = types.attrsOf (types.submodule { options = { text = any null; source = any null; }; });
        default = { };
      };
    };
    networking = {
      hostName = any "";
      useDHCP = any false;
      interfaces = mkOption { type = types.attrsOf (types.attrsOf types.anything); default = { }; };
      bridges = mkOption { type = types.attrsOf (types.attrsOf types.anything); default = { }; };
      useNetworkd = any false;
      dhcpcd.denyInterfaces = list;
      networkmanager.unmanaged = list;
      firewall = free;
      nat = { enable = any false; internalInterfaces = list; externalInterface = any null; forwardPorts = list; };
    };
    services.udev.extraRules = mkOption { type = types.lines; default = ""; };
    services.openssh = free;
    services.dnsmasq = { enable = any false; settings = free; };
    services.kea.dhcp4 = { enable = any false; settings = free; };
    services.radvd = { enable = any false; config = mkOption { type = types.lines; default = ""; }; };
    systemd = {
      package = any "/systemd";
      packages = list;
      settings.Manager = free;
      services = mkOption { type = types.attrsOf unit; default = { }; };
      slices = mkOption { type = types.attrsOf (types.submodule { options = { description = any ""; sliceConfig = free; }; }); default = { }; };
      network = {
        enable = any false;
        links = mkOption { type = types.attrsOf network; default = { }; };
        networks = mkOption { type = types.attrsOf network; default = { }; };
      };
    };
    users.users = mkOption {
      type = types.attrsOf (types.submodule {
        options = {
          isSystemUser = any false;
          isNormalUser = any false;
          group = any "";
          description = any "";
          extraGroups = list;
          openssh = free;
          initialPassword = any null;
        };
      });
      default = { };
    };
    users.groups = free;
    virtualisation.libvirtd = {
      enable = any false;
      qemu = { runAsRoot = any true; swtpm.enable = any false; };
    };
    virtualisation.lxc.enable = any false;
    virtualisation.vmVariant = mkOption { type = types.deferredModule; default = { }; };
    virtualisation.libvirt = free;
    # What NixOS containers set themselves inside: networking.useDHCP = false, at plain priority.
    containers = mkOption {
      type = types.attrsOf (types.submodule ({ ... }: {
        freeformType = types.attrsOf types.anything;
        options.config = mkOption { type = types.deferredModule; default = { }; };
      }));
      default = { };
    };
    fileSystems = free;
    system.stateVersion = any "";
    system.build.vm = any "/nix/store/vm";
    nixpkgs = free;
  };

  # NixOS lists the members of bridges among the interfaces.
  config.networking.interfaces = lib.genAttrs (lib.concatLists (lib.mapAttrsToList (_: b: b.interfaces or [ ]) config.networking.bridges)) (_: { });
}
