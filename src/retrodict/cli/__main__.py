"""`python -m retrodict.cli`."""

import sys

from retrodict.cli import main

sys.exit(main())
