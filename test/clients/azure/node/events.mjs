// Device-to-cloud messages. Arguments: the device's transport.
import assert from 'node:assert/strict';
import { args, events, message, test, transports, until, within } from './lib.mjs';

const DeviceTransport = transports[args[0]];

const arrived = (who, n) => until(`${n} events`, async () => {
  const got = await events(who.deviceId);
  return got.length >= n && got;
});

test('an event arrives with everything it has', async (t) => {
  const who = await t.device();
  const device = await t.online(who, DeviceTransport);
  const body = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await within(device.sendEvent(message(body, {
    messageId: 'event 1', correlationId: 'c/1', contentType: 'application/json', contentEncoding: 'utf-8',
    properties: { 'a key': 'a=b&c/d', percent: '100%', unicode: '€ 𝄞' },
  })), 'the PUBACK');
  const [got] = await arrived(who, 1);
  assert.equal(got.deviceId, who.deviceId);
  assert.deepEqual(got.body, body);
  assert.deepEqual(got.properties, {
    '$.mid': 'event 1', '$.cid': 'c/1', '$.ct': 'application/json', '$.ce': 'utf-8', 'a key': 'a=b&c/d', percent: '100%', unicode: '€ 𝄞',
  });
});

test('a hundred, each once and in order', async (t) => {
  const who = await t.device();
  const device = await t.online(who, DeviceTransport);
  const want = Array.from({ length: 100 }, (_, i) => `event ${i}`);
  await within(Promise.all(want.map((body) => device.sendEvent(message(body)))), 'the PUBACKs');
  const got = await arrived(who, 100);
  assert.deepEqual(got.map((e) => String(e.body)), want);
});

test('the largest', async (t) => {
  const who = await t.device();
  const device = await t.online(who, DeviceTransport);
  const body = Buffer.alloc(250 << 10, 'bridge ');
  await within(device.sendEvent(message(body)), 'the PUBACK');
  const [got] = await arrived(who, 1);
  assert.deepEqual(got.body, body);
});

test("a module's events are its own", async (t) => {
  const who = await t.device();
  const part = await t.module(who.deviceId);
  const client = await t.online(part, DeviceTransport);
  await within(client.sendEvent(message('from the module')), 'the PUBACK');
  const [got] = await arrived(who, 1);
  assert.equal(got.moduleId, part.moduleId);
  assert.equal(String(got.body), 'from the module');
});
