"""A language model behind any endpoint with OpenAI's chat API, as ``evovla.stage_writer`` asks it.

The network client is here because the island ``evovla`` has none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from reward_vlm.backends.engine_http import EngineHTTP, Patience
from reward_vlm.model import BadOutput

KEY_ENV = "INCOGNITA_LLM_KEY"


@dataclass(frozen=True)
class ChatConfig:
    """How it is asked."""

    temperature: float = 0.3
    max_tokens: int = 16384
    """Of one answer; 74 stages take about 12,000."""
    patience: Patience = field(default_factory=lambda: Patience(budget_s=300.0, tries=3))

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.max_tokens < 1:
            raise ValueError(f"temperature >= 0 and max_tokens >= 1 wanted, got {self}")


class Chat:
    """Messages in, text out. Close it when done.

    Args:
        url: ``http(s)://HOST[:PORT]``, with ``/v1`` or without, or up to the folder that holds
            ``chat/completions`` (``https://.../v1beta/openai``).
        model: as the endpoint names it.
        config: how it is asked. The key comes from the environment, :data:`KEY_ENV`.

    Raises:
        ValueError: url is no such address.
    """

    def __init__(self, url: str, model: str, config: ChatConfig | None = None) -> None:
        self.config, self.model = config or ChatConfig(), model
        usual = urlsplit(url).path.rstrip("/") in ("", "/v1")
        path = "/v1/chat/completions" if usual else "/chat/completions"
        self._http = EngineHTTP(url, path, self.config.patience, os.environ.get(KEY_ENV), 1)

    def __call__(self, messages: list[dict[str, Any]]) -> str:
        """The answer's text.

        Raises:
            EngineUnavailable: no answer in time, after the tries of :attr:`ChatConfig.patience`.
            BadOutput: an answer without a text, or cut at :attr:`ChatConfig.max_tokens`.
        """
        c = self.config
        answer = self._http.post({
            "model": self.model, "messages": messages, "temperature": c.temperature,
            "max_tokens": c.max_tokens,
        })  # fmt: skip
        try:
            choice = answer["choices"][0]
            text, why = choice["message"]["content"], choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise BadOutput("the endpoint's answer has no choices[0].message.content") from None
        if why == "length":
            raise BadOutput(f"the answer was cut at {c.max_tokens} tokens; allow more of them")
        if not isinstance(text, str) or not text.strip():
            raise BadOutput(f"the answer must be a text, got {text!r:.60}")
        return text

    def close(self) -> None:
        """Close the connection."""
        self._http.close()
