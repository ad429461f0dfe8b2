// The identity registry, and queries.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import iothub from 'azure-iothub';
import { fails, inbox, message, rest, test, world } from './lib.mjs';

const query = async (t, sql, pageSize) => {
  const q = t.registry.createQuery(sql, pageSize);
  const pages = [];
  while (q.hasMoreResults) pages.push((await q.next(q.continuationToken)).result); // without it, next() starts anew
  return pages;
};

test('create, get, list, update, delete', async (t) => {
  const deviceId = `pump-${randomUUID()}`;
  const { responseBody: made } = await t.registry.create({ deviceId });
  assert.equal(made.deviceId, deviceId);
  assert.equal(made.status, 'enabled');
  assert.equal(made.connectionState, 'Disconnected');
  assert.equal(made.authentication.type, 'sas');
  for (const key of ['primaryKey', 'secondaryKey']) {
    assert.equal(Buffer.from(made.authentication.symmetricKey[key], 'base64').length >= 16, true, key);
  }
  assert.ok(made.etag && made.generationId);

  const { responseBody: got } = await t.registry.get(deviceId);
  assert.deepEqual({ ...got }, { ...made });
  const { responseBody: all } = await t.registry.list();
  assert.equal(all.filter((d) => d.deviceId === deviceId).length, 1);

  const { responseBody: updated } = await t.registry.update({ ...got, status: 'disabled', statusReason: 'out of order' });
  assert.equal(updated.status, 'disabled');
  assert.equal(updated.statusReason, 'out of order');
  assert.notEqual(updated.etag, made.etag);
  assert.equal(updated.generationId, made.generationId);
  assert.deepEqual(updated.authentication.symmetricKey, made.authentication.symmetricKey);

  await t.registry.delete(deviceId);
  await fails(t.registry.get(deviceId), 'DeviceNotFoundError');
  await fails(t.registry.delete(deviceId), 'DeviceNotFoundError');
});

test('keys of our own', async (t) => {
  const symmetricKey = { primaryKey: Buffer.alloc(32, 1).toString('base64'), secondaryKey: Buffer.alloc(32, 2).toString('base64') };
  const deviceId = `pump-${randomUUID()}`;
  await t.registry.create({ deviceId, authentication: { type: 'sas', symmetricKey } });
  assert.deepEqual((await t.registry.get(deviceId)).responseBody.authentication.symmetricKey, symmetricKey);
  const keys = { HostName: world.hostName, DeviceId: deviceId };
  for (const SharedAccessKey of Object.values(symmetricKey)) {
    const connectionString = Object.entries({ ...keys, SharedAccessKey }).map(([k, v]) => `${k}=${v}`).join(';');
    await (await t.online({ deviceId, connectionString })).close();
  }
});

test('a device that is there already', async (t) => {
  const { deviceId } = await t.device();
  await fails(t.registry.create({ deviceId }), 'DeviceAlreadyExistsError');
});

test('a device made again is another one', async (t) => {
  const first = await t.device();
  const service = await t.service();
  await service.send(first.deviceId, message('for the first'));
  await t.registry.delete(first.deviceId);
  const second = await t.device({ deviceId: first.deviceId });
  assert.notEqual(second.generationId, first.generationId);
  assert.notEqual(second.key, first.key);
  await service.send(second.deviceId, message('for the second'));
  const messages = inbox(await t.online(second), 'message');
  assert.equal(String((await messages()).data), 'for the second');
});

test('modules', async (t) => {
  const { deviceId } = await t.device();
  for (const moduleId of ['bridge', 'camera']) await t.registry.addModule({ deviceId, moduleId });
  await fails(t.registry.addModule({ deviceId, moduleId: 'bridge' }), 'DeviceAlreadyExistsError');
  const { responseBody: modules } = await t.registry.getModulesOnDevice(deviceId);
  assert.deepEqual(modules.map((m) => m.moduleId).sort(), ['bridge', 'camera']);
  const { responseBody: bridge } = await t.registry.getModule(deviceId, 'bridge');
  assert.equal(bridge.deviceId, deviceId);
  assert.ok(bridge.authentication.symmetricKey.primaryKey);

  // An etag that is not the module's any more.
  const withKey = (n) => ({
    ...bridge, authentication: { ...bridge.authentication, symmetricKey: { ...bridge.authentication.symmetricKey, primaryKey: Buffer.alloc(32, n).toString('base64') } },
  });
  await t.registry.updateModule(withKey(1), false);
  await fails(t.registry.updateModule(withKey(2), false), 'InvalidEtagError');
  const { responseBody: now } = await t.registry.getModule(deviceId, 'bridge');
  assert.deepEqual(now.authentication, withKey(1).authentication);

  await t.registry.removeModule(deviceId, 'camera');
  const gone = await fails(t.registry.getModule(deviceId, 'camera'));
  assert.equal(gone.response.statusCode, 404);
  await fails(t.registry.addModule({ deviceId: 'nobody', moduleId: 'bridge' }), 'DeviceNotFoundError');
});

test('queries come in pages', async (t) => {
  const run = randomUUID();
  const ids = [];
  for (let i = 0; i < 7; i++) {
    const { deviceId } = await t.device();
    await t.registry.updateTwin(deviceId, { tags: { run } }, '*');
    ids.push(deviceId);
  }
  const pages = await query(t, `SELECT * FROM devices WHERE tags.run = '${run}'`, 3);
  assert.deepEqual(pages.map((p) => p.length), [3, 3, 1]);
  assert.deepEqual(pages.flat().map((d) => d.deviceId).sort(), ids.sort());

  const q = t.registry.createQuery('SELECT * FROM devices');
  const { result: twins } = await q.nextAsTwin();
  assert.equal(twins.some((twin) => twin.deviceId === ids[0]), true, 'as twins');
});

test('a query by id', async (t) => {
  const { deviceId } = await t.device();
  const pages = await query(t, `SELECT * FROM devices WHERE deviceId = '${deviceId}'`);
  assert.deepEqual(pages.flat().map((d) => d.deviceId), [deviceId]);
});

test('connectionState follows the device', async (t) => {
  const who = await t.device();
  const device = await t.online(who);
  assert.equal((await t.registry.get(who.deviceId)).responseBody.connectionState, 'Connected');
  await device.close();
  const { responseBody } = await t.registry.get(who.deviceId);
  assert.equal(['Connected', 'Disconnected'].includes(responseBody.connectionState), true, responseBody.connectionState);
});

test('statistics', async (t) => {
  await t.device();
  const { responseBody } = await t.registry.getRegistryStatistics();
  assert.equal(responseBody.totalDeviceCount >= 1, true);
  assert.equal(responseBody.enabledDeviceCount <= responseBody.totalDeviceCount, true);
});

test('a policy that may only read', async (t) => {
  const { deviceId } = await t.device();
  const reader = iothub.Registry.fromConnectionString(world.policies.registryRead);
  assert.equal((await reader.get(deviceId)).responseBody.deviceId, deviceId);
  await fails(reader.create({ deviceId: 'another' }), 'UnauthorizedError');
  await fails(reader.delete(deviceId), 'UnauthorizedError');
  await assert.rejects(rest('GET', `/devices/${deviceId}`, 'service'), /401/);
});
