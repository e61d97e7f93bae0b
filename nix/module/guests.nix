# Guests attached to ports: `services.labsw.guests.<name>`, and the glue of ../lib with the ports of this configuration
# looked up, as `config.lib.labsw`.
#
# What is done for a guest depends on its backend:
#   qemu        a unit labsw-guest-NAME that runs QEMU
#   libvirt     `xml`: what to paste into the domain; libvirtd with swtpm
#   nixvirt     `nixvirt`: a function that completes a NixVirt domain
#   microvm     the NIC is added to microvm.vms.NAME
#   lxc         /etc/labsw/lxc/NAME.conf, to be included by the container's configuration
#   container   network options of containers.NAME (systemd-nspawn)
#
# Order: the switch starts first, and nothing of a guest is bound to it: it may be restarted under running guests.
{ config, lib, options, pkgs, utils, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  glue = import ../lib { inherit lib; };
  ports = cfg.finalSettings.ports or { };
  switch = cfg.finalSettings.switch;

  # What the glue wants to know of a port: a name, or attributes with `port` that win over what is configured.
  lookUp = given:
    let
      wanted = if builtins.isString given then { port = given; } else given;
      p = ports.${wanted.port} or (throw "labsw: there is no port ${wanted.port}; the ports are ${lib.concatStringsSep ", " (lib.attrNames ports)}");
    in
    {
      inherit (p) type;
      socketDir = switch.vhost_user_dir;
      role = p.role or "server";
      queuePairs = p.queue_pairs or 1;
      interface = if p.type == "veth" then p.peer else p.interface or wanted.port;
      netns = p.netns or null;
      peerName = p.peer_name or (if p ? netns then p.peer else "eth0");
      mtu = p.mtu or 1500;
      qemuVersion = pkgs.qemu_kvm.version;
    } // lib.optionalAttrs (p ? socket) { inherit (p) socket; } // wanted;

  arch = pkgs.stdenv.hostPlatform.qemuArch;

  bound = {
    inherit (glue) macOf qemuCpuArgs qemuDiskArgs qemuPassthroughArgs libvirtMemoryBacking libvirtCpu libvirtDisk libvirtPassthrough;
    qemuArgs = given: glue.qemuArgs (lookUp given);
    libvirtInterface = given: glue.libvirtInterface (lookUp given);
    libvirtCommandline = givens: glue.libvirtCommandline (map lookUp givens);
    nixvirtInterface = given: glue.nixvirtInterface (lookUp given);
    nixvirtGuest = given: glue.nixvirtGuest (given // { ports = map lookUp given.ports; });
    microvm = given: glue.microvm (lookUp given);
    lxc = given: glue.lxc (lookUp given);
    nixosContainer = given: glue.nixosContainer (lookUp given);
  };

  disk = types.submodule {
    options = {
      path = mkOption { type = types.str; example = "/dev/disk/by-id/nvme-X"; description = "A block device or an image."; };
      format = mkOption { type = types.enum [ "raw" "qcow2" ]; default = "raw"; description = "Of the image."; };
      bus = mkOption {
        type = types.enum [ "virtio" "nvme" "sata" ];
        default = "virtio";
        description = "The guest's controller. Windows reads sata (libvirt) and nvme (QEMU) without drivers of its own.";
      };
      dev = mkOption { type = types.str; default = "vda"; description = "libvirt's name of the disk."; };
    };
  };

  guest = types.submodule ({ name, config, ... }: {
    options = {
      backend = mkOption {
        type = types.enum [ "qemu" "libvirt" "nixvirt" "microvm" "lxc" "container" ];
        default = "qemu";
        description = "Who runs the guest.";
      };
      ports = mkOption {
        type = types.nonEmptyListOf types.str;
        default = [ name ];
        defaultText = lib.literalExpression "[ name ]";
        description = "The ports it is attached to, one NIC each.";
      };
      macs = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "MAC addresses by port. Left out: one that belongs to the port's name.";
      };
      model = mkOption {
        type = types.enum [ "virtio" "e1000e" "e1000" "rtl8139" ];
        default = "virtio";
        description = "The NICs of ports of type tap. Windows has a driver for e1000e; virtio needs one (virtio-win). Ports of type vhost_user are virtio.";
      };
      memory = mkOption { type = types.ints.positive; default = 2048; description = "MiB, shared with the switch."; };
      hugepages = mkOption { type = types.bool; default = false; description = "Memory in the pages of `services.labsw.host.hugepages`."; };
      cpus = mkOption { type = types.ints.positive; default = 2; description = "Virtual CPUs."; };
      cpuAffinity = mkOption { type = types.listOf types.ints.unsigned; default = [ ]; description = "qemu: the CPUs it runs on."; };
      nestedVirtualization = mkOption { type = types.bool; default = false; description = "Offer vmx or svm to the guest."; };
      disks = mkOption { type = types.listOf disk; default = [ ]; description = "Disks past the page cache (cache=none, io_uring)."; };
      passthrough = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "PCI devices handed over whole: an NVMe drive, say. For qemu they have to be in `services.labsw.host.passthrough`; libvirt takes them itself.";
      };
      user = mkOption { type = types.str; default = "labsw-guest"; description = "qemu: who runs it. Block devices and passed-through devices usually need root."; };
      extraArgs = mkOption { type = types.listOf types.str; default = [ ]; description = "qemu: more arguments, kernel and firmware for instance."; };
      autoStart = mkOption { type = types.bool; default = true; description = "qemu: start with the host."; };

      qemuArgs = mkOption { type = types.raw; readOnly = true; description = "QEMU's arguments."; };
      xml = mkOption { type = types.raw; readOnly = true; description = "libvirt: memory backing, CPU, interfaces, disks, devices and arguments of the domain."; };
      nixvirt = mkOption { type = types.raw; readOnly = true; description = "A function that completes a NixVirt domain."; };
    };
    config =
      let
        nic = port: { inherit port; inherit (config) model; } // lib.optionalAttrs (config.macs ? ${port}) { mac = config.macs.${port}; };
        nics = map nic config.ports;
        memory = { inherit (config) memory; hugepageSize = if config.hugepages then cfg.host.hugepages.size else null; };
        # The memory backing is the guest's, not the NIC's: said once.
        nicArgs = lib.concatLists (lib.imap0 (i: n: bound.qemuArgs (n // lib.optionalAttrs (i == 0) memory)) nics);
      in
      {
        qemuArgs = bound.qemuCpuArgs { nested = config.nestedVirtualization; inherit (config) cpus; inherit arch; }
          ++ nicArgs ++ bound.qemuDiskArgs config.disks ++ bound.qemuPassthroughArgs config.passthrough ++ config.extraArgs;
        xml = bound.libvirtMemoryBacking { inherit (config) hugepages; }
          + bound.libvirtCpu { nested = config.nestedVirtualization; inherit arch; }
          + lib.concatMapStrings bound.libvirtInterface nics
          + lib.concatMapStrings bound.libvirtDisk config.disks
          + lib.concatMapStrings bound.libvirtPassthrough config.passthrough
          + bound.libvirtCommandline nics;
        nixvirt = bound.nixvirtGuest {
          ports = nics;
          inherit (config) hugepages disks passthrough;
          inherit arch;
          nested = config.nestedVirtualization;
        };
      };
  });

  of = backend: lib.filterAttrs (_: g: lib.elem g.backend backend) cfg.guests;
  netnsOf = g: lib.filter (n: n != null) (map (port: ports.${port}.netns or null) g.ports);
  netnses = lib.unique (lib.concatMap netnsOf (lib.attrValues (of [ "lxc" "container" ])));

  qemuUnit = name: g: {
    name = "labsw-guest-${name}";
    value = {
      description = "Guest ${name} of the lab";
      wantedBy = lib.optional g.autoStart "multi-user.target";
      wants = [ "labsw.service" ];
      after = [ "labsw.service" "labsw-vfio.service" ];
      # A new configuration of the host is no reason to pull the plug; it counts from the guest's next start.
      restartIfChanged = false;
      serviceConfig = {
        ExecStart = utils.escapeSystemdExecArgs ([ "${pkgs.qemu_kvm}/bin/qemu-system-${arch}" "-name" name "-machine" machine "-nodefaults" "-display" "none" ] ++ g.qemuArgs);
        User = g.user;
        SupplementaryGroups = lib.unique [ "kvm" switch.socket_group ];
        Slice = "labsw-guests.slice";
        StateDirectory = "labsw-guests/${name}";
        WorkingDirectory = "/var/lib/labsw-guests/${name}";
        LimitMEMLOCK = "infinity";
        Restart = "on-failure";
        TimeoutStopSec = "60s";
      } // lib.optionalAttrs (g.cpuAffinity != [ ]) { CPUAffinity = lib.concatMapStringsSep " " toString g.cpuAffinity; };
    };
  };
  machine = if pkgs.stdenv.hostPlatform.isAarch64 then "virt" else "q35";

  allowed = backend: if lib.elem backend [ "lxc" "container" ] then [ "veth" ] else [ "vhost_user" "tap" ];
  used = lib.concatLists (lib.mapAttrsToList (_: g: g.ports) cfg.guests);
  twice = lib.unique (lib.filter (port: lib.count (p: p == port) used > 1) used);
  pageMiB = if cfg.host.hugepages.size == "2M" then 2 else 1024;
  reserved = if cfg.host.hugepages.perNode != { } then lib.foldl' builtins.add 0 (lib.attrValues cfg.host.hugepages.perNode) else cfg.host.hugepages.count;
  inPages = lib.foldl' builtins.add 0 (map (g: g.memory) (lib.filter (g: g.hugepages) (lib.attrValues cfg.guests)));
  pagesNeeded = (inPages + pageMiB - 1) / pageMiB + (if pageMiB == 2 then 32 else 0);

  guestAssertions = name: g:
    let
      where = "services.labsw.guests.${name}";
      known = lib.filter (port: ports ? ${port}) g.ports;
      unknown = lib.subtractLists known g.ports;
      wrong = lib.filter (port: !(lib.elem ports.${port}.type (allowed g.backend))) known;
      hostTaps = lib.filter (port: ports.${port}.type == "tap" && ports.${port}."for" or "host" != "guest") known;
      emulated = lib.filter (port: ports.${port}.type == "vhost_user" && g.model != "virtio") known;
      first = list: lib.optionalString (list != [ ]) (lib.head list);
      typeOf = port: if port == "" then "" else ports.${port}.type;
    in
    [
      {
        assertion = unknown == [ ];
        message = "${where}.ports: there is no port ${first unknown}; the ports are ${lib.concatStringsSep ", " (lib.attrNames ports)}. Add services.labsw.ports.${first unknown}, or name one of them.";
      }
      {
        assertion = wrong == [ ];
        message = "${where}: a ${g.backend} guest attaches to a port of type ${lib.concatStringsSep " or " (allowed g.backend)}; port ${first wrong} is of type ${typeOf (first wrong)}.";
      }
      {
        assertion = hostTaps == [ ];
        message = "${where}: port ${first hostTaps} is the host's own (tap with for = \"host\"); set services.labsw.ports.${first hostTaps}.for = \"guest\".";
      }
      {
        assertion = emulated == [ ];
        message = "${where}.model: port ${first emulated} is of type vhost_user, whose NIC is virtio; for ${g.model} make the port type = \"tap\", for = \"guest\".";
      }
      {
        assertion = !g.nestedVirtualization || cfg.host.nestedVirtualization;
        message = "${where}.nestedVirtualization needs it on the host: set services.labsw.host.nestedVirtualization = true.";
      }
      {
        assertion = g.backend != "qemu" || lib.subtractLists cfg.host.passthrough g.passthrough == [ ];
        message = "${where}.passthrough: ${first (lib.subtractLists cfg.host.passthrough g.passthrough)} is still the host's; add it to services.labsw.host.passthrough.";
      }
      {
        assertion = g.passthrough == [ ] || cfg.host.iommu != null || cfg.host.passthrough != [ ];
        message = "${where}.passthrough needs the IOMMU: set services.labsw.host.iommu = \"intel\" or \"amd\".";
      }
      {
        assertion = g.backend != "microvm" || options ? microvm;
        message = "${where}: import microvm.nixosModules.host (github:microvm-nix/microvm.nix) beside labsw's module.";
      }
    ];
in
{
  options.services.labsw.guests = mkOption {
    type = types.attrsOf guest;
    default = { };
    example = lib.literalExpression ''{ dc01 = { backend = "nixvirt"; }; web = { backend = "lxc"; }; }'';
    description = "Guests attached to ports of the switch.";
  };

  config = lib.mkMerge [
    { lib.labsw = bound; }
    (lib.mkIf cfg.enable {
      assertions = lib.concatLists (lib.mapAttrsToList guestAssertions cfg.guests) ++ [
        {
          assertion = twice == [ ];
          message = "services.labsw.guests: port ${lib.optionalString (twice != [ ]) (lib.head twice)} is used by two guests; a port takes one guest at a time.";
        }
        {
          assertion = inPages == 0 || reserved >= pagesNeeded;
          message = "services.labsw.guests: guests in huge pages and the switch need ${toString pagesNeeded} pages of ${cfg.host.hugepages.size}, ${toString reserved} are reserved; raise services.labsw.host.hugepages.count.";
        }
      ];

      systemd.services = lib.mkMerge [
        {
          labsw.before = [ "libvirtd.service" "virtqemud.service" "nixvirt.service" "lxc.service" "microvms.target" "machines.target" ]
            ++ lib.mapAttrsToList (name: _: "microvm@${name}.service") (of [ "microvm" ])
            ++ lib.mapAttrsToList (name: _: "container@${name}.service") (of [ "container" ]);
        }
        (lib.mapAttrs' qemuUnit (of [ "qemu" ]))
        (lib.listToAttrs (map
          (netns: {
            name = "labsw-netns-${netns}";
            value = {
              description = "Network namespace ${netns} of the lab";
              wantedBy = [ "multi-user.target" ];
              before = [ "labsw.service" "lxc.service" ] ++ lib.mapAttrsToList (name: _: "container@${name}.service") (of [ "container" ]);
              serviceConfig = {
                Type = "oneshot";
                RemainAfterExit = true;
                ExecStart = "${pkgs.iproute2}/bin/ip netns add ${netns}";
                ExecStop = "${pkgs.iproute2}/bin/ip netns delete ${netns}";
              };
            };
          })
          netnses))
      ];

      users.users = lib.mkIf (of [ "qemu" ] != { }) {
        labsw-guest = { isSystemUser = true; group = "labsw-guest"; description = "Guests of the lab"; };
      };
      users.groups = lib.mkIf (of [ "qemu" ] != { }) { labsw-guest = { }; };

      virtualisation.libvirtd = lib.mkIf (of [ "libvirt" "nixvirt" ] != { }) {
        enable = lib.mkDefault true;
        # The TPM that Windows 11 asks for.
        qemu.swtpm.enable = lib.mkDefault true;
      };

      environment.etc = lib.mapAttrs'
        (name: g: lib.nameValuePair "labsw/lxc/${name}.conf" { text = lib.concatMapStrings bound.lxc g.ports; })
        (of [ "lxc" ]);

      containers = lib.mapAttrs (_: g: bound.nixosContainer (lib.head g.ports) // { additionalCapabilities = [ "CAP_NET_ADMIN" ]; }) (of [ "container" ]);
    })
    # Only where microvm.nix's host module is imported; without it there is an assertion.
    (lib.optionalAttrs (options ? microvm) {
      microvm.vms = lib.mkIf cfg.enable (lib.mapAttrs
        (_: g: {
          config.imports = map (port: bound.microvm { inherit port; inherit (g) model; }) g.ports
            ++ [{ microvm = { mem = lib.mkDefault g.memory; vcpu = lib.mkDefault g.cpus; }; }];
        })
        (of [ "microvm" ]));
    })
  ];
}
