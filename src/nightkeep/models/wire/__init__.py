"""The wires: one sans-I/O codec per vendor protocol, named by ``CODECS``."""

from __future__ import annotations

from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.base import Codec, Wire
from nightkeep.models.wire.gemini import GeminiCodec
from nightkeep.models.wire.openai_chat import OpenaiChatCodec
from nightkeep.models.wire.openai_responses import OpenaiResponsesCodec

__all__ = ["CODECS"]

CODECS: dict[Wire, Codec] = {
    Wire.OPENAI_CHAT: OpenaiChatCodec(),
    Wire.OPENAI_RESPONSES: OpenaiResponsesCodec(),
    Wire.ANTHROPIC_MESSAGES: AnthropicMessagesCodec(),
    Wire.GEMINI: GeminiCodec(),
}
"""The codec of each wire."""
