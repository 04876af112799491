"""How many tokens a request will be: a counter that learns from what providers report, per model, without a tokenizer.

A body is weighed by its bytes: letters and spaces count half a token each, every other byte one, which no current
byte-pair vocabulary exceeds on real text (English prose makes about 0.25 tokens a byte, digits up to 1, Chinese 0.3 to
0.5, emoji up to 1). So a weight is an upper bound, and the ratio of reported tokens to weight is what is learned:
its mean gives the expected count, the highest of the last 64 the count that is reserved. Nothing is learned across
models. The ratios are kept in the table ``calibrations``, so that a restart does not forget them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from nightkeep.models.estimate import MEDIA_TOKENS, without_media
from nightkeep.store.port import Store, Transaction

__all__ = ["Calibration", "Calibrations", "Weight", "weigh"]

_SOFT: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ "
_TOOLS: Final = 600
"""What Anthropic adds for tools (264 to 530 tokens by model: its tool-use page) is in no body; others add less."""
_MEDIA_BOUND: Final = 6_400
"""Four times Anthropic's largest image; Gemini tiles and OpenAI's detail levels stay below."""
_DEFAULT_RATIO: Final = 0.5
_DEFAULT_OUTPUT: Final = 256
_KNOWN_AFTER: Final = 4  # calls, before experience is trusted
_KEPT: Final = 64
_MARGIN: Final = 1.1
_LEARNING: Final = 1 / 32
_UNKNOWN_TOKENS: Final = 16_384
"""What a model that never reported yet may use beyond its bound: so that a provider with another idea of what a token
is cannot be asked a hundred times at once before it has answered once."""


class Weight(msgspec.Struct, frozen=True, gc=False):
    """A request, weighed."""

    bound: int  # tokens, at the most
    text: float  # the weight that ratios apply to
    fixed: int  # tokens of media and tools, at the most


def weigh(body: bytes, *, has_tools: bool = False) -> Weight:
    """Weigh a request's body."""
    size, pieces, media_bytes = without_media(body)
    hard = len(body.translate(None, _SOFT))
    if pieces:
        hard = max(0, hard - media_bytes // 5)  # about a fifth of base64 is neither letter nor space
    text = 0.5 * max(0, size - hard) + hard
    fixed = pieces * max(_MEDIA_BOUND, media_bytes // (16 * pieces)) if pieces else 0
    fixed += _TOOLS if has_tools else 0
    return Weight(int(text) + fixed + 1, text, fixed)


class Calibration(msgspec.Struct):
    """What is known of one model's tokens."""

    calls: int = 0
    mean: float = _DEFAULT_RATIO  # reported input tokens by weight
    error: float = 0.5  # mean relative error of the expected count
    ratios: list[float] = []  # the last ones
    output: float = float(_DEFAULT_OUTPUT)  # tokens of output, on average
    outputs: int = 0
    text_ratios: list[float] = []  # output tokens by byte of text
    highest: float = 0.0  # of the ratios
    highest_text: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether enough has been reported."""
        return self.calls >= _KNOWN_AFTER

    def expected(self, weight: Weight) -> int:
        """The most probable number of input tokens."""
        fixed = min(weight.fixed, MEDIA_TOKENS) if weight.fixed > _TOOLS else weight.fixed
        return int(weight.text * self.mean) + fixed + 1

    def upper(self, weight: Weight) -> int:
        """The number of input tokens that is reserved."""
        if not self.is_known:
            return weight.bound
        return int(weight.text * self.highest * _MARGIN) + weight.fixed + 1

    def unknown(self) -> int:
        """Tokens to hold beyond the bound while the model has not reported yet."""
        return 0 if self.is_known else _UNKNOWN_TOKENS

    def typical_output(self) -> int:
        """Output tokens of an ordinary reply."""
        return max(1, int(self.output))

    def is_output_known(self) -> bool:
        """Whether ``typical_output`` comes from experience."""
        return self.outputs >= _KNOWN_AFTER

    def output_of(self, text_bytes: int) -> int:
        """The most tokens that a piece of reply may have been, thoughts that were not shown included."""
        ratio = self.highest_text * _MARGIN if len(self.text_ratios) >= _KNOWN_AFTER else _DEFAULT_RATIO
        return int(text_bytes * ratio) + 1

    def note(self, weight: Weight, input_tokens: int, output_tokens: int, text_bytes: int) -> None:
        """Learn from what a provider reported of a whole reply."""
        if weight.text and input_tokens:
            learnt = max(0, input_tokens - (weight.fixed if weight.fixed < input_tokens else 0)) / weight.text
            off = abs(self.expected(weight) - input_tokens) / input_tokens
            rate = max(_LEARNING, 1 / (self.calls + 1))
            self.mean += (learnt - self.mean) * rate
            self.error += (off - self.error) * rate
            self.highest = _kept(self.ratios, learnt, self.highest)
            self.calls += 1
        rate = max(_LEARNING, 1 / (self.outputs + 1))
        self.output += (output_tokens - self.output) * rate
        self.outputs += 1
        if text_bytes >= 16:
            self.highest_text = _kept(self.text_ratios, output_tokens / text_bytes, self.highest_text)


def _kept(ratios: list[float], newest: float, highest: float) -> float:
    """Keep the newest ratio and forget the oldest; returns the highest of those that are kept."""
    ratios.append(newest)
    if len(ratios) <= _KEPT:
        return max(highest, newest)
    oldest = ratios.pop(0)
    return max(ratios) if oldest >= highest else max(highest, newest)


class Calibrations:
    """All models' calibrations, by target (``provider/model``)."""

    def __init__(self) -> None:
        self._models: dict[str, Calibration] = {}
        self._changed: set[str] = set()

    def of(self, target: str) -> Calibration:
        """What is known of a target; made when it is asked for first."""
        found = self._models.get(target)
        if found is None:
            found = self._models[target] = Calibration()
        return found

    def known(self) -> dict[str, Calibration]:
        """Every target that has reported."""
        return {target: each for target, each in self._models.items() if each.calls}

    def note(self, target: str, weight: Weight, input_tokens: int, output_tokens: int, text_bytes: int) -> None:
        """Learn from one reply."""
        self.of(target).note(weight, input_tokens, output_tokens, text_bytes)
        self._changed.add(target)

    async def restore(self, store: Store) -> None:
        """Take what other processes have learnt, where it is more than what this one has. Raises StoreError."""
        for target, body in await store.read("SELECT model, body FROM calibrations"):
            found = msgspec.json.decode(str(body), type=Calibration)
            if found.calls > self.of(str(target)).calls:
                self._models[str(target)] = found

    def save(self, now_ms: int) -> Callable[[Transaction], None] | None:
        """The work that writes down what was learnt since the last time; None where nothing was."""
        changed, self._changed = self._changed, set()
        if not changed:
            return None
        rows = [(name, msgspec.json.encode(self._models[name]).decode(), now_ms) for name in sorted(changed)]

        def work(transaction: Transaction) -> None:
            after = "ON CONFLICT (model) DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at"
            transaction.insert("INTO calibrations (model, body, updated_at)", rows, after)

        return work
