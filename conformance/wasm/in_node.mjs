// Runs a module in Node's WASI: MODULE [GUEST::HOST ...] -- ARGS
import { readFileSync } from 'node:fs';
import { WASI } from 'node:wasi';

const words = process.argv.slice(2);
const split = words.indexOf('--');
const [module, ...dirs] = words.slice(0, split);
const wasi = new WASI({
  version: 'preview1',
  args: [module, ...words.slice(split + 1)],
  preopens: Object.fromEntries(dirs.map((d) => d.split('::'))),
  // Node 20 crashes when it unwinds from a start function that has run long (V8 has dropped its bytecode).
  returnOnExit: false,
});
const compiled = await WebAssembly.compile(readFileSync(module));
wasi.start(await WebAssembly.instantiate(compiled, wasi.getImportObject()));
