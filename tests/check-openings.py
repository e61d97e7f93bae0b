#!/usr/bin/env python3
"""Lists comments that open with What, Whether, Of or As: they make a reader look at the code to learn the subject. A
comment names the thing instead ("The features offered", "True if the ring is started"). Comments of documentation in
Rust files count, without tests, benches and fuzz targets. Fails if there are any.

    tests/check-openings.py [FILE...]

Without FILE, all files that git tracks."""
import re
import subprocess
import sys

OPENING = re.compile(r"^\s*//[/!] (What|Whether|Of|As) ")
EXCEPTED = re.compile(r"(^|/)(tests?|benches|fuzz)/")


def opens_a_comment(lines, number):
    """True if the line is not within a paragraph of the comment before it."""
    return number == 0 or not re.match(r"^\s*//[/!] \S", lines[number - 1])


def main(files):
    files = files or subprocess.check_output(["git", "ls-files", "*.rs"], text=True).split()
    found = 0
    for name in files:
        if EXCEPTED.search(name):
            continue
        with open(name, encoding="utf-8") as file:
            lines = file.read().split("\n")
        for number, line in enumerate(lines):
            if OPENING.match(line) and opens_a_comment(lines, number):
                print(f"{name}:{number + 1}: {line.strip()}")
                found += 1
    sys.exit(1 if found else 0)


main(sys.argv[1:])
