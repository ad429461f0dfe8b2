// A device's program with its own connection to IoT Hub. What it does besides is its
// own business; the bridge's signals it hands to the agent on the same device.
import sdk from 'azure-iot-device'
import { Mqtt } from 'azure-iot-device-mqtt'
import { handOver } from './handoff.mjs'

const agent = process.env.AGENT_HANDOFF ?? 'unix:/run/deviceagent/handoff.sock'
const client = sdk.Client.fromConnectionString(process.env.DEVICE_CONNECTION_STRING, Mqtt)

// A direct method: the agent's answer is the method's.
client.onDeviceMethod('Bridge', async (request, response) => {
  const answer = await handOver(agent, JSON.stringify(request.payload))
  await response.send(answer.accepted ? 200 : 409, answer)
})

// A message: a signal has the property bridge-signal, and nobody to answer.
client.on('message', async (message) => {
  if (message.properties.getValue('bridge-signal') !== undefined) {
    const answer = await handOver(agent, message.getData().toString())
    if (!answer.accepted) console.error(`bridge refused: ${answer.code}: ${answer.message}`)
  } else {
    console.log(`message: ${message.getData()}`) // the program's own
  }
  await client.complete(message)
})

// A program's own method, as before.
client.onDeviceMethod('Reboot', (request, response) => response.send(202, {}))

client.on('error', (err) => console.error(`hub: ${err.message}`))
await client.open()
console.log('connected')
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => client.close().finally(() => process.exit(0)))
