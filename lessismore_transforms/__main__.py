"""`python -m lessismore_transforms`, the same as the command `lessismore`."""

import sys

from lessismore_transforms.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
