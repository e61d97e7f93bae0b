# As much of nixpkgs' `lib` as the guest glue uses, for machines that have Nix and not nixpkgs.
rec {
  inherit (builtins) concatLists concatMap concatStringsSep;
  mkDefault = content: content;
  optionalString = condition: text: if condition then text else "";
  optionals = condition: list: if condition then list else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  concatMapStrings = f: list: concatStringsSep "" (map f list);
  imap0 = f: list: builtins.genList (n: f n (builtins.elemAt list n)) (builtins.length list);
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  versionAtLeast = version: least: builtins.compareVersions version least >= 0;
  escapeXML = builtins.replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
}
