#!/usr/bin/env python3
"""Lists functions of Rust files that are longer than 60 lines, from `fn` to the closing brace, and every allowance of
`clippy::too_many_arguments`. Fails if there are any.

    tests/check-functions.py [FILE...]

A nested function counts for itself and for the one around it; a function without a body has no length. Without FILE,
all Rust files that git tracks. Functions that are still to be divided stand in tests/long-functions.txt, each with its
crate; one that is there and short enough, or gone, is a mistake, too."""
import re
import subprocess
import sys

import rust_text

LONGEST = 60
ALLOWED = "tests/long-functions.txt"
FUNCTION = re.compile(r"\bfn\s+(\w+)")


def functions(text):
    """Name, first line and number of lines of each function with a body."""
    for found in FUNCTION.finditer(text):
        body = rust_text.body_after(text, found.end())
        if body is not None:
            first = text.count("\n", 0, found.start()) + 1
            yield found.group(1), first, text.count("\n", found.start(), body[1]) + 1


def main(arguments):
    files = arguments or subprocess.check_output(["git", "ls-files", "*.rs"], text=True).split()
    with open(ALLOWED, encoding="utf-8") as file:
        allowed = set(file.read().split("\n")) - {""}
    found, seen = [], set()
    for name in files:
        with open(name, encoding="utf-8") as file:
            source = file.read()
        for function, line, lines in functions(rust_text.without_comments(source)):
            entry = f"{name.split('/')[0]} {function}"
            if lines > LONGEST and entry in allowed:
                seen.add(entry)
            elif lines > LONGEST:
                found.append(f"{name}:{line}: fn {function} has {lines} lines, at most {LONGEST}")
        for number, line in enumerate(source.split("\n"), 1):
            if "too_many_arguments" in line:
                found.append(f"{name}:{number}: put arguments that belong together into a struct")
    found += [f"{ALLOWED}: {entry} is short enough; take it out" for entry in sorted(allowed - seen) if not arguments]
    print("\n".join(found), end="\n" if found else "")
    sys.exit(1 if found else 0)


main(sys.argv[1:])
