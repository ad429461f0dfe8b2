// A device of somebody else, who has read what a signal looks like: Microsoft's SDK
// for the hub, ws for the bridge, no line of ours. It echoes what comes over a
// bridge, and refuses one whose request data is "no". Settings: DEVICE, its
// connection string; TRANSPORT; METHODS=no, to take signals as messages only.
//
// It prints a JSON line for what happens, and ends when its input does.
import iotdevice from 'azure-iot-device';
import WebSocket from 'ws';
import { transports } from './lib.mjs';

const { DEVICE, TRANSPORT, METHODS } = process.env;
const tell = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');

const client = iotdevice.Client.fromConnectionString(DEVICE, transports[TRANSPORT]);
const bridges = new Set();

function bridge({ acceptUrl, bridgeId }) {
  const ws = new WebSocket(acceptUrl);
  bridges.add(ws);
  ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
  ws.on('open', () => tell('open', { bridgeId }));
  ws.on('error', (err) => tell('failed', { bridgeId, error: err.message }));
  ws.on('close', (code, reason) => {
    bridges.delete(ws);
    tell('closed', { bridgeId, code, reason: String(reason) });
  });
}

const refusal = { code: 'busy', message: 'come back at noon' };

client.on('message', async (m) => {
  await client.complete(m);
  if (m.properties.getValue('bridge-signal') !== 'v1') {
    tell('message', { body: String(m.data) }); // not for the bridge
    return;
  }
  const signal = JSON.parse(String(m.data));
  tell('signal', { by: 'message', bridgeId: signal.bridgeId, messageId: m.messageId });
  if (signal.requestData !== 'no') {
    bridge(signal);
    return;
  }
  const answer = await fetch(signal.rejectUrl, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(refusal) });
  tell('rejected', { status: answer.status });
});

if (METHODS !== 'no') {
  client.onDeviceMethod('Bridge', (request, response) => {
    const signal = request.payload;
    tell('signal', { by: 'method', bridgeId: signal.bridgeId });
    if (signal.requestData === 'no') {
      response.send(409, refusal, () => {});
      return;
    }
    response.send(200, {}, () => {}); // first the answer, then the bridge
    bridge(signal);
  });
}
client.on('disconnect', (err) => tell('disconnect', { error: String(err.transportObj ?? err) }));
await client.open();
tell('online');

process.stdin.resume();
process.stdin.on('end', async () => {
  for (const ws of bridges) ws.terminate();
  await client.close();
  process.exit(0);
});
