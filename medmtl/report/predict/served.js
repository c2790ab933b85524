// Sends a scan that is dropped on the page or chosen, and shows what was found.
(() => {
  const form = document.getElementById("drop");
  const file = document.getElementById("file");
  const said = document.getElementById("said");
  const say = (text, bad) => {
    said.textContent = text;
    said.className = bad ? "bad" : "";
  };
  const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

  const send = async (scan) => {
    const content = new FormData();
    content.append("file", scan);
    for (const name of ["task", "modality"]) {
      const value = document.getElementById(name).value;
      if (value) content.append(name, value);
    }
    file.disabled = true;
    say(`${scan.name}: predicting …`);
    try {
      let answer = await fetch("/predict", { method: "POST", body: content });
      while (answer.status === 503 && answer.headers.has("Retry-After")) {
        say(`${scan.name}: waiting for others …`);
        await wait(Number(answer.headers.get("Retry-After")));
        answer = await fetch("/predict", { method: "POST", body: content });
      }
      const found = await answer.json();
      if (answer.ok) location.assign(found.links.page);
      else say(found.error, true);
    } catch {
      say(`${scan.name} was not received: is the server there, and the scan not too large?`, true);
    }
    file.disabled = false;
  };

  file.addEventListener("change", () => file.files.length && send(file.files[0]));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      form.classList.add("over");
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget ?? form.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    const files = event.dataTransfer.files;
    if (files.length > 1) say("Drop one file: a DICOM series as a zip.", true);
    else if (files.length && !file.disabled) send(files[0]);
  });
})();
