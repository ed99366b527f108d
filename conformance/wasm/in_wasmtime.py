"""Runs a module in wasmtime: MODULE [GUEST::HOST ...] -- ARGS

What wasmtime made of a module is kept beside it for the next run.
"""
import os
import sys

import wasmtime


def compiled(engine, module):
    kept = module + ".compiled"
    if os.path.exists(kept) and os.path.getmtime(kept) >= os.path.getmtime(module):
        return wasmtime.Module.deserialize_file(engine, kept)
    made = wasmtime.Module.from_file(engine, module)
    part = f"{kept}.{os.getpid()}"
    with open(part, "wb") as f:
        f.write(made.serialize())
    os.rename(part, kept)
    return made


words = sys.argv[1:]
split = words.index("--")
module, dirs, args = words[0], words[1:split], words[split + 1:]
engine = wasmtime.Engine()
linker = wasmtime.Linker(engine)
linker.define_wasi()
wasi = wasmtime.WasiConfig()
wasi.argv = [module, *args]
wasi.inherit_stdin()
wasi.inherit_stdout()
wasi.inherit_stderr()
for d in dirs:
    guest, host = d.split("::")
    wasi.preopen_dir(host, guest)
store = wasmtime.Store(engine)
store.set_wasi(wasi)
instance = linker.instantiate(store, compiled(engine, module))
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as e:
    sys.exit(e.code)
