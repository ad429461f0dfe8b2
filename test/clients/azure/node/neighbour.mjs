// The program that has owned the device's identity for years, and goes on working
// while our agent sits next to it as a module: messages, methods and events, one
// after another, each of them checked. It is its own service side, too. Settings:
// DEVICE, its connection string; SERVICE, a service's.
//
// It prints {"event":"online"}, a line for everything that goes wrong, and at the
// end of its input how much it did.
import { randomUUID } from 'node:crypto';
import common from 'azure-iot-common';
import iotdevice from 'azure-iot-device';
import { Mqtt } from 'azure-iot-device-mqtt';
import iothub from 'azure-iothub';
import { inbox, within } from './lib.mjs';

const { DEVICE, SERVICE } = process.env;
const tell = (event, fields = {}) => process.stdout.write(JSON.stringify({ event, ...fields }) + '\n');
const wrong = (what, err) => tell('wrong', { what, error: err?.stack ?? String(err) });

const { DeviceId } = common.ConnectionString.parse(DEVICE);
const device = iotdevice.Client.fromConnectionString(DEVICE, Mqtt);
const service = iothub.Client.fromConnectionString(SERVICE);
for (const client of [device, service]) {
  client.setRetryPolicy(new common.NoRetry()); // so that a disconnect is told, not mended
  client.on('disconnect', (err) => wrong('disconnect', err?.transportObj ?? err?.reason ?? 'without a reason'));
}
const messages = inbox(device, 'message');
device.onDeviceMethod('neighbour', ({ payload }, response) => response.send(200, payload, () => {}));
await within(device.open(), 'the device opens');
await within(service.open(), 'the service opens');
tell('online');

const done = { messages: 0, methods: 0, events: 0 };
let stop = false;
process.stdin.resume();
process.stdin.on('end', () => { stop = true; });

while (!stop) {
  const text = randomUUID();
  try {
    await within(service.send(DeviceId, new common.Message(text)), 'send a message');
    const got = String((await messages('a message')).data);
    if (got !== text) throw new Error(`got ${got} for ${text}`);
    done.messages++;
    const { result } = await within(service.invokeDeviceMethod(DeviceId, { methodName: 'neighbour', payload: text, connectTimeoutInSeconds: 5 }), 'a method');
    if (result.status !== 200 || result.payload !== text) throw new Error(`${result.status} ${result.payload} for ${text}`);
    done.methods++;
    await within(device.sendEvent(new common.Message(text)), 'an event');
    done.events++;
  } catch (err) {
    wrong('traffic', err);
    break;
  }
}
await device.close();
await service.close();
tell('done', done);
process.exit(0);
