// What the service is told of its messages. Arguments: the service's transport
// (Amqp or AmqpWs). There is one queue of feedback for the whole hub and its
// readers compete, so the tests share one.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import iothub from 'azure-iothub';
import { args, Bench, inbox, message, rest, test, transports, until, within } from './lib.mjs';

const ServiceTransport = iothub[args[0]];
const shared = new Bench();
const records = new Map(); // message id → its records
const service = await shared.service(ServiceTransport);
const { result: receiver } = await within(service.getFeedbackReceiver(), 'the feedback receiver');
receiver.on('message', (m) => {
  for (const r of JSON.parse(String(m.data))) records.set(r.originalMessageId, [...(records.get(r.originalMessageId) ?? []), r]);
});

// send returns the new message's id.
async function send(who, ack, fields = {}) {
  const messageId = randomUUID();
  await service.send(who.deviceId, message('hello', { messageId, ack, ...fields }));
  return messageId;
}

const feedback = (id) => until(`feedback for ${id}`, () => records.get(id));

function check(got, who, statusCode) {
  assert.equal(got.length, 1, 'records of one message');
  const [r] = got;
  assert.equal(r.statusCode ?? 'Success', statusCode);
  assert.equal(r.deviceId, who.deviceId);
  assert.equal(r.deviceGenerationId, who.generationId);
  assert.equal(Math.abs(Date.parse(r.enqueuedTimeUtc) - Date.now()) < 60_000, true, `enqueued ${r.enqueuedTimeUtc}`);
}

test('Success where it was asked for', async (t) => {
  const who = await t.device();
  const messages = inbox(await t.online(who), 'message');
  const ids = {};
  for (const ack of ['none', 'negative', 'positive', 'full']) ids[ack] = await send(who, ack);
  for (const _ of Object.keys(ids)) await messages();
  check(await feedback(ids.positive), who, 'Success');
  check(await feedback(ids.full), who, 'Success'); // the last one sent, so the others would be here
  assert.equal(records.has(ids.none), false, 'ack none');
  assert.equal(records.has(ids.negative), false, 'ack negative');
});

test('Expired where it was asked for', async (t) => {
  const who = await t.device();
  const ids = {};
  for (const ack of ['none', 'positive', 'negative', 'full']) ids[ack] = await send(who, ack, { expiryTimeUtc: Date.now() + 3_000 });
  check(await feedback(ids.negative), who, 'Expired');
  check(await feedback(ids.full), who, 'Expired');
  assert.equal(records.has(ids.none), false, 'ack none');
  assert.equal(records.has(ids.positive), false, 'ack positive');
});

test('Purged', async (t) => {
  const who = await t.device();
  const id = await send(who, 'full');
  await rest('DELETE', `/devices/${who.deviceId}/commands`);
  check(await feedback(id), who, 'Purged');
});

test('a message of two devices is two records', async (t) => {
  const devices = [await t.device(), await t.device()];
  const messageId = randomUUID(); // as somebody who does not make ids would
  for (const who of devices) {
    const messages = inbox(await t.online(who), 'message');
    await service.send(who.deviceId, message('hello', { messageId, ack: 'full' }));
    await messages();
  }
  const got = await until('two records', () => records.get(messageId)?.length === 2 && records.get(messageId));
  assert.deepEqual(got.map((r) => r.deviceId).sort(), devices.map((d) => d.deviceId).sort());
});

// Over MQTT a device can only complete. Over AMQP it may do as it likes.
test('Rejected, and DeliveryCountExceeded', async (t) => {
  const who = await t.device();
  const device = await t.online(who, transports.Amqp);
  const messages = inbox(device, 'message');
  const rejected = await send(who, 'full');
  await device.reject(await messages());
  check(await feedback(rejected), who, 'Rejected');
  const abandoned = await send(who, 'full');
  for (let i = 0; i < 10; i++) await device.abandon(await messages(`delivery ${i + 1}`));
  check(await feedback(abandoned), who, 'DeliveryCountExceeded');
});
