# The program: its file, checked when it is built; its unit; who may talk to it.
#
# The unit is control/labsw.service, the same on every distribution, with all its hardening: it comes with the package,
# and what is said here is a drop-in. The file is /etc/labsw/labsw.toml, so that a new one is a reload
# (`labsw-ctl config apply`), under which ports that did not change lose no frame. A new program is a reload, too: it
# takes over from the running one.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  format = pkgs.formats.toml { };
  switch = cfg.finalSettings.switch;

  file = format.generate "labsw.toml" cfg.finalSettings;
  # CPUs are left out of the check: those of the building machine say nothing about the lab host.
  checkedSettings = cfg.finalSettings // { switch = removeAttrs switch [ "workers" ]; };
  checkedFile = pkgs.runCommand "labsw.toml" { } ''
    cp ${format.generate "labsw-check.toml" checkedSettings} labsw.toml
    ${lib.getExe' cfg.package "labswd"} --config labsw.toml --check
    cp ${file} $out
  '';
  canCheck = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;

  usesNetns = lib.any (p: p ? netns) (lib.attrValues (cfg.finalSettings.ports or { }));
  # The groups of the sockets: the daemon may give a file to a group that it is a member of.
  socketGroups = [ switch.socket_group ] ++ lib.optional (switch ? control_group) switch.control_group;
  groups = lib.unique (socketGroups ++ lib.optional (switch ? admin_group) switch.admin_group);
in
{
  options.services.labsw = {
    enable = lib.mkEnableOption "labsw, a user-space virtual Ethernet switch for lab hosts";
    package = mkOption {
      type = types.package;
      default = pkgs.labsw or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.labsw of the overlay, else the package of this flake";
      description = "The package with labswd, labsw-ctl and the unit.";
    };
    checkConfig = mkOption {
      type = types.bool;
      default = true;
      description = "Have `labswd --check` read the configuration file when it is built. Skipped when the builder can't run the host's programs.";
    };
    socketUsers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users whose guests may open the sockets, and who may look at the switch: members of `settings.switch.socket_group`.";
    };
    adminUsers = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may change the running switch: members of `settings.switch.admin_group`, and of the socket group.";
    };
    extraGroups = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "More groups for the daemon, for sockets in directories of others (role `client`).";
    };
    managementPort = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "infra";
      description = "The host's own port of the switch (type tap), if the host is managed through the trunk and has no `managementInterface`.";
    };
    dhcpInterfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "labsw-host" ];
      description = "Interfaces of the host's own ports in the lab (type tap) on which this host serves addresses, for a lab without an external gateway. Elsewhere in the lab a DHCP server or router of the host is an error.";
    };
    configFile = mkOption {
      type = types.path;
      internal = true;
      readOnly = true;
      description = "The file in the store.";
    };
  };

  config = lib.mkMerge [
    { services.labsw.configFile = if cfg.checkConfig && canCheck then checkedFile else file; }
    (lib.mkIf cfg.enable {
      environment.systemPackages = [ cfg.package ];
      environment.etc."labsw/labsw.toml".source = cfg.configFile;
      environment.sessionVariables = lib.mkIf (switch.control_socket != "/run/labsw/control.sock") {
        LABSW_SOCKET = switch.control_socket;
      };

      users.groups = lib.genAttrs ([ "labsw" ] ++ groups) (_: { });
      users.users = lib.mkMerge [
        { labsw = { isSystemUser = true; group = "labsw"; description = "labsw switch"; }; }
        (lib.genAttrs cfg.socketUsers (_: { extraGroups = [ switch.socket_group ]; }))
        (lib.genAttrs cfg.adminUsers (_: { extraGroups = groups; }))
        (lib.mkIf config.virtualisation.libvirtd.enable { qemu-libvirtd.extraGroups = [ switch.socket_group ]; })
      ];
      systemd.packages = [ cfg.package ];
      systemd.services.labsw = {
        wantedBy = [ "multi-user.target" ];
        reloadTriggers = [ cfg.configFile ];
        # A new program takes over. What else changes in the unit takes a restart.
        reloadIfChanged = true;
        # That restart is one at the end of the switch to the new system, and no time without a switch before that.
        stopIfChanged = false;
        serviceConfig = {
          SupplementaryGroups = lib.unique (socketGroups ++ cfg.extraGroups);
          # The unit lets the switch write in /run/labsw only.
          ReadWritePaths = map (path: "-${path}") (lib.filter (path: !lib.hasPrefix "/run/labsw" path)
            (lib.unique [ switch.vhost_user_dir (builtins.dirOf switch.control_socket) ]));
        } // lib.optionalAttrs usesNetns {
          # To move a container's end into its namespace. Beside what the unit has.
          AmbientCapabilities = [ "CAP_SYS_ADMIN" ];
          CapabilityBoundingSet = [ "CAP_SYS_ADMIN" ];
          RestrictNamespaces = "net";
        };
      };
    })
  ];
}
