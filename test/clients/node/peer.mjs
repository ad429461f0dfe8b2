// Does what it is told with the npm package ws, and tells what happens: a
// WebSocket implementation that shares no line with ours. One JSON object a line,
// commands on standard input, events on standard output.
//
//   {"op":"dial","conn":"c1","url":"ws://…","headers":{},"protocols":[]}
//       {"event":"open","conn":"c1","protocol":"","headers":{}}
//       {"event":"refused","conn":"c1","status":409,"headers":{},"body":"base64"}
//       {"event":"failed","conn":"c1","error":"…"}
//   {"op":"send","conn":"c1","text":true,"fin":true,"data":"base64"}   one message, or a fragment of one
//   {"op":"ping","conn":"c1","data":"base64"}      {"event":"pong","conn":"c1","data":"base64"}
//   {"op":"close","conn":"c1","code":4001,"reason":"…"}               without a code: an empty close frame
//   {"op":"abort","conn":"c1"}                                       without a word
//   {"op":"post","conn":"c1","url":"http://…","body":"base64"}         {"event":"posted","conn":"c1","status":204}
//       {"event":"message","conn":"c1","text":true,"data":"base64"}
//       {"event":"closed","conn":"c1","code":4001,"reason":"…"}
//
// It ends when its standard input does.
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const conns = new Map();
const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const bytes = (s) => Buffer.from(s ?? '', 'base64');

const ops = {
  dial({ conn, url, headers, protocols }) {
    const ws = new WebSocket(url, protocols ?? [], { headers });
    conns.set(conn, ws);
    let answer = {};
    let refused = false;
    ws.on('upgrade', (res) => { answer = res.headers; });
    ws.on('unexpected-response', (_req, res) => {
      refused = true;
      const body = [];
      res.on('data', (b) => body.push(b));
      res.on('end', () => tell({ event: 'refused', conn, status: res.statusCode, headers: res.headers, data: Buffer.concat(body).toString('base64') }));
    });
    ws.on('open', () => tell({ event: 'open', conn, protocol: ws.protocol, headers: answer }));
    ws.on('message', (data, isBinary) => tell({ event: 'message', conn, text: !isBinary, data: data.toString('base64') }));
    ws.on('pong', (data) => tell({ event: 'pong', conn, data: data.toString('base64') }));
    ws.on('error', (err) => { if (!refused) tell({ event: 'failed', conn, error: err.message }); });
    ws.on('close', (code, reason) => {
      conns.delete(conn);
      if (!refused) tell({ event: 'closed', conn, code, reason: reason.toString() });
    });
  },
  send({ conn, text, fin, data }) {
    const b = bytes(data);
    conns.get(conn).send(b, { binary: !text, fin: fin ?? false });
  },
  ping({ conn, data }) { conns.get(conn).ping(bytes(data)); },
  close({ conn, code, reason }) { conns.get(conn).close(code, reason); },
  abort({ conn }) { conns.get(conn)?.terminate(); },
  async post({ conn, url, body }) {
    try {
      const res = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: bytes(body) });
      await res.arrayBuffer();
      tell({ event: 'posted', conn, status: res.status });
    } catch (err) {
      tell({ event: 'failed', conn, error: String(err) });
    }
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    await ops[command.op](command);
  } catch (err) {
    tell({ event: 'failed', conn: command.conn, error: `${command.op}: ${err.message}` });
  }
}
for (const ws of conns.values()) ws.terminate();
