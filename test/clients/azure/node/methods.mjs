// Direct methods. Arguments: the device's transport.
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { args, fails, listening, test, transports, within } from './lib.mjs';

const DeviceTransport = transports[args[0]];

// answering has a device answer the method m with what f makes of the payload:
// [status, payload].
async function answering(t, who, f, m = 'm') {
  const device = await t.online(who, DeviceTransport);
  const register = device.onDeviceMethod ?? device.onMethod;
  register.call(device, m, async (request, response) => {
    const [status, payload] = await f(request.payload);
    response.send(status, payload, () => {});
  });
  await listening(who, 'methods');
  return device;
}

// nameOf is what the hub calls an error; the body has had two forms.
const nameOf = (err) => err.response?.headers['iothub-errorcode'];

// call waits for a device that has connected a moment ago.
const call = (caller, who, params, ...more) => caller.invokeDeviceMethod(who.deviceId, ...more,
  { methodName: 'm', connectTimeoutInSeconds: 10, responseTimeoutInSeconds: 20, ...params });

for (const [name, payload] of Object.entries({
  'an object': { a: 1, b: { c: ['ü €', null, true] }, url: 'wss://relay/bridge/accept?a=1&b=2' },
  'an array': [1, 'two', { three: 3 }],
  'a string': 'with "quotes", \\ and 𝄞',
  'a number': 7.5,
  'a boolean': true,
  null: null,
})) {
  test(`a payload that is ${name}, there and back`, async (t) => {
    const who = await t.device();
    await answering(t, who, (got) => [200, { got, type: got === null ? 'null' : typeof got }]);
    const { result } = await call(t.caller(), who, { payload });
    assert.equal(result.status, 200);
    assert.deepEqual(result.payload, { got: payload, type: payload === null ? 'null' : typeof payload });
  });

  test(`an answer that is ${name}`, async (t) => {
    const who = await t.device();
    await answering(t, who, () => [200, payload]);
    const { result } = await call(t.caller(), who, {});
    assert.deepEqual(result, { status: 200, payload });
  });
}

test("the device's own statuses are answers, not errors", async (t) => {
  const who = await t.device();
  await answering(t, who, ({ status }) => [status, { code: 'busy', message: `status ${status}` }]);
  const caller = t.caller();
  for (const status of [200, 201, 299, 400, 404, 409, 429, 500, 503, 504, 999]) {
    const { result } = await call(caller, who, { payload: { status } });
    assert.deepEqual(result, { status, payload: { code: 'busy', message: `status ${status}` } });
  }
});

test('100 KB there and back', async (t) => {
  const who = await t.device();
  await answering(t, who, (got) => [200, got]);
  const payload = { long: 'bridge '.repeat(14_000) };
  const { result } = await call(t.caller(), who, { payload });
  assert.deepEqual(result.payload, payload);
});

test('a payload of more than 128 KB is refused', async (t) => {
  const who = await t.device();
  await answering(t, who, (got) => [200, got]);
  const err = await fails(call(t.caller(), who, { payload: 'x'.repeat((128 << 10) + 1) }));
  assert.equal([400, 413].includes(err.response?.statusCode), true, `${err} ${err.response?.statusCode}`);
});

test('no handler for this name: 504 after the timeout', async (t) => {
  const who = await t.device();
  await answering(t, who, () => [200, {}], 'another');
  const caller = t.caller();
  await call(caller, who, { methodName: 'another' }); // it listens
  const began = Date.now();
  const err = await fails(call(caller, who, { responseTimeoutInSeconds: 5 }), 'GatewayTimeoutError');
  const took = Date.now() - began;
  assert.equal(took >= 4_900 && took < 15_000, true, `after ${took} ms`);
  assert.equal(nameOf(err), 'GatewayTimeout');
});

test('a device that is not connected: 404 at once', async (t) => {
  const who = await t.device();
  const began = Date.now();
  const err = await fails(call(t.caller(), who, { connectTimeoutInSeconds: 0 }), 'Error');
  assert.equal(err.response.statusCode, 404);
  assert.equal(nameOf(err), 'DeviceNotOnline');
  assert.equal(Date.now() - began < 10_000, true, `after ${Date.now() - began} ms`);
});

test('a device that is connected and does not listen: 404', async (t) => {
  const who = await t.device();
  await t.online(who, DeviceTransport);
  const err = await fails(call(t.caller(), who, { connectTimeoutInSeconds: 0 }));
  assert.equal(nameOf(err), 'DeviceNotOnline');
});

test('a device that comes within connectTimeout', async (t) => {
  const who = await t.device();
  const called = call(t.caller(), who, { payload: 'hello' });
  await sleep(1_000); // the call is there first; if not, the test shows less and still passes
  await answering(t, who, (got) => [200, got]);
  const { result } = await within(called, 'the call');
  assert.equal(result.payload, 'hello');
});

test('a device that does not come within connectTimeout: 404 then', async (t) => {
  const who = await t.device();
  const began = Date.now();
  const err = await fails(call(t.caller(), who, { connectTimeoutInSeconds: 2, responseTimeoutInSeconds: 5 }));
  const took = Date.now() - began;
  assert.equal(err.response.statusCode, 404);
  assert.equal(took >= 1_900 && took < 12_000, true, `after ${took} ms`);
});

test('a device that does not exist: DeviceNotFound', async (t) => {
  const err = await fails(call(t.caller(), { deviceId: 'nobody' }, {}));
  assert.equal(err.response.statusCode, 404);
  assert.equal(nameOf(err), 'DeviceNotFound');
});

for (const [field, seconds] of [['responseTimeoutInSeconds', 4], ['responseTimeoutInSeconds', 301], ['connectTimeoutInSeconds', 301]]) {
  test(`${field} ${seconds}: ArgumentError`, async (t) => {
    const who = await t.device();
    const err = await fails(call(t.caller(), who, { [field]: seconds }), 'ArgumentError');
    assert.match(err.responseBody, new RegExp(field, 'i'));
  });
}

test('twenty at once, answered in the opposite order', async (t) => {
  const who = await t.device();
  const all = [];
  let last;
  const everyone = new Promise((done) => { last = done; });
  await answering(t, who, async ({ i }) => {
    if (all.push(i) === 20) last();
    await everyone;
    await sleep((20 - all.indexOf(i)) * 10);
    return [200, { i }];
  });
  const caller = t.caller();
  const want = Array.from({ length: 20 }, (_, i) => ({ i }));
  const got = await Promise.all(want.map((payload) => call(caller, who, { payload })));
  assert.deepEqual(got.map(({ result }) => result.payload), want);
});

test('a module and its device are called apart', async (t) => {
  const who = await t.device();
  const part = await t.module(who.deviceId, 'bridge');
  await answering(t, who, () => [200, 'the device']);
  await answering(t, part, () => [201, 'the module']);
  const caller = t.caller();
  assert.deepEqual((await call(caller, who, {})).result, { status: 200, payload: 'the device' });
  assert.deepEqual((await call(caller, who, {}, 'bridge')).result, { status: 201, payload: 'the module' });
});

test('a module that does not exist, and one that is not connected', async (t) => {
  const who = await t.device();
  await t.module(who.deviceId, 'idle');
  const none = await fails(call(t.caller(), who, {}, 'none'));
  assert.equal(none.response.statusCode, 404);
  const idle = await fails(call(t.caller(), who, { connectTimeoutInSeconds: 0 }, 'idle'));
  assert.equal(nameOf(idle), 'DeviceNotOnline');
});
