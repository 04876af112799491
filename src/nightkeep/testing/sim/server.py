"""The simulated provider as a real HTTP server: from a request to an answer, with everything it may meet.

``start_sim`` is the face. What is asked is read by a wire, answered from the script of a ``Section``,
delivered by ``delivery.py`` and booked in ``records.py``; ``/sim/…`` is in ``control.py``.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import msgspec

from nightkeep.core.clock import Clock
from nightkeep.server.http import Exchange, HttpServer, serve
from nightkeep.testing.sim import anthropic, gemini, openai_chat
from nightkeep.testing.sim.accounts import AccountState, label, masked
from nightkeep.testing.sim.asked import Asked, Refusal, Refused
from nightkeep.testing.sim.bedrock import aws_frame, is_signed
from nightkeep.testing.sim.control import answer_control
from nightkeep.testing.sim.delivery import Sleep, deliver_stream, deliver_whole, hang
from nightkeep.testing.sim.embeddings import embed
from nightkeep.testing.sim.faults import Fault, change_body, change_pieces, change_reply, parse_fault, refusal_of
from nightkeep.testing.sim.records import Record, Records
from nightkeep.testing.sim.routes import Route, find_route, key_of
from nightkeep.testing.sim.scenario import Scenario
from nightkeep.testing.sim.script import Context, Played, Tokens, play
from nightkeep.testing.sim.section import Section
from nightkeep.testing.sim.wire import Error, SimWire

__all__ = ["RunningSim", "start_sim"]

_MARK = ("x-nightkeep-simulated", "1")
_JSON = ("content-type", "application/json")
_SSE = ("content-type", "text/event-stream; charset=utf-8")
_HTML = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n"
)
_FAULT_KEY = "sim-fault-"
_decode = msgspec.json.Decoder().decode


class _SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return monotonic()


class _Job:
    """One request on its way through the simulated provider."""

    __slots__ = ("account", "asked", "context", "exchange", "fault", "key", "record", "route", "section", "wire")

    def __init__(self, exchange: Exchange, route: Route, section: Section, record: Record, key: str) -> None:
        self.exchange = exchange
        self.route = route
        self.section = section
        self.record = record
        self.key = key
        self.wire: SimWire = section.wires[route.wire]
        self.account: AccountState | None = None
        self.fault: Fault | None = None
        self.context = Context()
        self.asked = Asked(wire=route.wire, operation=route.operation, model=route.model or "", body={})


class SimServer:
    """What answers; holds the scenario, its sections and the book."""

    def __init__(self, scenario: Scenario, clock: Clock, sleep: Sleep) -> None:
        self.clock = clock
        self.sleep = sleep
        self.use(scenario)

    def use(self, scenario: Scenario) -> None:
        """Begin anew with this scenario: fresh accounts, counters and book."""
        self.scenario = scenario
        self.sections: dict[str, Section] = {}
        self.book = Records()
        self._created = int(self.clock.now().timestamp())
        self._started_s = self.clock.monotonic()

    def section(self, name: str) -> Section:
        """The simulated provider of that name; made at its first request."""
        found = self.sections.get(name)
        if found is None:
            found = self.sections[name] = Section(name, self.scenario)
        return found

    async def handle(self, exchange: Exchange) -> None:
        """Answer one exchange."""
        request = exchange.request
        if request.target.startswith("/sim/") or request.target in ("/", "/health"):
            answer_control(self, exchange)
            return
        route = find_route(request.target, request.query)
        record = self._begin(exchange, route)
        if route is None:
            self._no_route(exchange, record)
            return
        job = _Job(exchange, route, self.section(route.provider), record, key_of(request.headers, request.query))
        try:
            await self._answer(job)
        except Refused as refused:
            self._refuse(job, refused.refusal)
        except asyncio.CancelledError:
            record.outcome = "gone" if record.outcome in ("open", "hung") else record.outcome
            raise
        finally:
            self.book.end(record)

    def _begin(self, exchange: Exchange, route: Route | None) -> Record:
        request = exchange.request
        record = Record(
            number=self.book.total + 1,
            at_s=self._created + self.clock.monotonic() - self._started_s,
            provider=route.provider if route is not None else "",
            method=request.method,
            path=request.target,
        )
        self.book.begin(record, request.headers, request.body)
        return record

    def _no_route(self, exchange: Exchange, record: Record) -> None:
        request = exchange.request
        record.outcome, record.status = "refused", 404
        said = f"Invalid URL ({request.method} {request.target})"
        body = {"error": {"message": said, "type": "invalid_request_error", "param": None, "code": None}}
        exchange.respond(404, [_JSON, _MARK], msgspec.json.encode(body))
        self.book.end(record)

    async def _answer(self, job: _Job) -> None:
        self._identify(job)
        body = self._read(job)
        job.fault = self._fault(job)
        if job.fault is not None and await self._early_fault(job, job.fault):
            return
        refusal = (
            job.account.admit(job.asked.input_tokens, job.asked.model, self.clock.monotonic()) if job.account else None
        )
        if refusal is not None:
            raise Refused(refusal)
        billed = [0.0]
        try:
            if job.asked.operation == "chat":
                await self._chat(job, billed)
            else:
                self._other(job, body)
        finally:
            if job.account is not None:
                job.account.release(int(billed[0]))

    # -- who asks, and what

    def _identify(self, job: _Job) -> None:
        headers = job.exchange.request.headers
        key = job.key
        job.context = Context(account=label(key) if key else "no-key", key=key, tag=headers.get("x-nightkeep-tag", ""))
        job.record.tag = job.context.tag
        job.record.wire = job.route.wire
        job.record.account = job.context.account
        if key.startswith(_FAULT_KEY):
            job.fault = parse_fault(key[len(_FAULT_KEY) :])
            return
        account = job.section.accounts.find(key)
        if account is None:
            raise Refused(Refusal(kind="authentication", key=masked(key)))
        self._check_signature(job, account)
        job.account = account
        job.context = msgspec.structs.replace(job.context, account=account.name)
        job.record.account = account.name
        if account.state != "active":
            refusal = account.admit(0, "", self.clock.monotonic())
            raise Refused(refusal or Refusal(kind="suspended"))

    def _check_signature(self, job: _Job, account: AccountState) -> None:
        """AWS: a request must be signed with the account's secret."""
        request, secret = job.exchange.request, account.spec.secret
        if not job.route.is_aws or secret is None:
            return
        if not is_signed(request.method, request.target, request.query, request.headers, request.body, secret):
            message = (
                "The request signature we calculated does not match the signature you provided. Check your AWS "
                "Secret Access Key and signing method. Consult the service documentation for details."
            )
            raise Refused(Refusal(kind="authentication", message=message, status=403))

    def _read(self, job: _Job) -> dict[str, Any]:
        asked, record, route = job.asked, job.record, job.route
        record.operation = asked.operation
        if route.operation == "models":
            return {}
        if job.exchange.request.method != "POST":
            raise Refused(Refusal(kind="invalid", message=f"Not allowed to {job.exchange.request.method}", status=405))
        try:
            body = _decode(job.exchange.request.body)
        except msgspec.DecodeError as error:
            message = f"We could not parse the JSON body of your request. ({error})"
            raise Refused(Refusal(kind="invalid", message=message)) from error
        if not isinstance(body, dict):
            raise Refused(Refusal(kind="invalid", message="The body of the request must be a JSON object."))
        asked.body = body
        self._name_model(job, body)
        try:
            self._read_by_wire(job, body)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            message = f"A field of the request has the wrong type. ({error})"
            raise Refused(Refusal(kind="invalid", message=message)) from error
        job.section.check_model(asked)
        record.model, record.stream, record.turn = asked.model, asked.stream, asked.turn
        record.text = asked.text[:200]
        return body

    def _name_model(self, job: _Job, body: dict[str, Any]) -> None:
        model = job.route.model or body.get("model")
        if not model or not isinstance(model, str):
            message = (
                "you must provide a model parameter"
                if job.route.wire != "anthropic_messages"
                else "model: Field required"
            )
            raise Refused(Refusal(kind="invalid", message=message, param="model"))
        job.asked.model = job.record.model = model

    def _read_by_wire(self, job: _Job, body: dict[str, Any]) -> None:
        asked, route = job.asked, job.route
        if route.operation == "embed" and route.wire == "openai_chat":
            openai_chat.read_embeddings(body, asked)
            return
        if route.operation in ("embed", "embed_batch"):
            gemini.read_gemini_embedding(body, asked)
            return
        if route.operation == "count_tokens" and "generateContentRequest" in body:
            body = body["generateContentRequest"]
        job.wire.read(body, asked, job.exchange.request.headers, job.section.known)
        _check_limits(asked)
        asked.framing = route.framing
        if route.stream is not None:
            asked.stream = route.stream

    # -- faults

    def _fault(self, job: _Job) -> Fault | None:
        if job.fault is not None:
            return job.fault
        header = job.exchange.request.headers.get("x-sim-fault")
        if header is not None:
            fault = parse_fault(header)
            if fault is None:
                raise Refused(Refusal(kind="invalid", message=f"x-sim-fault: there is no fault {header!r}"))
            return fault
        return job.section.choose_fault(job.asked, job.context)

    async def _early_fault(self, job: _Job, fault: Fault) -> bool:
        """Faults that leave nothing of the answer. Returns whether the request is over."""
        job.record.fault = f"{fault.name}:{fault.param}" if fault.param else fault.name
        refusal = refusal_of(fault, model=job.asked.model, key=masked(job.key))
        if refusal is not None:
            raise Refused(refusal)
        match fault.name:
            case "abort":
                job.record.outcome = "cut"
                job.exchange.abort()
            case "hang":
                job.record.outcome = "hung"
                await hang()
            case "html_502" | "html_200":
                job.record.outcome, job.record.status = "answered", int(fault.name[5:])
                job.exchange.respond(job.record.status, [("content-type", "text/html"), _MARK], _HTML)
            case "empty":
                job.record.outcome, job.record.status = "answered", 200
                job.exchange.respond(200, [_SSE if job.asked.stream else _JSON, _MARK], b"")
            case "stream_error" if not job.asked.stream:
                raise Refused(Refusal(kind="server_error"))
            case _:
                return False
        return True

    def _refuse(self, job: _Job, refusal: Refusal) -> None:
        error: Error = job.wire.error(refusal, job.record.number)
        job.record.outcome, job.record.status = "refused", error.status
        job.record.error = refusal.kind
        left = job.account.headers(job.route.wire, self.clock) if job.account is not None else []
        job.exchange.respond(error.status, [*error.headers, *left, _MARK], error.body)

    # -- answers

    async def _chat(self, job: _Job, billed: list[float]) -> None:
        section, asked, record = job.section, job.asked, job.record
        turn = section.choose_turn(asked, job.context)
        if turn is not None and turn.fault is not None and job.fault is None:
            job.fault = parse_fault(turn.fault)
            if job.fault is not None and await self._early_fault(job, job.fault):
                return
        played = play(turn, asked, section.delivery, number=record.number, created=self._created)
        true_tokens = played.tokens
        if job.fault is not None:
            change_reply(job.fault, played)
            if job.fault.name == "huge_reply":
                true_tokens = played.tokens
        if job.route.wire == "openai_responses":
            section.responses.remember(played, asked)
        if played.first_byte_ms:
            await self.sleep(played.first_byte_ms / 1000)
        record.status = 200
        if asked.stream:
            await self._stream(job, played, true_tokens, billed)
        else:
            await self._whole(job, played, true_tokens, billed)

    async def _whole(self, job: _Job, played: Played, tokens: Tokens, billed: list[float]) -> None:
        body = job.wire.whole(played, job.asked)
        if job.fault is not None:
            body = change_body(job.fault, body)
        billed[0] = tokens.output
        self._charge(job, tokens)
        await deliver_whole(job.exchange, self._headers(job, _JSON), body, job.fault, job.record)

    async def _stream(self, job: _Job, played: Played, tokens: Tokens, billed: list[float]) -> None:
        pieces = job.wire.pieces(played, job.asked)
        if job.fault is not None:
            event = job.wire.error_event(Refusal(kind="overloaded", model=job.asked.model), job.record.number)
            pieces = change_pieces(job.fault, pieces, event)
        kind = _SSE
        if job.asked.framing == "array":
            kind = _JSON
        elif job.asked.framing == "aws":
            kind = ("content-type", "application/vnd.amazon.eventstream")
            for piece in pieces:
                piece.data = aws_frame(piece.data)
        book, record = self.book, job.record
        book.open_streams += 1
        book.most_open_streams = max(book.most_open_streams, book.open_streams)
        try:
            await deliver_stream(
                job.exchange,
                self._headers(job, kind),
                pieces,
                fault=job.fault,
                delay_ms=played.chunk_delay_ms,
                record=record,
                sleep=self.sleep,
                sent=billed,
            )
        finally:
            book.open_streams -= 1
            is_whole = record.outcome == "answered" and record.fault[:12] != "stream_error"
            output = tokens.output if is_whole else min(tokens.output, int(billed[0] + 0.999))
            billed[0] = output
            if is_whole or record.events:
                reasoning = min(tokens.reasoning, output)
                self._charge(job, msgspec.structs.replace(tokens, output=output, reasoning=reasoning))

    def _charge(self, job: _Job, tokens: Tokens) -> None:
        self.book.charge(job.record, tokens, job.section.prices.cost_pico_usd(job.asked.model, tokens))

    def _headers(self, job: _Job, kind: tuple[str, str]) -> list[tuple[str, str]]:
        request_id = "request-id" if job.route.wire == "anthropic_messages" else "x-request-id"
        headers = [kind, _MARK, (request_id, f"req_sim_{job.record.number}")]
        if job.account is not None and not job.account.is_free:
            headers += job.account.headers(job.route.wire, self.clock)
        return headers

    def _other(self, job: _Job, body: dict[str, Any]) -> None:
        """Embeddings, token counts and the list of models."""
        asked, route, record = job.asked, job.route, job.record
        if route.operation == "models":
            names = list(job.section.models) or ["sim-model"]
            is_gemini = route.wire == "gemini"
            answer = gemini.gemini_models(names) if is_gemini else openai_chat.models(names, self._created)
        elif route.operation == "count_tokens":
            count = gemini.gemini_count if route.wire == "gemini" else anthropic.token_count
            answer = count(asked.input_tokens)
        else:
            answer = embed(asked, body, is_batch=route.operation == "embed_batch")
            self._charge(job, Tokens(input=asked.input_tokens, output=0))
        record.outcome, record.status = "answered", 200
        job.exchange.respond(200, self._headers(job, _JSON), answer)


def _check_limits(asked: Asked) -> None:
    """Types that every wire wants alike. Raises TypeError, which becomes the vendor's 400."""
    limit = asked.max_output
    if limit is not None and (type(limit) is not int or limit < 1):
        raise TypeError(f"the output limit must be a positive integer, not {limit!r}")
    if not all(type(sequence) is str for sequence in asked.stop_sequences):
        raise TypeError("stop sequences must be strings")


class RunningSim:
    """A simulated provider that is listening."""

    def __init__(self, server: HttpServer, sim: SimServer, host: str) -> None:
        self._server = server
        self.sim = sim
        self.port = server.port
        self.base_url = f"http://{host}:{server.port}"

    @property
    def log(self) -> list[Record]:
        """The last requests, oldest first."""
        return list(self.sim.book.last)

    @property
    def book(self) -> Records:
        """Counters and bills."""
        return self.sim.book

    def use(self, scenario: Scenario) -> None:
        """Change the scenario; accounts, counters and the book begin anew."""
        self.sim.use(scenario)

    async def close(self, grace_s: float = 0.0) -> None:
        """Stop listening; what is still being answered after ``grace_s`` seconds is cut."""
        await self._server.close(grace_s)


async def start_sim(
    scenario: Scenario | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    clock: Clock | None = None,
    sleep: Sleep = asyncio.sleep,
) -> RunningSim:
    """Start a simulated provider; without a scenario it answers everybody. ``port=0`` takes a free one.

    Raises OSError where the address is taken.
    """
    sim = SimServer(scenario or Scenario(), clock or _SystemClock(), sleep)
    return RunningSim(await serve(sim.handle, host=host, port=port), sim, host)
