"""Files and arguments that are made to break what reads them; see ``__main__.py``."""
