# The machine made ready for a lab, and kept usable when the lab goes wrong.
{ config, lib, pkgs, ... }:

let
  inherit (lib) mkOption types;
  cfg = config.services.labsw;
  host = cfg.host;
  cpuList = lib.concatMapStringsSep "," toString;
  sysctls = {
    # The key that nixpkgs' own modules use (networking.nat, Docker): sysctl.conf is sorted, and ip_forward would
    # silently undo theirs.
    "net.ipv4.conf.all.forwarding" = 0;
    "net.ipv6.conf.default.accept_ra" = 0;
    "net.bridge.bridge-nf-call-iptables" = 0;
    "net.bridge.bridge-nf-call-ip6tables" = 0;
    "net.bridge.bridge-nf-call-arptables" = 0;
  } // host.sysctl;
  isolated = host.isolatedCpus != [ ];
  vfio = pkgs.writeShellScript "labsw-vfio" ''
    # Gives each PCI device named to vfio-pci, whatever driver has it, except one that the host runs from.
    set -eu
    for address in "$@"; do
      device=/sys/bus/pci/devices/$address
      [ -d "$device" ] || { echo "labsw: there is no PCI device $address" >&2; exit 1; }
      for disk in /sys/dev/block/*; do
        case $(readlink -f "$disk") in
          "$(readlink -f "$device")"/*) ;;
          *) continue ;;
        esac
        if grep -q " ''${disk##*/} " /proc/self/mountinfo || [ -n "$(ls "$disk/holders" 2>/dev/null)" ]; then
          echo "labsw: $address holds a disk that the host uses (lsblk shows it); it stays the host's" >&2
          exit 1
        fi
      done
      echo vfio-pci > "$device/driver_override"
      if [ -e "$device/driver" ] && [ "$(basename "$(readlink "$device/driver")")" != vfio-pci ]; then
        echo "$address" > "$device/driver/unbind"
      fi
      echo "$address" > /sys/bus/pci/drivers_probe
    done
  '';
in
{
  options.services.labsw.host = {
    hugepages = {
      size = mkOption {
        type = types.enum [ "2M" "1G" ];
        default = "2M";
        description = "The switch's own packet memory (64 MiB) wants pages of 2M; pages of 1G are for guests only.";
      };
      count = mkOption {
        type = types.ints.unsigned;
        default = 64;
        description = "Pages reserved at boot. 32 of 2M are the switch's; guests whose memory is in huge pages need theirs on top.";
      };
      perNode = mkOption {
        type = types.attrsOf types.ints.unsigned;
        default = { };
        example = { "0" = 64; "1" = 2048; };
        description = "Pages for each NUMA node, instead of `count`. Put the switch's on the node of the NICs.";
      };
    };
    iommu = mkOption {
      type = types.nullOr (types.enum [ "intel" "amd" ]);
      default = null;
      description = "Switches the IOMMU on, in pass-through mode for the host's own drivers; needed to hand PCI devices to guests.";
    };
    passthrough = mkOption {
      type = types.listOf (types.strMatching "[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\\.[0-7]");
      default = [ ];
      example = [ "0000:04:00.0" ];
      description = "PCI devices taken from the host for guests (vfio-pci): an NVMe drive, say. libvirt guests with managed='yes' do not need it.";
    };
    nestedVirtualization = mkOption {
      type = types.bool;
      default = false;
      description = "Guests may run guests (Hyper-V in a Windows lab): vmx or svm are offered to them.";
    };
    isolatedCpus = mkOption {
      type = types.listOf types.ints.unsigned;
      default = [ ];
      example = [ 2 3 ];
      description = "CPUs for the switch's workers and for guests pinned there. The scheduler, timers and interrupts leave them alone.";
    };
    housekeepingCpus = mkOption {
      type = types.listOf types.ints.unsigned;
      default = [ ];
      example = [ 0 1 ];
      description = "CPUs for everything else: systemd, sshd, the switch's control thread. A broken lab can't take these.";
    };
    guestCpus = mkOption {
      type = types.listOf types.ints.unsigned;
      default = [ ];
      example = [ 3 4 5 ];
      description = ''
        CPUs that guests of every backend may use (`AllowedCPUs` of their slices), with load balancing between them. Left
        out: all. CPUs in `isolatedCpus` have no load balancing: a guest there needs a CPU for each virtual one.
      '';
    };
    guestMemoryMax = mkOption {
      type = types.nullOr types.str;
      default = "90%";
      example = "48G";
      description = "Most memory of all guests of one kind (`MemoryMax` of labsw-guests.slice, machine.slice and microvm.slice); huge pages do not count. `null`: no limit.";
    };
    kernelModules = mkOption {
      type = types.listOf types.str;
      default = [ "tun" "veth" ] ++ lib.optionals (host.iommu != null) [ "vfio-pci" ];
      defaultText = lib.literalExpression ''[ "tun" "veth" ], and "vfio-pci" with an IOMMU'';
      description = "Modules loaded at boot. A unit with ProtectKernelModules can't have them loaded on demand.";
    };
    sysctl = mkOption {
      type = types.attrsOf (types.nullOr types.ints.unsigned);
      default = { };
      example = { "net.ipv4.conf.all.forwarding" = 1; };
      description = ''
        What labs trip over is said explicitly: no routing between the host's interfaces
        (`net.ipv4.conf.all.forwarding`), bridged frames not handed to iptables (`net.bridge.bridge-nf-call-*`), no router
        advertisements taken by default (`net.ipv6.conf.default.accept_ra`): all 0. Another number here replaces one of
        them, `null` leaves it alone. A module that needs forwarding (`networking.nat`, Docker) switches it on as usual;
        ports A and B stay out of it.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    boot.kernelModules = host.kernelModules;
    boot.kernelParams =
      # The last `hugepagesz` tells what the `hugepages` behind it counts.
      lib.optionals (host.hugepages.perNode != { }) [
        "hugepagesz=${host.hugepages.size}"
        "hugepages=${lib.concatStringsSep "," (lib.mapAttrsToList (node: count: "${node}:${toString count}") host.hugepages.perNode)}"
      ]
      ++ lib.optionals (host.hugepages.perNode == { } && host.hugepages.count > 0) [
        "hugepagesz=${host.hugepages.size}"
        "hugepages=${toString host.hugepages.count}"
      ]
      # AMD's is on by itself wherever the firmware has it on; there is no amd_iommu=on.
      ++ lib.optional (host.iommu == "intel") "intel_iommu=on"
      ++ lib.optional (host.iommu != null) "iommu=pt"
      ++ lib.optionals isolated [
        "isolcpus=managed_irq,domain,${cpuList host.isolatedCpus}"
        "nohz_full=${cpuList host.isolatedCpus}"
        "rcu_nocbs=${cpuList host.isolatedCpus}"
      ]
      ++ lib.optional (isolated && host.housekeepingCpus != [ ]) "irqaffinity=${cpuList host.housekeepingCpus}";

    boot.extraModprobeConfig = lib.mkIf host.nestedVirtualization ''
      options kvm_intel nested=1
      options kvm_amd nested=1
    '';

    systemd.settings.Manager = lib.mkIf (host.housekeepingCpus != [ ]) {
      CPUAffinity = lib.concatMapStringsSep " " toString host.housekeepingCpus;
    };

    # Guests and their helpers get what the host leaves, whoever runs them: our own units, libvirt and systemd-nspawn
    # (machine.slice), microvm.nix (microvm.slice).
    systemd.slices = lib.genAttrs [ "labsw-guests" "machine" "microvm" ] (_: {
      sliceConfig = { CPUWeight = 50; IOWeight = 50; }
        // lib.optionalAttrs (host.guestMemoryMax != null) { MemoryMax = host.guestMemoryMax; }
        // lib.optionalAttrs (host.guestCpus != [ ]) { AllowedCPUs = lib.concatMapStringsSep " " toString host.guestCpus; };
    });

    boot.kernel.sysctl = lib.mapAttrs (_: lib.mkOverride 900) (lib.filterAttrs (_: value: value != null) sysctls);
    # The three for bridges exist only when br_netfilter is loaded, which another program may do at any time.
    services.udev.extraRules = ''
      ACTION=="add", SUBSYSTEM=="module", KERNEL=="br_netfilter", RUN+="${config.systemd.package}/lib/systemd/systemd-sysctl --prefix=/net/bridge"
    '';

    systemd.services.labsw-vfio = lib.mkIf (host.passthrough != [ ]) {
      description = "PCI devices for guests of the lab";
      wantedBy = [ "multi-user.target" ];
      before = [ "libvirtd.service" ];
      after = [ "systemd-modules-load.service" ];
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = lib.escapeShellArgs ([ vfio ] ++ host.passthrough);
      };
    };
  };
}
