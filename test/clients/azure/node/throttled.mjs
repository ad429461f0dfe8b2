// A hub that keeps to its rates and lets nothing wait: S1, one unit. Everything is
// asked for at once, so that most of it is too much.
import assert from 'node:assert/strict';
import { oneByOne, message, test, until } from './lib.mjs';

oneByOne();

// counted returns how many went through; all others have to be a ThrottlingError.
async function counted(promises) {
  const results = await Promise.allSettled(promises);
  const refused = results.filter((r) => r.status === 'rejected').map((r) => r.reason);
  for (const err of refused) if (err.name !== 'ThrottlingError') throw err;
  return results.length - refused.length;
}

// device is t.device, which is a registry operation: two a second are too many.
const device = (t) => until('the registry is free', () => t.device().catch((err) => {
  if (err.name !== 'ThrottlingError') throw err;
}));

test('cloud-to-device messages', async (t) => {
  const who = await device(t);
  const service = await t.service();
  const passed = await counted(Array.from({ length: 10 }, () => service.send(who.deviceId, message('hello'))));
  assert.equal(passed >= 1 && passed < 10, true, `${passed} of 10 went through`);
  await until('the rate allows one more', () => service.send(who.deviceId, message('hello')).then(() => true, () => false));
});

test('direct methods', async (t) => {
  const who = await device(t);
  const client = await t.online(who);
  client.onDeviceMethod('m', (_, response) => response.send(200, {}, () => {}));
  const caller = t.caller();
  const payload = 'x'.repeat(100 << 10); // the hub counts in steps of 4 KB
  const call = () => caller.invokeDeviceMethod(who.deviceId, { methodName: 'm', payload, connectTimeoutInSeconds: 10 });
  const passed = await counted(Array.from({ length: 10 }, call));
  assert.equal(passed >= 1 && passed < 10, true, `${passed} of 10 went through`);
  await until('the rate allows one more', () => call().then(() => true, () => false));
});

test('the registry', async (t) => {
  const passed = await counted(Array.from({ length: 10 }, () => t.device()));
  assert.equal(passed < 10, true, `${passed} of 10 went through`);
});
