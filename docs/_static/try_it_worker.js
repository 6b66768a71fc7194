// Runs Python for the page "Try it", beside the page, so that a run that never ends can be stopped.
import { loadPyodide } from "./try_it/pyodide.mjs";

const MOST = 20000; // characters of output: a loop without an end would flood the page
let room = 0;

function printer() {
  const decoder = new TextDecoder();
  return {
    write(bytes) {
      const text = decoder.decode(bytes, { stream: true });
      if (room > 0) postMessage({ printed: text.slice(0, room) });
      if (room > 0 && text.length > room) postMessage({ printed: "\n(what follows is not shown)\n" });
      room -= text.length;
      return bytes.length;
    },
  };
}

async function load() {
  const answer = await fetch(new URL("try_it/packages.zip", import.meta.url));
  if (!answer.ok) throw new Error(`${answer.status} for ${answer.url}`);
  const [archive, python] = await Promise.all([answer.arrayBuffer(), loadPyodide()]);
  python.setStdout(printer());
  python.setStderr(printer());
  python.unpackArchive(archive, "zip", { extractDir: "/packages" });
  python.runPython("import sys; sys.path.insert(0, '/packages')");
  return python.pyimport("run_example");
}

const loaded = load();

onmessage = async ({ data: code }) => {
  try {
    const { run_example } = await loaded;
    postMessage({ running: true });
    room = MOST;
    const result = run_example(code);
    const [well, pictures] = result.toJs();
    result.destroy();
    postMessage({ well, pictures });
  } catch (error) {
    postMessage({ failed: String(error) });
  }
};
