// Runs a module in the WASI of the book's page: MODULE [GUEST::HOST] -- ARGS. HOST's files are the program's folder.
import { readFileSync, readdirSync, unlinkSync, writeFileSync, writeSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { Wasi } from '../../book/src/browser/wasi.js';

const words = process.argv.slice(2);
const split = words.indexOf('--');
const [module, mount] = words.slice(0, split);
const dir = mount.split('::')[1];
const files = new Map(readdirSync(dir).map((name) => [name, new Uint8Array(readFileSync(join(dir, name)))]));
const write = (fd) => (bytes) => {
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
};
const stdin = () => {
  const buffer = new Uint8Array(4096);
  return buffer.subarray(0, readSync(0, buffer));
};
const wasi = new Wasi({
  args: [module, ...words.slice(split + 1)], files, stdin, stdout: write(1), stderr: write(2), terminal: false,
});
const status = wasi.start(await WebAssembly.compile(readFileSync(module)));
const after = wasi.files();
for (const name of files.keys()) if (!after.has(name)) unlinkSync(join(dir, name));
for (const [name, bytes] of after) writeFileSync(join(dir, name), bytes);
process.exitCode = status;
