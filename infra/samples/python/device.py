"""A device's program with its own connection to IoT Hub. What it does besides is its
own business; the bridge's signals it hands to the agent on the same device."""

import asyncio
import json
import os

from azure.iot.device import MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient

from handoff import hand_over

AGENT = os.environ.get("AGENT_HANDOFF", "unix:/run/deviceagent/handoff.sock")


async def main():
    client = IoTHubDeviceClient.create_from_connection_string(os.environ["DEVICE_CONNECTION_STRING"])

    # A direct method: the agent's answer is the method's. The SDK has one handler for
    # all names.
    async def on_method(request):
        if request.name == "Bridge":
            answer = await hand_over(AGENT, json.dumps(request.payload))
            status = 200 if answer.get("accepted") else 409
        elif request.name == "Reboot":  # the program's own
            status, answer = 202, {}
        else:
            status, answer = 501, {"code": "unknown_method", "message": request.name}
        await client.send_method_response(MethodResponse.create_from_method_request(request, status, answer))

    # A message: a signal has the property bridge-signal, and nobody to answer.
    async def on_message(message):
        if "bridge-signal" in message.custom_properties:
            answer = await hand_over(AGENT, message.data.decode())
            if not answer.get("accepted"):
                print("bridge refused:", answer["code"], answer["message"], flush=True)
        else:
            print("message:", message.data.decode(), flush=True)  # the program's own

    client.on_method_request_received = on_method
    client.on_message_received = on_message
    await client.connect()
    print("connected", flush=True)
    try:
        await asyncio.Event().wait()  # until Ctrl-C
    finally:
        await client.shutdown()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
