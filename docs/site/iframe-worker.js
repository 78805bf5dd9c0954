/* Search for pages that are opened as files: browsers refuse workers there, a hidden frame does the same. */
class FrameWorker extends EventTarget {
  constructor(url) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    const inside = (this.inside = frame.contentWindow);
    this.frame = frame;
    addEventListener("message", (event) => {
      if (event.source !== inside) return;
      this.dispatchEvent(new MessageEvent("message", { data: event.data }));
    });
    const load = (address) =>
      new Promise((done) => {
        const script = document.createElement("script");
        script.src = address;
        script.onload = done;
        document.body.append(script);
      });
    inside.document.open();
    inside.document.write(
      `<body><script>
         postMessage = (data) => parent.postMessage(data, "*");
         load = ${load};
         importScripts = (...all) => all.reduce((before, next) => before.then(() => load(next)), Promise.resolve());
       </script><script src="${url}"></script></body>`,
    );
    inside.document.close();
    this.ready = new Promise((done) => (inside.onload = done));
  }
  postMessage(data) {
    this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) })));
  }
  terminate() {
    this.frame.remove();
  }
}
if (location.protocol === "file:") window.Worker = FrameWorker;
