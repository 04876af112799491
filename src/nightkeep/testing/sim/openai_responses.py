"""OpenAI Responses from the vendor's side, as its API reference and SDK types have it (2026).

A conversation may continue by ``previous_response_id``: the turn and the open tool calls of the last
replies are remembered (``Responses.remember``), bounded.
"""

from __future__ import annotations

import base64
import zlib
from collections import OrderedDict
from typing import Any

import msgspec

from nightkeep.testing.sim.asked import Asked, Refusal, count_tokens
from nightkeep.testing.sim.openai_chat import openai_error
from nightkeep.testing.sim.script import Call, Played
from nightkeep.testing.sim.wire import Error, Piece, invalid, js, words

__all__ = ["OpenAIResponses"]

_KNOWN = words(
    "model input instructions background context_management conversation include max_output_tokens "
    "max_tool_calls metadata parallel_tool_calls previous_response_id prompt prompt_cache_key "
    "prompt_cache_retention reasoning safety_identifier service_tier store stream stream_options temperature "
    "text tool_choice tools top_logprobs top_p truncation user client_metadata"
)
_ROLES = ("user", "assistant", "system", "developer")
_CALLS = frozenset(("function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"))
_ANSWERS = frozenset(name + "_output" for name in _CALLS)
_REMEMBERED = 2000


class OpenAIResponses:
    """``POST /v1/responses``."""

    name = "openai_responses"

    def __init__(self) -> None:
        self._past: OrderedDict[str, tuple[int, list[str]]] = OrderedDict()

    def read(self, body: dict[str, Any], asked: Asked, headers: dict[str, str], known: frozenset[str]) -> None:
        """See ``SimWire.read``."""
        if "*" not in known:
            for name in body:
                if name not in _KNOWN and name not in known:
                    invalid(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        open_calls = self._resume(body.get("previous_response_id"), asked)
        _read_input(body.get("input"), asked, open_calls)
        _read_tools(body, asked)
        asked.stream = body.get("stream") is True
        asked.max_output = body.get("max_output_tokens")
        if asked.max_output is not None and asked.max_output < 16:
            invalid(
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "
                f"{asked.max_output} instead.",
                "max_output_tokens",
                "integer_below_min_value",
            )
        wanted = (body.get("text") or {}).get("format") or {}
        asked.schema = wanted.get("schema", {}) if wanted.get("type", "text") != "text" else None
        asked.is_thinking = body.get("reasoning") is not None
        asked.input_tokens = count_tokens(body.get("input"), body.get("instructions"), body.get("tools"))

    def _resume(self, previous: Any, asked: Asked) -> list[str]:
        if previous is None:
            return []
        if previous not in self._past:
            message = f"Previous response with id '{previous}' not found."
            invalid(message, "previous_response_id", "previous_response_not_found")
        turn, open_calls = self._past[previous]
        asked.turn = turn + 1
        return list(open_calls)

    def remember(self, played: Played, asked: Asked) -> None:
        """Keep what a following request by ``previous_response_id`` needs."""
        calls = [_call_id(played, index) for index in range(len(played.calls))]
        self._past[f"resp_sim{played.number}"] = (asked.turn, calls)
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)

    def whole(self, played: Played, asked: Asked) -> bytes:
        """See ``SimWire.whole``."""
        return (_response(played, asked, _status(played), _items(played)) + "\n").encode()

    def pieces(self, played: Played, asked: Asked) -> list[Piece]:
        """See ``SimWire.pieces``."""
        stream = _Stream()
        begun = _response(played, asked, "in_progress", [])
        stream.add("response.created", f'"response":{begun}', "preamble")
        stream.add("response.in_progress", f'"response":{begun}', "preamble")
        each = played.chunk_chars / 4
        items = _items(played)
        at = 0
        if played.reasoning:
            _stream_reasoning(stream, at, played, items[at], each)
            at += 1
        if _has_message(played):
            _stream_message(stream, at, played, items[at], each)
            at += 1
        for index, call in enumerate(played.calls):
            _stream_call(stream, at, played, index, call, items[at])
            at += 1
        status = _status(played)
        stream.add(f"response.{status}", f'"response":{_response(played, asked, status, items)}', "done")
        return stream.pieces

    def error(self, refusal: Refusal, number: int) -> Error:
        """See ``SimWire.error``."""
        return openai_error(refusal, number)

    def error_event(self, refusal: Refusal, number: int) -> bytes:
        """See ``SimWire.error_event``."""
        error = msgspec.json.decode(openai_error(refusal, number).body)["error"]
        code = error["code"] or error["type"]
        said = {"type": "error", "sequence_number": 99999, "code": code, "message": error["message"], "param": None}
        return f"event: error\ndata: {js(said)}\n\n".encode()


class _Stream:
    """Events numbered in order."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def add(self, kind: str, rest: str, role: str = "content", tokens: float = 0.0) -> None:
        number = len(self.pieces)
        data = f'event: {kind}\ndata: {{"type":"{kind}","sequence_number":{number},{rest}}}\n\n'
        self.pieces.append(Piece(data.encode(), role, tokens))


def _stream_reasoning(stream: _Stream, at: int, played: Played, item: str, each: float) -> None:
    where = f'"item_id":"rs_sim{played.number}","output_index":{at},"summary_index":0'
    opened = f'{{"id":"rs_sim{played.number}","type":"reasoning","summary":[]}}'
    stream.add("response.output_item.added", f'"output_index":{at},"item":{opened}', "preamble")
    part = "response.reasoning_summary_part"
    stream.add(f"{part}.added", f'{where},"part":{{"type":"summary_text","text":""}}', "preamble")
    for text in played.reasoning_chunks:
        stream.add("response.reasoning_summary_text.delta", f'{where},"delta":{js(text)}', "content", each)
    whole = js(played.reasoning)
    stream.add("response.reasoning_summary_text.done", f'{where},"text":{whole}', "end")
    stream.add(f"{part}.done", f'{where},"part":{{"type":"summary_text","text":{whole}}}', "end")
    stream.add("response.output_item.done", f'"output_index":{at},"item":{item}', "end")


def _stream_message(stream: _Stream, at: int, played: Played, item: str, each: float) -> None:
    name = f"msg_sim{played.number}"
    where = f'"item_id":"{name}","output_index":{at},"content_index":0'
    opened = f'{{"id":"{name}","type":"message","status":"in_progress","content":[],"role":"assistant"}}'
    stream.add("response.output_item.added", f'"output_index":{at},"item":{opened}', "preamble")
    kind = "refusal" if played.refusal else "output_text"
    stream.add("response.content_part.added", f'{where},"part":{_part(kind, "")}', "preamble")
    for text in [played.refusal] if played.refusal else played.chunks:
        logprobs = "" if played.refusal else ',"logprobs":[]'
        stream.add(f"response.{kind}.delta", f'{where},"delta":{js(text)}{logprobs}', "content", each)
    whole = played.refusal or played.text
    ended = f'"refusal":{js(whole)}' if played.refusal else f'"text":{js(whole)},"logprobs":[]'
    stream.add(f"response.{kind}.done", f"{where},{ended}", "end")
    stream.add("response.content_part.done", f'{where},"part":{_part(kind, whole)}', "end")
    stream.add("response.output_item.done", f'"output_index":{at},"item":{item}', "end")


def _stream_call(stream: _Stream, at: int, played: Played, index: int, call: Call, item: str) -> None:
    opened = _call_item(played, index, call, "", "in_progress")
    stream.add("response.output_item.added", f'"output_index":{at},"item":{opened}', "content", 4)
    kind = "response.custom_tool_call_input" if call.is_custom else "response.function_call_arguments"
    where = f'"item_id":"{_item_id(played, index, call)}","output_index":{at}'
    text = call.arguments_json
    for start in range(0, len(text), played.chunk_chars):
        part = text[start : start + played.chunk_chars]
        stream.add(f"{kind}.delta", f'{where},"delta":{js(part)}', "content", len(part) / 4)
    field = "input" if call.is_custom else "arguments"
    stream.add(f"{kind}.done", f'{where},"{field}":{js(text)}', "end")
    stream.add("response.output_item.done", f'"output_index":{at},"item":{item}', "end")


def _has_message(played: Played) -> bool:
    return bool(played.text or played.refusal or not played.calls)


def _status(played: Played) -> str:
    return "incomplete" if played.stop in ("length", "content_filter") else "completed"


def _part(kind: str, text: str) -> str:
    if kind == "refusal":
        return f'{{"type":"refusal","refusal":{js(text)}}}'
    return f'{{"type":"output_text","annotations":[],"logprobs":[],"text":{js(text)}}}'


def _items(played: Played) -> list[str]:
    number = played.number
    items = []
    if played.reasoning:
        secret = base64.b64encode(b"sim-reasoning-%08x" % zlib.crc32(played.reasoning.encode())).decode()
        summary = f'[{{"type":"summary_text","text":{js(played.reasoning)}}}]'
        items.append(f'{{"id":"rs_sim{number}","type":"reasoning","encrypted_content":"{secret}","summary":{summary}}}')
    if _has_message(played):
        part = _part("refusal" if played.refusal else "output_text", played.refusal or played.text)
        items.append(
            f'{{"id":"msg_sim{number}","type":"message","status":"{_status(played)}","content":[{part}],'
            f'"role":"assistant"}}'
        )
    for index, call in enumerate(played.calls):
        items.append(_call_item(played, index, call, call.arguments_json, "completed"))
    return items


def _call_id(played: Played, index: int) -> str:
    return f"call_sim{played.number}_{index}"


def _item_id(played: Played, index: int, call: Call) -> str:
    return f"{'ctc' if call.is_custom else 'fc'}_sim{played.number}_{index}"


def _call_item(played: Played, index: int, call: Call, text: str, status: str) -> str:
    kind, field = ("custom_tool_call", "input") if call.is_custom else ("function_call", "arguments")
    return (
        f'{{"id":"{_item_id(played, index, call)}","type":"{kind}","status":"{status}","{field}":{js(text)},'
        f'"call_id":"{_call_id(played, index)}","name":{js(call.name)}}}'
    )


def _response(played: Played, asked: Asked, status: str, items: list[str]) -> str:
    body = asked.body
    usage, details = "null", "null"
    if items and played.has_usage:
        tokens = played.tokens
        usage = (
            f'{{"input_tokens":{tokens.input},"input_tokens_details":{{"cached_tokens":{tokens.cached}}},'
            f'"output_tokens":{tokens.output},"output_tokens_details":{{"reasoning_tokens":{tokens.reasoning}}},'
            f'"total_tokens":{tokens.input + tokens.output}}}'
        )
    if status == "incomplete":
        reason = "max_output_tokens" if played.stop == "length" else "content_filter"
        details = f'{{"reason":"{reason}"}}'
    return (
        f'{{"id":"resp_sim{played.number}","object":"response","created_at":{played.created},"status":"{status}",'
        f'"background":false,"error":null,"incomplete_details":{details},"instructions":{js(body.get("instructions"))},'
        f'"max_output_tokens":{js(asked.max_output)},"model":{js(played.model)},"output":[{",".join(items)}],'
        f'"parallel_tool_calls":{js(body.get("parallel_tool_calls", True))},'
        f'"previous_response_id":{js(body.get("previous_response_id"))},"reasoning":{{"effort":null,"summary":null}},'
        f'"store":{js(body.get("store", True))},"temperature":{js(body.get("temperature", 1.0))},'
        f'"text":{js(body.get("text") or _TEXT)},"tool_choice":{js(body.get("tool_choice") or "auto")},'
        f'"tools":{js(body.get("tools") or [])},"top_p":{js(body.get("top_p", 1.0))},"truncation":"disabled",'
        f'"usage":{usage},"user":null,"metadata":{js(body.get("metadata") or {})}}}'
    )


_TEXT = {"format": {"type": "text"}, "verbosity": "medium"}


def _read_input(given: Any, asked: Asked, open_calls: list[str]) -> None:
    if not given:
        invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    if isinstance(given, str):
        asked.text = given
        _check_answered(open_calls)
        return
    if not isinstance(given, list):
        where = "Invalid type for 'input': expected one of an array of objects or string."
        invalid(where, "input", "invalid_type")
    is_models_turn = False
    for index, item in enumerate(given):
        kind = item.get("type", "message") if isinstance(item, dict) else None
        is_models = kind in _CALLS or kind == "reasoning" or (kind == "message" and item.get("role") == "assistant")
        if is_models and not is_models_turn:
            asked.turn += 1
        is_models_turn = is_models
        asked.has_tool_result = kind in _ANSWERS
        if kind == "message":
            _read_message(item, index, asked)
        elif kind in _CALLS:
            open_calls.append(item.get("call_id", ""))
        elif kind in _ANSWERS:
            _answer(item, open_calls)
    _check_answered(open_calls)


def _read_message(item: dict[str, Any], index: int, asked: Asked) -> None:
    role = item.get("role")
    if role not in _ROLES:
        said = "'assistant', 'system', 'developer', and 'user'"
        invalid(f"Invalid value: {role!r}. Supported values are: {said}.", f"input[{index}]", "invalid_value")
    content = item.get("content")
    if content is None:
        where = f"input[{index}].content"
        invalid(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if isinstance(content, list):
        _check_parts(content, role, index)
    if role == "user":
        if isinstance(content, str):
            asked.text = content
            return
        texts = [part["text"] for part in content if part["type"] == "input_text"]
        asked.text = " ".join(texts) or asked.text


def _check_parts(content: list[Any], role: Any, index: int) -> None:
    allowed = ("output_text", "refusal") if role == "assistant" else ("input_text", "input_image", "input_file")
    for at, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") not in allowed:
            kind = part.get("type") if isinstance(part, dict) else None
            said = " and ".join([f"'{name}'" for name in allowed])
            where = f"input[{index}].content[{at}]"
            invalid(f"Invalid value: {kind!r}. Supported values are: {said}.", where, "invalid_value")


def _answer(item: dict[str, Any], open_calls: list[str]) -> None:
    call_id = item.get("call_id", "")
    if call_id not in open_calls:
        invalid(f"No tool call found for function call output with call_id {call_id}.", "input")
    open_calls.remove(call_id)


def _check_answered(open_calls: list[str]) -> None:
    if open_calls:
        invalid(f"No tool output found for function call {open_calls[0]}.", "input")


def _read_tools(body: dict[str, Any], asked: Asked) -> None:
    found: dict[str, Any] = {}
    custom = set()
    for index, tool in enumerate(body.get("tools") or ()):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind is None:
            where = f"tools[{index}].type"
            invalid(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        if kind == "function" and not tool.get("name"):
            where = f"tools[{index}].name"
            invalid(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        name = tool.get("name") or kind
        found[name] = tool.get("parameters") or {}
        if kind == "custom":
            custom.add(name)
    asked.tools = found
    asked.custom_tools = frozenset(custom)
    choice = body.get("tool_choice")
    if choice == "required":
        asked.forced_tool = "*"
    elif isinstance(choice, dict):
        asked.forced_tool = choice.get("name", "*")
