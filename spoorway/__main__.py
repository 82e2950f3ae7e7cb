"""`python -m spoorway` is `spoorway`."""

import sys

from spoorway.cli import main

sys.exit(main())
