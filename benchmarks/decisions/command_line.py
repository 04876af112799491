"""CPU time of a process that defines eight commands and prints ``--help``, less that of an empty process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

NOUNS = ("up", "sim", "calls", "accounts", "route", "config", "drill", "runs")
PROGRAMS = {
    "nothing": "pass",
    "argparse": f"""
import argparse
parser = argparse.ArgumentParser()
verbs = parser.add_subparsers()
for noun in {NOUNS}:
    verbs.add_parser(noun, help='do it').add_argument('--json', action='store_true')
parser.parse_args(['--help'])""",
    "click": f"""
import click
@click.group()
def program(): pass
for noun in {NOUNS}:
    @program.command(noun, help='do it')
    @click.option('--json', is_flag=True)
    def verb(json): pass
program(['--help'])""",
    "typer": f"""
import typer
program = typer.Typer()
for noun in {NOUNS}:
    @program.command(noun, help='do it')
    def verb(json: bool = False): pass
program(['--help'])""",
    "cyclopts": f"""
import cyclopts
program = cyclopts.App()
for noun in {NOUNS}:
    @program.command(name=noun, help='do it')
    def verb(json: bool = False): pass
program(['--help'])""",
}


def cpu_ms(program: str) -> float:
    """The best of seven, user and system."""
    best = 1e9
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best * 1e3


if __name__ == "__main__":
    figures = {name: cpu_ms(program) for name, program in PROGRAMS.items()}
    empty = figures.pop("nothing")
    print(json.dumps({name: value - empty for name, value in figures.items()}))
