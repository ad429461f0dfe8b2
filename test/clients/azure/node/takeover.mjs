// One connection for each identity. Arguments: the device's transport. Over AMQP a
// device is there once it listens, so all of them do.
import assert from 'node:assert/strict';
import { args, disconnect, fails, inbox, listening, message, messagesOf, test, transports } from './lib.mjs';

const DeviceTransport = transports[args[0]];

test('the second client of an identity ends the first', async (t) => {
  const who = await t.device();
  const first = await t.online(who, DeviceTransport);
  const disconnects = inbox(first, 'disconnect');
  const lost = messagesOf(first);
  await listening(who, 'messages');
  const second = await t.online(who, DeviceTransport);
  const messages = messagesOf(second);
  await disconnects('the first one is told');
  const service = await t.service();
  await service.send(who.deviceId, message('hello'));
  assert.equal(String((await messages()).data), 'hello');
  assert.equal(lost.seen, 0, 'messages at the first');
});

test('a call under way fails when the device is taken over', async (t) => {
  const who = await t.device();
  const first = await t.online(who, DeviceTransport);
  const requests = inbox({ on: (_, f) => first.onDeviceMethod('m', f) }, 'call');
  const called = fails(t.caller().invokeDeviceMethod(who.deviceId, { methodName: 'm', connectTimeoutInSeconds: 10, responseTimeoutInSeconds: 60 }));
  await requests();
  const began = Date.now();
  messagesOf(await t.online(who, DeviceTransport));
  const err = await called;
  assert.equal(Date.now() - began < 30_000, true, 'before the timeout');
  assert.match(err.responseBody, /400027/);
  await listening(who, 'messages'); // see doc.go on close()
});

test('a device and its module are two', async (t) => {
  const who = await t.device();
  const part = await t.module(who.deviceId);
  const clients = [await t.online(who, DeviceTransport), await t.online(part, DeviceTransport)];
  const ends = clients.map((c) => inbox(c, 'disconnect'));
  const messages = messagesOf(clients[0]);
  const service = await t.service();
  for (let i = 0; i < 5; i++) {
    await service.send(who.deviceId, message(`hello ${i}`));
    assert.equal(String((await messages()).data), `hello ${i}`);
    await clients[1].sendEvent(message(`event ${i}`));
  }
  assert.deepEqual(ends.map((e) => e.seen), [0, 0]);
});

test('a hub that cuts the connection', async (t) => {
  const who = await t.device();
  const device = await t.online(who, DeviceTransport);
  const disconnects = inbox(device, 'disconnect');
  const messages = messagesOf(device);
  const service = await t.service();
  await service.send(who.deviceId, message('hello'));
  await messages();
  await disconnect(who.deviceId);
  const { transportObj } = await disconnects();
  assert.equal(transportObj?.name ?? 'NotConnectedError', 'NotConnectedError');
});
