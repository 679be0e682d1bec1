"""A command that asks the environment: posts a file's text to `$ENVIRONMENT_URL`, and prints the
answer. A refusal or a broken answer is an exit code.

python relay_command.py FILE
"""

import json
import os
import sys


def posted(prompt: str, url: str) -> bytes:
    body = json.dumps({"prompt": prompt}).encode()
    head = (
        f"POST /relay HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Content-Type: application/json\r\nAccept: application/json\r\n\r\n"
    )
    return head.encode() + body


def read(head: bytes, body: bytes) -> dict:
    """The answer's JSON; a `ValueError` for whatever is none."""
    status = int(head.split(b" ", 2)[1])
    if status != 200:
        raise ValueError(f"HTTP {status}")
    answer = json.loads(body)
    if not isinstance(answer.get("text"), str):
        raise ValueError("the answer has no text")
    return answer


def length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise ValueError("the answer does not say how long it is")


def asked(prompt: str) -> dict:
    """The environment's answer."""
    import socket

    url = os.environ["ENVIRONMENT_URL"]
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(posted(prompt, url))
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                raise ValueError("the connection was closed")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        while len(body) < length_of(head):
            piece = connection.recv(65536)
            if not piece:
                raise ValueError("the connection was closed amid the answer")
            body += piece
    return read(head, body)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8", newline="") as file:
        answer = asked(file.read())
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
