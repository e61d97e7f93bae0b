# A module system in the shape of nixpkgs' `lib.evalModules`, small: options, types, imports, mkIf, mkMerge, priorities,
# submodules with free keys. Positions, documentation and the order of definitions (mkBefore) are left out.
#
# A definition is pushed down to its option without looking at the condition it stands under (as nixpkgs does), so that
# `config = mkIf config.x.enable { … }` does not need itself. At the option conditions are decided, the strongest
# priority wins, and the option's type merges what is left.
{ lib }:

let
  inherit (builtins) all attrNames concatLists concatMap elem filter foldl' head isAttrs isFunction isInt isList isString length mapAttrs;

  property = type: value: isAttrs value && value._type or null == type;
  priorities = { default = 1000; plain = 100; force = 50; option = 1500; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };

  # A definition of a set, as sets without properties: these stand in front of each value.
  pushDown = definition:
    if property "merge" definition then concatMap pushDown definition.contents
    else if property "if" definition then map (mapAttrs (_: content: mkIf definition.condition content)) (pushDown definition.content)
    else if property "override" definition then map (mapAttrs (_: mkOverride definition.priority)) (pushDown definition.content)
    else [ definition ];

  # A definition of a value, as values with their priorities.
  discharge = definition:
    if property "merge" definition then concatMap discharge definition.contents
    else if property "if" definition then (if definition.condition then discharge definition.content else [ ])
    else if property "override" definition then map (d: d // { inherit (definition) priority; }) (discharge definition.content)
    else [{ priority = priorities.plain; value = definition; }];

  strongest = definitions:
    let
      found = concatMap discharge definitions;
      best = foldl' (least: d: if d.priority < least then d.priority else least) 10000 found;
    in
    map (d: d.value) (filter (d: d.priority == best) found);

  show = builtins.concatStringsSep ".";
  mergeType = loc: type: values:
    if all type.check values then type.merge loc values
    else throw "A definition for option `${show loc}' is not of type `${type.name}'";

  valueOf = loc: option: definitions:
    let
      values = strongest (definitions ++ (if option ? default then [ (mkOverride priorities.option option.default) ] else [ ]));
    in
    if values == [ ] then throw "The option `${show loc}' is used but not defined" else mergeType loc (option.type or types.anything) values;

  # The part of a tree of options at `loc` and what is defined there, as values. Free keys go to `free`.
  values = loc: free: options: definitions:
    let
      sets = concatMap pushDown definitions;
      at = name: concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) sets;
      node = name: option:
        if property "option" option then valueOf (loc ++ [ name ]) option (at name)
        else values (loc ++ [ name ]) null option (at name);
      undeclared = filter (name: !(options ? ${name})) (concatMap attrNames sets);
      rest = map (set: removeAttrs set (attrNames options)) sets;
    in
    if undeclared != [ ] && free == null then throw "The option `${show (loc ++ [ (head undeclared) ])}' does not exist"
    else (if undeclared == [ ] then { } else mergeType loc free rest) // mapAttrs node options;

  mergeOptions = a: b: a // mapAttrs (name: option: if a ? ${name} && !(property "option" option) then mergeOptions a.${name} option else option) b;

  evaluate = loc: { modules, specialArgs ? { } }:
    let
      load = module:
        let
          m = if builtins.isPath module || isString module then import module else module;
          called = if isFunction m then m ({ inherit lib config options; } // specialArgs) else m;
          structured = called ? config || called ? options;
          own = removeAttrs called [ "imports" "freeformType" ];
        in
        concatMap load (called.imports or [ ]) ++ [{
          options = called.options or { };
          config = if structured then called.config or { } else own;
          free = called.freeformType or null;
        }];
      loaded = concatMap load modules;
      options = foldl' mergeOptions { } (map (m: m.options) loaded);
      free = foldl' (found: m: if m.free != null then m.free else found) null loaded;
      config = values loc free options (map (m: m.config) loaded);
    in
    { inherit config options; };

  equal = loc: found:
    if length found == 1 || all (value: value == head found) found then head found
    else throw "The option `${show loc}' has conflicting definition values";
  leaf = name: check: { inherit name check; merge = equal; };
  element = loc: type: definition: valueOf loc { inherit type; } [ definition ];

  types = rec {
    str = leaf "string" isString;
    bool = leaf "boolean" builtins.isBool;
    raw = leaf "raw value" (_: true);
    path = leaf "path" (value: builtins.isPath value || isString value || isAttrs value);
    package = leaf "package" isAttrs;
    enum = choices: leaf "one of ${builtins.toJSON choices}" (value: elem value choices);
    strMatching = pattern: leaf "string matching the pattern ${pattern}" (value: isString value && builtins.match pattern value != null);
    lines = str // { merge = _: builtins.concatStringsSep "\n"; };
    ints = {
      positive = leaf "positive integer" (value: isInt value && value > 0);
      unsigned = leaf "unsigned integer" (value: isInt value && value >= 0);
      between = low: high: leaf "integer between ${toString low} and ${toString high}" (value: isInt value && value >= low && value <= high);
    };
    listOf = type: {
      name = "list of ${type.name}";
      check = isList;
      merge = loc: lists: map (element loc type) (concatLists lists);
    };
    nonEmptyListOf = type: listOf type // { check = value: isList value && value != [ ]; };
    attrsOf = type: {
      name = "attribute set of ${type.name}";
      check = isAttrs;
      merge = loc: sets:
        let
          at = name: concatMap (set: if set ? ${name} then [ set.${name} ] else [ ]) (concatMap pushDown sets);
          present = mapAttrs (name: _: strongest (at name)) (foldl' (a: b: a // b) { } (concatMap pushDown sets));
        in
        builtins.listToAttrs (concatMap
          (name: if present.${name} == [ ] then [ ] else [{ inherit name; value = mergeType (loc ++ [ name ]) type present.${name}; }])
          (attrNames present));
    };
    attrs = { name = "attribute set"; check = isAttrs; merge = _: foldl' (a: b: a // b) { }; };
    anything = {
      name = "anything";
      check = _: true;
      merge = loc: found:
        if all isAttrs found then (attrsOf anything).merge loc found
        else if all isList found && length found > 1 then concatLists found
        else if all isFunction found then head found
        else equal loc found;
    };
    nullOr = type: {
      name = "null or ${type.name}";
      check = value: value == null || type.check value;
      merge = loc: found: if all (value: value == null) found then null else mergeType loc type found;
    };
    either = a: b: {
      name = "${a.name} or ${b.name}";
      check = value: a.check value || b.check value;
      merge = loc: found: if all a.check found then a.merge loc found else b.merge loc found;
    };
    oneOf = list: if length list == 1 then head list else either (head list) (oneOf (builtins.tail list));
    submodule = module: {
      name = "submodule";
      check = value: isAttrs value || isFunction value;
      merge = loc: found: (evaluate loc {
        modules = [ module ] ++ map (config: if isFunction config then config else { inherit config; }) found;
        specialArgs.name = builtins.elemAt loc (length loc - 1);
      }).config;
    };
    addCheck = type: check: type // { check = value: type.check value && check value; };
    deferredModule = { name = "module"; check = _: true; merge = _: imports: { inherit imports; }; };
  };

  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkOption = option: { _type = "option"; } // option;
in
{
  inherit types mkIf mkOption mkOverride;
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkDefault = mkOverride priorities.default;
  mkForce = mkOverride priorities.force;
  mkEnableOption = what: mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
  literalExpression = text: text;
  evalModules = evaluate [ ];
}
