# The golden files without nixpkgs.
import ./golden.nix { lib = import ./stub-lib.nix; }
