"""A client whose hub is standard input: a line is a message or a method. It prints
the methods' answers, and ends the program at the end of the input."""

import asyncio
import json
import os
import sys
from types import SimpleNamespace


class IoTHubDeviceClient:
    on_method_request_received = None
    on_message_received = None

    @classmethod
    def create_from_connection_string(cls, connection_string):
        assert "DeviceId=" in connection_string
        return cls()

    async def connect(self):
        self._hub = asyncio.create_task(self._receive())

    async def _receive(self):
        for n, line in enumerate(sys.stdin):
            event = json.loads(line)
            if "method" in event:
                await self.on_method_request_received(
                    SimpleNamespace(request_id=str(n), name=event["method"], payload=event["payload"]))
            else:
                await self.on_message_received(
                    SimpleNamespace(data=event["message"].encode(), custom_properties=event["properties"]))
        sys.stdout.flush()
        os._exit(0)

    async def send_method_response(self, response):
        print(response.name, response.status, json.dumps(response.payload), flush=True)

    async def shutdown(self):
        pass
