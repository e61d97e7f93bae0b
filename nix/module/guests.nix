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
    inherit (glue) macOf qemuCpuArgs qemuDiskArgs qemuPassthroughArgs libvirtMemoryBacking libvirtSize libvirtCpu libvirtDisk libvirtPassthrough;
    qemuArgs = given: glue.qemuArgs (lookUp given);
    libvirtInterface = given: glue.libvirtInterface (lookUp given);
    nixvirtInterface = given: glue.nixvirtInterface (lookUp given);
    nixvirtGuest = given: glue.nixvirtGuest (given // { ports = map lookUp given.ports; });
    microvm = given: glue.microvm (map lookUp (lib.toList given));
    lxc = given: glue.lxc (lookUp given);
    nixosContainer = given: glue.nixosContainer (map lookUp (lib.toList given));
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
      memory = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        description = "MiB, shared with the switch. Left out: 2048 for qemu; what the domain or microvm.nix says for libvirt, nixvirt and microvm.";
      };
      hugepages = mkOption { type = types.bool; default = false; description = "Memory in the pages of `services.labsw.host.hugepages`."; };
      cpus = mkOption {
        type = types.nullOr types.ints.positive;
        default = null;
        description = "Virtual CPUs. Left out: 2 for qemu; what the domain or microvm.nix says for libvirt, nixvirt and microvm.";
      };
      cpuAffinity = mkOption { type = types.listOf types.ints.unsigned; default = [ ]; description = "qemu: the CPUs it runs on."; };
      nestedVirtualization = mkOption { type = types.bool; default = false; description = "Offer vmx or svm to the guest. microvm.nix offers them always."; };
      disks = mkOption { type = types.listOf disk; default = [ ]; description = "Disks past the page cache (cache=none, io_uring)."; };
      passthrough = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "PCI devices handed over whole: an NVMe drive, say. For qemu they have to be in `services.labsw.host.passthrough`; libvirt takes them itself.";
      };
      keepInterfaces = mkOption { type = types.bool; default = false; description = "nixvirt: keep the domain's own interfaces beside those of the ports, for a second NIC behind NAT, say."; };
      user = mkOption { type = types.str; default = "labsw-guest"; description = "qemu: who runs it. Block devices and passed-through devices usually need root; QEMU has no capabilities and sees only its own devices either way."; };
      extraArgs = mkOption { type = types.listOf types.str; default = [ ]; description = "qemu: more arguments, kernel and firmware for instance."; };
      autoStart = mkOption { type = types.bool; default = true; description = "qemu: start with the host."; };

      qemuArgs = mkOption { type = types.raw; readOnly = true; description = "QEMU's arguments."; };
      xml = mkOption { type = types.raw; readOnly = true; description = "libvirt: memory backing, CPU, interfaces, disks, devices and arguments of the domain."; };
      nixvirt = mkOption { type = types.raw; readOnly = true; description = "A function that completes a NixVirt domain."; };
    };
    config =
      let
        nics = map (nicOf config) config.ports;
        hugepageSize = if config.hugepages then cfg.host.hugepages.size else null;
        memory = { memory = memoryOf config; inherit hugepageSize; };
        # The memory backing is the guest's, not the NIC's: said once.
        nicArgs = lib.concatLists (lib.imap0 (i: n: bound.qemuArgs (n // lib.optionalAttrs (i == 0) memory)) nics);
      in
      {
        qemuArgs = bound.qemuCpuArgs { nested = config.nestedVirtualization; cpus = if config.cpus == null then 2 else config.cpus; inherit arch; }
          ++ nicArgs ++ bound.qemuDiskArgs config.disks ++ bound.qemuPassthroughArgs config.passthrough ++ config.extraArgs;
        xml = lib.optionalString (config.memory != null && config.cpus != null) (bound.libvirtSize { inherit (config) memory cpus; })
          + bound.libvirtMemoryBacking { inherit hugepageSize; }
          + bound.libvirtCpu { nested = config.nestedVirtualization; inherit arch; }
          + lib.concatMapStrings bound.libvirtInterface nics
          + lib.concatMapStrings bound.libvirtDisk config.disks
          + lib.concatMapStrings bound.libvirtPassthrough config.passthrough;
        nixvirt = bound.nixvirtGuest {
          ports = nics;
          inherit (config) memory cpus keepInterfaces disks passthrough;
          inherit arch hugepageSize;
          nested = config.nestedVirtualization;
        };
      };
  });

  # What the glue is told of the NIC of guest `g` at `port`.
  nicOf = g: port: { inherit port; inherit (g) model; } // lib.optionalAttrs (g.macs ? ${port}) { mac = g.macs.${port}; };

  # QEMU has to be told; the others have a value of their own.
  memoryOf = g: if g.memory == null then 2048 else g.memory;

  # What each backend makes something of, besides `backend` and `ports`. The rest would be ignored: an assertion.
  taken = {
    qemu = [ "autoStart" "cpuAffinity" "cpus" "disks" "extraArgs" "hugepages" "macs" "memory" "model" "nestedVirtualization" "passthrough" "user" ];
    libvirt = [ "cpus" "disks" "hugepages" "macs" "memory" "model" "nestedVirtualization" "passthrough" ];
    nixvirt = taken.libvirt ++ [ "keepInterfaces" ];
    microvm = [ "cpus" "macs" "memory" "model" "nestedVirtualization" ];
    lxc = [ "macs" ];
    container = [ ];
  };
  unset = {
    autoStart = true;
    cpuAffinity = [ ];
    cpus = null;
    disks = [ ];
    extraArgs = [ ];
    hugepages = false;
    keepInterfaces = false;
    macs = { };
    memory = null;
    model = "virtio";
    nestedVirtualization = false;
    passthrough = [ ];
    user = "labsw-guest";
  };
  instead = {
    container = "set it in containers.NAME (a MAC address: services.labsw.ports.PORT.mac)";
    lxc = "set it in the container's own configuration";
    microvm = "set it in microvm.vms.NAME.config.microvm";
    libvirt = "set it in the domain";
    nixvirt = "set it in the domain";
    qemu = "use a backend that takes it";
  };

  of = backend: lib.filterAttrs (_: g: lib.elem g.backend backend) cfg.guests;
  netnsOf = g: lib.filter (n: n != null) (map (port: ports.${port}.netns or null) g.ports);
  netnses = lib.unique (lib.concatMap netnsOf (lib.attrValues (of [ "lxc" "container" ])));

  # Asks the guest to shut down, as a press of its power button does, and waits until QEMU has ended.
  powerdown = name: pkgs.writeShellScript "labsw-powerdown-${name}" ''
    printf '%s\n' '{"execute":"qmp_capabilities"}' '{"execute":"system_powerdown"}' |
      ${pkgs.socat}/bin/socat -t 5 - UNIX-CONNECT:/run/labsw-guests/${name}/qmp.sock
    ${pkgs.coreutils}/bin/tail --pid="$MAINPID" -f /dev/null
  '';

  # QEMU sees its own devices and files only, has no capabilities, and no sockets but local ones.
  confinement = g:
    let
      paths = map (d: d.path) g.disks;
      files = lib.filter (path: !lib.hasPrefix "/dev/" path) paths;
      tap = lib.any (port: ports.${port}.type or "" == "tap") g.ports;
    in
    {
      CapabilityBoundingSet = "";
      NoNewPrivileges = true;
      DevicePolicy = "closed";
      DeviceAllow = [ "/dev/kvm rw" ] ++ lib.optional tap "/dev/net/tun rw"
        ++ lib.optionals (g.passthrough != [ ]) [ "/dev/vfio/vfio rw" "char-vfio rw" ]
        ++ map (path: "${path} rw") (lib.filter (lib.hasPrefix "/dev/") paths);
      ProtectSystem = "strict";
      ReadWritePaths = map (path: "-${path}") files;
      ProtectHome = if lib.any (lib.hasPrefix "/home/") files then "read-only" else true;
      PrivateTmp = true;
      ProtectClock = true;
      ProtectControlGroups = true;
      ProtectHostname = true;
      ProtectKernelLogs = true;
      ProtectKernelModules = true;
      ProtectKernelTunables = true;
      LockPersonality = true;
      RestrictNamespaces = true;
      RestrictRealtime = true;
      RestrictSUIDSGID = true;
      # Arguments of the user's own may want a network: VNC, a second NIC with `-netdev user`.
      RestrictAddressFamilies = [ "AF_UNIX" ] ++ lib.optionals (g.extraArgs != [ ]) [ "AF_INET" "AF_INET6" ];
      SystemCallArchitectures = "native";
      SystemCallFilter = [ "@system-service" ];
      UMask = "0077";
    };

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
        ExecStart = utils.escapeSystemdExecArgs ([
          "${pkgs.qemu_kvm}/bin/qemu-system-${arch}"
          "-name"
          name
          "-machine"
          machine
          "-nodefaults"
          "-display"
          "none"
          "-sandbox"
          "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
          "-qmp"
          "unix:/run/labsw-guests/${name}/qmp.sock,server=on,wait=off"
        ] ++ g.qemuArgs);
        ExecStop = powerdown name;
        User = g.user;
        SupplementaryGroups = lib.unique [ "kvm" switch.socket_group ];
        Slice = "labsw-guests.slice";
        RuntimeDirectory = "labsw-guests/${name}";
        StateDirectory = "labsw-guests/${name}";
        WorkingDirectory = "/var/lib/labsw-guests/${name}";
        LimitMEMLOCK = "infinity";
        Restart = "on-failure";
        # As long as the guest may take to shut down; then the plug is pulled.
        TimeoutStopSec = "120s";
        # When memory ends, a guest goes before the host's own services.
        OOMScoreAdjust = 500;
      } // confinement g // lib.optionalAttrs (g.cpuAffinity != [ ]) { CPUAffinity = lib.concatMapStringsSep " " toString g.cpuAffinity; };
    };
  };
  machine = if pkgs.stdenv.hostPlatform.isAarch64 then "virt" else "q35";

  allowed = backend: if lib.elem backend [ "lxc" "container" ] then [ "veth" "tap" ] else [ "vhost_user" "tap" ];
  used = lib.concatLists (lib.mapAttrsToList (_: g: g.ports) cfg.guests);
  twice = lib.unique (lib.filter (port: lib.count (p: p == port) used > 1) used);
  pageMiB = if cfg.host.hugepages.size == "2M" then 2 else 1024;
  reserved = if cfg.host.hugepages.perNode != { } then lib.foldl' builtins.add 0 (lib.attrValues cfg.host.hugepages.perNode) else cfg.host.hugepages.count;
  inPages = lib.foldl' builtins.add 0 (map memoryOf (lib.filter (g: g.hugepages) (lib.attrValues cfg.guests)));
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
      given = lib.filter (option: g.${option} != unset.${option}) (lib.attrNames unset);
      ignored = lib.subtractLists taken.${g.backend} given;
      inNetns = builtins.length (netnsOf g);
      typeOf = port: if port == "" then "" else ports.${port}.type;
    in
    [
      {
        assertion = ignored == [ ];
        message = "${where}.${first ignored}: a guest of backend ${g.backend} does not take it; ${instead.${g.backend}}.";
      }
      {
        assertion = g.backend != "nixvirt" && g.backend != "libvirt" || !g.hugepages || g.memory != null;
        message = "${where}.hugepages: also give memory, so that the pages can be counted.";
      }
      {
        assertion = !lib.elem g.backend [ "lxc" "container" ] || inNetns == 0 || builtins.length g.ports == 1;
        message = "${where}.ports: a container runs in one network namespace; leave netns out at its ports, or give it one port and put the others' netns and peer_name to the same namespace.";
      }
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
              # A new iproute2 is no reason to delete a namespace under a running container.
              restartIfChanged = false;
              unitConfig.ConditionPathExists = "!/run/netns/${netns}";
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
        # As root without capabilities QEMU could not open a socket of user labsw.
        qemu.runAsRoot = lib.mkDefault false;
        # The TPM that Windows 11 asks for.
        qemu.swtpm.enable = lib.mkDefault true;
      };

      environment.etc = lib.mapAttrs'
        (name: g: lib.nameValuePair "labsw/lxc/${name}.conf" {
          text = lib.concatStringsSep "" (lib.imap0
            (index: port: bound.lxc ({ inherit port index; } // lib.optionalAttrs (g.macs ? ${port}) { mac = g.macs.${port}; }))
            g.ports);
        })
        (of [ "lxc" ]);

      containers = lib.mapAttrs (_: g: bound.nixosContainer g.ports // { additionalCapabilities = [ "CAP_NET_ADMIN" ]; }) (of [ "container" ]);
    })
    # Only where microvm.nix's host module is imported; without it there is an assertion.
    (lib.optionalAttrs (options ? microvm) {
      microvm.vms = lib.mkIf cfg.enable (lib.mapAttrs
        (_: g: {
          config.imports = [
            (bound.microvm (map (nicOf g) g.ports))
            { microvm = lib.optionalAttrs (g.memory != null) { mem = lib.mkDefault g.memory; } // lib.optionalAttrs (g.cpus != null) { vcpu = lib.mkDefault g.cpus; }; }
          ];
        })
        (of [ "microvm" ]));
    })
  ];
}
