// Loaded before anything else (NODE_OPTIONS=--require): gives the emulator's name
// an address, as a line of the hosts file would. The SDKs dial fixed ports of the
// name in the connection string and nothing else can be told to them; the name is
// a real one so that TLS sends and checks it.
const dns = require('node:dns');

const [name, address] = (process.env.HUB_ADDRESS ?? '').split('=');
const lookup = dns.lookup;
dns.lookup = (hostname, options, callback) => {
  if (hostname !== name) return lookup(hostname, options, callback);
  if (typeof options === 'function') [options, callback] = [{}, options];
  if (options.all) process.nextTick(callback, null, [{ address, family: 4 }]);
  else process.nextTick(callback, null, address, 4);
};
