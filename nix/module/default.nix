# The NixOS module: `services.labsw`.
#
#   settings.nix     what the configuration file says: settings, ports, mirrors
#   hardware.nix     ports A and B: which NIC, its name, its rings; the management interface; the host's stack kept off
#   host.nix         huge pages, IOMMU, nested virtualisation, isolated CPUs, sysctls, devices passed through
#   guests.nix       guests attached to ports, and the glue as `config.lib.labsw`
#   service.nix      the program: file checked at build time, systemd unit, users and groups
#   assertions.nix   mistakes that need to see all of it
#
# Every mistake that can be known when the configuration is evaluated is an assertion whose message says what to write
# instead; what labswd itself checks is left to `labswd --check`, which runs when the configuration file is built.
# Documented in docs/nixos.md.
{
  imports = [
    ./settings.nix
    ./hardware.nix
    ./host.nix
    ./guests.nix
    ./service.nix
    ./assertions.nix
  ];
}
