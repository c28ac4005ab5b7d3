"""``python -m transferlab``: the program, where its script is not on the PATH."""

import sys

from transferlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
