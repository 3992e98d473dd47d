"""The name that :mod:`channelsq.test` had in Channels 1.0."""

import warnings

from channelsq.test import *  # noqa: F403
from channelsq.test import __all__  # noqa: F401

warnings.warn("channelsq.tests is an old name: import from channelsq.test", DeprecationWarning, stacklevel=2)
