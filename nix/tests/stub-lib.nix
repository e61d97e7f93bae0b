# As much of nixpkgs' `lib` as labsw's Nix files use, for machines that have Nix and not nixpkgs (CI is one). What is
# missing here shows as an error; whether the rest is the same as nixpkgs' is compared where nixpkgs is to be had
# (tests/tests/nix/ evaluates everything with both).
let
  lib = rec {
    inherit (builtins) attrNames attrValues concatLists concatMap concatStringsSep elem filter foldl' functionArgs head
      isFunction listToAttrs mapAttrs replaceStrings;

    # Lists.
    any = f: list: builtins.any f list;
    count = f: list: builtins.length (filter f list);
    imap0 = f: list: builtins.genList (n: f n (builtins.elemAt list n)) (builtins.length list);
    imap1 = f: imap0 (n: f (n + 1));
    intersectLists = a: filter (x: elem x a);
    subtractLists = a: filter (x: !(elem x a));
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    toList = value: if builtins.isList value then value else [ value ];
    unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];

    # Attribute sets.
    filterAttrs = f: set: listToAttrs (concatMap (name: optional (f name set.${name}) (nameValuePair name set.${name})) (attrNames set));
    filterAttrsRecursive = f: set:
      mapAttrs (_: value: if builtins.isAttrs value then filterAttrsRecursive f value else value) (filterAttrs f set);
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    nameValuePair = name: value: { inherit name value; };
    optionalAttrs = condition: set: if condition then set else { };

    # Text.
    concatMapStrings = f: list: concatStringsSep "" (map f list);
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    escapeShellArgs = concatMapStringsSep " " (arg: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString arg)}'");
    escapeXML = replaceStrings [ "\"" "'" "<" ">" "&" ] [ "&quot;" "&apos;" "&lt;" "&gt;" "&amp;" ];
    fixedWidthString = width: filler: text:
      if builtins.stringLength text >= width then text else fixedWidthString width filler (filler + text);
    # Of the characters that a port's name may have.
    strings.charToInt = char:
      let
        from = first: chars: listToAttrs (imap0 (n: c: nameValuePair c (first + n)) (stringToCharacters chars));
      in
      (from 45 "-./0123456789" // from 65 "ABCDEFGHIJKLMNOPQRSTUVWXYZ" // { _ = 95; } // from 97 "abcdefghijklmnopqrstuvwxyz").${char};
    trivial.toHexString = number:
      let
        digit = n: builtins.substring n 1 "0123456789ABCDEF";
      in
      if number < 16 then digit number else trivial.toHexString (number / 16) + digit (builtins.bitAnd number 15);
    boolToString = value: if value then "true" else "false";
    hasInfix = infix: text: builtins.length (builtins.split (replaceStrings [ "." "*" "?" "+" "(" ")" "[" "]" "{" "}" "|" "^" "$" ] [ "\\." "\\*" "\\?" "\\+" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" "\\|" "\\^" "\\$" ] infix) text) > 1;
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let
        at = builtins.stringLength text - builtins.stringLength suffix;
      in
      at >= 0 && builtins.substring at (-1) text == suffix;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text else text;
    toInt = builtins.fromJSON;
    toLower = replaceStrings (stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (stringToCharacters "abcdefghijklmnopqrstuvwxyz");
    optionalString = condition: text: if condition then text else "";
    splitString = separator: text: filter builtins.isString (builtins.split separator text);
    toUpper = replaceStrings (stringToCharacters "abcdefghijklmnopqrstuvwxyz") (stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    stringToCharacters = text: builtins.genList (n: builtins.substring n 1 text) (builtins.stringLength text);
    versionAtLeast = version: least: builtins.compareVersions version least >= 0;
    getExe' = package: name: "${package}/bin/${name}";

    # For packages.
    importTOML = path: builtins.fromTOML (builtins.readFile path);
    fileset = { toSource = { root, ... }: root; unions = list: list; };
    licenses = { mit = "mit"; asl20 = "asl20"; };
  } // import ./stub-modules.nix { inherit lib; };
in
lib
