"""Reads Rust source as far as the checks beside this file need it: text without comments and literals, and where a body
ends. Line numbers stay as they are."""
import re

# A comment, a string or a character; a lifetime is none of them.
TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|\bb?r(?P<hashes>\#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\[^\n]{1,10}?|[^\\'\n])'""",
    re.DOTALL,
)


def without_comments(text):
    """The text with blanks in place of comments, strings and characters."""
    return TOKEN.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


def body_after(text, at):
    """Where the first `{` after `at` stands and where its block ends, unless a `;` outside brackets comes first."""
    depth = 0
    for index in range(at, len(text)):
        letter = text[index]
        if letter in "([":
            depth += 1
        elif letter in ")]":
            depth -= 1
        elif depth == 0 and letter == ";":
            return None
        elif depth == 0 and letter == "{":
            return index, end_of_block(text, index)
    return None


def end_of_block(text, at):
    """Where the block whose `{` stands at `at` ends."""
    depth = 0
    for index in range(at, len(text)):
        if text[index] == "{":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return len(text)
