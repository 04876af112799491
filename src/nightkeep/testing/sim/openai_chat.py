"""OpenAI Chat Completions from the vendor's side, as its API reference and SDK types have it (2026).

Errors are shared with ``openai_responses.py`` (``openai_error``); sentences are the vendor's own, so
that code which reads them is tested.
"""

from __future__ import annotations

from typing import Any

from nightkeep.testing.sim.asked import Asked, Refusal, count_tokens
from nightkeep.testing.sim.script import Played
from nightkeep.testing.sim.wire import Error, Piece, invalid, js, words

__all__ = ["OpenAIChat", "embeddings", "models", "openai_error", "read_embeddings"]

_KNOWN = words(
    "model messages audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens "
    "max_tokens metadata modalities n parallel_tool_calls prediction presence_penalty prompt_cache_key "
    "prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store "
    "stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options"
)
_ROLES = frozenset(("system", "assistant", "user", "function", "tool", "developer"))
_ROLES_SAID = "'system', 'assistant', 'user', 'function', 'tool', and 'developer'"
_REASONING = ("o1", "o3", "o4", "gpt-5", "gpt-6")
_PLAIN = ("gpt-3", "gpt-4")
_STOPS = {"end": "stop", "stop_sequence": "stop", "length": "length", "tool_use": "tool_calls", "refusal": "stop"}
_ERRORS: dict[str, tuple[int, str, str | None, str]] = {
    # kind: status, type, code, sentence
    "invalid": (400, "invalid_request_error", None, "The request is invalid."),
    "authentication": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    "suspended": (
        403,
        "invalid_request_error",
        "account_deactivated",
        "The OpenAI account associated with this API key has been deactivated. Please check your email for details.",
    ),
    "not_found": (
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    "rate_limited": (
        429,
        "{metric}",
        "rate_limit_exceeded",
        (
            "Rate limit reached for {model} in organization org-sim on {metric} per min. Limit: {limit} / min. "
            "Please try again in {retry}. Visit https://platform.openai.com/account/rate-limits to learn more."
        ),
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        (
            "You exceeded your current quota, please check your plan and billing details. For more information on this "
            "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
        ),
    ),
    "too_long": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        (
            "This model's maximum context length is {limit} tokens. However, your messages resulted in more. "
            "Please reduce the length of the messages."
        ),
    ),
    "content": (
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
    "server_error": (
        500,
        "server_error",
        None,
        "The server had an error while processing your request. Sorry about that!",
    ),
    "overloaded": (
        503,
        "service_unavailable_error",
        "server_overloaded",
        "The engine is currently overloaded, please try again later",
    ),
    "unavailable": (503, "server_error", None, "The service is temporarily unavailable."),
    "timeout": (504, "server_error", None, "Request timed out."),
}
_ERRORS["no_credit"] = _ERRORS["quota"]


def openai_error(refusal: Refusal, number: int) -> Error:
    """Shape an error as OpenAI's doors do."""
    status, kind, code, sentence = _ERRORS[refusal.kind]
    retry = f"{refusal.retry_after_s:g}s" if refusal.retry_after_s is not None else "a while"
    said = refusal.message or sentence.format(
        key=refusal.key, model=refusal.model, metric=refusal.metric, limit=refusal.limit, retry=retry
    )
    kind = kind.format(metric=refusal.metric)
    param = js(refusal.param)
    body = f'{{"error":{{"message":{js(said)},"type":"{kind}","param":{param},"code":{js(refusal.code or code)}}}}}'
    headers = [("content-type", "application/json"), ("x-request-id", f"req_sim_{number}")]
    if refusal.retry_after_s is not None:
        headers.append(("retry-after", str(max(0, round(refusal.retry_after_s)))))
        headers.append(("retry-after-ms", str(int(refusal.retry_after_s * 1000))))
    return Error(refusal.status or status, headers, body.encode())


class OpenAIChat:
    """``POST /v1/chat/completions``."""

    name = "openai_chat"

    def read(self, body: dict[str, Any], asked: Asked, headers: dict[str, str], known: frozenset[str]) -> None:
        """See ``SimWire.read``."""
        if "*" not in known:
            for name in body:
                if name not in _KNOWN and name not in known:
                    invalid(f"Unrecognized request argument supplied: {name}")
            _check_model_rules(body, asked.model)
        _read_messages(body.get("messages"), asked)
        _read_tools(body, asked)
        asked.stream = body.get("stream") is True
        options = body.get("stream_options")
        if options is not None and not asked.stream:
            invalid("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
        asked.include_usage = not asked.stream or bool(options and options.get("include_usage"))
        asked.max_output = body.get("max_completion_tokens") or body.get("max_tokens")
        stop = body.get("stop")
        if stop:
            asked.stop_sequences = (stop,) if isinstance(stop, str) else tuple(stop)
        wanted = body.get("response_format")
        if wanted:
            asked.schema = (wanted.get("json_schema") or {}).get("schema", {}) if wanted.get("type") != "text" else None
        asked.input_tokens = count_tokens(body.get("messages"), body.get("tools"))

    def whole(self, played: Played, asked: Asked) -> bytes:
        """See ``SimWire.whole``."""
        extra = f',"reasoning_content":{js(played.reasoning)}' if played.reasoning else ""
        if played.calls:
            extra += f',"tool_calls":[{",".join([_call(played, at) for at in range(len(played.calls))])}]'
        content = js(played.text) if played.text or not (played.calls or played.refusal) else "null"
        refusal = js(played.refusal) if played.refusal else "null"
        stop = _STOPS.get(played.stop, played.stop)
        usage = f',"usage":{_usage(played)}' if played.has_usage else ""
        return (
            f'{{"id":"chatcmpl-sim{played.number}","object":"chat.completion","created":{played.created},'
            f'"model":{js(played.model)},"choices":[{{"index":0,"message":{{"role":"assistant","content":{content},'
            f'"refusal":{refusal},"annotations":[]{extra}}},"logprobs":null,"finish_reason":"{stop}"}}]{usage},'
            f'"service_tier":"default","system_fingerprint":"fp_sim"}}\n'
        ).encode()

    def pieces(self, played: Played, asked: Asked) -> list[Piece]:
        """See ``SimWire.pieces``."""
        usage_null = ',"usage":null' if asked.include_usage and played.has_usage else ""
        head = (
            f'data: {{"id":"chatcmpl-sim{played.number}","object":"chat.completion.chunk","created":{played.created},'
            f'"model":{js(played.model)},"service_tier":"default","system_fingerprint":"fp_sim",'
        )
        before = head + '"choices":[{"index":0,"delta":'
        after = f',"logprobs":null,"finish_reason":null}}]{usage_null}}}\n\n'
        each = played.chunk_chars / 4

        def piece(delta: str, role: str = "content", tokens: float = 0.0) -> Piece:
            return Piece(f"{before}{delta}{after}".encode(), role, tokens)

        out = [piece('{"role":"assistant","content":"","refusal":null}', "preamble")]
        out += [piece(f'{{"reasoning_content":{js(text)}}}', "content", each) for text in played.reasoning_chunks]
        out += [piece(f'{{"content":{js(text)}}}', "content", each) for text in played.chunks]
        if played.refusal:
            out.append(piece(f'{{"refusal":{js(played.refusal)}}}', "content", len(played.refusal) / 4))
        for index, call in enumerate(played.calls):
            called = f'"id":"call_sim{played.number}_{index}","type":"function"'
            name = f'"function":{{"name":{js(call.name)},"arguments":""}}'
            out.append(piece(f'{{"tool_calls":[{{"index":{index},{called},{name}}}]}}', "content", 4))
            for part in _parts(call.arguments_json, played.chunk_chars):
                delta = f'{{"tool_calls":[{{"index":{index},"function":{{"arguments":{js(part)}}}}}]}}'
                out.append(piece(delta, "content", len(part) / 4))
        stop = _STOPS.get(played.stop, played.stop)
        last = f'{before}{{}},"logprobs":null,"finish_reason":"{stop}"}}]{usage_null}}}\n\n'
        out.append(Piece(last.encode(), "end"))
        if usage_null:
            out.append(Piece(f'{head}"choices":[],"usage":{_usage(played)}}}\n\n'.encode(), "end"))
        out.append(Piece(b"data: [DONE]\n\n", "done"))
        return out

    def error(self, refusal: Refusal, number: int) -> Error:
        """See ``SimWire.error``."""
        return openai_error(refusal, number)

    def error_event(self, refusal: Refusal, number: int) -> bytes:
        """See ``SimWire.error_event``."""
        return b"data: " + openai_error(refusal, number).body + b"\n\n"


def _parts(text: str, chars: int) -> list[str]:
    return [text[start : start + chars] for start in range(0, len(text), chars)]


def _call(played: Played, index: int) -> str:
    call = played.calls[index]
    function = f'{{"name":{js(call.name)},"arguments":{js(call.arguments_json)}}}'
    return f'{{"id":"call_sim{played.number}_{index}","type":"function","function":{function}}}'


def _usage(played: Played) -> str:
    tokens = played.tokens
    return (
        f'{{"prompt_tokens":{tokens.input},"completion_tokens":{tokens.output},'
        f'"total_tokens":{tokens.input + tokens.output},'
        f'"prompt_tokens_details":{{"cached_tokens":{tokens.cached},"audio_tokens":0}},'
        f'"completion_tokens_details":{{"reasoning_tokens":{tokens.reasoning},"audio_tokens":0,'
        f'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}'
    )


def _check_model_rules(body: dict[str, Any], model: str) -> None:
    if body.get("max_tokens") is not None and model.startswith(_REASONING):
        invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    if body.get("reasoning_effort") is not None and model.startswith(_PLAIN):
        invalid("Unrecognized request argument supplied: reasoning_effort")


def _read_messages(messages: Any, asked: Asked) -> None:
    if messages is None:
        invalid("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    if not isinstance(messages, list):
        invalid("Invalid type for 'messages': expected an array of objects.", "messages", "invalid_type")
    if not messages:
        invalid("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages", "empty_array")
    _follow(messages, asked)
    asked.has_tool_result = messages[-1]["role"] in ("tool", "function")


def _follow(messages: list[Any], asked: Asked) -> None:
    open_calls: list[str] = []
    for index, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES:
            where = f"messages[{index}].role"
            invalid(f"Invalid value: {role!r}. Supported values are: {_ROLES_SAID}.", where, "invalid_value")
        if role == "tool":
            _answer_call(message, index, open_calls)
        elif open_calls:
            _unanswered(open_calls, index)
        if role == "assistant":
            asked.turn += 1
            open_calls = [call.get("id", "") for call in message.get("tool_calls") or ()]
        elif role == "user":
            asked.text = _text(message.get("content"), index)
    if open_calls:
        _unanswered(open_calls, len(messages))


def _answer_call(message: dict[str, Any], index: int, open_calls: list[str]) -> None:
    call_id = message.get("tool_call_id")
    if call_id is None:
        where = f"messages[{index}].tool_call_id"
        invalid(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    if call_id not in open_calls:
        invalid(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
            "with 'tool_calls'.",
            f"messages[{index}].role",
        )
    open_calls.remove(call_id)


def _unanswered(open_calls: list[str], index: int) -> None:
    invalid(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        f"'tool_call_id'. The following tool_call_ids did not have response messages: {', '.join(open_calls)}",
        f"messages[{index - 1}].role",
    )


def _text(content: Any, index: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        where = f"messages[{index}].content"
        invalid(f"Invalid type for '{where}': expected a string or an array of objects.", where, "invalid_type")
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in ("text", "image_url", "input_audio", "file"):
            kind = part.get("type") if isinstance(part, dict) else None
            where = f"messages[{index}].content"
            invalid(
                f"Invalid value: {kind!r}. Supported values are: 'text', 'image_url', 'input_audio', and 'file'.",
                where,
                "invalid_value",
            )
    return " ".join([part.get("text", "") for part in content if part["type"] == "text"])


def _read_tools(body: dict[str, Any], asked: Asked) -> None:
    tools = body.get("tools")
    choice = body.get("tool_choice")
    if not tools:
        if choice not in (None, "none"):
            invalid("Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.")
        return
    found: dict[str, Any] = {}
    for index, tool in enumerate(tools):
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            where = f"tools[{index}].type"
            invalid(f"Invalid value: {kind!r}. Supported values are: 'function' and 'custom'.", where, "invalid_value")
        inner = tool.get(kind)
        if not isinstance(inner, dict) or not inner.get("name"):
            where = f"tools[{index}].{kind}.name"
            invalid(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        found[inner["name"]] = inner.get("parameters") or {}
    asked.tools = found
    if choice == "required":
        asked.forced_tool = "*"
    elif isinstance(choice, dict):
        asked.forced_tool = (choice.get("function") or {}).get("name", "*")


def read_embeddings(body: dict[str, Any], asked: Asked) -> None:
    """Check ``POST /v1/embeddings``."""
    given = body.get("input")
    if not given:
        invalid("Missing required parameter: 'input'.", "input", "missing_required_parameter")
    asked.operation = "embed"
    if not isinstance(given, str | list):
        invalid("Invalid type for 'input': expected a string or an array.", "input", "invalid_type")
    asked.text = given if isinstance(given, str) else str(given[0])
    asked.input_tokens = count_tokens(given)


def embeddings(asked: Asked, vectors: list[str]) -> bytes:
    """The reply of ``POST /v1/embeddings``; ``vectors`` are JSON arrays or base64 strings."""
    data = ",".join([f'{{"object":"embedding","index":{at},"embedding":{text}}}' for at, text in enumerate(vectors)])
    count = asked.input_tokens
    usage = f'{{"prompt_tokens":{count},"total_tokens":{count}}}'
    return f'{{"object":"list","data":[{data}],"model":{js(asked.model)},"usage":{usage}}}\n'.encode()


def models(names: list[str], created: int) -> bytes:
    """The reply of ``GET /v1/models``."""
    data = [{"id": name, "object": "model", "created": created, "owned_by": "nightkeep-sim"} for name in names]
    return js({"object": "list", "data": data}).encode()
