"""How long the chaos suite, and the test of wrong attributes, may take."""

from __future__ import annotations

import os

IS_FULL = os.environ.get("GLIONODE_CHAOS") == "full"
"""``make chaos`` sets it; else a short form runs."""
