#!/usr/bin/env python3
"""Lists lines of more than 120 columns: comments of Rust files, and prose of Markdown files. Tables, blocks of code, and
lines that are one long word are excepted. Fails if there are any.

    tests/check-columns.py [--fix] [FILE...]

With --fix what does not fit moves to the next line of the same paragraph, or to a new one. Without FILE, all files that
git tracks."""
import re
import subprocess
import sys

COLUMNS = 120
# What is in front of the text of a line, and the text.
COMMENT = re.compile(r"^(\s*//[/!]? ?)(.*)$")
ITEM = re.compile(r"^(\s*)([-*] |\d+\. )")
FENCE = re.compile(r"^\s*```")


def split(line, rust):
    """The front and the text of a line; no front where the line is none of prose."""
    if rust:
        found = COMMENT.match(line)
        return found.groups() if found else (None, line)
    return "", line


def kind(text):
    """Whether a text begins something of its own: a table, a heading, a quotation, an item, or nothing at all."""
    if not text.strip() or re.match(r"^\s*(\||#|>|<)", text):
        return "apart"
    return "item" if ITEM.match(text) else "text"


def long_lines(lines, rust):
    """Numbers of the lines that are too long and could be shorter."""
    code = False
    for number, line in enumerate(lines):
        front, text = split(line, rust)
        if front is None:
            code = False
            continue
        if FENCE.match(text):
            code = not code
            continue
        if len(line) > COLUMNS and not code and kind(text) != "apart" and cut(front, text):
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


def fix(lines, rust):
    """Moves what does not fit, line by line."""
    lines = list(lines)
    while (number := next(long_lines(lines, rust), None)) is not None:
        front, text = split(lines[number], rust)
        head, rest = cut(front, text)
        item = ITEM.match(text)
        indent = " " * (item.end() if item else len(text) - len(text.lstrip()))
        lines[number] = front + head
        following = lines[number + 1] if number + 1 < len(lines) else ""
        next_front, next_text = split(following, rust)
        joins = next_front == front and kind(next_text) == "text" and not FENCE.match(next_text)
        joins = joins and not next_text.startswith("    ")
        if joins:
            lines[number + 1] = front + indent + rest + " " + next_text.strip()
        else:
            lines.insert(number + 1, front + indent + rest)
    return lines


def main(arguments):
    mend = "--fix" in arguments
    files = [argument for argument in arguments if argument != "--fix"]
    files = files or subprocess.check_output(["git", "ls-files", "*.rs", "*.md"], text=True).split()
    found = 0
    for name in files:
        with open(name, encoding="utf-8") as file:
            lines = file.read().split("\n")
        rust = name.endswith(".rs")
        if mend:
            mended = fix(lines, rust)
            if mended != lines:
                with open(name, "w", encoding="utf-8") as file:
                    file.write("\n".join(mended))
            lines = mended
        for number in long_lines(lines, rust):
            print(f"{name}:{number + 1}: {len(lines[number])} columns, at most {COLUMNS}")
            found += 1
    sys.exit(1 if found else 0)


main(sys.argv[1:])
