#!/usr/bin/env python3
"""Lists files of one crate that import each other in a circle. Fails if there are any.

    tests/check-cycles.py [--edges] [CRATE...]

A file imports another if a path in it (`use`, or in the middle of code) that begins with `crate`, `super` or `self`
leads there. A re-export is followed to the file that defines the name, so a `mod.rs` that only gives names a place is
in no circle. `mod` lines, tests (`#[cfg(test)]`), comments and links in them do not count. With --edges every import is
listed. Without CRATE, every member of the workspace."""
import os
import re
import sys

import rust_text

CRATES = ["switch", "dataplane", "control", "tests", "tests/testkit", "benches"]
IDENTIFIER = r"[A-Za-z_]\w*"
VISIBILITY = re.compile(r"\bpub\s*\([^)]*\)")
USE = re.compile(r"(\bpub\s+)?\buse\s+([^;]+);")
PATH = re.compile(rf"(?<![\w:])((?:crate|super|self)(?:\s*::\s*{IDENTIFIER})+)")
MODULE = re.compile(rf"(?:pub\s+)?mod\s+({IDENTIFIER})\s*(;|\{{)")
TEST = re.compile(r"#\[cfg\((?:all\()?test\b[^\]]*\]")


class Module:
    """One file: its place in the tree of modules, what it re-exports, and the paths it names."""

    def __init__(self, path, name, text):
        self.path, self.name = path, name
        self.exports, self.paths = {}, set()
        for is_public, tree in USE.findall(text):
            for path, alias in leaves(tree):
                self.paths.add(path)
                if is_public:
                    self.exports[alias] = path
        rest = USE.sub(" ", text)
        self.paths.update(tuple(re.split(r"\s*::\s*", path)) for path in PATH.findall(rest))


def leaves(tree):
    """Every path of a `use` tree, with the name it is given."""
    tree = tree.strip()
    head, brace, inner = tree.partition("{")
    if not brace:
        path, _, alias = re.sub(r"\s+", " ", tree).partition(" as ")
        path = tuple(part.strip() for part in path.split("::"))
        yield path, alias.strip() or path[-1]
        return
    front = tuple(part.strip() for part in head.strip().rstrip(":").split("::") if part.strip())
    for piece in pieces(inner[: inner.rindex("}")]):
        for path, alias in leaves(piece):
            yield (front, front[-1]) if path == ("self",) else (front + path, alias)


def pieces(inner):
    """The parts of a list, at the commas outside braces."""
    depth, piece = 0, ""
    for letter in inner:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            yield from [piece] if piece.strip() else []
            piece = ""
        else:
            piece += letter
    yield from [piece] if piece.strip() else []


def without_tests(text):
    """The text without items that only tests have, and whether a whole inner module is one."""
    while found := TEST.search(text):
        body = rust_text.body_after(text, found.end())
        end = body[1] if body else text.find(";", found.end())
        text = text[: found.start()] + text[max(end, found.end()) + 1 :]
    return text


def read_crate(crate):
    """The modules of a crate, by their path from its root."""
    modules = {}

    def read(path, name, directory):
        with open(path, encoding="utf-8") as file:
            text = without_tests(VISIBILITY.sub("pub", rust_text.without_comments(file.read())))
        modules[name] = Module(path, name, text)
        for child, kind in MODULE.findall(text):
            if kind == ";":
                for at in (f"{directory}/{child}.rs", f"{directory}/{child}/mod.rs"):
                    if os.path.exists(at):
                        read(at, name + (child,), f"{directory}/{child}")

    for root in ("lib.rs", "main.rs"):
        if os.path.exists(f"{crate}/src/{root}"):
            read(f"{crate}/src/{root}", (), f"{crate}/src")
            break
    return modules


def resolve(modules, start, path, seen=frozenset()):
    """The module of the crate that a path leads to from `start`, or None where it leaves the crate."""
    at = start
    if path[0] == "crate":
        at, path = (), path[1:]
    elif path[0] in ("super", "self"):
        while path and path[0] in ("super", "self"):
            at, path = (at[:-1] if path[0] == "super" else at), path[1:]
    elif at + path[:1] not in modules:
        return None
    while path:
        if at + path[:1] in modules:
            at, path = at + path[:1], path[1:]
            continue
        export = modules[at].exports.get(path[0])
        if export is None or (at, path[0]) in seen:
            return at
        return resolve(modules, at, export + path[1:], seen | {(at, path[0])}) or None
    return at


def edges_of(modules):
    """What each module imports."""
    edges = {}
    for name, module in modules.items():
        # A re-export gives a name a place; it uses nothing.
        uses = {resolve(modules, name, path) for path in module.paths - set(module.exports.values())}
        edges[name] = {target for target in uses if target is not None and target != name}
    return edges


def circles(edges):
    """Groups of modules that reach each other: Tarjan's strongly connected components of more than one."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def main(arguments):
    crates = [argument for argument in arguments if argument != "--edges"] or CRATES
    failed = False
    for crate in crates:
        modules = read_crate(crate)
        edges = edges_of(modules)
        if "--edges" in arguments:
            for name in sorted(edges):
                for target in sorted(edges[name]):
                    print(f"{modules[name].path} -> {modules[target].path}")
        for group in circles(edges):
            failed = True
            print(f"{crate}: these files import each other in a circle:")
            for name in group:
                for target in sorted(edges[name] & set(group)):
                    print(f"  {modules[name].path} -> {modules[target].path}")
    sys.exit(1 if failed else 0)


main(sys.argv[1:])
