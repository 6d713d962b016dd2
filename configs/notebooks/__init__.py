"""The configs of the notebooks; `get_config` is that of the tiny world."""

from configs.notebooks.tiny import get_config

__all__ = ["get_config"]
