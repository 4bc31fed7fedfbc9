"""Print docs/commands.md, made from the commands' own help. `make docs` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent.parent))

WIDTH = 100
HEAD = """# Commands

Made from the commands' own help by `make docs`; a test compares. Every option is also an environment variable
where its help says so, see [settings.md](settings.md). Results go to stdout, progress and warnings to stderr.
Exit codes: 0 all well, 1 something failed, 2 wrong usage.
"""


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Give a command and everything below it, each with the context that its help needs."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            yield from walk(child, click.Context(child, info_name=name, parent=context, terminal_width=WIDTH))


def page() -> str:
    """Return the whole page as Markdown."""
    from glimpse import main

    root = click.Context(main, info_name="glimpse", terminal_width=WIDTH, **main.context_settings)
    parts = [HEAD]
    for command, context in walk(main, root):
        help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
        parts.append(f"## {context.command_path}\n\n```text\n{help_text}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
