#!/bin/sh
# Lifts the programs of the book's page "In the browser". EVM is the command, SYSROOT where the programs are from (default: this system).
set -eu
cd "$(dirname "$0")/src/browser"
for p in lua5.4:lua sqlite3:sqlite3; do
    set -- "/usr/bin/${p%%:*}" "${p##*:}.wasm"
    ${EVM:-evm} lift ${SYSROOT:+--sysroot "$SYSROOT"} "$1" -o "$2" --memory 512M
done
