"""`python -m katlab.cli` is `katlab`."""

import sys

from katlab.cli import main

sys.exit(main())
