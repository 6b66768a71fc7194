// Tests on CPython 3.14, compiled to WebAssembly (the npm package pyodide), under Node.
//
//   node python_3_14.mjs CHECKOUT PACKAGES ARGUMENTS_OF_PYTEST...
//
// PACKAGES is a directory with what the tests import. There are no threads, sockets, file locks or
// child processes, so what needs those is left out by the arguments.
import { loadPyodide } from "pyodide";

const [checkout, packages, ...args] = process.argv.slice(2);

async function interpreter() {
  const print = (line) => console.log(line);
  const python = await loadPyodide({ env: { HOME: "/tmp" }, stdout: print, stderr: print });
  for (const [place, root] of [["/checkout", checkout], ["/packages", packages]]) {
    python.FS.mkdirTree(place);
    python.FS.mount(python.FS.filesystems.NODEFS, { root }, place);
  }
  python.globals.set("arguments", python.toPy(args));
  python.runPython(`
import os, sys
sys.dont_write_bytecode = True
sys.path[:0] = ["/checkout", "/packages"]
os.chdir("/checkout")
`);
  return python;
}

// As on a page: beside the browser's own loop, in a task of it, on a loop without sockets.
const page = await interpreter();
await page.runPythonAsync(`
import asyncio
from returns_pipeline import windows
from returns_pipeline.testing import run, script, timeline

async def on_a_page():
    outer, task = asyncio.get_running_loop(), asyncio.current_task()
    lists = run(timeline(windows.chunks_or_timeout(script("ab---c|"), 10, 2.0)))
    assert lists == [(2.0, ["a", "b"]), (6.0, ["c"])], lists
    assert asyncio.get_running_loop() is outer and asyncio.current_task() is task
    await asyncio.sleep(0.01)

await asyncio.create_task(on_a_page())
missing = {"msgspec", "returns_pipeline.journal", "returns_pipeline.connectors"} & sys.modules.keys()
assert not missing, missing
`);

// As in a process: asyncio's own loops run, without the socket by which a thread would wake them.
const python = await interpreter();
process.exit(
  python.runPython(`
import asyncio
import asyncio.selector_events
import pyodide.webloop

for method in "_make_self_pipe", "_close_self_pipe", "_write_to_self":
    setattr(asyncio.selector_events.BaseSelectorEventLoop, method, lambda self: None)
asyncio._set_running_loop(None)
asyncio.run = pyodide.webloop._orig_run
asyncio.events.new_event_loop = asyncio.new_event_loop = asyncio.SelectorEventLoop

import pytest

print("Python", sys.version)
int(pytest.main(list(arguments)))
`),
);
