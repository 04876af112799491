"""The wires: one sans-I/O codec per vendor protocol, named by ``CODECS``."""

from __future__ import annotations

from nightkeep.models.wire.anthropic_messages import AnthropicMessagesCodec
from nightkeep.models.wire.base import Codec, Wire

__all__ = ["CODECS"]

CODECS: dict[Wire, Codec] = {
    Wire.ANTHROPIC_MESSAGES: AnthropicMessagesCodec(),
}
"""The codec of each wire."""
