"""Hands a signal to the agent on this device. Only the standard library is needed."""

import asyncio
import http.client
import json
import os
import socket

TIMEOUT = 10  # seconds; the agent answers at once


async def hand_over(address, signal):
    """Returns the agent's answer: {"accepted": True} or {"code": ..., "message": ...}.

    It never raises, so that a method always gets an answer. address is unix:PATH or
    http:HOST:PORT, as the agent's AGENT_HANDOFF; signal is the JSON text that came from
    the hub; http: needs AGENT_HANDOFF_TOKEN_FILE, too.
    """
    by = _by_http if address.startswith("http:") else _by_unix
    try:
        answer = json.loads(await asyncio.to_thread(by, address[5:], signal))
        if answer.get("accepted") is not True and "code" not in answer:
            raise ValueError("the answer is not an agent's")
        return answer
    except (OSError, ValueError, AttributeError, KeyError, http.client.HTTPException) as err:
        return {"code": "agent_unreachable", "message": f"hand over to {address}: {err!r}"}


def _by_unix(path, signal):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(TIMEOUT)
        s.connect(path)
        s.sendall(signal.encode() + b"\n")
        with s.makefile("r", encoding="utf-8") as answers:
            return answers.readline()


def _by_http(host, signal):
    with open(os.environ["AGENT_HANDOFF_TOKEN_FILE"], encoding="utf-8") as f:
        headers = {"Authorization": "Bearer " + f.read().strip(), "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
    try:
        connection.request("POST", "/signal", signal.encode(), headers)
        return connection.getresponse().read()  # any status has an answer
    finally:
        connection.close()
