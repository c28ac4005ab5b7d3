"""Make ``user_nets`` importable by its plain name, as a user's own module is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
