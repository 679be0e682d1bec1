"""Adapters: other libraries' models and agents as providers here, and targets in other tools.

Each file stands by itself, and imports the library it is for when a target uses it; the libraries
are extras (`pip install 'muster-ai[litellm]'`). `docs/providers/adapters.md` tells what each takes.
"""
