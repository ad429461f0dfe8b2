// Devices that the emulator's command made: pump-7, pump-8 and its module bridge,
// with the connection strings that it wrote.
import assert from 'node:assert/strict';
import { fails, inbox, message, test, world } from './lib.mjs';

const given = (name) => {
  const [deviceId, moduleId] = name.split('/');
  return { deviceId, moduleId, connectionString: world.given[name] };
};

test('there are three', async (t) => {
  assert.deepEqual(Object.keys(world.given).sort(), ['pump-7', 'pump-8', 'pump-8/bridge']);
  const { responseBody } = await t.registry.list();
  assert.deepEqual(responseBody.map((d) => d.deviceId).sort(), ['pump-7', 'pump-8']);
});

test('a device', async (t) => {
  const who = given('pump-7');
  const messages = inbox(await t.online(who), 'message');
  const service = await t.service();
  await service.send(who.deviceId, message('hello'));
  assert.equal(String((await messages()).data), 'hello');
});

test('a module', async (t) => {
  const part = given('pump-8/bridge');
  const client = await t.online(part);
  client.onMethod('m', (request, response) => response.send(200, request.payload, () => {}));
  const { result } = await t.caller().invokeDeviceMethod(part.deviceId, part.moduleId, { methodName: 'm', payload: 7, connectTimeoutInSeconds: 10 });
  assert.equal(result.payload, 7);
  await fails(t.caller().invokeDeviceMethod(part.deviceId, { methodName: 'm', payload: 7 }), 'Error'); // the device is not there
});
