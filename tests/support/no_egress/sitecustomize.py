"""With this folder on PYTHONPATH a Python process stays on this machine, whatever it runs (`notebooks/conftest.py`)."""

import loopback

loopback.only()
