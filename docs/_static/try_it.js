// Makes each example of the page "Try it" an editor that runs. Without this script the page shows the
// code and the pictures that were drawn when it was written.

let worker = null; // loads Python at the first change or run
let loaded = false; // has it?
let running = null; // the example that runs

function start() {
  if (worker) return;
  loaded = false;
  worker = new Worker(new URL("try_it_worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => running?.hear(data);
  worker.onerror = () => {
    worker = null;
    running?.hear({ failed: "Python could not be loaded." });
  };
}

function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// In an address: base64, with the two characters that mean something else there replaced.
function encoded(code) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(code));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decoded(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}

// As a picture, in which no script runs: the code may have come with an address.
function picture(svg) {
  const title = new DOMParser().parseFromString(svg, "image/svg+xml").querySelector("title");
  return element("img", {
    src: `data:image/svg+xml,${encodeURIComponent(svg)}`,
    alt: title ? title.textContent : "",
  });
}

class Example {
  constructor(box) {
    this.box = box;
    this.name = box.id;
    this.drawing = box.querySelector(".drawing");
    this.drawn = [...this.drawing.childNodes];
    const shown = box.querySelector("[class*='highlight-']");
    this.code = shown.querySelector("pre").textContent.trimEnd();
    this.editor = element("textarea", {
      value: this.code,
      rows: this.code.split("\n").length,
      spellcheck: false,
      autocapitalize: "off",
      autocomplete: "off",
      ariaLabel: `Code: ${this.name}`,
    });
    this.editor.addEventListener("input", start);
    this.editor.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.run();
    });
    this.output = element("pre", { className: "try-it-output", hidden: true });
    this.status = element("span", { role: "status" });
    const button = (label, action) =>
      element("button", { type: "button", textContent: label, onclick: () => action.call(this) });
    this.stopper = button("Stop", this.stop);
    this.stopper.disabled = true;
    const buttons = element("div", { className: "try-it-buttons" });
    buttons.append(
      button("Run", this.run),
      this.stopper,
      button("Reset", this.reset),
      button("Copy link", this.share),
      this.status,
    );
    shown.replaceWith(this.editor, buttons, this.output);
  }

  become(state, text) {
    this.box.dataset.state = state;
    this.status.textContent = text;
    this.stopper.disabled = state !== "running";
    running = state === "running" ? this : null;
  }

  run() {
    running?.stop();
    this.output.textContent = "";
    this.output.hidden = true;
    start();
    this.become("running", loaded ? "Running" : "Loading Python");
    worker.postMessage(this.editor.value);
  }

  hear({ running, printed, well, pictures, failed }) {
    if (running) {
      loaded = true;
      this.status.textContent = "Running";
    }
    if (printed) this.print(printed);
    if (pictures) {
      this.drawing.replaceChildren(...pictures.map(picture));
      this.become(...(well ? ["done", "Done"] : ["failed", "Failed"]));
    }
    if (failed) {
      this.print(failed);
      this.stop();
      this.become("failed", "Failed");
    }
  }

  print(text) {
    this.output.hidden = false;
    this.output.append(text);
  }

  stop() {
    worker?.terminate();
    worker = null;
    this.become("stopped", "Stopped");
  }

  reset() {
    if (running === this) this.stop();
    this.editor.value = this.code;
    this.output.hidden = true;
    this.drawing.replaceChildren(...this.drawn);
    this.become("", "");
  }

  // The code is put after the # of the address, which no browser sends to a server.
  share() {
    history.replaceState(null, "", `#${this.name}=${encoded(this.editor.value)}`);
    const inBar = () => (this.status.textContent = "The address of this page has the code");
    const copied = () => (this.status.textContent = "Link copied");
    if (navigator.clipboard) navigator.clipboard.writeText(location.href).then(copied, inBar);
    else inBar();
  }
}

const examples = [...document.querySelectorAll("article .try-it")].map((box) => new Example(box));

// The code of an address is shown, and runs only when its reader wants it to.
function take() {
  const [name, code] = location.hash.slice(1).split("=");
  const example = code && examples.find((one) => one.name === name);
  if (!example) return;
  try {
    example.editor.value = decoded(code);
    example.status.textContent = "This code came with the link";
  } catch {
    example.status.textContent = "The link is damaged";
  }
  example.box.closest("section").scrollIntoView();
}

addEventListener("hashchange", take);
take();
