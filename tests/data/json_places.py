"""Where something is in the content of a JSON file."""


def places(content):
    """All lists and dicts in the content, with their keys."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield content, key
        if isinstance(value, (dict, list)):
            yield from places(value)
