"""Images, audio and files as OpenAI's two wires write them: ``data:`` URLs, bare base64, format words.

The parts around them are each wire's own business (``openai_chat_request``, ``openai_responses_request`` …).
"""

from __future__ import annotations

from typing import Any, Literal

from nightkeep.core.errors import RequestError, UntranslatableError
from nightkeep.core.messages import CacheMark, Media
from nightkeep.models.wire.base import Wire
from nightkeep.models.wire.shape import Fields

__all__ = [
    "audio_media",
    "data_url",
    "file_media",
    "google_signature",
    "media_audio",
    "read_cache",
    "refuse_foreign_file",
    "url_media",
]

_TYPE_BY_FORMAT = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm16": "audio/pcm"}
_FORMAT_BY_TYPE = {
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "audio/pcm": "pcm16",
}
_TYPE_BY_ENDING = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
}


def url_media(
    kind: Literal["image", "video"], url: str, path: str, *, detail: str | None = None, cache: CacheMark | None = None
) -> Media:
    """A picture behind a URL, which may be a ``data:`` URL that holds it."""
    if not url.startswith("data:"):
        return Media(kind=kind, url=url, detail=detail, cache=cache)
    media_type, data = _split_data_url(url, path)
    return Media(kind=kind, media_type=media_type, data=data, detail=detail, cache=cache)


def audio_media(audio: Fields) -> Media:
    """``input_audio``: bare base64 and a format word, the same on both wires."""
    word = audio.required_text("format")
    media_type = _TYPE_BY_FORMAT.get(word, f"audio/{word}")
    return Media(kind="audio", media_type=media_type, data=audio.required_text("data"))


def file_media(file: Fields, cache: CacheMark | None) -> Media:
    """A file by its data (a ``data:`` URL or bare base64), its URL (Responses only) or its id."""
    name, file_id, url = file.text("filename"), file.text("file_id"), file.text("file_url")
    content, detail = file.text("file_data"), file.text("detail")
    if content is None:
        if url is None and file_id is None:
            raise RequestError(f"{file.path}: expected file_data, file_url or file_id", parameter=file.path)
        return Media(kind="document", url=url, file_id=file_id, name=name, detail=detail, cache=cache)
    if content.startswith("data:"):
        media_type, data = _split_data_url(content, file.at("file_data"))
    else:
        ending = (name or "").rpartition(".")[2].lower()
        media_type, data = _TYPE_BY_ENDING.get(ending, "application/pdf"), content
    kind: Literal["document", "image"] = "image" if (media_type or "").startswith("image/") else "document"
    return Media(kind=kind, media_type=media_type, data=data, name=name, detail=detail, cache=cache)


def _split_data_url(url: str, path: str) -> tuple[str | None, str]:
    head, comma, data = url.partition(",")
    media_type, _, encoding = head.removeprefix("data:").rpartition(";")
    if not comma or encoding != "base64":
        raise RequestError(f"{path}: a data URL must say ;base64, before its data", parameter=path)
    return media_type.split(";")[0] or None, data


def data_url(part: Media) -> str:
    """The media's content as a ``data:`` URL, or its URL."""
    if part.data is None:
        return part.url or ""
    fallback = {"image": "image/png", "document": "application/pdf", "audio": "audio/wav", "video": "video/mp4"}
    return f"data:{part.media_type or fallback[part.kind]};base64,{part.data}"


def media_audio(part: Media, target: Wire, path: str) -> dict[str, Any]:
    """Audio as ``input_audio`` holds it. Raises UntranslatableError where there is no content to hold."""
    if part.data is None:
        raise UntranslatableError(f"{path}: {target} takes audio by its content only", parameter=path)
    media_type = part.media_type or "audio/wav"
    return {"data": part.data, "format": _FORMAT_BY_TYPE.get(media_type, media_type.removeprefix("audio/"))}


def refuse_foreign_file(part: Media, source: Wire, path: str, *, is_same_vendor: bool) -> None:
    """Raise UntranslatableError where a part is nothing but another vendor's file id."""
    if part.file_id is None or part.data is not None or part.url is not None or is_same_vendor:
        return
    raise UntranslatableError(
        f"{path}: the file {part.file_id} is stored at the vendor of {source}; send its content or a URL",
        parameter=path,
    )


def read_cache(fields: Fields) -> CacheMark | None:
    """``cache_control`` as OpenRouter's clients write it on this wire."""
    mark: dict[str, Any] | None = fields.object("cache_control")
    if mark is None:
        return None
    ttl = mark.get("ttl")
    return CacheMark(ttl="1h" if ttl == "1h" else "5m" if ttl == "5m" else None)


def google_signature(extra_content: Any) -> str | None:
    """Gemini's signature of a call, as Google's own door to this wire carries it (``extra_content.google``)."""
    google = extra_content.get("google") if isinstance(extra_content, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None
