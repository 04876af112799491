"""Ask a provider, as cheaply as it can be asked, whether an account works, and say what is wrong if not (W6.2).

The request is the list of models, which costs nothing; ``deep`` sends one completion of one token. What the answer
means is ``nightkeep.models.classify``'s; the words for people are here. No key is in any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.core.errors import NightkeepError
from nightkeep.core.outcome import Outcome, Verdict
from nightkeep.models.classify import classify, classify_fault
from nightkeep.models.credentials import KeyFault, diagnose_key
from nightkeep.models.transport import Origin, TransportError, Upstream
from nightkeep.models.upstream import UpstreamAccount, UpstreamRequest
from nightkeep.models.wire.base import Operation, Wire

__all__ = ["Probe", "ProbeResult", "Sender", "explain"]

_FIRST_BYTE_S: Final = 20.0
_IDLE_S: Final = 10.0
_MOST_BYTES: Final = 8 << 20  # OpenRouter's list has about 1 MB

_WORDS: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.SUCCESS: "works",
        Outcome.RATE_LIMITED: "works, and is rate limited just now",
        Outcome.QUOTA_EXHAUSTED: "the key is good and there is no quota or credit left",
        Outcome.SUSPENDED: "the provider has suspended this account",
        Outcome.AUTH_FAILED: "the provider refuses the key",
        Outcome.INVALID_REQUEST: "the provider refuses the request",
        Outcome.NOT_FOUND: "the provider does not know the model, or the address",
        Outcome.OVERLOADED: "the provider is overloaded",
        Outcome.UNAVAILABLE: "the provider cannot be reached",
        Outcome.TIMED_OUT: "the provider did not answer in time",
        Outcome.CUT_STREAM: "the provider cut the connection",
        Outcome.REFUSED: "the provider refused the content",
        Outcome.CANCELLED: "the probe was cancelled",
    }
)
_WAYS_OUT: Final[Mapping[Outcome, str]] = MappingProxyType(
    {
        Outcome.QUOTA_EXHAUSTED: "wait for the reset, or add credit at the provider",
        Outcome.SUSPENDED: "ask the provider; then: nightkeep accounts enable NAME",
        Outcome.AUTH_FAILED: "make a new key at the provider, or correct the one that is stored",
        Outcome.NOT_FOUND: "check base_url, region, project and the models' names",
        Outcome.INVALID_REQUEST: "check base_url, region and project",
        Outcome.UNAVAILABLE: "check base_url, the network, and the provider's status page",
        Outcome.TIMED_OUT: "check base_url, the network, and the provider's status page",
    }
)


class Sender(Protocol):
    """What sends a request; ``transport.HttpClient`` does."""

    async def send(
        self, origin: Origin, method: str, target: str, headers: bytes, body: bytes, *, first_byte_s: float
    ) -> Upstream:
        """Send and wait for the head of the answer. Raises TransportError."""
        ...


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe of one account found."""

    account: str
    provider: str
    fingerprint: str  # empty without a key
    is_ok: bool
    finding: str  # ok | a KeyFault | an Outcome | models_missing | unusable | not_checked
    message: str
    fix: str = ""
    status: int = 0
    provider_message: str = ""
    shape: str = ""  # what the key's looks alone say, when they are not right
    missing_models: tuple[str, ...] = ()
    took_ms: float = 0.0
    was_deep: bool = False


class Probe:
    """Probes accounts, one at a time."""

    def __init__(self, sender: Sender, clock: Clock) -> None:
        self._sender = sender
        self._clock = clock

    async def run(self, account: UpstreamAccount, models: tuple[str, ...] = (), *, deep: bool = False) -> ProbeResult:
        """Probe an account; never raises for what is wrong with it.

        Args:
            models: the provider's own names of those that the configuration asks of it; each is looked for.
            deep: also send a completion of one token for the first of them; it costs what that costs.
        """
        began = self._clock.monotonic()
        result = await self._run(account, models, deep=deep)
        return msgspec.structs.replace(result, took_ms=round((self._clock.monotonic() - began) * 1000, 1))

    async def _run(self, account: UpstreamAccount, models: tuple[str, ...], *, deep: bool) -> ProbeResult:
        shape = diagnose_key(account.spec, account.access.secret)
        if shape.fault is KeyFault.MISSING:
            return _result(account, False, shape.fault, shape.message)
        try:
            verdict, body = await self._ask(account, models, deep=deep)
        except NightkeepError as error:
            return _result(account, False, "unusable", error.message, fix=str(error.data.get("fix", "")))
        if verdict is None:
            return _result(
                account, True, "not_checked", "has no list of models; use --deep with a model", shape=shape.message
            )
        if verdict.outcome is not Outcome.SUCCESS:
            return explain(account, verdict, shape.message)
        missing = () if deep else _missing(body, models)
        if missing:
            return _result(
                account,
                False,
                "models_missing",
                f"works, and does not offer {', '.join(missing[:5])}",
                fix="check the models' names, or what this account may use",
                missing_models=missing,
            )
        return _result(account, True, "ok", "works", status=verdict.status, was_deep=deep)

    async def _ask(
        self, account: UpstreamAccount, models: tuple[str, ...], *, deep: bool
    ) -> tuple[Verdict | None, bytes]:
        now = self._clock.now()
        if account.needs_token(now):
            verdict, body = await self._send(account, account.token_request(now))
            if not account.accept_token(verdict.status, body, now):
                is_key = verdict.status in (400, 401, 403)
                return msgspec.structs.replace(verdict, outcome=Outcome.AUTH_FAILED) if is_key else verdict, body
        request = _completion(account, models, now) if deep and models else account.list_request(now)
        return await self._send(account, request) if request is not None else (None, b"")

    async def _send(self, account: UpstreamAccount, request: UpstreamRequest) -> tuple[Verdict, bytes]:
        origin, method, target, headers, content, _ = request
        try:
            answer = await self._sender.send(origin, method, target, headers, content, first_byte_s=_FIRST_BYTE_S)
            body = await answer.read(_IDLE_S, _MOST_BYTES)
        except TransportError as error:
            return classify_fault(error.fault, error.detail), b""
        verdict = classify(account.spec.endpoints[0].wire, answer.status, answer.headers, body, self._clock.now())
        if verdict.outcome is Outcome.SUCCESS and not _is_json_object(body):
            verdict = Verdict(outcome=Outcome.NOT_FOUND, status=answer.status, message="the answer is no JSON")
        return verdict, body


def explain(account: UpstreamAccount, verdict: Verdict, shape: str = "") -> ProbeResult:
    """Say in plain words what an answer means for an account."""
    outcome = verdict.outcome
    message = _WORDS[outcome]
    if outcome is Outcome.AUTH_FAILED and shape:
        message += f": {shape}"
    return _result(
        account,
        outcome is Outcome.RATE_LIMITED,
        outcome,
        message,
        fix=_WAYS_OUT.get(outcome, "").replace("NAME", account.access.name),
        status=verdict.status,
        provider_message=verdict.message,
        shape=shape,
    )


def _result(account: UpstreamAccount, is_ok: bool, finding: str, message: str, **more: Any) -> ProbeResult:
    secret = account.access.secret
    return ProbeResult(
        account=account.access.name,
        provider=account.spec.id,
        fingerprint=secret.fingerprint if secret else "",
        is_ok=is_ok,
        finding=str(finding),
        message=message,
        **more,
    )


def _completion(account: UpstreamAccount, models: tuple[str, ...], now: Any) -> UpstreamRequest:
    model = models[0]
    wire = account.spec.wire_for(model, Operation.CHAT, account.spec.endpoints[0].wire) or account.wires[0]
    said: dict[str, Any] = {"model": model}
    if wire is Wire.GEMINI:
        said = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 1}}
    elif wire is Wire.OPENAI_RESPONSES:
        said |= {"input": "hi", "max_output_tokens": 16}  # the least that it takes
    else:
        limit = "max_tokens" if wire is Wire.ANTHROPIC_MESSAGES or account.spec.is_local else "max_completion_tokens"
        said |= {"messages": [{"role": "user", "content": "hi"}], limit: 1}
    body, _ = account.adapt(wire, msgspec.json.encode(said))
    return account.request(wire, Operation.CHAT, model, body, client_headers={}, now=now)


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict | list)
    except msgspec.MsgspecError:
        return False


class _Listed(msgspec.Struct):
    id: str = ""  # OpenAI, Anthropic
    name: str = ""  # Gemini: models/NAME
    model_id: str = msgspec.field(name="modelId", default="")  # Bedrock


class _Listing(msgspec.Struct):
    data: list[_Listed] = []
    models: list[_Listed] = []
    summaries: list[_Listed] = msgspec.field(name="modelSummaries", default_factory=list)
    has_more: bool = False


def _missing(body: bytes, models: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a list does not have; none where the list is not whole or not understood."""
    try:
        listing = msgspec.json.decode(body, type=_Listing)
    except msgspec.MsgspecError:
        return ()
    entries = [*listing.data, *listing.models, *listing.summaries]
    known = {each.id or each.model_id or each.name.removeprefix("models/") for each in entries} - {""}
    if listing.has_more or not known:
        return ()
    return tuple(model for model in models if not _is_listed(model, known))


def _is_listed(model: str, known: set[str]) -> bool:
    """By its name, by the name without a region (Bedrock), or as the short form of a dated one."""
    if model in known or model.partition(".")[2] in known:
        return True
    return any(each.startswith((f"{model}-", f"{model}:", f"{model}@")) for each in known)
