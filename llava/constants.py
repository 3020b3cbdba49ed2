"""Names and ids that checkpoints, data files and forks of LLaVA agree on."""

CONTROLLER_HEART_BEAT_EXPIRATION = 30
"""Seconds after which the controller drops a silent worker."""
WORKER_HEART_BEAT_INTERVAL = 15
"""Seconds between two signs of life of a worker."""
LOGDIR = "."

IGNORE_INDEX = -100
"""Label of a position that is not supervised."""
IMAGE_TOKEN_INDEX = -200
"""Id that stands for an image in `input_ids`; never an id of a vocabulary."""
DEFAULT_IMAGE_TOKEN = "<image>"
DEFAULT_IMAGE_PATCH_TOKEN = "<im_patch>"
DEFAULT_IM_START_TOKEN = "<im_start>"
DEFAULT_IM_END_TOKEN = "<im_end>"
IMAGE_PLACEHOLDER = "<image-placeholder>"
"""What a user may write in a query where an image belongs."""
