// node run.mjs SUBJECT [ARGUMENT ...] runs the tests of one file, and prints one
// JSON object a line for each: {"test":"…","ms":12,"error":"…"}. It ends with 0
// when all of them were run, however they ended.
import { print, run } from './lib.mjs';

// What the SDKs throw on the next tick would otherwise end the process without a
// word about the test.
process.on('uncaughtException', (err) => print({ test: 'nothing is thrown behind the tests', error: err.stack ?? String(err) }));
process.on('unhandledRejection', (err) => print({ test: 'no promise is left without an answer', error: err?.stack ?? String(err) }));

await import(`./${process.argv[2]}.mjs`);
await run();
process.exit(0); // a failed test may have left a connection
