// Who gets in, and for how long. Arguments: the device's transport and the
// service's.
import assert from 'node:assert/strict';
import common from 'azure-iot-common';
import iotdevice from 'azure-iot-device';
import iothub from 'azure-iothub';
import { args, fails, inbox, listening, message, messagesOf, stats, test, transports, until, within, world } from './lib.mjs';

const DeviceTransport = transports[args[0]];
const ServiceTransport = iothub[args[1]];

// refused: the SDK says "Not authorized" of every first connection that fails. That
// the hub has said so stands behind it.
async function refused(t, who) {
  const err = await fails(t.online(who, DeviceTransport));
  assert.match(err.message, /Connection refused: Not authorized/);
}

const otherKey = Buffer.alloc(32, 7).toString('base64');
const withKey = (who, key) => ({ ...who, connectionString: who.connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${key}`) });

test('a wrong key', async (t) => refused(t, withKey(await t.device(), otherKey)));

test('a device that does not exist', async (t) => refused(t, {
  deviceId: 'nobody', connectionString: `HostName=${world.hostName};DeviceId=nobody;SharedAccessKey=${otherKey}`,
}));

test('an id in another case', async (t) => {
  const who = await t.device({ deviceId: `Pump-${Date.now()}` });
  const deviceId = who.deviceId.toLowerCase();
  await refused(t, { deviceId, connectionString: who.connectionString.replace(who.deviceId, deviceId) });
});

test("another device's key", async (t) => {
  const [a, b] = [await t.device(), await t.device()];
  await refused(t, withKey(a, b.key));
});

test("a device's key is not its module's", async (t) => {
  const who = await t.device();
  const part = await t.module(who.deviceId);
  await refused(t, withKey(part, who.key));
  await t.online(part, DeviceTransport);
});

test('a disabled device is cut off and stays out, until it is enabled', async (t) => {
  const who = await t.device();
  const device = await t.online(who, DeviceTransport);
  const disconnects = inbox(device, 'disconnect');
  const { responseBody: info } = await t.registry.get(who.deviceId);
  await t.registry.update({ ...info, status: 'disabled' });
  await disconnects('the hub cuts it off');
  await refused(t, who);
  await t.registry.update({ ...info, status: 'enabled' });
  await t.online(who, DeviceTransport);
});

test('a deleted device is cut off', async (t) => {
  const who = await t.device();
  const disconnects = inbox(await t.online(who, DeviceTransport), 'disconnect');
  await t.registry.delete(who.deviceId);
  await disconnects('the hub cuts it off');
  await refused(t, who);
});

const token = (resource, name, key, seconds) => common.SharedAccessSignature.create(resource, name, key, Math.floor(Date.now() / 1000) + seconds).toString();

const withToken = (who, text) => iotdevice.Client.fromSharedAccessSignature(text, DeviceTransport);

test('a token that has expired', async (t) => {
  const who = await t.device();
  const resource = common.encodeUriComponentStrict(`${world.hostName}/devices/${who.deviceId}`);
  const old = t.own(withToken(who, token(resource, null, who.key, -3600)));
  assert.match((await fails(within(old.open(), 'open'))).message, /Connection refused: Not authorized/);
  const fresh = t.own(withToken(who, token(resource, null, who.key, 60)));
  await within(fresh.open(), 'open');
});

test("a token of the hub's device policy", async (t) => {
  const who = await t.device();
  const { SharedAccessKeyName, SharedAccessKey } = iothub.ConnectionString.parse(world.policies.device);
  const resource = common.encodeUriComponentStrict(`${world.hostName}/devices/${who.deviceId}`);
  await within(t.own(withToken(who, token(resource, SharedAccessKeyName, SharedAccessKey, 60))).open(), 'open');
  const service = iothub.ConnectionString.parse(world.policies.service); // which may not be a device
  const wrong = t.own(withToken(who, token(resource, service.SharedAccessKeyName, service.SharedAccessKey, 60)));
  await fails(within(wrong.open(), 'open'));
});

// For that the SDK connects again, and subscribes to nothing: it counts on the hub
// to keep the subscriptions of a session, all of them.
test('a token that is renewed in time', async (t) => {
  const who = await t.device();
  const auth = iotdevice.SharedAccessKeyAuthenticationProvider.fromConnectionString(who.connectionString, 6, 3);
  const device = iotdevice.Client.fromAuthenticationProvider(auth, DeviceTransport);
  t.after(() => device.close());
  const messages = messagesOf(device);
  device.onDeviceMethod('m', (_, response) => response.send(200, 'here', () => {}));
  await within(device.open(), 'open');
  const twin = await within(device.getTwin(), 'the twin');
  const changes = inbox(twin, 'properties.desired');
  await changes(); // what is there already
  for (const what of ['messages', 'methods', 'desired properties']) await listening(who, what);
  let lost = 0;
  device.on('disconnect', () => lost++);
  const service = await t.service(ServiceTransport);
  await until('the SDK connects again, with a new token', async () => (await stats()).connects[who.deviceId] >= 2);

  await service.send(who.deviceId, message('still here?'));
  assert.equal(String((await messages()).data), 'still here?');
  // The next renewal may come in between, so these two get several tries.
  const call = () => t.caller().invokeDeviceMethod(who.deviceId, { methodName: 'm', connectTimeoutInSeconds: 5, responseTimeoutInSeconds: 5 });
  await until('a method is answered', () => call().then(({ result }) => result.payload === 'here', () => false));
  let interval = 0;
  await until('a desired change arrives', async () => {
    await t.registry.updateTwin(who.deviceId, { properties: { desired: { interval: ++interval } } }, '*');
    return changes.seen > 1;
  });
  assert.equal(lost, 0, 'disconnects that the SDK tells of');
});

test('a certificate by its thumbprint, and another one', async (t) => {
  const { cert, key, thumbprint } = world.x509;
  const who = await t.device({ authentication: { x509Thumbprint: { primaryThumbprint: thumbprint } } });
  assert.equal(who.key ?? null, null);
  const open = async ({ cert, key }) => {
    const device = t.own(iotdevice.Client.fromConnectionString(who.connectionString, DeviceTransport));
    await device.setOptions({ cert, key });
    await within(device.open(), 'open');
    return device;
  };
  const device = await open({ cert, key });
  const messages = messagesOf(device);
  const service = await t.service(ServiceTransport);
  await service.send(who.deviceId, message('hello'));
  assert.equal(String((await messages()).data), 'hello');
  assert.match((await fails(open(world.otherX509))).message, /Connection refused: Not authorized/);
});

test('a service with a policy that may not', async (t) => {
  const who = await t.device();
  const reader = t.own(iothub.Client.fromConnectionString(world.policies.registryRead, ServiceTransport));
  const err = await fails(within(reader.send(who.deviceId, message('hello')), 'send'));
  assert.equal([err.name, err.amqpError?.name].includes('UnauthorizedError'), true, `${err.name} ${err.amqpError}`);
  await fails(t.caller('registryRead').invokeDeviceMethod(who.deviceId, { methodName: 'm' }), 'UnauthorizedError');
});

test('a service with a wrong key', async (t) => {
  const who = await t.device();
  const wrong = world.policies.service.replace(/SharedAccessKey=.*/, `SharedAccessKey=${otherKey}`);
  const err = await fails(within(t.own(iothub.Client.fromConnectionString(wrong, ServiceTransport)).open(), 'open'));
  assert.equal([err.name, err.amqpError?.name].includes('UnauthorizedError'), true, `${err.name} ${err.amqpError}`);
  await fails(iothub.Client.fromConnectionString(wrong).invokeDeviceMethod(who.deviceId, { methodName: 'm' }), 'UnauthorizedError');
  await fails(iothub.Registry.fromConnectionString(wrong).get(who.deviceId), 'UnauthorizedError');
});

test("a service's token that has expired", async (t) => {
  const who = await t.device();
  const { SharedAccessKeyName, SharedAccessKey } = iothub.ConnectionString.parse(world.policies.service);
  const old = token(world.hostName, SharedAccessKeyName, SharedAccessKey, -3600);
  const err = await fails(within(t.own(iothub.Client.fromSharedAccessSignature(old, ServiceTransport)).open(), 'open'));
  assert.equal([err.name, err.amqpError?.name].includes('UnauthorizedError'), true, `${err.name} ${err.amqpError}`);
  await fails(iothub.Client.fromSharedAccessSignature(old).invokeDeviceMethod(who.deviceId, { methodName: 'm' }), 'UnauthorizedError');
});

// credential is what azure-identity would be: somebody with a token.
const credential = (token) => ({ getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3_600_000 }) });

test('a service with a token of Entra ID', async (t) => {
  const who = await t.device();
  const messages = messagesOf(await t.online(who, DeviceTransport));
  const service = t.own(iothub.Client.fromTokenCredential(world.hostName, credential(world.bearer), ServiceTransport));
  await within(service.open(), 'open');
  await service.send(who.deviceId, message('hello'));
  assert.equal(String((await messages()).data), 'hello');
  const registry = iothub.Registry.fromTokenCredential(world.hostName, credential(world.bearer));
  assert.equal((await registry.get(who.deviceId)).responseBody.deviceId, who.deviceId);
});

test('a service with a wrong token of Entra ID', async (t) => {
  const who = await t.device();
  const wrong = t.own(iothub.Client.fromTokenCredential(world.hostName, credential('another'), ServiceTransport));
  const err = await fails(within(wrong.open(), 'open'));
  assert.equal([err.name, err.amqpError?.name].includes('UnauthorizedError'), true, `${err.name} ${err.amqpError}`);
  await fails(wrong.invokeDeviceMethod(who.deviceId, { methodName: 'm' }), 'UnauthorizedError');
  await fails(iothub.Registry.fromTokenCredential(world.hostName, credential('another')).get(who.deviceId), 'UnauthorizedError');
});
