"""`python -m hf_mae VERB` is `hf-mae VERB`."""

import sys

from .cli import main

sys.exit(main())
