"""Runs localstripe for one test: on loopback alone, with nothing on disk, until the test's process ends."""

import os
import socket
import sys
import threading

from aiohttp import web
from localstripe import resources, server

# It would pickle its store to a file that all of its processes share.
resources.Store.dump_to_disk = lambda store: None


def end_with_the_test():
    """Whoever started this holds the other end of the pipe, and lets go of it by dying, however it dies."""
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_the_test, daemon=True).start()

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(128)
print("listening at 127.0.0.1:%d" % listener.getsockname()[1], flush=True)
web.run_app(server.app, sock=listener, print=None, access_log=None)
