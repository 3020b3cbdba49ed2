"""Upstream's name for the conversion of checkpoints of LLaVA's first version."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def auto_upgrade(config: str) -> None:
    """Do nothing: files of the first version are loaded as they are, and need not be rewritten.

    Upstream asks on the terminal and rewrites the configuration in place. Scripts that call it keep working;
    `python -m llava.model.consolidate` writes a current checkpoint of an old one.

    Args:
        config: folder of a checkpoint.
    """
    logger.info("'%s' is loaded as it is; nothing was rewritten.", config)
