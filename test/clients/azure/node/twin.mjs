// Twins, of devices and modules. Arguments: the device's transport.
import assert from 'node:assert/strict';
import { args, fails, inbox, listening, test, transports, within } from './lib.mjs';

const DeviceTransport = transports[args[0]];

async function twinOf(t, who) {
  const device = await t.online(who, DeviceTransport);
  return within(device.getTwin(), 'the twin');
}

const report = (twin, patch) => within(new Promise((done, failed) => twin.properties.reported.update(patch, (err) => (err ? failed(err) : done()))), 'the report');

test('reported and desired', async (t) => {
  const who = await t.device();
  const twin = await twinOf(t, who);
  await report(twin, { firmware: '1.2', bridge: { version: 1, targets: ['ssh'] }, gone: true });
  await report(twin, { bridge: { version: 2 }, gone: null });

  const { responseBody: seen } = await t.registry.getTwin(who.deviceId);
  assert.equal(seen.properties.reported.firmware, '1.2');
  assert.deepEqual(seen.properties.reported.bridge, { version: 2, targets: ['ssh'] });
  assert.equal('gone' in seen.properties.reported, false);
  assert.equal(seen.properties.reported.$version, 3);

  const changes = inbox(twin, 'properties.desired');
  const first = await changes(); // what is there already
  assert.equal(first.$version, 1);
  await listening(who, 'desired properties');
  await t.registry.updateTwin(who.deviceId, { properties: { desired: { interval: 30, bridge: { allow: ['ssh'] } } } }, seen.etag);
  const change = await changes();
  assert.deepEqual(change, { interval: 30, bridge: { allow: ['ssh'] }, $version: 2 });
  assert.equal(twin.properties.desired.interval, 30);
});

test('a desired change is there for a device that was away', async (t) => {
  const who = await t.device();
  await t.registry.updateTwin(who.deviceId, { properties: { desired: { interval: 60 } } }, '*');
  const twin = await twinOf(t, who);
  assert.equal(twin.properties.desired.interval, 60);
});

test('tags, and an etag that is not the current one', async (t) => {
  const who = await t.device();
  const { responseBody: twin } = await t.registry.getTwin(who.deviceId);
  const { responseBody: tagged } = await t.registry.updateTwin(who.deviceId, { tags: { site: 'Oslo' } }, twin.etag);
  assert.deepEqual(tagged.tags, { site: 'Oslo' });
  assert.notEqual(tagged.etag, twin.etag);
  await fails(t.registry.updateTwin(who.deviceId, { tags: { site: 'Rome' } }, twin.etag), 'InvalidEtagError');
  assert.equal((await t.registry.getTwin(who.deviceId)).responseBody.tags.site, 'Oslo');
});

test("a module's twin is its own", async (t) => {
  const who = await t.device();
  const part = await t.module(who.deviceId);
  const twin = await twinOf(t, part);
  await report(twin, { of: 'the module' });
  const { responseBody: module } = await t.registry.getModuleTwin(who.deviceId, part.moduleId);
  assert.equal(module.properties.reported.of, 'the module');
  const { responseBody: device } = await t.registry.getTwin(who.deviceId);
  assert.equal('of' in device.properties.reported, false);
});

test('the twin of nobody', async (t) => {
  await fails(t.registry.getTwin('nobody'), 'DeviceNotFoundError');
});
