"""The neutral vocabulary of a call: what every vendor's wire can be read into and written from.

It is the union of what OpenAI Chat Completions, OpenAI Responses, Anthropic Messages and Gemini
``generateContent`` can say, said once. Codecs (``nightkeep.models.wire``) translate; nothing here
knows a vendor. Optional fields are ``None`` where the client said nothing, so that a default is
always the provider's and never ours.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

__all__ = [
    "CacheMark",
    "ChatRequest",
    "Media",
    "Message",
    "Opaque",
    "OutputFormat",
    "Part",
    "Reasoning",
    "ReasoningSettings",
    "Refusal",
    "Reply",
    "StopReason",
    "Text",
    "ToolCall",
    "ToolChoice",
    "ToolDefinition",
    "ToolResult",
    "Usage",
]


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of every value below: immutable, by keyword, printed without what was not said."""


class CacheMark(Value, frozen=True, kw_only=True):
    """The client asks that the prefix up to and with this part is cached by the provider."""

    ttl: Literal["5m", "1h"] | None = None  # None: the provider's default


class Text(Value, frozen=True, kw_only=True, tag="text"):
    """Plain text."""

    text: str
    cache: CacheMark | None = None
    citations: tuple[dict[str, Any], ...] = ()  # vendor-shaped; kept on the same wire


class Media(Value, frozen=True, kw_only=True, tag="media"):
    """An image, a document, audio or video; by value, by URL, or by the vendor's own file id."""

    kind: Literal["image", "document", "audio", "video"]
    media_type: str | None = None  # e.g. "image/png"; None where a URL did not say
    data: str | None = None  # base64, standard alphabet
    url: str | None = None
    file_id: str | None = None  # valid at one vendor only
    name: str | None = None
    detail: str | None = None  # OpenAI: low | high | auto
    text: str | None = None  # Anthropic's plain-text documents
    cache: CacheMark | None = None


class ToolCall(Value, frozen=True, kw_only=True, tag="tool_call"):
    """The model asks for a tool to be called."""

    id: str  # stable within a conversation; made by the codec where the wire has none (Gemini)
    name: str
    arguments: str  # a JSON object as text, exactly as the model wrote it; "{}" where it wrote nothing
    signature: str | None = None  # Gemini's thoughtSignature
    cache: CacheMark | None = None


class ToolResult(Value, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered. Stands in a message of role ``user``, wherever the wire puts it."""

    call_id: str
    name: str | None = None  # Gemini needs it; codecs fill it from the matching call
    content: tuple[Text | Media, ...] = ()
    is_error: bool = False
    cache: CacheMark | None = None


class Reasoning(Value, frozen=True, kw_only=True, tag="reasoning"):
    """Thinking that the model showed, or kept as an opaque block that must be sent back unchanged."""

    text: str = ""
    signature: str | None = None  # Anthropic's signature, Gemini's thoughtSignature
    encrypted: str | None = None  # Anthropic's redacted_thinking data, Responses' encrypted_content
    id: str | None = None  # Responses' item id


class Refusal(Value, frozen=True, kw_only=True, tag="refusal"):
    """The model's own words for why it will not answer (OpenAI)."""

    text: str


class Opaque(Value, frozen=True, kw_only=True, tag="opaque"):
    """A part that only one wire knows, kept as it came; written back on that wire only."""

    wire: str
    kind: str
    raw: dict[str, Any]


Part = Text | Media | ToolCall | ToolResult | Reasoning | Refusal | Opaque


class Message(Value, frozen=True, kw_only=True):
    """One turn. System text stands in ``ChatRequest.system``, unless it came between turns."""

    role: Literal["user", "assistant", "system"]
    parts: tuple[Part, ...]
    name: str | None = None


class ToolDefinition(Value, frozen=True, kw_only=True):
    """A tool that the client offers to the model, with JSON Schema for its arguments."""

    name: str
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache: CacheMark | None = None


class ToolChoice(Value, frozen=True, kw_only=True):
    """Whether and which tool the model must call."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None  # for mode "tool"


class OutputFormat(Value, frozen=True, kw_only=True):
    """The form that the answer's text must have."""

    kind: Literal["text", "json", "schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ReasoningSettings(Value, frozen=True, kw_only=True):
    """How much the model may think, in the words of the wire that asked."""

    enabled: bool | None = None
    effort: str | None = None  # none | minimal | low | medium | high | xhigh
    budget_tokens: int | None = None
    summary: str | None = None  # whether thoughts are shown: auto | concise | detailed | none


class ChatRequest(Value, frozen=True, kw_only=True):
    """One request for a model's reply, whatever wire it came in on."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    choices: int | None = None  # OpenAI's n, Gemini's candidateCount
    stream: bool = False
    output_format: OutputFormat | None = None
    reasoning: ReasoningSettings | None = None
    user: str | None = None  # the client's opaque id of its own end user
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    verbosity: str | None = None
    foreign: dict[str, Any] = {}
    """Parameters that only the wire it came on knows, by their name there (``safety_settings``,
    ``store``, ``anthropic_beta`` …). Written back on that wire, stripped and reported on another."""


class StopReason(StrEnum):
    """Why the model stopped, over all vendors (Q-RUN-07 wants every one handled)."""

    END = "end"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_CALLS = "tool_calls"
    REFUSAL = "refusal"  # content filter, safety, recitation, blocklist
    PAUSE = "pause"  # Anthropic's pause_turn: send the turn back to let it go on
    CONTEXT_FULL = "context_full"  # the window, not the limit, was reached
    MALFORMED_CALL = "malformed_call"  # Gemini's MALFORMED_FUNCTION_CALL
    OTHER = "other"  # the vendor's word is kept beside it


class Usage(Value, frozen=True, kw_only=True):
    """Tokens in disjoint classes: their sum is what was processed; no token stands in two of them.

    Vendors overlap theirs in different ways (OpenAI counts cached tokens inside the prompt and
    reasoning inside the completion, Anthropic counts cache reads beside the input, Gemini counts
    thoughts beside the candidates); each codec takes them apart (peers: litellm#14849).
    """

    input: int = 0  # uncached input, text and media
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0  # visible output: text and tool calls
    reasoning: int = 0

    @property
    def total_input(self) -> int:
        """All input tokens, cached or not."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h

    @property
    def total_output(self) -> int:
        """All output tokens, seen or not."""
        return self.output + self.reasoning

    @property
    def total(self) -> int:
        """Everything that was processed."""
        return self.total_input + self.total_output


class Reply(Value, frozen=True, kw_only=True):
    """A whole answer."""

    id: str
    model: str  # as the provider named it
    parts: tuple[Part, ...]
    stop: StopReason
    stop_detail: str | None = None  # the vendor's own word where ``stop`` is OTHER, else the stop sequence hit
    usage: Usage | None = None  # None where the provider did not say
    created: int | None = None  # Unix seconds
    is_complete: bool = True  # False where the stream was cut
