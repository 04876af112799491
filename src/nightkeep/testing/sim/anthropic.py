"""Anthropic Messages from the vendor's side, version 2023-06-01, as its API reference has it (2026).

Signatures of thinking blocks are checked when they come back, as the vendor does: a translation that
loses or changes one is refused here too.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

from nightkeep.testing.sim.asked import Asked, Refusal, count_tokens
from nightkeep.testing.sim.script import Call, Played
from nightkeep.testing.sim.wire import Error, Piece, invalid, js, words

__all__ = ["AnthropicMessages", "signature", "token_count"]

_KNOWN = words(
    "model messages max_tokens system metadata stop_sequences stream temperature top_k top_p tools "
    "tool_choice thinking service_tier container mcp_servers context_management output_config output_format "
    "cache_control inference_geo speed anthropic_version anthropic_beta"
)
_STOPS = {
    "end": "end_turn",
    "length": "max_tokens",
    "tool_use": "tool_use",
    "refusal": "refusal",
    "content_filter": "refusal",
    "stop_sequence": "stop_sequence",
}
_BLOCKS = words(
    "text image document tool_use tool_result thinking redacted_thinking search_result server_tool_use "
    "web_search_tool_result web_fetch_tool_result code_execution_tool_result mcp_tool_use mcp_tool_result "
    "bash_code_execution_tool_result text_editor_code_execution_tool_result tool_search_tool_result "
    "tool_reference container_upload"
)
_ERRORS: dict[str, tuple[int, str, str]] = {
    "invalid": (400, "invalid_request_error", "The request is invalid."),
    "authentication": (401, "authentication_error", "invalid x-api-key"),
    "suspended": (403, "permission_error", "This organization has been disabled."),
    "not_found": (404, "not_found_error", "model: {model}"),
    "rate_limited": (
        429,
        "rate_limit_error",
        (
            "This request would exceed your organization's rate limit of {limit} {metric} per minute. For details, "
            "refer to: https://docs.claude.com/en/api/rate-limits. You can see the response headers for current "
            "usage. Please reduce the prompt length or the maximum tokens requested, or try again later."
        ),
    ),
    "quota": (
        429,
        "rate_limit_error",
        "This request would exceed your account's usage limit of {limit} {metric}. Please try again later.",
    ),
    "no_credit": (
        400,
        "invalid_request_error",
        (
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or "
            "purchase credits."
        ),
    ),
    "too_long": (400, "invalid_request_error", "prompt is too long: more than {limit} tokens > {limit} maximum"),
    "content": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "server_error": (500, "api_error", "Internal server error"),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "unavailable": (503, "api_error", "Service unavailable"),
    "timeout": (504, "timeout_error", "Request timed out"),
}

_NOT_STOPPED = 'null,"stop_sequence":null'


def signature(thinking: str) -> str:
    """The signature of a thinking block; whoever changes the text has to lose it."""
    return base64.b64encode(b"sim-signature-%08x" % zlib.crc32(thinking.encode())).decode()


def token_count(tokens: int) -> bytes:
    """The reply of ``POST /v1/messages/count_tokens``."""
    return b'{"input_tokens":%d}' % tokens


class AnthropicMessages:
    """``POST /v1/messages``."""

    name = "anthropic_messages"

    def read(self, body: dict[str, Any], asked: Asked, headers: dict[str, str], known: frozenset[str]) -> None:
        """See ``SimWire.read``."""
        if "anthropic-version" not in headers and "anthropic_version" not in body:
            invalid("anthropic-version: header is required")
        if "*" not in known:
            for name in body:
                if name not in _KNOWN and name not in known:
                    invalid(f"{name}: Extra inputs are not permitted")
        if asked.operation == "chat":
            _check_max_tokens(body.get("max_tokens"))
        _check_sampling(body)
        system = body.get("system")
        if system is not None and not isinstance(system, str | list):
            invalid("system: Input should be a valid string")
        _read_messages(body.get("messages"), asked)
        _read_tools(body, asked)
        asked.stream = body.get("stream") is True
        asked.max_output = body.get("max_tokens")
        asked.stop_sequences = tuple(body.get("stop_sequences") or ())
        asked.schema = _schema(body)
        asked.is_thinking = (body.get("thinking") or {}).get("type") == "enabled"
        asked.input_tokens = count_tokens(body.get("messages"), system, body.get("tools"))

    def whole(self, played: Played, asked: Asked) -> bytes:
        """See ``SimWire.whole``."""
        blocks = []
        if played.reasoning:
            text = js(played.reasoning)
            blocks.append(f'{{"type":"thinking","thinking":{text},"signature":"{signature(played.reasoning)}"}}')
        text = played.text or played.refusal
        if text or not played.calls:
            blocks.append(f'{{"type":"text","text":{js(text)}}}')
        blocks += [
            f"{_tool_use(played, index, call)[:-3]}{js(call.arguments)}}}" for index, call in enumerate(played.calls)
        ]
        stop = f'"{_STOPS[played.stop]}","stop_sequence":{js(played.stop_sequence)}'
        return f"{_message(played, ','.join(blocks), stop, played.tokens.output)}\n".encode()

    def pieces(self, played: Played, asked: Asked) -> list[Piece]:
        """See ``SimWire.pieces``."""
        start = f'{{"type":"message_start","message":{_message(played, "", _NOT_STOPPED, 1)}}}'
        out = [_event("message_start", start, "preamble")]
        blocks: list[tuple[str, list[tuple[str, float]]]] = []
        each = played.chunk_chars / 4
        if played.reasoning:
            parts = [(f'{{"type":"thinking_delta","thinking":{js(t)}}}', each) for t in played.reasoning_chunks]
            parts.append((f'{{"type":"signature_delta","signature":"{signature(played.reasoning)}"}}', 0.0))
            blocks.append(('{"type":"thinking","thinking":"","signature":""}', parts))
        chunks = played.chunks or ([played.refusal] if played.refusal else [])
        if chunks:
            parts = [(f'{{"type":"text_delta","text":{js(text)}}}', each) for text in chunks]
            blocks.append(('{"type":"text","text":""}', parts))
        for index, call in enumerate(played.calls):
            texts = ["", *_parts(call.arguments_json, played.chunk_chars)]
            parts = [(f'{{"type":"input_json_delta","partial_json":{js(t)}}}', len(t) / 4) for t in texts]
            blocks.append((_tool_use(played, index, call), parts))
        for index, (opening, deltas) in enumerate(blocks):
            out += _block(index, opening, deltas)
        stop = f'"stop_reason":"{_STOPS[played.stop]}","stop_sequence":{js(played.stop_sequence)}'
        usage = f',"usage":{{"output_tokens":{played.tokens.output}}}' if played.has_usage else ""
        out.append(_event("message_delta", f'{{"type":"message_delta","delta":{{{stop}}}{usage}}}', "end"))
        out.append(_event("message_stop", '{"type":"message_stop"}', "done"))
        return out

    def error(self, refusal: Refusal, number: int) -> Error:
        """See ``SimWire.error``."""
        status, _, _ = _ERRORS[refusal.kind]
        headers = [("content-type", "application/json"), ("request-id", f"req_sim_{number}")]
        if refusal.retry_after_s is not None:
            headers.append(("retry-after", str(max(0, round(refusal.retry_after_s)))))
        return Error(refusal.status or status, headers, _error_body(refusal, number).encode())

    def error_event(self, refusal: Refusal, number: int) -> bytes:
        """See ``SimWire.error_event``."""
        return f"event: error\ndata: {_error_body(refusal, number)}\n\n".encode()


def _error_body(refusal: Refusal, number: int) -> str:
    _, kind, sentence = _ERRORS[refusal.kind]
    said = refusal.message or sentence.format(model=refusal.model, limit=refusal.limit, metric=refusal.metric)
    return f'{{"type":"error","error":{{"type":"{kind}","message":{js(said)}}},"request_id":"req_sim_{number}"}}'


def _event(name: str, data: str, role: str, tokens: float = 0.0) -> Piece:
    return Piece(f"event: {name}\ndata: {data}\n\n".encode(), role, tokens)


def _parts(text: str, chars: int) -> list[str]:
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def _tool_use(played: Played, index: int, call: Call) -> str:
    return f'{{"type":"tool_use","id":"toolu_sim{played.number}_{index}","name":{js(call.name)},"input":{{}}}}'


def _block(index: int, opening: str, deltas: list[tuple[str, float]]) -> list[Piece]:
    opened = f'{{"type":"content_block_start","index":{index},"content_block":{opening}}}'
    out = [_event("content_block_start", opened, "preamble" if index == 0 else "content")]
    if index == 0:
        out.append(_event("ping", '{"type": "ping"}', "preamble"))
    before = f'event: content_block_delta\ndata: {{"type":"content_block_delta","index":{index},"delta":'
    out += [Piece(f"{before}{delta}}}\n\n".encode(), "content", tokens) for delta, tokens in deltas]
    out.append(_event("content_block_stop", f'{{"type":"content_block_stop","index":{index}}}', "end"))
    return out


def _message(played: Played, content: str, stop: str, output: int) -> str:
    tokens = played.tokens
    usage = (
        f'{{"input_tokens":{max(0, tokens.input - tokens.cached - tokens.cache_write)},'
        f'"cache_creation_input_tokens":{tokens.cache_write},"cache_read_input_tokens":{tokens.cached},'
        f'"cache_creation":{{"ephemeral_5m_input_tokens":{tokens.cache_write},"ephemeral_1h_input_tokens":0}},'
        f'"output_tokens":{output},"service_tier":"standard"}}'
        if played.has_usage
        else "null"
    )
    return (
        f'{{"id":"msg_sim{played.number}","type":"message","role":"assistant","model":{js(played.model)},'
        f'"content":[{content}],"stop_reason":{stop},"usage":{usage}}}'
    )


def _check_max_tokens(most: Any) -> None:
    if most is None:
        invalid("max_tokens: Field required")
    if not isinstance(most, int) or isinstance(most, bool):
        invalid("max_tokens: Input should be a valid integer")
    if most < 1:
        invalid("max_tokens: Input should be greater than or equal to 1")


def _check_sampling(body: dict[str, Any]) -> None:
    most, temperature = body.get("max_tokens"), body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        invalid("temperature: range: 0..1")
    thinking = body.get("thinking") or {}
    if thinking.get("type") != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if budget is None:
        invalid("thinking.enabled.budget_tokens: Field required")
    if budget < 1024:
        invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if most is not None and most <= budget:
        invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if temperature is not None and temperature != 1:
        invalid("`temperature` may only be set to 1 when thinking is enabled.")


def _read_messages(messages: Any, asked: Asked) -> None:
    if messages is None:
        invalid("messages: Field required")
    if not isinstance(messages, list):
        invalid("messages: Input should be a valid list")
    if not messages:
        invalid("messages: at least one message is required")
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        _check_role(role, index)
        blocks = _blocks(content, index)
        _answer_calls(blocks if role == "user" else [], open_calls, index)
        open_calls = []
        asked.has_tool_result = False
        if role == "assistant":
            if index == 0 or messages[index - 1].get("role") != "assistant":
                asked.turn += 1
            open_calls = [block.get("id", "") for block in blocks if block["type"] == "tool_use"]
            _check_signatures(blocks, index)
        else:
            asked.has_tool_result = any(block["type"] == "tool_result" for block in blocks)
            texts = [block["text"] for block in blocks if block["type"] == "text"]
            if isinstance(content, str) or texts:
                asked.text = content if isinstance(content, str) else " ".join(texts)
    if open_calls:
        _unanswered(open_calls, len(messages) - 1)


def _check_role(role: Any, index: int) -> None:
    if role == "system":
        invalid(
            'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            'not "system" as an input message role.'
        )
    if role not in ("user", "assistant"):
        invalid(f"messages.{index}.role: Input should be 'user' or 'assistant'")


def _blocks(content: Any, index: int) -> list[dict[str, Any]]:
    if isinstance(content, str):
        if not content:
            invalid(f"messages.{index}: all messages must have non-empty content")
        return []
    if not isinstance(content, list):
        invalid(f"messages.{index}.content: Field required")
    for at, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _BLOCKS:
            invalid(f"messages.{index}.content.{at}: Input tag '{kind}' found using 'type' does not match any tags")
        if kind == "text":
            if "text" not in block:
                invalid(f"messages.{index}.content.{at}.text.text: Field required")
            if not block["text"]:
                invalid("messages: text content blocks must be non-empty")
    return content


def _answer_calls(blocks: list[dict[str, Any]], open_calls: list[str], index: int) -> None:
    answered = [block.get("tool_use_id", "") for block in blocks if block["type"] == "tool_result"]
    for at, call_id in enumerate(answered):
        if call_id not in open_calls:
            invalid(
                f"messages.{index}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
    missing = [call_id for call_id in open_calls if call_id not in answered]
    if missing:
        _unanswered(missing, index - 1)


def _unanswered(missing: list[str], index: int) -> None:
    invalid(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _check_signatures(blocks: list[dict[str, Any]], index: int) -> None:
    for at, block in enumerate(blocks):
        if block["type"] != "thinking":
            continue
        if "signature" not in block:
            invalid(f"messages.{index}.content.{at}.thinking.signature: Field required")
        if block["signature"] != signature(block.get("thinking", "")):
            invalid(f"messages.{index}.content.{at}: Invalid `signature` in `thinking` block")


def _read_tools(body: dict[str, Any], asked: Asked) -> None:
    tools = body.get("tools") or ()
    found: dict[str, Any] = {}
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or (not tool.get("name") and not tool.get("type")):
            invalid(f"tools.{index}.custom.name: Field required")
        if tool.get("type", "custom") == "custom":
            if not isinstance(tool.get("input_schema"), dict):
                invalid(f"tools.{index}.custom.input_schema: Field required")
            if tool["input_schema"].get("type") != "object":
                invalid(f"tools.{index}.custom.input_schema.type: Field required")
        found[tool.get("name") or tool["type"]] = tool.get("input_schema") or {}
    asked.tools = found
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not isinstance(choice, dict) or choice.get("type") not in ("auto", "any", "tool", "none"):
        invalid("tool_choice: Input tag found using 'type' does not match any of: 'any', 'auto', 'none', 'tool'")
    if not found and choice["type"] in ("any", "tool"):
        invalid("tool_choice: may only be specified while providing tools.")
    if choice["type"] in ("any", "tool"):
        asked.forced_tool = choice.get("name", "*")


def _schema(body: dict[str, Any]) -> Any:
    wanted = (body.get("output_config") or {}).get("format") or body.get("output_format")
    return wanted.get("schema", {}) if isinstance(wanted, dict) else None
