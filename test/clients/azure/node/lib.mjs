// What the tests of every subject use: clients of the SDKs that end with their
// test, and waiting for what has to come.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import common from 'azure-iot-common';
import iotdevice from 'azure-iot-device';
import * as amqp from 'azure-iot-device-amqp';
import * as mqtt from 'azure-iot-device-mqtt';
import iothub from 'azure-iothub';

const { NoRetry } = common;

// transports are the device's; the service's are iothub.Amqp and iothub.AmqpWs.
export const transports = { Mqtt: mqtt.Mqtt, MqttWs: mqtt.MqttWs, Amqp: amqp.Amqp, AmqpWs: amqp.AmqpWs };

// world is what the Go side says: hostName; policies, connection strings by name;
// admin, the URL of the emulator's admin API; x509, a certificate.
export const world = JSON.parse(process.env.WORLD ?? '{}');

// args are what follows the subject on the command line.
export const args = process.argv.slice(3);

export const patience = 20_000; // milliseconds, for whatever has to happen

// within rejects when a promise takes too long, and says what was waited for.
export async function within(promise, what, ms = patience) {
  const stop = new AbortController();
  try {
    return await Promise.race([
      promise,
      sleep(ms, undefined, { signal: stop.signal }).then(() => { throw new Error(`${what}: nothing within ${ms} ms`); }, () => {}),
    ]);
  } finally {
    stop.abort();
  }
}

// until asks f, again and again, for something true.
export async function until(what, f, ms = patience) {
  for (const late = Date.now() + ms; Date.now() < late; await sleep(20)) {
    const got = await f();
    if (got) return got;
  }
  throw new Error(`${what}: not within ${ms} ms`);
}

// inbox keeps an emitter's events. Calling it waits for the next one; seen is how
// many there were.
export function inbox(emitter, event) {
  const got = [];
  const waiting = [];
  const next = (what = event) => within(got.length ? Promise.resolve(got.shift()) : new Promise((done) => waiting.push(done)), what);
  next.seen = 0;
  emitter.on(event, (e) => {
    next.seen++;
    if (waiting.length) waiting.shift()(e);
    else got.push(e);
  });
  return next;
}

// messagesOf is the inbox of a device that completes what it gets. Over MQTT the
// client has done so already.
export function messagesOf(device) {
  const next = inbox(device, 'message');
  device.on('message', (m) => device.complete(m).catch(() => {})); // it may be on its way out
  return next;
}

// fails returns the error a promise is rejected with, which has to have this name.
export async function fails(promise, name) {
  let result;
  try {
    result = await promise;
  } catch (err) {
    if (name && err.name !== name) throw new Error(`failed with ${err.name}, want ${name}`, { cause: err });
    return err;
  }
  throw new Error(`succeeded with ${String(JSON.stringify(result?.result ?? result?.responseBody ?? result)).slice(0, 200)}, want ${name ?? 'an error'}`);
}

// message makes one of the SDK's own.
export function message(body, { properties = {}, ...fields } = {}) {
  const m = new common.Message(body);
  Object.assign(m, fields);
  for (const [k, v] of Object.entries(properties)) m.properties.add(k, v);
  return m;
}

// propertiesOf is a received message's, as an object.
export function propertiesOf(m) {
  return Object.fromEntries(m.properties.propertyList.map(({ key, value }) => [key, value]));
}

// admin asks the emulator's admin API, which no SDK knows.
async function admin(method, path, body) {
  const res = await fetch(world.admin + path, { method, body: body && JSON.stringify(body) });
  const text = await res.text();
  if (!res.ok) throw new Error(`${method} ${path}: ${res.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

// events are those of a device and its modules, with bytes for a body.
export async function events(deviceId) {
  const all = await admin('GET', '/events');
  return all.filter((e) => e.deviceId === deviceId).map((e) => ({ ...e, body: e.bodyBase64 ? Buffer.from(e.bodyBase64, 'base64') : Buffer.from(e.body ?? '') }));
}

// listening waits until the hub has taken a device's subscription to methods,
// messages or desired properties; the SDK does not say when.
export const listening = ({ deviceId, moduleId }, what) => until(`${deviceId} listens for ${what}`, async () => {
  const all = await admin('GET', '/devices');
  return all.find((d) => d.deviceId === deviceId && d.moduleId === moduleId)?.listens.includes(what);
});

export const stats = () => admin('GET', '/stats');
export const setFaults = (faults) => admin('PUT', '/faults', faults);
export const disconnect = (deviceId) => admin('POST', `/disconnect?device=${encodeURIComponent(deviceId)}`);

// A Bench is what one test made and has to be closed after it.
export class Bench {
  #undo = [];
  registry = iothub.Registry.fromConnectionString(world.policies.iothubowner);

  after(f) { this.#undo.push(f); }

  async close() {
    for (const f of this.#undo.reverse()) await within(Promise.resolve().then(f), 'close what the test opened', 5_000);
  }

  // device registers one with the SDK.
  async device(fields = {}) {
    const deviceId = fields.deviceId ?? `pump-${randomUUID()}`;
    const { responseBody } = await this.registry.create({ ...fields, deviceId });
    return identity(deviceId, undefined, responseBody);
  }

  async module(deviceId, moduleId = 'bridge') {
    await this.registry.addModule({ deviceId, moduleId });
    const { responseBody } = await this.registry.getModule(deviceId, moduleId);
    return identity(deviceId, moduleId, responseBody);
  }

  // own closes a client at the end of the test, and gives up early: with the
  // SDK's default policy it would try for four minutes.
  own(client) {
    client.setRetryPolicy?.(new NoRetry());
    this.after(() => client.close());
    return client;
  }

  // online connects as a device, or as a module where the identity is one.
  async online(who, Transport = transports.Mqtt) {
    const Client = who.moduleId ? iotdevice.ModuleClient : iotdevice.Client;
    const client = this.own(Client.fromConnectionString(who.connectionString, Transport));
    await within(client.open(), `${who.deviceId} goes online`);
    return client;
  }

  // service is the other side.
  async service(Transport = iothub.Amqp, policy = 'service') {
    const client = this.own(iothub.Client.fromConnectionString(world.policies[policy], Transport));
    await within(client.open(), 'the service client opens');
    return client;
  }

  // caller needs no connection: direct methods are HTTPS.
  caller(policy = 'service') {
    const client = iothub.Client.fromConnectionString(world.policies[policy]);
    client.setRetryPolicy(new NoRetry());
    return client;
  }
}

function identity(deviceId, moduleId, { authentication, generationId }) {
  const key = authentication.symmetricKey?.primaryKey;
  const module = moduleId ? `;ModuleId=${moduleId}` : '';
  const secret = key ? `SharedAccessKey=${key}` : 'x509=true';
  return {
    deviceId, moduleId, generationId, key,
    connectionString: `HostName=${world.hostName};DeviceId=${deviceId}${module};${secret}`,
  };
}

// rest is a call of the hub's REST API that the SDK has no function for, with the
// SDK's token.
export async function rest(method, path, policy = 'iothubowner') {
  const { SharedAccessKeyName, SharedAccessKey } = iothub.ConnectionString.parse(world.policies[policy]);
  const token = common.SharedAccessSignature.create(world.hostName, SharedAccessKeyName, SharedAccessKey, Math.floor(Date.now() / 1000) + 300);
  const res = await fetch(`https://${world.hostName}${path}?api-version=2021-04-12`, { method, headers: { Authorization: token.toString() } });
  const text = await res.text();
  if (!res.ok) throw new Error(`${method} ${path}: ${res.status} ${text}`);
  return text ? JSON.parse(text) : undefined;
}

const tests = [];

// test declares one; its function gets a Bench.
export function test(name, f) { tests.push({ name, f }); }

let width = 16; // more only wait for the processor

// oneByOne is for tests that change the hub for everybody.
export function oneByOne() { width = 1; }

// run runs all that were declared, side by side, and prints a JSON line for each.
export async function run() {
  const todo = tests.values();
  await Promise.all(Array.from({ length: width }, async () => {
    for (const { name, f } of todo) await runOne(name, f);
  }));
}

async function runOne(name, f) {
  const bench = new Bench();
  const began = Date.now();
  let error;
  try {
    await within(f(bench), 'the whole test', 3 * patience);
  } catch (err) {
    error = err;
  }
  try {
    await bench.close();
  } catch (err) {
    error ??= err;
  }
  print({ test: name, ms: Date.now() - began, error: error && explain(error) });
}

export function print(line) { process.stdout.write(JSON.stringify(line) + '\n'); }

function explain(err) {
  const own = err.stack ?? String(err);
  const amqp = err.amqpError ? `\namqpError: ${err.amqpError}` : '';
  return own + amqp + (err.responseBody ? `\n${err.responseBody}` : '') + (err.cause ? `\ncaused by ${explain(err.cause)}` : '');
}
