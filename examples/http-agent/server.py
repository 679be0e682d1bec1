"""A small agent behind HTTP, for the example: it calculates. Run it with `python server.py [PORT]`.

`POST /chat` takes `{"prompt", "system"}` and answers `{"text", "usage", "cost"}`.
"""

import json
import operator
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


class Agent(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/chat":
            self.answer(404, {"error": f"no such path: {self.path}"})
        elif self.headers["Authorization"] != "Bearer demo-agent-key":
            self.answer(401, {"error": "the key is wrong"})
        else:
            prompt = json.loads(body)["prompt"]
            text = calculate(prompt)
            words = len(prompt.split())
            usage = {"prompt_tokens": words, "completion_tokens": 1}
            self.answer(200, {"text": text, "usage": usage, "cost": words * 1e-5})

    def answer(self, status: int, data: dict) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def calculate(prompt: str) -> str:
    found = re.search(r"(-?\d+)\s*([-+*])\s*(-?\d+)", prompt)
    if found is None:
        return "I can only calculate."
    left, sign, right = found.groups()
    return str(OPERATIONS[sign](int(left), int(right)))


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with ThreadingHTTPServer(("127.0.0.1", port), Agent) as server:
        print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()
