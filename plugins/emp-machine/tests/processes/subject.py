"""A process to manage: answers GET /health on a port, and does as it is told on its command line.

--port P       where it listens; without one it listens nowhere
--deaf         it ignores SIGTERM
--child        it has a child in a session of its own, as a service has that starts a daemon
--sick FILE    it answers 503 while the file is there
--last WORDS   it says them and ends with 3 at once
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--deaf", action="store_true")
parser.add_argument("--child", action="store_true")
parser.add_argument("--sick", type=Path)
parser.add_argument("--last")
given = parser.parse_args()


class Health(BaseHTTPRequestHandler):
    def do_GET(self):
        well = given.sick is None or not given.sick.exists()
        self.send_response(200 if well else 503)
        self.end_headers()
        self.wfile.write(json.dumps({"pid": os.getpid()}).encode())

    def log_message(self, *_):
        pass


if given.last:
    print(given.last, flush=True)
    sys.exit(3)
ended = threading.Event()
signal.signal(signal.SIGTERM, signal.SIG_IGN if given.deaf else lambda *_: ended.set())
if given.child:
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
if given.port:
    server = HTTPServer(("127.0.0.1", given.port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("begun", os.environ.get("SAID", ""), flush=True)
ended.wait()
print("ended", flush=True)
