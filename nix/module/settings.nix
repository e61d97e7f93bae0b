# What the configuration file says. `settings` is the file, freely (RFC 42); `ports`, `mirrors` and `inline` are its
# tables with types, descriptions and a short form for VLANs. The keys are those of docs/configuration.md; keys.nix has
# them as options.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  format = pkgs.formats.toml { };

  vid = types.ints.between 1 4094;
  optional = type: description: mkOption {
    type = types.nullOr type;
    default = null;
    inherit description;
  };
  required = type: description: mkOption { inherit type description; };
  keysWith = optional: import ./keys.nix { inherit types optional required; table = format.type; };
  keys = keysWith optional;
  # The module has a default of its own for these.
  withDefault = default: option: option // { inherit default; };
  switch = (keysWith required).switch;

  # 20 is access; [ 10 "20-29" ] a trunk; an attribute set the table as it is in the file.
  vlan = types.oneOf [ vid (types.listOf (types.either vid types.str)) vlanTable ];
  vlanTable = types.submodule { options = keys.vlan; };
  vlanSettings = value:
    if builtins.isInt value then { mode = "access"; tag = value; }
    else if builtins.isList value then { mode = "trunk"; trunks = value; }
    else value;

  port = types.submodule {
    freeformType = format.type;
    options = keys.port // {
      type = mkOption {
        type = types.enum [ "vhost_user" "af_xdp" "veth" "tap" ];
        default = "vhost_user";
        description = "What is attached: a guest's virtio NIC, a NIC of the host, a container, a TAP interface.";
      };
      vlan = mkOption {
        type = types.nullOr vlan;
        default = null;
        example = 20;
        description = ''
          `20`: access to VLAN 20. `[ 10 "20-29" ]`: a trunk of these VLANs. Or the table of the file:
          `{ mode = "native-untagged"; tag = 10; trunks = [ 10 20 ]; }`. Left out: access to `settings.switch.default_vlan` (1); for af_xdp all VLANs, untagged frames in VLAN 1.
        '';
      };
    };
  };

  mirror = types.submodule {
    freeformType = format.type;
    options = keys.mirror // {
      sources = keys.mirror.sources // { example = [ "dc01" "web:rx" ]; };
    };
  };

  inline = types.submodule {
    freeformType = format.type;
    options = keys.inline;
  };

  withoutNulls = lib.filterAttrsRecursive (_: value: value != null);
in
{
  options.services.labsw = {
    settings = mkOption {
      default = { };
      description = "The configuration file of labswd (docs/configuration.md). `ports`, `mirrors` and `inline` of this module end up here.";
      example = lib.literalExpression ''{ switch = { workers = [ 2 3 ]; power = "adaptive"; }; }'';
      type = types.submodule {
        freeformType = format.type;
        options.switch = mkOption {
          default = { };
          description = "The `[switch]` table.";
          type = types.submodule {
            freeformType = format.type;
            options = keys.switch // {
              # In /run/labsw, which systemd makes for the unit.
              control_socket = withDefault "/run/labsw/control.sock" switch.control_socket;
              vhost_user_dir = withDefault "/run/labsw/vhost" switch.vhost_user_dir;
              # microvm.nix runs guests in this group.
              socket_group = withDefault "kvm" switch.socket_group;
              socket_mode = withDefault "0660" switch.socket_mode;
              admin_group = withDefault "labsw" keys.switch.admin_group;
              hugepages = withDefault "auto" switch.hugepages;
              # `managementInterface` is added.
              protected_interfaces = withDefault [ ] switch.protected_interfaces;
            };
          };
        };
      };
    };

    ports = mkOption {
      type = types.attrsOf port;
      default = { };
      example = lib.literalExpression ''{ dc01.vlan = 20; web = { type = "veth"; peer = "ls-web"; vlan = 10; }; }'';
      description = "The ports of the switch besides A and B; keys as in the file, `vlan` with a short form.";
    };

    mirrors = mkOption {
      type = types.attrsOf mirror;
      default = { };
      example = lib.literalExpression ''{ detect = { sources = [ "dc01" ]; to = "span"; }; }'';
      description = "Mirror (SPAN) sessions.";
    };

    inline = mkOption {
      type = types.attrsOf inline;
      default = { };
      example = lib.literalExpression ''{ ips = { of = "web"; through = [ "ips-in" "ips-out" ]; on_failure = "open"; }; }'';
      description = "Sensors in the wires of ports (docs/inline.md).";
    };

    finalSettings = mkOption {
      type = types.raw;
      internal = true;
      readOnly = true;
      description = "`settings` without what is left out: what the file says.";
    };
  };

  config.services.labsw = {
    settings.ports = lib.mkIf (cfg.ports != { })
      (lib.mapAttrs (_: p: withoutNulls (p // { vlan = if p.vlan == null then null else withoutNulls (vlanSettings p.vlan); })) cfg.ports);
    settings.mirrors = lib.mkIf (cfg.mirrors != { }) (lib.mapAttrs (_: withoutNulls) cfg.mirrors);
    settings.inline = lib.mkIf (cfg.inline != { }) cfg.inline;
    finalSettings = withoutNulls cfg.settings;
  };
}
