"""What a command is called with: options with their texts, without the libraries that run it, for help and completion.

Options that are arguments of a class are read from the JSON Schema of the configurations, which `make schema` makes
from signatures and docstrings.
"""
