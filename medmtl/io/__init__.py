"""Everything that opens or writes an image: one set of rules for training and prediction."""

import logging

# nibabel repairs headers and says so for every file, without its name: what matters is said here, with the case.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)
