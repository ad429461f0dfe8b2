// Cloud-to-device messages. Arguments: the device's transport and the service's.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import iothub from 'azure-iothub';
import { args, fails, message, messagesOf, propertiesOf, rest, test, transports, until } from './lib.mjs';

const DeviceTransport = transports[args[0]];
const ServiceTransport = iothub[args[1]];

test('properties, system properties and every byte arrive as they were sent', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const device = await t.online(who, DeviceTransport);
  const messages = messagesOf(device);
  const properties = {
    plain: 'value',
    empty: '',
    'a key with = and & and /': 'a value with = and & and /',
    percent: '100% %41 %zz %',
    plus: 'a+b c',
    wildcards: '#/+/$',
    question: 'wss://relay/bridge/accept?a=1&b=2#c',
    unicode: 'ünïcødé € 𝄞 日本',
    'ключ': 'key',
  };
  const body = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const messageId = randomUUID();
  const expiryTimeUtc = Date.now() + 60_000;
  await service.send(who.deviceId, message(body, {
    messageId, correlationId: 'request 7/8', contentType: 'application/json; charset=utf-8', contentEncoding: 'utf-8',
    expiryTimeUtc, ack: 'full', properties,
  }));
  const got = await messages();
  assert.deepEqual(Buffer.from(got.data), body);
  assert.equal(got.messageId, messageId);
  assert.equal(got.correlationId, 'request 7/8');
  assert.equal(got.contentType, 'application/json; charset=utf-8');
  assert.equal(got.contentEncoding, 'utf-8');
  assert.equal(got.to, `/devices/${who.deviceId}/messages/devicebound`);
  assert.equal(Math.abs(new Date(got.expiryTimeUtc) - expiryTimeUtc) < 1000, true, `expiry ${got.expiryTimeUtc}`);
  // Over MQTT this SDK takes the wish for feedback for a property like others.
  assert.equal(got.ack ?? got.properties.getValue('iothub-ack'), 'full');
  assert.deepEqual(propertiesOf(got), got.ack ? properties : { ...properties, 'iothub-ack': 'full' });
});

// In MQTT's bag null is a bare key; this SDK reads the word undefined.
test('a property that is null', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  await service.send(who.deviceId, message('x', { properties: { nothing: null, next: 'here' } }));
  assert.deepEqual(propertiesOf(await messages()), { nothing: args[0].startsWith('Mqtt') ? 'undefined' : null, next: 'here' });
});

test('no body, no properties', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  await service.send(who.deviceId, message(''));
  const got = await messages();
  assert.equal(got.data.length, 0);
  assert.deepEqual(propertiesOf(got), {});
});

test('60 KB arrive, and more than 64 KB are refused on a link that goes on', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  const body = Buffer.alloc(60 << 10, 'bridge ');
  await service.send(who.deviceId, message(body));
  assert.deepEqual(Buffer.from((await messages()).data), body);
  await fails(service.send(who.deviceId, message(Buffer.alloc((64 << 10) + 1))), 'MessageTooLargeError');
  await service.send(who.deviceId, message('after'));
  assert.equal(String((await messages()).data), 'after');
});

test('forty at once, and in order', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  const want = Array.from({ length: 40 }, (_, i) => `message ${i}`);
  await Promise.all(want.map((body) => service.send(who.deviceId, message(body))));
  const got = [];
  for (const _ of want) got.push(String((await messages()).data));
  assert.deepEqual(got, want);
});

test('what was sent while the device was away waits for it, less what has expired', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  for (const body of ['one', 'two']) await service.send(who.deviceId, message(body));
  const expired = Date.now() + 3_000;
  await service.send(who.deviceId, message('too late', { expiryTimeUtc: expired }));
  await service.send(who.deviceId, message('three'));
  await until('its expiry', () => Date.now() > expired + 100);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  const got = [];
  for (let i = 0; i < 3; i++) got.push(String((await messages()).data));
  assert.deepEqual(got, ['one', 'two', 'three']);
});

test('the 51st is refused; once the device was there, the next goes through on the same link', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  let lost = 0;
  service.on('disconnect', () => lost++);
  for (let i = 1; i <= 50; i++) await service.send(who.deviceId, message(`message ${i}`));
  await fails(service.send(who.deviceId, message('message 51')), 'DeviceMaximumQueueDepthExceededError');
  const messages = messagesOf(await t.online(who, DeviceTransport));
  for (let i = 1; i <= 50; i++) assert.equal(String((await messages()).data), `message ${i}`);
  await service.send(who.deviceId, message('message 52'));
  assert.equal(String((await messages()).data), 'message 52');
  assert.equal(lost, 0, 'disconnects of the service');
});

test('a device that is not there, and the next send', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const messages = messagesOf(await t.online(who, DeviceTransport));
  for (let i = 0; i < 3; i++) {
    await fails(service.send(`nobody-${randomUUID()}`, message('hello')), 'DeviceNotFoundError');
    await service.send(who.deviceId, message(`hello ${i}`));
    assert.equal(String((await messages()).data), `hello ${i}`);
  }
});

test('an expiry in the past is refused', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  await fails(service.send(who.deviceId, message('hello', { expiryTimeUtc: Date.now() - 60_000 })));
  await service.send(who.deviceId, message('hello'));
});

test('purge empties the queue', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  for (let i = 0; i < 3; i++) await service.send(who.deviceId, message('old'));
  const purged = await rest('DELETE', `/devices/${who.deviceId}/commands`);
  assert.equal(purged.totalMessagesPurged, 3);
  assert.equal(purged.deviceId, who.deviceId);
  await service.send(who.deviceId, message('new'));
  const messages = messagesOf(await t.online(who, DeviceTransport));
  assert.equal(String((await messages()).data), 'new');
});

// Ids may have these; # and + cannot be in a topic that an SDK subscribes to.
test('an id with all kinds of signs', async (t) => {
  const who = await t.device({ deviceId: `p-7.%_*?!(),:=@$'${randomUUID()}` });
  const service = await t.service(ServiceTransport);
  const device = await t.online(who, DeviceTransport);
  const messages = messagesOf(device);
  await service.send(who.deviceId, message('hello', { properties: { for: who.deviceId } }));
  const got = await messages();
  assert.equal(String(got.data), 'hello');
  assert.equal(got.properties.getValue('for'), who.deviceId);
});

test('a device that has gone and comes back gets the rest', async (t) => {
  const who = await t.device();
  const service = await t.service(ServiceTransport);
  const first = await t.online(who, DeviceTransport);
  const before = messagesOf(first);
  await service.send(who.deviceId, message('one'));
  assert.equal(String((await before()).data), 'one');
  await first.close();
  await service.send(who.deviceId, message('two'));
  const after = messagesOf(await t.online(who, DeviceTransport));
  assert.equal(String((await after()).data), 'two');
  assert.equal(before.seen, 1);
});
