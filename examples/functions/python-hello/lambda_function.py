"""A first function for Python.

    hearth deploy examples/functions/python-hello
    hearth invoke python-hello --payload '{"name":"Ada"}' --tail
"""

import platform

# Runs once in each microVM, during init.
calls = 0


def lambda_handler(event, context):
    global calls
    calls += 1
    print("event", event)
    return {
        "message": f"Hello, {event.get('name', 'world')}, from Python {platform.python_version()}",
        "calls": calls,
        "remainingMs": context.get_remaining_time_in_millis(),
    }
