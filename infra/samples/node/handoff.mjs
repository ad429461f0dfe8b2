// Hands a signal to the agent on this device. Only Node.js is needed.
import { connect } from 'node:net'
import { readFileSync } from 'node:fs'

const timeout = 10_000 // milliseconds; the agent answers at once

// handOver returns the agent's answer: {"accepted":true} or {"code","message"}. It
// never throws, so that a method always gets an answer.
//
// address is unix:PATH or http:HOST:PORT, as the agent's AGENT_HANDOFF; signal is the
// JSON text that came from the hub; http: needs AGENT_HANDOFF_TOKEN_FILE, too.
export async function handOver(address, signal) {
  try {
    const answer = JSON.parse(address.startsWith('http:') ? await byHTTP(address.slice(5), signal) : await byUnix(address.slice(5), signal))
    if (answer.accepted !== true && typeof answer.code !== 'string') throw new Error('the answer is not an agent\'s')
    return answer
  } catch (err) {
    return { code: 'agent_unreachable', message: `hand over to ${address}: ${err.message}` }
  }
}

function byUnix(path, signal) {
  return new Promise((resolve, reject) => {
    let answer = ''
    const socket = connect({ path }, () => socket.write(signal + '\n'))
    socket.setEncoding('utf8')
    socket.setTimeout(timeout, () => socket.destroy(new Error('no answer')))
    socket.on('data', (text) => {
      answer += text
      if (answer.endsWith('\n')) socket.end()
    })
    socket.on('error', reject)
    socket.on('close', () => answer ? resolve(answer) : reject(new Error('closed without an answer')))
  })
}

async function byHTTP(host, signal) {
  const token = readFileSync(process.env.AGENT_HANDOFF_TOKEN_FILE, 'utf8').trim()
  const response = await fetch(`http://${host}/signal`, {
    method: 'POST', body: signal, signal: AbortSignal.timeout(timeout),
    headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
  })
  return response.text() // any status has an answer
}
