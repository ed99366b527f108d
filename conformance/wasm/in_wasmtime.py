"""Runs a module in wasmtime: MODULE [GUEST::HOST ...] -- ARGS"""
import sys

import wasmtime

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
instance = linker.instantiate(store, wasmtime.Module.from_file(engine, module))
try:
    instance.exports(store)["_start"](store)
except wasmtime.ExitTrap as e:
    sys.exit(e.code)
