#!/usr/bin/env python3
"""Lists lines of more than 120 columns: comments of source files (Rust, Python, shell, Nix, TOML, YAML, the Makefile),
documentation strings of Python, and prose of Markdown files. Tables, blocks of code, and lines that are one long word
are excepted. Fails if there are any.

    tests/check-columns.py [--fix] [FILE...]

With --fix what does not fit moves to the next line of the same paragraph, or to a new one. Without FILE, all files that
git tracks."""
import re
import subprocess
import sys

COLUMNS = 120
FILES = ["*.rs", "*.md", "*.py", "*.sh", "*.nix", "*.toml", "*.yml", "*.yaml", "Makefile", ".ci/run"]
# What is in front of the text of a line, and the text.
SLASHES = re.compile(r"^(\s*//[/!]? ?)(.*)$")
HASH = re.compile(r"^(\s*#(?!!) ?)(.*)$")
QUOTES = '"""'
ITEM = re.compile(r"^(\s*)([-*] |\d+\. )")
FENCE = re.compile(r"^\s*```")


def split(lines, name):
    """The front and the text of each line; no front where the line is none of prose."""
    comment = SLASHES if name.endswith(".rs") else HASH
    inside = name.endswith(".md")
    for line in lines:
        opens = name.endswith(".py") and (inside or line.lstrip().startswith(QUOTES))
        if inside or opens:
            yield "", line
        else:
            found = comment.match(line)
            yield found.groups() if found else (None, line)
        if opens and line.count(QUOTES) % 2 == 1:
            inside = not inside


def kind(text):
    """Whether a text begins something of its own: a table, a heading, a quotation, an item, or nothing at all."""
    if not text.strip() or re.match(r"^\s*(\||#|>|<)", text):
        return "apart"
    return "item" if ITEM.match(text) else "text"


def long_lines(lines, name):
    """Numbers of the lines that are too long and could be shorter."""
    code = False
    for number, (front, text) in enumerate(split(lines, name)):
        if front is None:
            code = False
            continue
        if FENCE.match(text):
            code = not code
            continue
        if len(lines[number]) > COLUMNS and not code and kind(text) != "apart" and cut(front, text):
            yield number


def cut(front, text):
    """The text that fits, and the rest; None where no blank is early enough. A blank inside `code` is no place."""
    indent = len(text) - len(text.lstrip())
    item = ITEM.match(text)
    least = item.end() if item else indent
    for at in range(min(COLUMNS - len(front), len(text) - 1), least, -1):
        head, rest = text[:at], text[at:]
        if text[at] == " " and head.count("`") % 2 == 0 and not re.match(r"^ (\||#|>|<|[-*+] |\d+\. )", rest):
            return head.rstrip(), rest.strip()
    return None


def fix(lines, name):
    """Moves what does not fit, line by line."""
    lines = list(lines)
    while (number := next(long_lines(lines, name), None)) is not None:
        parts = list(split(lines, name))
        front, text = parts[number]
        head, rest = cut(front, text)
        item = ITEM.match(text)
        indent = " " * (item.end() if item else len(text) - len(text.lstrip()))
        lines[number] = front + head
        next_front, next_text = parts[number + 1] if number + 1 < len(lines) else (None, "")
        joins = next_front == front and kind(next_text) == "text" and not FENCE.match(next_text)
        # A row of a list in columns begins something of its own.
        joins = joins and not re.match(r"^    |^\s*\S+ {2,}", next_text)
        if joins:
            lines[number + 1] = front + indent + rest + " " + next_text.strip()
        else:
            lines.insert(number + 1, front + indent + rest)
    return lines


def main(arguments):
    mend = "--fix" in arguments
    files = [argument for argument in arguments if argument != "--fix"]
    files = files or subprocess.check_output(["git", "ls-files", *FILES], text=True).split()
    found = 0
    for name in files:
        with open(name, encoding="utf-8") as file:
            lines = file.read().split("\n")
        if mend:
            mended = fix(lines, name)
            if mended != lines:
                with open(name, "w", encoding="utf-8") as file:
                    file.write("\n".join(mended))
            lines = mended
        for number in long_lines(lines, name):
            print(f"{name}:{number + 1}: {len(lines[number])} columns, at most {COLUMNS}")
            found += 1
    sys.exit(1 if found else 0)


main(sys.argv[1:])
