"""A handler that does what a bad one does: the event's `op` says which. Run by misbehaviour.test.ts."""

import ctypes
import os
import signal
import sys
import threading
import time


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("has no text")


def ok(event):
    return "fine"


def throw(event):
    raise ValueError("m" * event.get("length", 1))


def throw_odd(event):
    raise Odd()


def throw_base(event):
    raise KeyboardInterrupt("not an Exception")


def thread_dies(event):
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    return "others go on"


def unserialisable(event):
    return {"a": {1, 2}}


def circular(event):
    value = []
    value.append(value)
    return value


def nothing(event):
    return None


def text(event):
    return "x" * (event["length"] - 2)


def leave(event):
    sys.exit(event["code"])


def leave_at_once(event):
    os._exit(event["code"])


def signalled(event):
    os.kill(os.getpid(), getattr(signal, event["name"]))


def segfault(event):
    ctypes.string_at(0)


def loop(event):
    while True:
        pass


def allocate(event):
    kept = []
    while True:
        kept.append(bytearray(8 << 20))


def recurse(event):
    return recurse(event)


def children(event):
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    return "three sleep on"


def forks(event):
    started = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
            started += 1
    except BlockingIOError:
        return started


def handler(event, context):
    return globals()[event["op"]](event)
