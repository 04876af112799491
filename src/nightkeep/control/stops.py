"""Stops: what one is, what it covers, and the error of whoever meets it. Pure; ``control.switches`` keeps them.

What is covered is decided on the generous side: a name is compared without regard to case and to Unicode's look-alike
forms (NFKC), since a switch that misses is worse than one that takes a neighbour with it. Scopes are compared as they
are everywhere else: exactly, and with everything below them.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase, translate
from typing import Final, Literal, get_args

import msgspec

from nightkeep.core.errors import RequestError, StoppedError
from nightkeep.core.scope import ROOT, parents, parse_scope

__all__ = ["KINDS", "Stop", "StopIndex", "Target", "TargetKind", "clipped", "make_target", "refusal"]

TargetKind = Literal["scope", "model", "account", "tag", "tool"]
KINDS: Final[tuple[TargetKind, ...]] = get_args(TargetKind)

_MOST_NAME: Final = 200
_GLOB: Final = frozenset("*?[")
_STORE_STATUS: Final = 503  # the store's fault, not the caller's: an SDK may try again


class Target(msgspec.Struct, frozen=True):
    """What a switch is for. Made by ``make_target``."""

    kind: TargetKind
    name: str  # a scope's path; else a name, or a glob of names

    def __str__(self) -> str:
        if self.kind == "scope":
            return "everything" if self.name == ROOT else f"scope {self.name}"
        return f"{self.kind} {self.name}"

    @property
    def words(self) -> str:
        """As the command line takes it."""
        return self.name if self.kind == "scope" else f"--{self.kind} {shlex.quote(self.name)}"


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A stop in force."""

    id: str
    kind: TargetKind
    name: str
    why: str
    by: str
    since: datetime
    drain: bool = False  # calls in flight may end as they will; else they are cut with the typed error
    source: str  # command, api, file, signal or rule:NAME; store: switches cannot be read

    @property
    def target(self) -> Target:
        """What is stopped."""
        return Target(self.kind, self.name)

    @property
    def family(self) -> str:
        """Who holds it: one target can be held by a person, a signal, the file and each rule, and each lets go of its
        own only."""
        return "person" if self.source in ("command", "api") else self.source


def make_target(kind: str, name: str) -> Target:
    """Check what is to be stopped and bring it into the form in which it is kept.

    Raises:
        RequestError: there is no such kind of target, or the name is not possible.
    """
    if kind not in KINDS:
        raise RequestError(f"{kind[:40]!r} cannot be stopped; these can: {', '.join(KINDS)}")
    if len(name) > _MOST_NAME:
        raise RequestError(f"the name of a {kind} has at most {_MOST_NAME} characters, not {len(name)}")
    if kind == "scope":
        if not name.strip():
            raise RequestError("name a scope, such as acme/triage; / is everything")
        return Target("scope", parse_scope(name))
    form = _form(name)
    if not form or not form.isprintable():
        raise RequestError(f"{name[:40]!r} is no name of a {kind}")
    return Target(kind, form)


def clipped(text: str, most: int) -> str:
    """One printable line of at most ``most`` characters: what people send goes to logs, terminals and headers."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text[: most * 4]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def refusal(stop: Stop) -> StoppedError:
    """What is raised where a stop is met: who stopped what, why, since when, and the way out."""
    facts = {"stop": str(stop.target), "why": stop.why, "by": stop.by, "since": stop.since.isoformat()}
    because = f": {stop.why}" if stop.why else ""
    since = f"{stop.since:%Y-%m-%d %H:%M:%S} UTC"
    if stop.source == "store":
        return StoppedError(
            f"nothing is served since {since}{because}. Switches that somebody has thrown cannot be seen, so all of "
            "them count as thrown; serving goes on by itself as soon as they can be read",
            rule="store",
            status=_STORE_STATUS,
            **facts,
        )
    return StoppedError(
        f"{stop.target} was stopped by {stop.by} at {since}{because}; resume with: nightkeep resume "
        f"{stop.target.words}",
        rule=stop.source if stop.source.startswith("rule:") else f"switch.{stop.kind}",
        **facts,
    )


class StopIndex:
    """Stops, arranged so that a call finds the one that holds for it. Immutable."""

    def __init__(self, stops: Iterable[Stop]) -> None:
        """Of several stops of one target, one that cuts is found before one that drains, and an older one first."""
        self.stops = tuple(sorted(stops, key=lambda stop: (stop.drain, stop.since, stop.id)))
        self._scopes: dict[str, Stop] = {}
        self._exact: dict[tuple[str, str], Stop] = {}
        self._globs: dict[str, list[Stop]] = {}
        for stop in self.stops:
            if stop.kind == "scope":
                self._scopes.setdefault(stop.name, stop)
                continue
            self._exact.setdefault((stop.kind, stop.name), stop)
            if not _GLOB.isdisjoint(stop.name):
                self._globs.setdefault(stop.kind, []).append(stop)
        self._any_glob = {
            kind: re.compile("|".join(translate(stop.name) for stop in globs)) for kind, globs in self._globs.items()
        }

    def find(
        self, scope: str, tag: str | None, models: tuple[str, ...], account: str | None, tool: str | None
    ) -> Stop | None:
        """The stop that holds for an action: one that cuts before one that drains. None: it may go on."""
        first: Stop | None = None
        for stop in self._holding(scope, tag, models, account, tool):
            if not stop.drain:
                return stop
            first = first or stop
        return first

    def _holding(
        self, scope: str, tag: str | None, models: tuple[str, ...], account: str | None, tool: str | None
    ) -> Iterator[Stop]:
        """The widest scope's first."""
        if self._scopes:
            yield from filter(None, map(self._scopes.get, reversed(parents(scope.strip("/") or ROOT))))
        if not self._exact:
            return
        for model in models:
            name = _form(model)
            yield from self._of_name("model", name)
            yield from self._of_name("model", name.partition("/")[2])
        for kind, given in (("tag", tag), ("account", account), ("tool", tool)):
            if given:
                yield from self._of_name(kind, _form(given))

    def _of_name(self, kind: str, name: str) -> Iterator[Stop]:
        if not name:
            return
        exact = self._exact.get((kind, name))
        if exact is not None:
            yield exact
        any_glob = self._any_glob.get(kind)
        if any_glob is not None and any_glob.match(name):
            yield from (stop for stop in self._globs[kind] if fnmatchcase(name, stop.name))


def _form(name: str) -> str:
    """The form in which names are compared."""
    if name.isascii():
        return name.strip().lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
