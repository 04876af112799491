"""The ``nightkeep`` command: the table of nouns, the help page, and how errors end.

Each noun is a module of its own beside this one and exposes ``command``; it is imported when it is
called, so that ``nightkeep --help`` loads click and nothing else (under 0.15 s, design.md §9).

Exit codes: 0 done, 1 the thing asked for failed, 2 usage, 3 the configuration is invalid, 4 nothing there.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from typing import NamedTuple, NoReturn

import click

from nightkeep import __version__
from nightkeep.core.errors import ConfigError, NightkeepError

__all__ = ["COMMANDS", "EXIT_CONFIG", "EXIT_FAILED", "EXIT_NOTHING", "EXIT_USAGE", "Entry", "main", "program"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFIG = 3
EXIT_NOTHING = 4


class Entry(NamedTuple):
    """Where a noun lives, and what the help page says of it."""

    module: str
    section: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("nightkeep.cli.up", "Run", "Start the gateway, on port 7777 if you do not say otherwise"),
    "sim": Entry("nightkeep.cli.sim", "Run", "Start the simulated provider: four wires, any fault"),
    "calls": Entry("nightkeep.cli.calls", "Look", "List, show and follow the calls that were made"),
    "accounts": Entry("nightkeep.cli.accounts", "Look", "Show accounts and their state; test their keys"),
    "route": Entry("nightkeep.cli.route", "Look", "Explain what would serve a request, and why the others lost"),
    "watch": Entry("nightkeep.cli.watch", "Look", "Show the rules that watch spending, and what they see now"),
    "alerts": Entry("nightkeep.cli.alerts", "Look", "List and acknowledge alerts; test the channels they go to"),
    "limits": Entry("nightkeep.cli.limits", "Look", "Show what is used of the limits on scopes, and who waits"),
    "budgets": Entry("nightkeep.cli.budgets", "Money", "Show what is spent, held and left; quote a call"),
    "spend": Entry("nightkeep.cli.spend", "Money", "Show what was spent, by whom; settle it with the bill"),
    "prices": Entry("nightkeep.cli.prices", "Money", "Show what models cost, since when, and who says so"),
    "estimate": Entry("nightkeep.cli.estimate", "Money", "Say what a batch or a schedule would cost"),
    "ledger": Entry("nightkeep.cli.ledger", "Money", "Prove that the ledger is what it must be"),
    "keys": Entry("nightkeep.cli.keys", "Change", "Make, list, rotate and revoke the keys that clients present"),
    "operator": Entry("nightkeep.cli.operator", "Change", "Check and replace the token that operators show"),
    "stop": Entry("nightkeep.cli.stop", "Change", "Stop everything, or a scope, model, account, tag or tool, at once"),
    "resume": Entry("nightkeep.cli.resume", "Change", "Let go on what was stopped"),
    "config": Entry("nightkeep.cli.config", "Change", "Begin, check and show nightkeep.toml"),
    "drill": Entry("nightkeep.cli.drill", "Rehearse", "Rehearse an incident: inject faults, assert what happens"),
}
"""Every noun, in the order of the help page."""

_EPILOG = (
    ("nightkeep up", "with no keys, a simulated provider answers"),
    ("nightkeep accounts test", "what is wrong with which key"),
    ("nightkeep calls tail", "watch what the agents ask, and who serves it"),
    ("nightkeep drill run all", "find out tonight's surprises this afternoon"),
)


class LazyGroup(click.Group):
    """A group that imports a noun's module when it is called, and prints its help from the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the nouns, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a noun's module and return its ``command``; None where there is no such noun."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            if near:
                raise click.UsageError(f"No such command '{cmd_name}'. Did you mean '{near[0]}'?", ctx)
            return None
        try:
            module = importlib.import_module(entry.module)
        except ModuleNotFoundError as error:
            if error.name != entry.module:
                raise
            raise click.UsageError(f"'{cmd_name}' is not part of this installation", ctx) from error
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the nouns by section, one line each."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            sections.setdefault(entry.section, []).append((name, entry.summary))
        width = max(len(name) for name in COMMANDS)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), summary) for name, summary in rows], col_max=width)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the nouns before the options: they are what a reader came for."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        with formatter.section("Examples"):
            formatter.write_dl(list(_EPILOG))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, "-V", "--version", prog_name="nightkeep", message="%(prog)s %(version)s")
def program() -> None:
    """Keeps AI agents running through the night.

    One address in front of every model: account pools, failover and a truthful record.
    Point OPENAI_BASE_URL, ANTHROPIC_BASE_URL or GOOGLE_GEMINI_BASE_URL at it; change nothing else.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit; an expected error is one message and a code, never a traceback."""
    try:
        program(arguments, prog_name="nightkeep")
    except NightkeepError as error:
        _report(error)
        sys.exit(EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED)
    sys.exit(0)


def _report(error: NightkeepError) -> None:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    fix = error.data.get("fix")
    if fix and str(fix) not in error.message:
        click.echo(f"{click.style('fix:', bold=True)} {fix}", err=True)
