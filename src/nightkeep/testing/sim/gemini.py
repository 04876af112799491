"""Gemini ``generateContent`` from the vendor's side (v1beta and Vertex), as its API reference has it (2026).

Its JSON comes from protocol buffers: camelCase and snake_case are the same, what is not a field is
refused, streams end their lines with CRLF, and without ``alt=sse`` a stream is one JSON array.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

from nightkeep.testing.sim.asked import Asked, Refusal, count_tokens
from nightkeep.testing.sim.script import Call, Played
from nightkeep.testing.sim.wire import Error, Piece, invalid, js, words

__all__ = ["Gemini", "embedding", "gemini_count", "gemini_models", "read_gemini_embedding"]

_KNOWN = words(
    "model contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent labels "
    "store serviceTier"
)
_CONFIG = words(
    "stopSequences responseMimeType responseSchema responseJsonSchema _responseJsonSchema responseModalities "
    "candidateCount maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty "
    "responseLogprobs logprobs enableEnhancedCivicAnswers speechConfig thinkingConfig imageConfig "
    "mediaResolution audioTimestamp routingConfig modelSelectionConfig"
)
_PARTS = words(
    "text inlineData fileData functionCall functionResponse executableCode codeExecutionResult thought "
    "thoughtSignature videoMetadata mediaResolution partMetadata toolCall toolResponse"
)
_STOPS = {
    "end": "STOP",
    "length": "MAX_TOKENS",
    "tool_use": "STOP",
    "refusal": "SAFETY",
    "content_filter": "PROHIBITED_CONTENT",
    "stop_sequence": "STOP",
}
_ERRORS: dict[str, tuple[int, str, str]] = {
    "invalid": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "authentication": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "suspended": (
        403,
        "PERMISSION_DENIED",
        "Permission denied: Consumer 'api_key:{key}' has been suspended.",
    ),
    "not_found": (
        404,
        "NOT_FOUND",
        (
            "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
            "ListModels to see the list of available models and their supported methods."
        ),
    ),
    "rate_limited": (
        429,
        "RESOURCE_EXHAUSTED",
        (
            "You exceeded your current quota, please check your plan and billing details. For more information on this "
            "error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: "
            "generativelanguage.googleapis.com/generate_content_{metric}, limit: {limit}, model: {model}\n"
            "Please retry in {retry}s."
        ),
    ),
    "no_credit": (
        429,
        "RESOURCE_EXHAUSTED",
        "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.",
    ),
    "too_long": (
        400,
        "INVALID_ARGUMENT",
        "The input token count exceeds the maximum number of tokens allowed {limit}.",
    ),
    "content": (400, "INVALID_ARGUMENT", "The request was blocked by the safety filters."),
    "server_error": (
        500,
        "INTERNAL",
        (
            "An internal error has occurred. Please retry or report in https://developers.generativeai.google/"
            "guide/troubleshooting"
        ),
    ),
    "overloaded": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "unavailable": (503, "UNAVAILABLE", "The service is currently unavailable."),
    "timeout": (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}
_ERRORS["quota"] = _ERRORS["rate_limited"]
_DOMAIN = "googleapis.com"


def camel(name: str) -> str:
    """The camelCase name of a field that may be written in snake_case."""
    if "_" not in name or name.startswith("_"):
        return name
    first, *rest = name.split("_")
    return first + "".join([word[:1].upper() + word[1:] for word in rest])


class Gemini:
    """``POST /v1beta/models/{model}:generateContent`` and ``:streamGenerateContent``."""

    name = "gemini"

    def read(self, body: dict[str, Any], asked: Asked, headers: dict[str, str], known: frozenset[str]) -> None:
        """See ``SimWire.read``."""
        body = _fields(body, _KNOWN, known, "")
        config = _fields(body.get("generationConfig") or {}, _CONFIG, known, " at 'generation_config'")
        _read_contents(body.get("contents"), asked, known)
        system = body.get("systemInstruction")
        _read_tools(body, asked)
        asked.max_output = config.get("maxOutputTokens")
        asked.stop_sequences = tuple(config.get("stopSequences") or ())
        schema = config.get("responseSchema") or config.get("responseJsonSchema") or config.get("_responseJsonSchema")
        is_json = config.get("responseMimeType") == "application/json"
        if schema and not is_json:
            invalid(
                "* GenerateContentRequest.generation_config.response_mime_type: response_schema requires "
                "response_mime_type to be application/json\n"
            )
        asked.schema = (schema or {}) if is_json else None
        temperature = config.get("temperature")
        if temperature is not None and not 0 <= temperature <= 2:
            invalid(
                "* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, 2.0]."
            )
        asked.input_tokens = count_tokens(body["contents"], system, body.get("tools"))

    def whole(self, played: Played, asked: Asked) -> bytes:
        """See ``SimWire.whole``."""
        parts = []
        if played.reasoning:
            parts.append(f'{{"text":{js(played.reasoning)},"thought":true}}')
        if played.text:
            parts.append(f'{{"text":{js(played.text)}}}')
        parts += [_function_call(played, index, call) for index, call in enumerate(played.calls)]
        return _chunk(played, ",".join(parts), _STOPS[played.stop], played.tokens.output).encode() + b"\n"

    def pieces(self, played: Played, asked: Asked) -> list[Piece]:
        """See ``SimWire.pieces``."""
        each = max(1, played.chunk_chars // 4)
        parts = [(f'{{"text":{js(text)},"thought":true}}', each) for text in played.reasoning_chunks]
        parts += [(f'{{"text":{js(text)}}}', each) for text in played.chunks]
        for index, call in enumerate(played.calls):
            parts.append((_function_call(played, index, call), len(call.arguments_json) // 4 + 4))
        if not parts or played.stop in ("refusal", "content_filter"):
            parts.append(("", 0))
        texts, done = [], 0
        for part, tokens in parts[:-1]:
            done += tokens
            texts.append((_chunk(played, part, None, done), tokens))
        texts.append((_chunk(played, parts[-1][0], _STOPS[played.stop], played.tokens.output), parts[-1][1]))
        last = len(texts) - 1
        return [
            Piece(_framed(text, at == 0, at == last, asked.framing), "done" if at == last else "content", tokens)
            for at, (text, tokens) in enumerate(texts)
        ]

    def error(self, refusal: Refusal, number: int) -> Error:
        """See ``SimWire.error``."""
        status = refusal.status or _ERRORS[refusal.kind][0]
        return Error(status, [("content-type", "application/json; charset=UTF-8")], _error_body(refusal).encode())

    def error_event(self, refusal: Refusal, number: int) -> bytes:
        """See ``SimWire.error_event``."""
        return b"data: " + _error_body(refusal).encode() + b"\r\n\r\n"


def _framed(text: str, is_first: bool, is_last: bool, framing: str) -> bytes:
    if framing == "array":
        return f"{'[' if is_first else ','}{text}{']' if is_last else chr(10)}".encode()
    return f"data: {text}\r\n\r\n".encode()


def _chunk(played: Played, parts: str, stop: str | None, output: int) -> str:
    tokens = played.tokens
    thought = min(tokens.reasoning, output)
    content = f'"content":{{"parts":[{parts}],"role":"model"}},' if parts else ""
    finish = f'"finishReason":"{stop}",' if stop else ""
    cached = f'"cachedContentTokenCount":{tokens.cached},' if tokens.cached else ""
    thoughts = f'"thoughtsTokenCount":{thought},' if thought else ""
    usage = (
        f'"usageMetadata":{{"promptTokenCount":{tokens.input},"candidatesTokenCount":{output - thought},'
        f'"totalTokenCount":{tokens.input + output},{cached}{thoughts}'
        f'"promptTokensDetails":[{{"modality":"TEXT","tokenCount":{tokens.input}}}]}},'
        if played.has_usage
        else ""
    )
    return (
        f'{{"candidates":[{{{content}{finish}"index":0}}],{usage}'
        f'"modelVersion":{js(played.model)},"responseId":"sim{played.number}"}}'
    )


def _function_call(played: Played, index: int, call: Call) -> str:
    text = f'"functionCall":{{"id":"sim{played.number}_{index}","name":{js(call.name)},"args":{js(call.arguments)}}}'
    if index:
        return f"{{{text}}}"
    mark = base64.b64encode(b"sim-signature-%08x" % zlib.crc32(call.name.encode())).decode()
    return f'{{{text},"thoughtSignature":"{mark}"}}'


def _error_body(refusal: Refusal) -> str:
    status, word, sentence = _ERRORS[refusal.kind]
    retry = refusal.retry_after_s if refusal.retry_after_s is not None else 0
    said = refusal.message or sentence.format(
        model=refusal.model, limit=refusal.limit, metric=refusal.metric, retry=retry, key=refusal.key
    )
    details: list[dict[str, Any]] = []
    if refusal.kind in ("rate_limited", "quota"):
        details.append(_quota_failure(refusal))
        if refusal.retry_after_s is not None:
            details.append({"@type": f"type.{_DOMAIN}/google.rpc.RetryInfo", "retryDelay": f"{retry:g}s"})
    elif refusal.kind in ("authentication", "suspended"):
        reason = "API_KEY_INVALID" if refusal.kind == "authentication" else "CONSUMER_SUSPENDED"
        service = {"service": f"generativelanguage.{_DOMAIN}"}
        info = {"@type": f"type.{_DOMAIN}/google.rpc.ErrorInfo", "reason": reason, "domain": _DOMAIN}
        details.append({**info, "metadata": service})
    elif refusal.param:
        violation = {"field": refusal.param, "description": said}
        details.append({"@type": f"type.{_DOMAIN}/google.rpc.BadRequest", "fieldViolations": [violation]})
    error: dict[str, Any] = {"code": refusal.status or status, "message": said, "status": word}
    if details:
        error["details"] = details
    return js({"error": error})


def _quota_failure(refusal: Refusal) -> dict[str, Any]:
    per = "PerMinute" if refusal.kind == "rate_limited" else "PerDay"
    what = "GenerateRequests" if refusal.metric == "requests" else "GenerateContentInputTokens"
    violation = {
        "quotaMetric": f"generativelanguage.{_DOMAIN}/generate_content_{refusal.metric}",
        "quotaId": f"{what}{per}PerProjectPerModel",
        "quotaDimensions": {"location": "global", "model": refusal.model},
        "quotaValue": str(refusal.limit),
    }
    return {"@type": f"type.{_DOMAIN}/google.rpc.QuotaFailure", "violations": [violation]}


def _fields(value: Any, names: frozenset[str], known: frozenset[str], where: str) -> dict[str, Any]:
    """Names in camelCase; a name that is no field is refused in the vendor's words."""
    if not isinstance(value, dict):
        invalid("Invalid JSON payload received. Unexpected token.")
    out = {camel(name): item for name, item in value.items()}
    if "*" in known:
        return out
    for given in value:
        if camel(given) not in names and given not in known:
            message = f'Invalid JSON payload received. Unknown name "{given}"{where}: Cannot find field.'
            invalid(message, where.removeprefix(" at ").strip("'") or given)
    return out


def _read_contents(contents: Any, asked: Asked, known: frozenset[str]) -> None:
    if isinstance(contents, dict):
        contents = [contents]
    if not contents or not isinstance(contents, list):
        invalid("* GenerateContentRequest.contents: contents is not specified\n")
    calls = 0
    for index, content in enumerate(contents):
        role = content.get("role", "user") if isinstance(content, dict) else None
        if role not in ("user", "model", "function"):
            invalid("Please use a valid role: user, model.")
        parts = [_fields(p, _PARTS, known, f" at 'contents[{index}].parts'") for p in content.get("parts") or ()]
        if not parts:
            invalid(
                f"* GenerateContentRequest.contents[{index}].parts: contents.parts must not be empty.\n",
                f"contents[{index}].parts",
            )
        answers = sum(["functionResponse" in part for part in parts])
        if answers != calls:
            invalid(
                "Please ensure that the number of function response parts is equal to the number of function call "
                "parts of the function call turn."
            )
        calls = sum(["functionCall" in part for part in parts])
        asked.has_tool_result = answers > 0
        if role == "model":
            asked.turn += 1
        else:
            texts = [part["text"] for part in parts if "text" in part]
            asked.text = " ".join(texts) if texts else asked.text


def _read_tools(body: dict[str, Any], asked: Asked) -> None:
    found: dict[str, Any] = {}
    for tool in body.get("tools") or ():
        declared = tool.get("functionDeclarations") or tool.get("function_declarations") or ()
        for function in declared:
            if not function.get("name"):
                invalid("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.\n")
            plain = function.get("parameters") or function.get("parametersJsonSchema")
            found[function["name"]] = plain or function.get("parameters_json_schema") or {}
    asked.tools = found
    config = body.get("toolConfig") or {}
    calling = config.get("functionCallingConfig") or config.get("function_calling_config") or {}
    if str(calling.get("mode", "")).upper() == "ANY":
        if not found:
            invalid("Function calling config is set without function_declarations.")
        allowed = calling.get("allowedFunctionNames") or calling.get("allowed_function_names") or ["*"]
        asked.forced_tool = allowed[0]


def gemini_count(tokens: int) -> bytes:
    """The reply of ``:countTokens``."""
    return b'{"totalTokens":%d,"promptTokensDetails":[{"modality":"TEXT","tokenCount":%d}]}\n' % (tokens, tokens)


def read_gemini_embedding(body: dict[str, Any], asked: Asked) -> list[str]:
    """Check ``:embedContent`` or ``:batchEmbedContents`` and return the texts."""
    requests = body.get("requests") if "requests" in body else [body]
    texts = []
    for request in requests or ():
        content = request.get("content")
        if not isinstance(content, dict) or not content.get("parts"):
            invalid("* EmbedContentRequest.content: contents is not specified\n")
        texts.append(" ".join([part.get("text", "") for part in content["parts"]]))
    if not texts:
        invalid("* BatchEmbedContentsRequest.requests: at least one request is required\n")
    asked.operation = "embed"
    asked.text = texts[0]
    asked.input_tokens = count_tokens(texts)
    return texts


def embedding(vectors: list[str], is_batch: bool) -> bytes:
    """The reply of ``:embedContent`` and ``:batchEmbedContents``."""
    if is_batch:
        each = ",".join(['{"values":' + vector + "}" for vector in vectors])
        return f'{{"embeddings":[{each}]}}'.encode()
    return f'{{"embedding":{{"values":{vectors[0]}}}}}'.encode()


def gemini_models(names: list[str]) -> bytes:
    """The reply of ``GET /v1beta/models``."""
    methods = ["generateContent", "countTokens", "embedContent"]
    data = [{"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods} for name in names]
    return js({"models": data}).encode()
