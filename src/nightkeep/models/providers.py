"""The vendors that are built in: one row of data each.

A row says where a vendor is, which wires it speaks, how a request shows who pays and how its keys look
(``nightkeep.models.provider_spec`` explains the fields). Nothing here decides anything, and any other URL
becomes a row by configuration (``custom_provider``). Sources: each vendor's API reference, named in ``docs_url``,
as it stood in November 2026; a key's shape is what that vendor has issued since 2024, loosely put, so that a new
kind of key is doubted aloud rather than refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nightkeep.models.provider_spec import (
    ANTHROPIC_VERSION,
    AuthStyle,
    Endpoint,
    KeyShape,
    ProviderSpec,
    custom_provider,
    standard_endpoint,
)
from nightkeep.models.wire.base import Wire

__all__ = ["PROVIDERS", "AuthStyle", "Endpoint", "KeyShape", "ProviderSpec", "custom_provider"]

_CHAT = standard_endpoint(Wire.OPENAI_CHAT)
_CHAT_WITHOUT_EMBEDDINGS = Endpoint(wire=Wire.OPENAI_CHAT, chat="/chat/completions", models="/models")
_RESPONSES = standard_endpoint(Wire.OPENAI_RESPONSES)
_MESSAGES = standard_endpoint(Wire.ANTHROPIC_MESSAGES)
_MESSAGES_WITHOUT_COUNT = Endpoint(wire=Wire.ANTHROPIC_MESSAGES, chat="/v1/messages", auth=AuthStyle.BEARER)
_VERTEX = "/v1/projects/{project}/locations/{location}"

_OPENAI = ProviderSpec(
    id="openai",
    title="OpenAI",
    base_url="https://api.openai.com/v1",
    endpoints=(_CHAT, _RESPONSES),
    key_env=("OPENAI_API_KEY",),
    key_shape=KeyShape(
        pattern=r"sk-(?!ant-|or-)[A-Za-z0-9_-]{17,}",
        description="sk-, sk-proj-, sk-svcacct- or sk-admin- and at least 40 letters, digits, - and _",
        prefixes=("sk-proj-", "sk-svcacct-", "sk-admin-"),
        least_length=40,
    ),
    docs_url="https://platform.openai.com/docs/api-reference",
)

_ANTHROPIC = ProviderSpec(
    id="anthropic",
    title="Anthropic",
    base_url="https://api.anthropic.com",
    endpoints=(_MESSAGES,),
    auth=AuthStyle.X_API_KEY,
    headers=(ANTHROPIC_VERSION,),
    key_env=("ANTHROPIC_API_KEY",),
    key_shape=KeyShape(
        pattern=r"sk-ant-[A-Za-z0-9_-]{33,}",
        description="sk-ant- and then about 100 letters, digits, - and _",
        prefixes=("sk-ant-",),
        least_length=40,
        whole=(("sk-ant-api03-", 108),),
    ),
    docs_url="https://docs.anthropic.com/en/api",
)

_GEMINI = ProviderSpec(
    id="gemini",
    title="Google Gemini",
    base_url="https://generativelanguage.googleapis.com",
    endpoints=(
        standard_endpoint(Wire.GEMINI),
        standard_endpoint(
            Wire.OPENAI_CHAT,
            base_url="https://generativelanguage.googleapis.com/v1beta/openai",
            auth=AuthStyle.BEARER,
        ),
    ),
    auth=AuthStyle.X_GOOG_API_KEY,
    key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    key_shape=KeyShape(
        pattern=r"AIza[A-Za-z0-9_-]{35}|AQ\.[A-Za-z0-9_-]{20,}",
        description="AIza and then 35 letters, digits, - and _",
        prefixes=("AIza",),
        least_length=39,
    ),
    docs_url="https://ai.google.dev/api",
)

_AZURE = ProviderSpec(
    id="azure",
    title="Azure OpenAI",
    base_url="{endpoint}/openai/v1",
    endpoints=(_CHAT, _RESPONSES),
    auth=AuthStyle.API_KEY,
    key_env=("AZURE_OPENAI_API_KEY",),
    base_url_env=("AZURE_OPENAI_ENDPOINT",),
    key_shape=KeyShape(
        pattern=r"[0-9a-fA-F]{32}|[A-Za-z0-9]{84}",
        description="32 hexadecimal digits, or 84 letters and digits",
        least_length=32,
    ),
    settings=("base_url",),
    docs_url="https://learn.microsoft.com/azure/ai-foundry/openai/reference",
)

_VERTEX_AI = ProviderSpec(
    id="vertex",
    title="Google Vertex AI",
    base_url="https://{location}-aiplatform.googleapis.com",
    endpoints=(
        Endpoint(
            wire=Wire.GEMINI,
            chat=_VERTEX + "/publishers/google/models/{model}:generateContent",
            stream=_VERTEX + "/publishers/google/models/{model}:streamGenerateContent?alt=sse",
            count=_VERTEX + "/publishers/google/models/{model}:countTokens",
        ),
        Endpoint(
            wire=Wire.ANTHROPIC_MESSAGES,
            chat=_VERTEX + "/publishers/anthropic/models/{model}:rawPredict",
            stream=_VERTEX + "/publishers/anthropic/models/{model}:streamRawPredict",
            body_version="vertex-2023-10-16",
        ),
        Endpoint(wire=Wire.OPENAI_CHAT, chat=_VERTEX + "/endpoints/openapi/chat/completions"),
    ),
    auth=AuthStyle.GOOGLE_OAUTH,
    key_env=("GOOGLE_APPLICATION_CREDENTIALS",),
    model_wires=(("gemini-", Wire.GEMINI), ("claude-", Wire.ANTHROPIC_MESSAGES)),
    settings=("project", "location"),
    docs_url="https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest",
)

_BEDROCK = ProviderSpec(
    id="bedrock",
    title="Amazon Bedrock",
    base_url="https://bedrock-runtime.{region}.amazonaws.com",
    endpoints=(
        Endpoint(
            wire=Wire.ANTHROPIC_MESSAGES,
            chat="/model/{model}/invoke",
            stream="/model/{model}/invoke-with-response-stream",
            body_version="bedrock-2023-05-31",
            is_event_stream=True,
        ),
        Endpoint(wire=Wire.OPENAI_CHAT, chat="/openai/v1/chat/completions"),
    ),
    auth=AuthStyle.SIGV4,
    key_env=("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID"),
    key_shape=KeyShape(
        pattern=r"A(?:KIA|SIA)[A-Z0-9]{12,}:\S{20,}|ABSK\S{20,}|bedrock-api-key-\S{20,}",
        description="ACCESS_KEY_ID:SECRET_ACCESS_KEY[:SESSION_TOKEN] (AKIA… or ASIA…), or a Bedrock API key (ABSK…)",
        prefixes=("AKIA", "ASIA", "ABSK", "bedrock-api-key-"),
    ),
    model_wires=(
        ("openai.", Wire.OPENAI_CHAT),
        ("anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("us.anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("eu.anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("apac.anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("jp.anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("au.anthropic.", Wire.ANTHROPIC_MESSAGES),
        ("global.anthropic.", Wire.ANTHROPIC_MESSAGES),
    ),
    settings=("region",),
    docs_url="https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html",
)

_OPENROUTER = ProviderSpec(
    id="openrouter",
    title="OpenRouter",
    base_url="https://openrouter.ai/api/v1",
    endpoints=(_CHAT, _RESPONSES, _MESSAGES_WITHOUT_COUNT),
    key_env=("OPENROUTER_API_KEY",),
    key_shape=KeyShape(
        pattern=r"sk-or-(?:v1-)?[A-Za-z0-9_-]{24,}",
        description="sk-or-v1- and then 64 hexadecimal digits",
        prefixes=("sk-or-",),
        least_length=40,
        whole=(("sk-or-v1-", 73),),
    ),
    docs_url="https://openrouter.ai/docs/api-reference/overview",
)

_DEEPSEEK = ProviderSpec(
    id="deepseek",
    title="DeepSeek",
    base_url="https://api.deepseek.com/v1",
    endpoints=(
        _CHAT_WITHOUT_EMBEDDINGS,
        Endpoint(
            wire=Wire.ANTHROPIC_MESSAGES,
            chat="/v1/messages",
            base_url="https://api.deepseek.com/anthropic",
            auth=AuthStyle.X_API_KEY,
        ),
    ),
    key_env=("DEEPSEEK_API_KEY",),
    key_shape=KeyShape(pattern=r"sk-[0-9a-f]{32}", description="sk- and then 32 hexadecimal digits", least_length=35),
    unsupported=("n", "seed", "parallel_tool_calls", "service_tier", "store", "prediction"),
    renamed=(("max_completion_tokens", "max_tokens"),),
    docs_url="https://api-docs.deepseek.com",
)

_MISTRAL = ProviderSpec(
    id="mistral",
    title="Mistral AI",
    base_url="https://api.mistral.ai/v1",
    endpoints=(_CHAT,),
    key_env=("MISTRAL_API_KEY",),
    key_shape=KeyShape(pattern=r"[A-Za-z0-9]{32}", description="32 letters and digits", least_length=32),
    unsupported=(
        "logit_bias", "logprobs", "top_logprobs", "service_tier", "store", "user", "stream_options", "reasoning_effort",
    ),
    renamed=(("max_completion_tokens", "max_tokens"), ("seed", "random_seed")),
    docs_url="https://docs.mistral.ai/api",
)  # fmt: skip

_GROQ = ProviderSpec(
    id="groq",
    title="Groq",
    base_url="https://api.groq.com/openai/v1",
    endpoints=(_CHAT_WITHOUT_EMBEDDINGS, _RESPONSES),
    key_env=("GROQ_API_KEY",),
    key_shape=KeyShape(
        pattern=r"gsk_[A-Za-z0-9]{40,}",
        description="gsk_ and then 52 letters and digits",
        prefixes=("gsk_",),
        whole=(("gsk_", 56),),
    ),
    unsupported=("logprobs", "logit_bias", "top_logprobs", "store", "prediction"),
    docs_url="https://console.groq.com/docs/openai",
)

_XAI = ProviderSpec(
    id="xai",
    title="xAI",
    base_url="https://api.x.ai/v1",
    endpoints=(_CHAT, _RESPONSES, _MESSAGES_WITHOUT_COUNT),
    key_env=("XAI_API_KEY",),
    key_shape=KeyShape(
        pattern=r"xai-[A-Za-z0-9]{40,}",
        description="xai- and then 80 letters and digits",
        prefixes=("xai-",),
        whole=(("xai-", 84),),
    ),
    unsupported=("logit_bias", "store", "prediction", "service_tier"),
    docs_url="https://docs.x.ai/docs/api-reference",
)

_TOGETHER = ProviderSpec(
    id="together",
    title="Together AI",
    base_url="https://api.together.xyz/v1",
    endpoints=(_CHAT,),
    key_env=("TOGETHER_API_KEY",),
    key_shape=KeyShape(
        pattern=r"[0-9a-f]{64}|tgp_v1_[A-Za-z0-9_-]{20,}",
        description="tgp_v1_ and then letters and digits, or 64 hexadecimal digits",
        prefixes=("tgp_v1_",),
        least_length=40,
    ),
    unsupported=("store", "service_tier", "prediction", "parallel_tool_calls"),
    docs_url="https://docs.together.ai/reference",
)

_FIREWORKS = ProviderSpec(
    id="fireworks",
    title="Fireworks AI",
    base_url="https://api.fireworks.ai/inference/v1",
    endpoints=(_CHAT, _RESPONSES, _MESSAGES_WITHOUT_COUNT),
    key_env=("FIREWORKS_API_KEY",),
    key_shape=KeyShape(
        pattern=r"fw_[A-Za-z0-9]{20,}",
        description="fw_ and then 24 letters and digits",
        prefixes=("fw_",),
        least_length=23,
    ),
    unsupported=("store", "service_tier"),
    docs_url="https://docs.fireworks.ai/api-reference",
)


def _local(name: str, title: str, port: int, docs_url: str) -> ProviderSpec:
    """A server on the operator's own machine; all three speak OpenAI's and Anthropic's wires under /v1."""
    return ProviderSpec(
        id=name,
        title=title,
        base_url=f"http://127.0.0.1:{port}/v1",
        endpoints=(_CHAT, _RESPONSES, _MESSAGES_WITHOUT_COUNT),
        is_local=True,
        is_free=True,
        docs_url=docs_url,
    )


_ROWS: Final = (
    _OPENAI,
    _ANTHROPIC,
    _GEMINI,
    _AZURE,
    _VERTEX_AI,
    _BEDROCK,
    _OPENROUTER,
    _DEEPSEEK,
    _MISTRAL,
    _GROQ,
    _XAI,
    _TOGETHER,
    _FIREWORKS,
    _local("ollama", "Ollama", 11434, "https://docs.ollama.com/api/openai-compatibility"),
    _local("vllm", "vLLM", 8000, "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html"),
    _local("lmstudio", "LM Studio", 1234, "https://lmstudio.ai/docs/app/api"),
)

PROVIDERS: Final[Mapping[str, ProviderSpec]] = MappingProxyType({row.id: row for row in _ROWS})
"""The built-in vendors by id."""
